"""Cutting samples into subsamples."""

import numpy as np
import pytest

from arvdm_theory.information.estimators.uncertainty import Dependence, cuts, still_to_come


@pytest.mark.parametrize("dependence", ["independent", "autocorrelated"])
def test_cuts_share_out_every_row_once(dependence: Dependence) -> None:
    parts = cuts(103, 4, dependence, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(103))
    assert {len(part) for part in parts} == {25, 26}
    steps = [np.unique(np.diff(part)).tolist() for part in parts]
    assert all(step == [1] for step in steps) == (dependence == "autocorrelated")


def test_what_is_still_to_come_of_a_bias_that_is_a_power() -> None:
    # v(n) = 1 - n^-r from n, n/4 and n/16 samples: what is left is n^-r, whichever r it is.
    for rate in (0.5, 0.25):
        value, quarter, sixteenth = (1 - (1000 / parts) ** -rate for parts in (1, 4, 16))
        quarters, sixteenths = np.full(4, quarter), np.full(16, sixteenth)
        assert still_to_come(value, quarters, 0.0, rate) == pytest.approx(1000**-rate)
        assert still_to_come(value, quarters, 0.0, 0.5, sixteenths) == pytest.approx(1000**-rate)
    # Faster than it may be: at the rate that is given. Ever faster: at 0.85. Noise is no move.
    assert still_to_come(value, quarters, 0.0, 0.25, np.full(16, -9.0)) == pytest.approx(1000**-0.25)
    assert still_to_come(1.0, np.full(4, 0.5), 0.0, 0.5, np.full(16, 0.4)) == pytest.approx(0.5 * 0.85 / 0.15)
    assert still_to_come(1.0, np.full(4, 0.5), 1.0, 0.5, np.full(16, 0.4)) == 0.0
    # Within three errors of the move the one before says nothing.
    known = still_to_come(1.0, np.full(4, 0.5), 0.5 / 3 / 0.75, 0.5)
    assert still_to_come(1.0, np.full(4, 0.5), 0.5 / 3 / 0.75, 0.5, np.full(16, 0.4)) == pytest.approx(known)
