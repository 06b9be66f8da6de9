"""Which sum ranks schedulers: scores that err as they say, like AR steps, and ranks with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from arvdm_theory import ExactScore, ReferenceBatch, ledger, reference_video
from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.experiments.scheduler_ranks import run as ranks
from arvdm_theory.noise import sigma2


@pytest.mark.parametrize("kind", list(ranks.KINDS))
def test_scores_err_as_their_formula_says(kind: str) -> None:
    """The affine map against the formula as a callable, whose map the ledger finds by itself."""
    video, plan, size = reference_video(), ranks._plan("karras:7", 4, 2), 0.15
    exact = ExactScore(video)

    def formula(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        noise = torch.sqrt(sigma2(levels))[:, None]
        wrong = {"window": -size * window, "noise": -size * window / noise, "offset": size / noise}[kind]
        return exact(window, levels, references) + wrong

    known = ledger(video, plan, 2, score=ranks.ErringScore(kind, size), closed=False)
    found = ledger(video, plan, 2, score=formula, closed=False)
    assert found.stderr == {}
    for name in ("kl", "ar_step_kl", "see", "cross", "girsanov"):
        assert found.totals[name] == pytest.approx(known.totals[name], rel=1e-8), name
    assert known.totals["see"] > 0


def test_like_ar_steps_are_counted_and_not_computed_again() -> None:
    """A stationary video: from the AR step on that has all its references, sums of five steps are those of two."""
    video, plan, score = reference_video(), ranks._plan("uniform", 3, 4), ranks.ErringScore("noise", 0.1)
    filled = ranks._filled(plan)
    assert filled == 2
    few = ranks._sums(ledger_terms(video, plan, filled, score=score, closed=False), [1, 4])
    all_of_them = ranks._sums(ledger_terms(video, plan, 5, score=score, closed=False), [1] * 5)
    for name, number in all_of_them.items():
        assert float(few[name]) == pytest.approx(float(number), rel=1e-10), name


def test_correlations_are_means_over_networks_with_intervals_that_hold_them() -> None:
    rng = np.random.default_rng(0)
    grids = [f"grid {i}" for i in range(7)]
    rows = []
    for network in range(3):
        kl = rng.normal(size=7)
        values = {"per_step": -kl, "ar_step": kl**3, "girsanov": rng.normal(size=7), "kl": kl,
                  "last_clip": rng.normal(size=7), "de": np.full(7, 3.0), "see": np.ones(7)}  # fmt: skip
        for name, column in values.items():
            rows += [(network, grid, name, value) for grid, value in zip(grids, column, strict=True)]
    part = pd.DataFrame(rows, columns=["network", "grid", "quantity", "value"])
    found = ranks.correlations(part, 300, 1).set_index(["sum", "target"])
    assert found.loc[("per_step", "kl"), ["spearman", "ci_low", "ci_high"]].tolist() == pytest.approx([-1, -1, -1])
    assert found.loc[("ar_step", "kl"), "spearman"] == pytest.approx(1)
    wide = part.pivot_table(index=["network", "grid"], columns="quantity", values="value", sort=False)
    each = [spearmanr(own.girsanov, own.kl).statistic for _, own in wide.groupby("network")]
    row = found.loc[("girsanov", "kl")]
    assert row.spearman == pytest.approx(np.mean(each))
    assert row.ci_low < row.spearman < row.ci_high
    assert (found.see_share == 0.25).all()
    assert "response" not in found.index.get_level_values(0)
