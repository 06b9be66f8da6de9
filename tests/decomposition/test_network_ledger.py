"""Ledgers of networks: averages over true data against closed forms, and networks as they come."""

import math

import numpy as np
import pytest
import torch
from exact_networks import linear_denoiser
from reference_cases import PLANS, Array, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    FiniteStateVideo,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    decoded_ledger,
    generate,
    ledger,
    sticky_chain,
)
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.laws.states import State
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser

STAGES = ("chunks, mixed references, floor", "rolling, noised references, floor", "rolling")


def gaussian(name: str, ar_steps: int = 2) -> tuple[ArrayVideo, Plan]:
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(ar_steps), 2, 0)
    return ArrayVideo(covariance, 2, mean), plan


def mlp(frame_dim: int, window: int, references: int, action_dim: int = 0, loud: bool = True) -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(
        "mlp", (frame_dim,), window, references, action_dim, options={"width": 32, "depth": 1}
    )  # fmt: skip
    denoiser = Denoiser(config)
    if loud:  # the last layer starts small, which would leave the network nearly affine
        with torch.no_grad():
            denoiser.backbone.out[-1].weight.mul_(300)  # type: ignore[index]
    return denoiser


# -- affine scores, averaged ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_a_linear_denoiser_has_the_same_ledger_exactly_and_over_true_data(name: str) -> None:
    """The mean over seeds within 3 standard errors, and each seed within 4.

    Six totals of four seeds in three plans: 72 numbers, of which one in 16000 is farther off by chance.
    """
    video, plan = gaussian(name)
    denoiser = linear_denoiser(video, plan, 2, error=0.05)
    exact = ledger(video, plan, 2, score=denoiser)
    assert exact.stderr == {}
    forced = [
        ledger(video, plan, 2, score=denoiser, teacher_forced=True, samples=1600, seed=seed) for seed in range(4)
    ]
    for total in ("see", "cross", "path_kl", "trajectory_kl", "path_init", "girsanov"):
        values = np.array([result.totals[total] for result in forced])
        errors = np.array([result.stderr[total] for result in forced])
        scores = (values - (exact.totals[total] or 0.0)) / errors
        assert np.abs(scores).max() < 4, total
        assert abs(scores.sum()) < 3 * math.sqrt(len(scores)), total
    # What needs no average is the same.
    for total in ("kl", "ie", "de", "mb", "nie_ar", "lower_bound"):
        assert {result.totals[total] for result in forced} == {exact.totals[total]}
    assert forced[0].column("CLIP_KL") == exact.column("CLIP_KL")


def test_a_score_that_says_its_own_map_is_averaged_too() -> None:
    video, plan = gaussian("rolling")
    exact = ledger(video, plan, 2, score=PerturbedScore(0.2))
    forced = ledger(video, plan, 2, score=PerturbedScore(0.2), teacher_forced=True, samples=4000)
    for total in ("see", "cross", "trajectory_kl"):
        assert 0 < abs((forced.totals[total] or 0) - (exact.totals[total] or 0)) < 3 * forced.stderr[total]


def test_the_averages_are_the_callables_own() -> None:
    """Not those of the affine map that probes found: every reverse step is asked about its samples."""
    video, plan = gaussian("rolling")
    seen: list[int] = []

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen.append(len(window))
        return -window

    ledger(video, plan, 2, score=score, teacher_forced=True, samples=321)
    assert seen.count(321) == plan.init_steps + 2 * plan.reverse_steps


# -- denoisers as they are ------------------------------------------------------------------------------


def test_a_denoiser_stands_for_its_score_everywhere() -> None:
    video, plan = gaussian("chunks, mixed references, floor")
    denoiser = linear_denoiser(video, plan, 2, error=0.05)
    score = denoiser.as_score()
    assert ledger(video, plan, 2, score=denoiser).totals == ledger(video, plan, 2, score=score).totals
    assert torch.equal(generate(denoiser, plan, 2, 5, 2), generate(score, plan, 2, 5, 2))
    total = ledger(video, plan, 2, score=denoiser).totals["trajectory_kl"]
    assert float(trajectory_kl(video, plan, 2, score)) == pytest.approx(total, rel=1e-9)


def test_a_linear_denoiser_in_float32_is_affine_and_nearly_as_exact() -> None:
    video, plan = gaussian("rolling, noised references, floor")
    denoiser = linear_denoiser(video, plan, 2, error=0.05)
    double = ledger(video, plan, 2, score=denoiser)
    single = ledger(video, plan, 2, score=denoiser.to(torch.float32))
    assert single.stderr == {}
    # x̂ is off by a few 2^-24, the score by that over σ² ≥ 0.1, and SEE is a square of scores of size 1: 1e-5.
    np.testing.assert_allclose(single.table.value, double.table.value, rtol=1e-5, atol=1e-5)


def test_a_network_that_wants_actions_is_refused_by_name() -> None:
    video, plan = gaussian("rolling")
    with pytest.raises(ModelError, match="needs actions of 3 numbers, got none"):
        ledger(video, plan, 2, score=mlp(2, 3, 2, action_dim=3))


@pytest.mark.parametrize(("samples", "words"), [(1, "at least 2 samples, got 1"), (2.5, "whole number, got 2.5")])
def test_a_number_of_samples_is_checked_at_once(samples: float, words: str) -> None:
    video, plan = gaussian("rolling")
    for score in (None, mlp(2, 3, 2)):
        with pytest.raises(ValueError, match=words):
            ledger(video, plan, 2, score=score, samples=samples)
    with pytest.raises(ValueError, match=words):
        ledger(STICKY, STOPPED, 2, samples=samples)  # type: ignore[arg-type]


# -- networks that are not affine -----------------------------------------------------------------------


def test_an_mlps_errors_are_those_of_direct_simulation() -> None:
    """SEE and CROSS of one reverse step from draws of the joint law of (W^m, W^{m+1}, R) and nothing else."""
    video, plan = gaussian("rolling, noised references, floor")
    denoiser = mlp(2, 3, 2)
    result = ledger(video, plan, 2, score=denoiser, samples=4000)
    assert result.totals["ie"] is None
    assert result.terms.kl is None
    k, m, n = 2, 1, 40_000
    frames, high, low = list(plan.window_frames(k)), plan.ar_grid[m], plan.ar_grid[m + 1]
    references = plan.references_at(k)
    states = [State(f, t) for f, t in zip(frames, high, strict=True)]
    states += [State(r.frame, r.level, path=1, parting=plan.floor) for r in references]
    states += [State(f, t) for f, t in zip(frames, low, strict=True)]
    mean, covariance = (part[0] for part in video.joint(states))
    size, told = 2 * len(frames), 2 * (len(frames) + len(references))
    gain = torch.linalg.solve(covariance[:told, :told], covariance[:told, told:]).T
    root = torch.linalg.cholesky(covariance[:told, :told])
    draw = torch.randn(n, told, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = mean[:told] + draw @ root.T
    window = seen[:, :size].reshape(n, -1, 2)
    shown = ReferenceBatch(
        seen[:, size:].reshape(n, -1, 2),
        torch.tensor([r.level for r in references], dtype=torch.float64),
        tuple(r.frame for r in references),
        tuple(frames),
    )
    levels = torch.tensor([high, low], dtype=torch.float64)
    own = denoiser.as_score()(window, levels[0], shown).flatten(1)
    exact = -torch.linalg.solve(covariance[:told, :told], (seen - mean[:told]).T).T[:, :size]
    h = (levels[0] - levels[1]).repeat_interleave(2)
    moving = h > 0
    push, noise = 2 * torch.expm1(h / 2), torch.expm1(h)
    true = mean[told:] + (seen - mean[:told]) @ gain.T
    ideal = torch.exp(h / 2) * window.flatten(1) + push * exact
    miss = (push * (own - exact))[:, moving]
    see = 0.5 * (miss**2 / noise[moving]).sum(-1)
    cross = ((ideal - true)[:, moving] * miss / noise[moving]).sum(-1)
    for values, term in ((see, "see"), (cross, "cross")):
        found = getattr(result.terms.ar[k - 1], term)[m]
        error = math.hypot(found.stderr, float(values.std()) / math.sqrt(n))
        assert abs(float(found) - float(values.mean())) < 4 * error, term
    assert float(see.mean()) > 0.01  # there is something to see


STICKY = FiniteStateVideo(sticky_chain(3, 0.8), Codebook(np.eye(3)[:, :2] * 2 - 0.5))
STOPPED = Plan((4.0, 4.0), 2, 4.0, 8, 8, floor=0.05, spacing="geometric", references=References.last(1))
ROLLING = Plan((1.0, 2.5, 4.0), 1, 4.0, 4, 4, floor=0.05, spacing="geometric", references=References.last(2))


@pytest.mark.parametrize("plan", [STOPPED, ROLLING])
def test_a_float32_mlps_ledger_on_a_finite_state_video(plan: Plan) -> None:
    """Its terms add up to log P - log Q, which needs neither the exact score nor μ_P."""
    denoiser = mlp(2, plan.window, 2)
    result = ledger(STICKY, plan, 2, score=denoiser, samples=1500)
    for stage in (result.terms.initialisation, *result.terms.ar):
        gap = (stage.de + stage.see + stage.cross - stage.direct).sum()
        assert abs(float(gap)) < 4 * gap.stderr
    assert result.totals["see"] is not None
    assert result.totals["see"] > 10 * result.stderr["see"] > 0
    again = ledger(STICKY, plan, 2, score=denoiser, teacher_forced=True, samples=1500)
    assert again.totals == result.totals


def test_the_batch_of_a_network_changes_its_finite_ledger_by_rounding_only() -> None:
    denoiser = mlp(2, 2, 2)
    whole, parts = (
        ledger(STICKY, STOPPED, 2, score=denoiser.as_score(batch), samples=200, memory=False)
        for batch in (4096, 33)
    )
    # float32 sums in another order: 1e-6 of x̂, over σ² ≥ 0.05, beside errors of size 1.
    np.testing.assert_allclose(whole.table.value.dropna(), parts.table.value.dropna(), rtol=1e-4, atol=1e-4)


def test_a_denoiser_decodes() -> None:
    result = decoded_ledger(STICKY, STOPPED, 2, score=mlp(2, 2, 2), samples=100, rollouts=80)
    assert result.totals["lower_bound"] is not None
    assert result.totals["kl"] is not None
    assert result.totals["kl"] > result.totals["lower_bound"]


def test_probing_a_large_network_stops_at_the_first_bend() -> None:
    """A network that is not affine is asked about a few probes, not about every entry of its input."""
    rows: list[int] = []

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        rows.append(len(window))
        return torch.tanh(window)

    entries = 60
    covariance: Array = np.eye(4 * entries)
    plan = Plan((2.0,), 1, 2.0, 1, 1)
    ledger(ArrayVideo(covariance, entries), plan, 1, score=score, samples=20)
    assert max(rows) == 20
