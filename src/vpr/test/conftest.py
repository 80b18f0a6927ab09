"""What every test of the library begins with."""

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that fails fails again."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  # of libraries; our own code takes generators
