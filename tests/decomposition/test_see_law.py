"""The exact law of least squares' score estimation error, against fits and the ledger's own SEE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arvdm_theory import Plan, References, ledger_terms, reference_video
from arvdm_theory.decomposition.least_squares_see import excess_factor, expected_see
from arvdm_theory.diffusion.scores import AffineScore
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.references import causal_mask

PLANS = {
    "w = Δ": Plan((4.0, 4.0), 2, 4.0, 3, init_steps=2, references=References.last(2), floor=0.05),
    "w > Δ": Plan((2.0, 4.0), 1, 4.0, 3, init_steps=2, references=References.last(1, 0.3), floor=0.05),
}


@pytest.mark.parametrize(("regressors", "intercept"), [(1, True), (4, True), (1, False), (4, False)])
def test_the_factor_against_fits(regressors: int, intercept: bool) -> None:
    rng, pairs, fits = np.random.default_rng(0), 14, 20_000
    design = rng.normal(size=(fits, pairs, regressors)) + (3.0 if intercept else 0.0)
    fresh = rng.normal(size=(fits, regressors, 1)) + (3.0 if intercept else 0.0)
    if intercept:
        design = np.concatenate([design, np.ones((fits, pairs, 1))], -1)
        fresh = np.concatenate([fresh, np.ones((fits, 1, 1))], -2)
    # With unit residuals the squared error at a fresh z has conditional mean z' (Z'Z)^{-1} z.
    leverage = (fresh.swapaxes(-1, -2) @ np.linalg.solve(design.swapaxes(-1, -2) @ design, fresh))[:, 0, 0]
    error = leverage.std(ddof=1) / math.sqrt(fits)
    assert abs(leverage.mean() - excess_factor(regressors, pairs, intercept)) < 5 * error


def test_too_few_pairs_have_no_expectation() -> None:
    assert excess_factor(3, 5) == math.inf
    assert excess_factor(3, 4, intercept=False) == math.inf


class LeastSquares(AffineScore):
    """The score of an affine denoiser fitted to n pairs, drawn afresh for every reverse step."""

    def __init__(self, pairs: int, seed: int) -> None:
        self.pairs, self.generator = pairs, torch.Generator().manual_seed(seed)

    def affine(self, law: WindowLaw) -> AffineMap:
        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=self.generator)

        n, r = law.mean.shape[-1], law.gain.shape[-1]
        root = torch.linalg.cholesky(law.covariance[0])
        maps = []
        for level in law.levels[:-1]:
            references = law.known_mean[0] + draw(self.pairs, r) @ law.known_factor[0].mT
            centred = references - law.known_mean[0]
            clean = law.mean[0] + centred @ law.gain[0].mT + draw(self.pairs, n) @ root.mT
            a, v = law.per_entry(alpha(level)), law.per_entry(sigma2(level))
            window = a * clean + torch.sqrt(v) * draw(self.pairs, n)
            design = torch.cat([window, references, torch.ones(self.pairs, 1, dtype=torch.float64)], -1)
            table = torch.linalg.lstsq(design, clean).solution.mT
            scale = (a / v).mT
            own = scale * table[:, :n] - torch.diag(1 / v[0])
            maps.append((own[None], (scale * table[:, n : n + r])[None], (scale * table[:, n + r :]).mT))
        return law.centred(*(torch.stack(parts) for parts in zip(*maps, strict=True)))


@pytest.mark.parametrize("name", PLANS)
def test_the_law_is_the_mean_of_the_ledgers_see(name: str) -> None:
    plan, video, pairs, fits, ar_steps = PLANS[name], reference_video(), 24, 300, 2
    found: dict[str, list[torch.Tensor]] = {"init": [], "ar": [], "cross": []}
    for seed in range(fits):
        with torch.no_grad():
            terms = ledger_terms(
                video, plan, ar_steps, score=LeastSquares(pairs, seed), girsanov=False, memory=False
            )
        found["init"].append(terms.initialisation.see.value)
        found["ar"].append(terms.of("see").value.flatten())
        found["cross"].append(terms.of("cross").value.flatten())
    law = {
        "init": expected_see(video, plan, 0, pairs)[0],
        "ar": torch.cat([expected_see(video, plan, k, pairs)[0] for k in range(1, ar_steps + 1)]),
    }
    law["cross"] = torch.zeros_like(law["ar"])
    for term, values in found.items():
        stacked = torch.stack(values)
        error = stacked.std(0) / math.sqrt(fits)
        assert bool(((stacked.mean(0) - law[term]).abs() < 5 * error).all()), term


def test_a_mask_or_a_silent_step_has_no_such_law() -> None:
    masked = Plan((4.0, 4.0), 2, 4.0, 3, visible=(causal_mask(2),))
    with pytest.raises(ValueError, match="mask"):
        expected_see(reference_video(), masked, 1, 50)
    with pytest.raises(ValueError, match="noise"):
        expected_see(reference_video(), PLANS["w = Δ"], 1, 50, step="ddim")
