import numpy as np
import pytest
from safetensors.numpy import save_file

from vpr.models.whitening import Whitening, WhiteningError, fit_whitening


@pytest.fixture
def descriptors():
    generator = np.random.default_rng(3)
    mixed = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 12)) + 2.0
    return mixed.astype(np.float32)


def test_whitened_directions_are_uncorrelated_and_of_equal_variance(descriptors):
    whitening = fit_whitening(descriptors, 6, shrinkage=0.0)
    projected = (descriptors - whitening.mean) @ whitening.projection
    np.testing.assert_allclose(np.cov(projected.T), np.eye(6), atol=1e-2)


def test_applied_descriptors_are_of_unit_length(descriptors):
    whitened = fit_whitening(descriptors, 4)(descriptors)
    assert whitened.shape == (400, 4)
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), 1.0, rtol=1e-5)


def test_a_file_keeps_every_value(descriptors, tmp_path):
    whitening = fit_whitening(descriptors, 4)
    whitening.save(tmp_path / "w.safetensors")
    loaded = Whitening.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(loaded.projection, whitening.projection)
    assert loaded.fingerprint == whitening.fingerprint
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_cannot_be_fitted_is_refused(descriptors):
    with pytest.raises(WhiteningError, match="need more than 12"):
        fit_whitening(descriptors[:12], 12)
    descriptors[3, 3] = np.nan
    with pytest.raises(WhiteningError, match="not finite"):
        fit_whitening(descriptors, 2)


def test_descriptors_of_another_dimension_are_refused(descriptors):
    with pytest.raises(WhiteningError, match="12 values, not 5"):
        fit_whitening(descriptors, 2)(descriptors[:, :5])


def test_broken_files_are_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    with pytest.raises(WhiteningError, match="cannot read"):
        Whitening.load(file)
    file.write_bytes(b"garbage")
    with pytest.raises(WhiteningError, match="cannot read"):
        Whitening.load(file)
    save_file({"weights": np.zeros(3, np.float32)}, file)
    with pytest.raises(WhiteningError, match="not a whitening"):
        Whitening.load(file)
    save_file({"mean": np.zeros(3, np.float32), "projection": np.zeros((4, 2), np.float32)}, file)
    with pytest.raises(WhiteningError, match="does not fit"):
        Whitening.load(file)
    bad = {"mean": np.full(4, np.inf, np.float32), "projection": np.zeros((4, 2), np.float32)}
    save_file(bad, file)
    with pytest.raises(WhiteningError, match="not finite"):
        Whitening.load(file)
