"""Noise a lag: §14's table, AR(1)'s indifference, and a front that nothing beats."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from arvdm_theory import PlanError, References, ar1, context_noise, ledger, noised_lags, outpainting
from arvdm_theory.choose.context_noise import CRITERIA
from arvdm_theory.laws.gaussian import separable_video

# noise of lag 1..4: KL(clean), clip KL of AR steps 1 and 12, MB_12; scalar frames, T = 8, M = 40, K = 12.
PRINTED = {
    (0.0, 0.0, 0.0, 0.0): (2.872, 0.0306, 0.0420, 0.276),
    (0.1, 0.1, 0.1, 0.1): (3.356, 0.0278, 0.0334, 0.362),
    (0.0, 0.3, 0.3, 0.3): (3.304, 0.0291, 0.0320, 0.341),
    (0.0, 0.1, 0.3, 1.0): (3.446, 0.0299, 0.0324, 0.349),
    (0.3, 0.0, 0.0, 0.0): (3.856, 0.0258, 0.0332, 0.406),
}
# The same of AR(1) 0.95 with four references: KL alone.
PRINTED_AR1 = {(0.3, 0.0, 0.0, 0.0): 8.614, (0.3, 0.3, 0.3, 0.3): 9.547}


def _video() -> object:
    def correlation(lag: torch.Tensor) -> torch.Tensor:
        return 0.5 * 0.8**lag + 0.4 * torch.cos(2 * math.pi * lag / 7) + 0.1 * (lag == 0).double()

    return separable_video(correlation, name="scalar reference")


PLAN = outpainting(2, References.last(4), reverse_steps=40, init_steps=40, horizon=8.0)


@pytest.mark.parametrize(("levels", "expected"), PRINTED.items())
def test_the_printed_profiles(levels: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = ledger(_video(), noised_lags(PLAN, levels), 12, girsanov=False)
    clips, mb = found.column("CLIP_KL"), found.column("MB")
    assert found.totals["kl"] == pytest.approx(expected[0], abs=6e-4)
    assert [clips[0], clips[-1]] == pytest.approx(expected[1:3], abs=6e-5)
    assert mb[-1] == pytest.approx(expected[3], abs=6e-4)


@pytest.mark.parametrize(("levels", "expected"), PRINTED_AR1.items())
def test_lag_one_noised_makes_the_others_matter(levels: tuple[float, ...], expected: float) -> None:
    found = ledger(ar1(0.95), noised_lags(PLAN, levels), 12, girsanov=False)
    assert found.totals["kl"] == pytest.approx(expected, abs=6e-4)


def test_of_ar1_with_lag_one_clean_the_other_lags_change_nothing() -> None:
    plan = outpainting(2, References.last(3), reverse_steps=4, init_steps=4)
    table = context_noise(ar1(0.9), plan, 3, (0.0, 0.3, 1.0))
    kept = table[table.lag_1 == 0]
    assert len(kept) == 9
    for name in ("kl", "first_clip", "last_clip", "mb"):
        assert np.ptp(kept[name].to_numpy()) < 1e-10, name
    others = table[table.lag_1 == 0.3]
    assert np.ptp(others.kl.to_numpy()) > 0.01


def test_the_table_is_the_ledger_s_and_the_front_is_what_nothing_beats() -> None:
    plan = outpainting(2, References.last(2), reverse_steps=4, init_steps=4)
    table = context_noise(_video(), plan, 3, (0.0, 0.1, 0.5))
    assert table.attrs["exhaustive"]
    assert len(table) == 9
    for row in table.iloc[::4].itertuples():
        found = ledger(_video(), noised_lags(plan, (row.lag_1, row.lag_2)), 3, girsanov=False)
        clips = found.column("CLIP_KL")
        assert [row.kl, row.first_clip, row.last_clip, row.mb] == pytest.approx(
            [found.totals["kl"], clips[0], clips[-1], found.column("MB")[-1]], rel=1e-9
        )
        assert row.drift == row.last_clip - row.first_clip
    points = table[list(CRITERIA)].round(10).to_numpy()
    for i, on in enumerate(table.front):
        assert on == (not any((p <= points[i]).all() and (p < points[i]).any() for p in points))
    for i, by in enumerate(table.beaten_by):
        if by >= 0:
            assert table.uniform[i]
            assert (points[by] <= points[i]).all()
            assert (points[by] < points[i]).any()
        else:
            assert table.front[i] or not table.uniform[i]


def test_a_local_search_finds_front_points_and_says_that_it_was_one() -> None:
    plan = outpainting(2, References.last(3), reverse_steps=3, init_steps=3)
    levels = (0.0, 0.1, 0.5)
    everything = context_noise(_video(), plan, 2, levels)
    part = context_noise(_video(), plan, 2, levels, most=20)
    assert not part.attrs["exhaustive"]
    assert 3 < len(part) <= 20
    names = ["lag_1", "lag_2", "lag_3"]
    computed = set(itertools.product(levels, repeat=3))
    assert {tuple(row) for row in part[names].to_numpy()} <= computed
    # Nothing on the true front that was computed is lost.
    true = {tuple(row) for row in everything.loc[everything.front, names].to_numpy()}
    seen = {tuple(row) for row in part[names].to_numpy()}
    assert true & seen == {tuple(row) for row in part.loc[part.front, names].to_numpy()} & true
    assert true & seen


def test_what_has_no_profile_is_refused() -> None:
    plan = outpainting(2, References.last(2), reverse_steps=2, init_steps=2)
    with pytest.raises(ValueError, match="two AR steps"):
        context_noise(ar1(0.5), plan, 1)
    with pytest.raises(ValueError, match="criteria are some of"):
        context_noise(ar1(0.5), plan, 2, criteria=("ssim",))
    with pytest.raises(ValueError, match="at least one level"):
        context_noise(ar1(0.5), plan, 2, ())
    with pytest.raises(ValueError, match="uniform profiles must be computed"):
        context_noise(ar1(0.5), plan, 2, (0.0, 0.1), most=1)
    for references in (References.none(), References.first(1) + References.last(2), References.all()):
        with pytest.raises(PlanError, match="last m frames"):
            context_noise(ar1(0.5), outpainting(2, references), 2)
    with pytest.raises(PlanError, match="not negative"):
        context_noise(ar1(0.5), plan, 2, (-0.1, 0.0))
