"""Every law, every score, every use: they work, agree, and are right.

Frames are scalar and one a window, so the right values are integrals on a grid or 2 x 2 algebra, written out here.
A predicted clip KL is that of the moment-matched Gaussian video: by Stein's identity E[s (W, R)ᵀ] = -(I, 0)
the regression of any law's exact score on (W, R) is the score of the Gaussian with its moments.

Averages hold within Z = 4.5 standard errors: with some sixty of them a right library fails one with a probability
below 1e-3. Seeds were fixed before the first run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from finite_quadrature import CELL, CORE, GRID, Scalar, step_coefficients
from oracle_score import OracleScore
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    ExactScore,
    FiniteStateVideo,
    MarkovChain,
    Number,
    Plan,
    ReferenceBatch,
    References,
    VideoLaw,
    generate,
    ledger,
    memory_bottleneck,
    memory_bottleneck_from_scores,
    predicted_clip_kl,
)

Z = 4.5
ROUNDING = 1e-9
STEPS = 2
LEVELS = (3.0, 1.6, 0.8, 0.3)
PICTURES, STAY = np.array([-1.2, 0.7]), np.array([[0.85, 0.15], [0.3, 0.7]])
SCALAR = Scalar(PICTURES, STAY, 0.0)
START = np.linalg.matrix_power(STAY, 200)[0]
FRAMES = 3
COVARIANCE = 1.4 * 0.8 ** np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
MEAN = np.full(FRAMES, 0.3)


def plan() -> Plan:
    grid = tuple((level,) for level in LEVELS)
    return Plan(
        (LEVELS[0],), 1, LEVELS[0], len(LEVELS) - 1, len(LEVELS) - 1,
        references=References.last(1), floor=LEVELS[-1], ar_grid=grid, init_grid=grid,
    )  # fmt: skip


# -- laws, and scores of one's own -------------------------------------------------------------------------


def two_states() -> FiniteStateVideo:
    return FiniteStateVideo(MarkovChain.stationary(STAY), Codebook(PICTURES[:, None]))


def enumerated(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """The exact score of :func:`two_states`, from the law of a frame's state given the one before it."""
    x, level = window[:, 0].numpy(), float(levels[0])
    prior = np.broadcast_to(START, (len(x), 2))
    if references.frames:
        assert references.frames == (references.window_frames[0] - 1,)
        before = START * SCALAR.state_density(float(references.levels[0]), references.values[:, 0, 0].numpy())
        prior = before / before.sum(-1, keepdims=True) @ STAY
    posterior = prior * SCALAR.state_density(level, x[:, 0])
    posterior /= posterior.sum(-1, keepdims=True)
    centre = math.exp(-level / 2) * (posterior @ PICTURES)
    return torch.from_numpy((centre[:, None] - x) / -math.expm1(-level))[:, None]


@dataclass(frozen=True)
class Case:
    """A law, an exact score of one's own, and the law's right values."""

    video: VideoLaw
    own: Callable[[Tensor, Tensor, ReferenceBatch], Tensor]
    bottleneck: float
    """I(X_2; X_0 | X_1), all at the last level."""
    rollout: tuple[float, float, float]
    """E X_0, E X_0² and E X_0 X_1 of what the sampler generates with the exact score."""


@cache
def gaussian() -> Case:
    at = math.exp(-LEVELS[-1])
    noisy = at * COVARIANCE + (1 - at) * np.eye(FRAMES)

    def log_det(*frames: int) -> float:
        return float(np.linalg.slogdet(noisy[np.ix_(frames, frames)])[1])

    information = (log_det(1, 2) + log_det(0, 1) - log_det(0, 1, 2) - log_det(1)) / 2
    first = _affine_stage(COVARIANCE[0, 0], MEAN[0])
    on_noise, bias, spread = first
    mean, square = bias, on_noise**2 + spread
    # Given the reference X_0 at the last level, frame 1 is Gaussian with an affine mean.
    slope = math.sqrt(at) * COVARIANCE[0, 1] / noisy[0, 0]
    left = COVARIANCE[1, 1] - slope * math.sqrt(at) * COVARIANCE[0, 1]
    offset = MEAN[1] - slope * math.sqrt(at) * MEAN[0]
    zero, one = (_affine_stage(left, slope * x + offset)[1] for x in (0.0, 1.0))
    both = (one - zero) * (square + mean**2) + zero * mean
    return Case(ArrayVideo(COVARIANCE, 1, MEAN), OracleScore(COVARIANCE, MEAN, 1), information,
                (mean, square + mean**2, both))  # fmt: skip


def _affine_stage(variance: float, mean: float) -> tuple[float, float, float]:
    """What the reverse steps make of a standard normal: its factor, what is added, and the noise's variance."""
    factor, bias, spread = 1.0, 0.0, 0.0
    for t, s in itertools.pairwise(LEVELS):
        on_window, on_score, noise = step_coefficients("exponential", t, s)
        total = math.exp(-t) * variance - math.expm1(-t)
        slope = on_window - on_score / total
        bias = slope * bias + on_score * math.exp(-t / 2) * mean / total
        factor, spread = slope * factor, slope**2 * spread + noise
    return factor, bias, spread


@cache
def finite() -> Case:
    states = SCALAR.state_density(LEVELS[-1], GRID)
    three = np.einsum("a,xa,ab,yb,bc,zc->xyz", START, states, STAY, states, STAY, states)
    pair = three.sum(0) * CELL
    before, middle = three.sum(-1) * CELL, pair.sum(-1) * CELL
    log_ratio = np.log(three / before[..., None]) - np.log(pair / middle[:, None])[None]
    start = SCALAR.sampler(LEVELS, START[None], 0.0, "exponential")[0]
    posterior = START * states
    prior = posterior / posterior.sum(-1, keepdims=True) @ STAY
    kernel = SCALAR.sampler(LEVELS, prior, 0.0, "exponential")[:, CORE] @ GRID * CELL  # E[X_1 | X_0]
    assert start[CORE].sum() * CELL > 1 - 1e-6
    moments = [float((start[CORE] * values).sum() * CELL) for values in (GRID, GRID**2, GRID * kernel)]
    information = float((three * log_ratio).sum() * CELL**3)
    return Case(two_states(), enumerated, information, (moments[0], moments[1], moments[2]))


LAWS = {"Gaussian": gaussian, "finite-state": finite}
SCORES: dict[str, Callable[[Case], Any]] = {
    "none": lambda case: None,
    "exact": lambda case: ExactScore(),
    "one's own": lambda case: case.own,
}


def near(number: Number, expected: float) -> None:
    assert abs(number.value - expected) <= Z * number.stderr + ROUNDING, (number, expected)


# -- the five uses: each holds its numbers against the right ones and hands them back -----------------------


def use_ledger(case: Case, score: Any) -> list[float]:
    result = ledger(case.video, plan(), STEPS, score=score, samples=2000, seed=1)
    terms = result.terms
    near(terms.ar[1].mb, case.bottleneck)
    near(terms.ar[0].mb, 0.0)  # one frame is out, and it is shown
    assert terms.total("see").value == pytest.approx(0, abs=1e-20)
    assert terms.total("cross").value == pytest.approx(0, abs=ROUNDING)
    direct = terms.of("direct")
    if direct is not None:
        near((direct - terms.of("de")).sum(), 0.0)
    assert result.totals["floor"] == pytest.approx(terms.total("mb").value)
    return [float(value) for value in result.totals.values() if value is not None]


def moments_of(made: Tensor, expected: tuple[float, float, float]) -> list[float]:
    x = made[..., 0].to(torch.float64)
    assert made.shape == (len(made), FRAMES, 1)
    for samples, value in zip((x[:, 0], x[:, 0] ** 2, x[:, 0] * x[:, 1]), expected, strict=True):
        near(Number(samples), value)
    return x[:20].flatten().tolist()


def use_rollout(case: Case, score: Any) -> list[float]:
    return moments_of(generate(score, plan(), STEPS, 4000, video=case.video, seed=2), case.rollout)


def use_generate(case: Case, score: Any) -> list[float]:
    """The score says all that there is to know of the video; ``generate`` is told nothing else but its size."""
    bound = ExactScore(case.video) if score is None or isinstance(score, ExactScore) else score
    return moments_of(generate(bound, plan(), STEPS, 4000, 1, seed=3), case.rollout)


def use_bottleneck(case: Case, score: Any) -> list[float]:
    clean = case.video.draw(3000, FRAMES, torch.Generator().manual_seed(4)).frames
    value, past = [], SCORES_WITH_PAST[type(case.video)] if callable(score) and score is case.own else score
    for form in ("losses", "difference"):
        found = memory_bottleneck_from_scores(
            clean,
            plan(),
            2,
            score,
            past,
            video=case.video,
            form=form,
            points=6,
            seed=5,  # type: ignore[arg-type]
        )
        near(found, case.bottleneck)
        assert found.stderr < 0.5 * case.bottleneck
        value.append(float(found))
    return value


def use_prediction(case: Case, score: Any) -> list[float]:
    known = case.video.known_moments(FRAMES)
    assert known is not None
    matched = ledger(ArrayVideo(known[1][0], 1, known[0][0]), plan(), STEPS).column("CLIP_KL")
    result = predicted_clip_kl(case.video, plan(), STEPS, score, samples=4000, seed=6)
    own = ledger(case.video, plan(), STEPS, score=score, samples=4000, seed=6, memory=False)
    assert result.column("CLIP_KL", "bound") == pytest.approx(own.column("CLIP_BOUND"), rel=1e-12)
    prefix = "" if case.video.gaussian else "moment_"
    rows = result.table[result.table.form == f"{prefix}linear"].sort_values("ar_step")
    for value, error, expected in zip(rows.value, rows.stderr, matched, strict=True):
        assert abs(value - expected) <= Z * error + ROUNDING
    return [float(value) for value in result.table.value]


def with_past_of_states(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """The exact score of :func:`two_states` given frames 0 and 1, by enumeration of their states."""
    if references.frames != (0, 1):
        return enumerated(window, levels, references)
    told = [
        SCALAR.state_density(level, values[:, 0].numpy())
        for level, values in zip(references.levels.tolist(), references.values.unbind(1), strict=True)
    ]
    prior = np.einsum("a,na,ab,nb,bc->nc", START, told[0], STAY, told[1], STAY)
    posterior = prior * SCALAR.state_density(float(levels[0]), window[:, 0, 0].numpy())
    posterior /= posterior.sum(-1, keepdims=True)
    centre = math.exp(-float(levels[0]) / 2) * (posterior @ PICTURES)
    return (torch.from_numpy(centre)[:, None, None] - window) / -math.expm1(-float(levels[0]))


SCORES_WITH_PAST: dict[type, Any] = {
    ArrayVideo: OracleScore(COVARIANCE, MEAN, 1),
    FiniteStateVideo: with_past_of_states,
}
USES: dict[str, Callable[[Case, Any], list[float]]] = {
    "ledger": use_ledger,
    "rollout": use_rollout,
    "generate": use_generate,
    "memory_bottleneck_from_scores": use_bottleneck,
    "predicted_clip_kl": use_prediction,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("use", USES)
def test_each_of_the_thirty_uses_is_right(law: str, score: str, use: str) -> None:
    case = LAWS[law]()
    found = without_a_score(law, use) if score == "none" else USES[use](case, SCORES[score](case))
    # The same draws: three ways to say the exact score give the same numbers, but for rounding.
    assert found == pytest.approx(without_a_score(law, use), rel=1e-7, abs=1e-7)


@cache
def without_a_score(law: str, use: str) -> list[float]:
    return USES[use](LAWS[law](), None)


@pytest.mark.parametrize("law", LAWS)
def test_the_bottleneck_alone_is_the_ledgers(law: str) -> None:
    case = LAWS[law]()
    alone = memory_bottleneck(case.video, plan(), 2, samples=3000, seed=7)
    near(alone, case.bottleneck)
    assert alone.is_exact == (law == "Gaussian")


# -- what is not defined -----------------------------------------------------------------------------------


def ends_clean() -> Plan:
    return Plan((3.0,), 1, 3.0, 3, 3, references=References.last(1))


UNDEFINED: dict[str, tuple[Callable[[], object], str]] = {
    # KL to a law without a density, in the last reverse step: infinite (theory.md, section 11).
    "the ledger of a noise-free finite-state video whose plan ends at level 0": (
        lambda: ledger(two_states(), ends_clean(), 1),
        r"no density: it has no observation noise.*floor δ > 0",
    ),
    "the predicted clip KL of a noise-free finite-state video whose plan ends at level 0": (
        lambda: predicted_clip_kl(two_states(), ends_clean(), 1),
        r"no density: it has no observation noise.*floor δ > 0",
    ),
    # Generated frames lie off the support of the law that the exact score conditions on.
    "the exact score of such a video behind a clean reference that is no picture of it": (
        lambda: generate(None, ends_clean(), 1, 4, video=two_states()),
        r"clean and no picture of 'finite-state'.*off the video's support.*floor δ > 0",
    ),
    # A deterministic step has an infinite path KL (theory.md, section 3).
    "the ledger of a deterministic step on a law without closed forms": (
        lambda: ledger(two_states(), plan(), 1, step="ddim"),
        r"ddim step moves a frame without noise.*infinite",
    ),
}


@pytest.mark.parametrize("what", UNDEFINED)
def test_what_theory_proves_undefined_is_refused_by_name(what: str) -> None:
    assert len(UNDEFINED) <= 4
    call, message = UNDEFINED[what]
    with pytest.raises(ValueError, match=message):
        call()


def test_an_exact_score_of_nobody_asks_for_the_video() -> None:
    for score in (None, ExactScore()):
        with pytest.raises(ValueError, match=r"ExactScore is a known video's score: give the video"):
            generate(score, plan(), 1, 4, 1)
        with pytest.raises(ValueError, match=r"does not know whose score it is: give it the video"):
            memory_bottleneck_from_scores(torch.zeros(40, FRAMES, 1), plan(), 2, score, score)


def test_the_deterministic_step_of_a_gaussian_video_has_no_path_kl_but_a_clip_kl() -> None:
    result = ledger(gaussian().video, plan(), 1, step="ddim")
    assert result.totals["path_kl"] is None
    assert "moves a frame without noise" in result.notes["path_kl"]
    assert math.isfinite(result.totals["kl"] or math.nan)
