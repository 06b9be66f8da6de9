"""Cutting samples into subsamples."""

import numpy as np
import pytest

from arvdm_theory.information.estimators.uncertainty import Dependence, cuts


@pytest.mark.parametrize("dependence", ["independent", "autocorrelated"])
def test_cuts_share_out_every_row_once(dependence: Dependence) -> None:
    parts = cuts(103, 4, dependence, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(103))
    assert {len(part) for part in parts} == {25, 26}
    steps = [np.unique(np.diff(part)).tolist() for part in parts]
    assert all(step == [1] for step in steps) == (dependence == "autocorrelated")
