import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpr.config import SequenceMatchingConfig
from vpr.places.probability import StandoutProbability

probability = StandoutProbability(
    SequenceMatchingConfig.from_file(probability_midpoint=2.0, probability_width=0.25)
)


def test_the_midpoint_is_even_odds_and_a_width_an_e_fold():
    assert probability([2.0])[0] == 0.5
    even, wider = probability.as_best([2.0, 2.25])
    assert np.isclose(wider / (1 - wider), np.e * even / (1 - even))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_higher_score_is_never_less_probable(scores):
    values = probability.as_best(np.sort(scores))
    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_a_score_means_less_behind_a_better_one():
    first, second = probability([2.5, 2.5])
    assert second < first
    assert probability([]).shape == (0,)
