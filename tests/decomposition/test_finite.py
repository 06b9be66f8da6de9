"""The ledger of finite-state videos against enumeration, quadrature, a Gaussian limit and its own trajectory.

A statement about averages is tested in units of standard errors. Single ones at Z: with about a hundred of them
in this file, a correct library exceeds 4.5 with a probability below 1e-3. Families are judged jointly by a
chi-square test at the level 1e-3. Seeds were fixed before the first run.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from finite_enumeration import Array, log_joint, moments, random_law
from finite_quadrature import CELL, CORE, GRID, Scalar, divergence, normal
from scipy.stats import chi2
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    ExactScore,
    FiniteStateVideo,
    MarkovChain,
    Number,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    ledger,
    ledger_terms,
    sticky_chain,
)
from arvdm_theory.decomposition.question import FULL_VIEW
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.laws.chains import random_chain
from arvdm_theory.laws.emission import GaussianRegimes
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.inference import infer
from arvdm_theory.laws.stage_law import TrueVideos
from arvdm_theory.laws.states import State
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.references import Reference, causal_mask
from arvdm_theory.plan.stage import Stage

Z = 4.5
# Log-densities of a few tens of nats, summed over sequences and steps: both sides are right to about 1e-12.
EXACT = 1e-9


def within(value: float, expected: float, error: float) -> bool:
    return abs(value - expected) <= Z * error


def agrees(number: Number, expected: float) -> None:
    """Samples that are all alike, such as a CROSS of 0, have no standard error but rounding."""
    assert within(number.value, expected, number.stderr + EXACT), (number, expected)


def entries(number: Number) -> list[Number]:
    """A number an entry, in order."""
    return [Number(column) for column in number.samples.reshape(len(number.samples), -1).unbind(-1)]


# -- single steps, pointwise -------------------------------------------------------------------------------


def video_of(kind: str, rng: np.random.Generator) -> FiniteStateVideo:
    order = 2 if kind == "order 2" else 1
    chain = MarkovChain(random_law(rng, *(3,) * (order + 1)), random_law(rng, 3**order).reshape((3,) * order))
    if kind == "regimes":
        root = rng.normal(size=(3, 2, 2))
        covariance = root @ root.swapaxes(1, 2) + 0.2 * np.eye(2)
        return FiniteStateVideo(chain, GaussianRegimes(rng.normal(size=(3, 2)), covariance))
    if kind == "hidden":
        return FiniteStateVideo(chain, Codebook(rng.normal(size=(2, 2)), 0.1), random_law(rng, 3, 2))
    return FiniteStateVideo(chain, Codebook(rng.normal(size=(3, 2)), 0.0 if kind == "noise-free" else 0.2))


LEVELS_HERE = ((0.3, 0.9, 2.0), (0.3, 0.4, 1.1))


def pointwise_case(kind: str) -> tuple[TrueVideos, Stage, list[State], Array, dict[int, Array], list[Tensor]]:
    """A window of frames 2..4, the last two of which move, behind two references, all at arbitrary values."""
    rng = np.random.default_rng([7, len(kind)])
    video, batch = video_of(kind, rng), 5
    frames = range(2, 5)
    states: list[State] = []
    values, known = np.zeros((batch, 0, 2)), {}
    shown = ReferenceBatch(torch.zeros(batch, 2, 2), torch.zeros(2), (0, 1), tuple(frames))
    if kind == "noise-free":  # known references, as in a decoded ledger
        known = {0: rng.integers(0, 3, batch), 1: rng.integers(0, 3, batch)}
        symbols = torch.from_numpy(np.stack([known[0], known[1]], 1))
        given = Evidence.clean([0, 1], symbols)
    else:
        states = [State(0, 0.1), State(1, 0.7, path=1, parting=0.1)]
        values = rng.normal(size=(batch, 2, 2))
        given = Evidence(tuple(states), torch.from_numpy(values))
        levels = torch.tensor([0.1, 0.7], dtype=torch.float64)
        shown = ReferenceBatch(torch.from_numpy(values), levels, (0, 1), tuple(frames))
    upper = torch.from_numpy(rng.normal(size=(batch, 3, 2)))
    lower = torch.cat([upper[:, :1], torch.from_numpy(rng.normal(size=(batch, 2, 2)))], 1)
    references = (Reference(0, 0.1), Reference(1, 0.7))
    stage = Stage(1, frames, references, (), 0, LEVELS_HERE, (None,), 0.1, 3.0)
    places = {
        (frame, level): value
        for row, window in zip(LEVELS_HERE, (upper, lower), strict=True)
        for frame, level, value in zip(frames, row, window.unbind(1), strict=True)
    }
    truth = TrueVideos(video, batch, torch.Generator(), upper, _states=places, _known={1: (given, shown)})
    return truth, stage, states, values, known, [upper, lower]


@pytest.mark.parametrize("kind", ["noise-free", "noisy", "regimes", "hidden", "order 2"])
@pytest.mark.parametrize("step", ["exponential", "euler", "ddpm"])
def test_terms_of_single_videos_match_enumeration(kind: str, step: str) -> None:
    truth, stage, states, values, known, path = pointwise_case(kind)
    video = truth.law
    upper, lower = (part.numpy() for part in path)
    score = PerturbedScore(0.3, 0.1)
    found = video.at(stage).reverse_terms(truth, score, reverse_step(step), FULL_VIEW)

    window = [State(f, t) for f, t in zip(stage.frames, stage.grid[0], strict=True)]
    moved = [State(f, t) for f, t in zip(stage.frames, stage.grid[1], strict=True)][1:]
    before = (states + window, np.concatenate([values, upper], 1))
    both = (before[0] + moved, np.concatenate([before[1], lower[:, 1:]], 1))
    base = log_joint(video, *before, known)
    log_true = log_joint(video, *both, known) - base  # from its definition, not by Bayes

    # Mean and spread of the true step, symbol by symbol, and the exact score from P's own mean.
    mean, covariance = moments(video)
    log_star, see, cross, log_own, variates = np.zeros((5, len(upper)))
    for j, (state, target) in enumerate(zip(window[1:], moved, strict=True), start=1):
        t, s = state.level, target.level
        a, v, d = math.exp((s - t) / 2), -math.expm1(s - t), 2
        law = np.exp(
            np.stack([log_joint(video, *before, known, (state.frame, y)) for y in range(len(mean))], -1)
            - base[:, None]
        )
        assert law.sum(-1) == pytest.approx(1, abs=EXACT)
        centres, squares = [], []
        for c, spread in zip(mean, covariance, strict=True):
            cov_t = math.exp(-t) * spread - math.expm1(-t) * np.eye(d)
            cov_s = math.exp(-s) * spread - math.expm1(-s) * np.eye(d)
            gain = a * cov_s @ np.linalg.inv(cov_t)
            centres.append(math.exp(-s / 2) * c + (upper[:, j] - math.exp(-t / 2) * c) @ gain.T)
            squares.append(np.trace(cov_s - a * gain @ cov_s) + (centres[-1] ** 2).sum(-1))
        true = np.einsum("by,ybi->bi", law, np.stack(centres))
        kappa = ((law * np.stack(squares, -1)).sum(-1) - (true**2).sum(-1)) / d
        score = (a * true - upper[:, j]) / v
        coefficients = reverse_step(step).coefficients(
            torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        )
        assert coefficients.variance is not None
        c_w, c_s, q = (float(x) for x in (coefficients.window, coefficients.score, coefficients.variance))
        star = c_w * upper[:, j] + c_s * score
        miss = c_s * (-0.3 * upper[:, j] + 0.1)
        rest, shift = lower[:, j] - true, true - star

        def log_normal(gap: Array, variance: float = q) -> Array:
            return np.asarray(-0.5 * (gap**2).sum(-1) / variance - math.log(2 * math.pi * variance))

        log_star += log_normal(lower[:, j] - star)
        log_own += log_normal(lower[:, j] - star - miss)
        see += 0.5 * (miss**2).sum(-1) / q
        cross += ((star - true) * miss).sum(-1) / q
        # Two variates of mean zero given (W, R), because P has mean `true` and spread κ.
        variates += 0.5 * ((rest**2).sum(-1) - d * kappa) * (1 / kappa - 1 / q) - (rest * shift).sum(-1) / q
    assert found.direct[:, 0].numpy() == pytest.approx(log_true - log_own, abs=EXACT)
    assert found.de[:, 0].numpy() == pytest.approx(log_true - log_star + variates, abs=EXACT)
    assert found.see[:, 0].numpy() == pytest.approx(see, abs=EXACT)
    assert found.cross[:, 0].numpy() == pytest.approx(cross, abs=EXACT)


def test_masked_scores_see_only_what_the_mask_shows() -> None:
    truth, stage, states, values, _, path = pointwise_case("noisy")
    # Frame 0 of the window sees itself and the older reference; frame 1 the window; frame 2 everything.
    mask = ((True, False, False, True, False), (True, True, True, False, False), (True,) * 5)
    shown = truth.references(stage)[1].seeing(mask)
    score = ExactScore(truth.law)(path[0], torch.tensor(LEVELS_HERE[0], dtype=torch.float64), shown)
    window = [State(f, t) for f, t in zip(stage.frames, stage.grid[0], strict=True)]
    for j, (columns, references) in enumerate([([0], [0]), ([0, 1, 2], []), ([0, 1, 2], [0, 1])]):
        seen = [window[i] for i in columns] + [states[i] for i in references]
        at = np.concatenate([path[0].numpy()[:, columns], values[:, references]], 1)
        for entry in range(2):
            sides = []
            for sign in (1, -1):
                nudged = at.copy()
                nudged[:, columns.index(j), entry] += sign * 1e-5
                sides.append(log_joint(truth.law, seen, nudged))
            # Central differences of step 1e-5: error 1e-10 from the third derivative, 1e-9 from rounding.
            slope = (sides[0] - sides[1]) / 2e-5
            assert score[:, j, entry].numpy() == pytest.approx(slope, abs=1e-7)


# -- averages against quadrature ---------------------------------------------------------------------------

SCALAR = Scalar(np.array([-1.2, 0.7]), np.array([[0.85, 0.15], [0.3, 0.7]]), 0.05)
LEVELS = (3.0, 1.6, 0.8, 0.3)
ERROR = 0.1


def scalar_video() -> FiniteStateVideo:
    chain = MarkovChain.stationary(SCALAR.transition)
    return FiniteStateVideo(chain, Codebook(SCALAR.pictures[:, None], SCALAR.noise))


def scalar_plan(references: References) -> Plan:
    grid = tuple((level,) for level in LEVELS)
    return Plan(
        (LEVELS[0],), 1, LEVELS[0], len(LEVELS) - 1, len(LEVELS) - 1,
        references=references, floor=LEVELS[-1], ar_grid=grid, init_grid=grid,
    )  # fmt: skip


@cache
def stationary() -> Array:
    law = np.linalg.matrix_power(SCALAR.transition, 200)[0]
    return np.asarray(law / law.sum())


def reference_law(level: float) -> tuple[Array, Array]:
    """Weights p(R) dR on the grid for a frame at ``level``, and p(next state | R), (grid, y)."""
    joint = stationary() * SCALAR.state_density(level, GRID)
    density = joint.sum(-1)
    return density * CELL, (joint / density[:, None]) @ SCALAR.transition


@pytest.mark.parametrize("step", ["exponential", "euler", "ddpm"])
@pytest.mark.parametrize("fresh", [0.0, 0.8])
def test_every_term_matches_quadrature(step: str, fresh: float) -> None:
    plan = scalar_plan(References.last(1, fresh))
    terms = ledger_terms(
        scalar_video(), plan, 2, score=PerturbedScore(ERROR), step=step, samples=4000, seed=11, memory=False
    )
    start = SCALAR.window_terms(LEVELS, stationary()[None], np.ones(1), ERROR, step)
    weight, prior = reference_law(max(fresh, plan.floor))
    ar = SCALAR.window_terms(LEVELS, prior, weight, ERROR, step)
    for stage, expected in zip((terms.initialisation, *terms.ar), (start, ar, ar), strict=True):
        for number, values in zip((stage.nie, stage.de, stage.see, stage.cross), expected, strict=True):
            for entry, value in zip(entries(number), np.atleast_1d(values), strict=True):
                agrees(entry, float(value))


@pytest.mark.parametrize("fresh", [0.0, 0.8])
def test_memory_bottleneck_matches_quadrature(fresh: float) -> None:
    """MB_1 of one earlier frame: 0 with it as a clean reference, I(X_1; X_0 | noised X_0) otherwise."""
    plan = scalar_plan(References.last(1, fresh))
    result = ledger(scalar_video(), plan, 2, samples=4000, seed=12)
    floor = LEVELS[-1]
    states = SCALAR.state_density(floor, GRID)
    law, transition = stationary(), SCALAR.transition
    if fresh:
        up = math.exp((floor - fresh) / 2)
        noised = normal(GRID[None, :], up * GRID[:, None], 1 - up**2)  # (X_0, R)
        past = law * states
        out = np.einsum("xa,ab,ob->xo", past, transition, states)  # p(X_0, X_1)
        joint = noised[:, :, None] * out[:, None, :]  # (X_0, R, X_1)
        given = joint.sum(0) * CELL  # p(R, X_1)
        reference = given.sum(-1) * CELL
        first = past.sum(-1)
        log_ratio = np.log(out / first[:, None])[:, None, :] - np.log(given / reference[:, None])[None]
        expected = [float((joint * log_ratio).sum() * CELL**3)]
    else:
        three = np.einsum("a,xa,ab,yb,bc,zc->xyz", law, states, transition, states, transition, states)
        pair = three.sum(0) * CELL
        before, middle = three.sum(-1) * CELL, pair.sum(-1) * CELL
        log_ratio = np.log(three / before[..., None]) - np.log(pair / middle[:, None])[None]
        expected = [0.0, float((three * log_ratio).sum() * CELL**3)]
    for k, value in enumerate(expected):
        agrees(result.terms.ar[k].mb, value)
    if not fresh:
        assert result.terms.ar[0].mb.samples.abs().max() == 0
        assert result.totals["floor"] == pytest.approx(result.totals["mb"])
    else:
        # Given the reference before noising, nothing is left of the one frame that is out.
        assert float(result.terms.ar[0].mb_clean.samples.abs().max()) == 0


Call = tuple[set[State], set[State]]


def recorded(monkeypatch: pytest.MonkeyPatch, plan: Plan, steps: int) -> list[Call]:
    """(W, R) of every conditional log-density that the ledger asks for; each is checked against enumeration."""
    calls: list[Call] = []
    exact = FiniteStateVideo.log_density

    def check(video: FiniteStateVideo, window: Evidence, given: Evidence | None = None) -> Tensor:
        found = exact(video, window, given)
        assert window.values is not None
        states, values = list(window.states), window.values.numpy()
        base = np.zeros(len(values))
        if given is not None:
            assert given.values is not None
            base = log_joint(video, given.states, given.values.numpy())
            states, values = [*states, *given.states], np.concatenate([values, given.values.numpy()], 1)
        assert found.numpy() == pytest.approx(log_joint(video, states, values) - base, abs=EXACT)
        calls.append((set(window.states), set(given.states) if given is not None else set()))
        return found

    monkeypatch.setattr(FiniteStateVideo, "log_density", check)
    video = FiniteStateVideo(sticky_chain(2, 0.8), Codebook([[-1.0], [1.0]]))
    ledger_terms(video, plan, steps, samples=4)
    return calls


def test_what_an_overlapping_window_is_conditioned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """AR step 3 of FIFO, written out: frames 0 and 1 are out, 2 to 4 in the window, 0 is noised afresh."""
    rule = References.first(1, 0.5) + References.last(1)
    plan = Plan((0.7, 2.0, 3.0), 1, 3.0, 2, 2, references=rule, floor=0.1)
    initialisation, with_past, without_past = recorded(monkeypatch, plan, 3)[-3:]
    fresh = State(0, 0.5, path=3, parting=0.1)
    entering = {State(2, 0.7), State(3, 2.0), fresh, State(1, 0.1)}
    out = {State(2, 0.1), State(3, 0.7), State(4, 2.0)}
    assert initialisation == ({State(4, 3.0)}, entering)
    assert with_past == (out, entering | {State(0, 0.1)})
    assert without_past == (out, entering)


def test_what_a_window_of_its_own_is_conditioned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """AR step 2 of w = Δ = 1, written out: frames 0 and 1 are out, 0 is noised afresh; then before noising."""
    plan = Plan((3.0,), 1, 3.0, 2, 2, references=References.first(1, 0.5), floor=0.1)
    calls = recorded(monkeypatch, plan, 2)[-5:]
    fresh, floor = State(0, 0.5, path=2, parting=0.1), [State(frame, 0.1) for frame in range(3)]
    assert calls == [
        ({State(2, 3.0)}, {fresh}),
        ({floor[2]}, {fresh, floor[0], floor[1]}),
        ({floor[2]}, {fresh}),
        ({floor[2]}, {floor[0], floor[1]}),
        ({floor[2]}, {floor[0]}),
    ]


@pytest.mark.parametrize("fresh", [0.0, 0.8])
def test_bounds_hold_for_the_exact_law_of_the_rollout(fresh: float) -> None:
    """K-fold bound, lower bound and ladder, with the sampler's law computed on the grid."""
    steps = 2
    plan = scalar_plan(References.last(1, fresh))
    result = ledger(scalar_video(), plan, steps, score=PerturbedScore(ERROR), samples=2000, seed=13)
    floor = LEVELS[-1]
    start = SCALAR.sampler(LEVELS, stationary()[None], ERROR, "exponential")[0, CORE]
    _, prior = reference_law(max(fresh, floor))
    kernel = SCALAR.sampler(LEVELS, prior, ERROR, "exponential")[:, CORE]  # (R, Y)
    if fresh:
        up = math.exp((floor - fresh) / 2)
        kernel = normal(GRID[None, :], up * GRID[:, None], 1 - up**2) @ kernel * CELL
    states = SCALAR.state_density(floor, GRID)
    law, transition = stationary(), SCALAR.transition
    true = np.einsum("a,xa,ab,yb,bc,zc->xyz", law, states, transition, states, transition, states)
    own = start[:, None, None] * kernel[:, :, None] * kernel[None]
    clean, clip = divergence(true, own), (law * states).sum(-1)
    path, path_error = result.totals["path_kl"], result.stderr["path_kl"]
    lower, lower_error = result.totals["floor"], result.stderr["floor"]
    assert path is not None
    assert lower is not None
    ie_bound = result.terms.initialisation.path
    assert divergence(clip, start) <= ie_bound.value + Z * ie_bound.stderr
    # IE ≥ 0 is left out of the floor, so it has room of its own.
    assert lower - Z * lower_error <= clean <= path + Z * path_error
    marginal = start
    bounds = result.table[result.table.term == "CLIP_BOUND"]
    assert len(bounds) == steps  # one reference, which the step before put out: the condition holds
    for bound, error in zip(bounds.value, bounds.stderr, strict=True):
        marginal = marginal @ kernel * CELL
        assert float(marginal.sum()) * CELL > 1 - 1e-3  # what leaves the grid would raise the KL by as little
        assert divergence(clip, marginal) <= bound + Z * error


def test_standard_errors_are_calibrated() -> None:
    """40 runs of 200 videos: z-scores against quadrature have variance 1 (two-sided chi-square, level 1e-3)."""
    plan, runs = scalar_plan(References.last(1)), 40
    weight, prior = reference_law(plan.floor)
    nie, de, see, cross = SCALAR.window_terms(LEVELS, prior, weight, ERROR, "exponential")
    expected = {"nie_ar": nie, "de": de.sum(), "see": see.sum(), "cross": cross.sum()}
    scores: dict[str, list[float]] = {name: [] for name in (*expected, "path")}
    for seed in range(runs):
        result = ledger(scalar_video(), plan, 1, score=PerturbedScore(ERROR), samples=200, seed=1000 + seed)
        for name, value in expected.items():
            total = result.totals[name]
            assert total is not None
            scores[name].append((total - value) / result.stderr[name])
        path = result.terms.ar_paths.sum()  # a sum has its own error: terms are correlated
        scores["path"].append((path.value - sum(expected.values())) / path.stderr)
    # 200 samples make the z-scores t-distributed: their variance is 199/197, 1 % above 1.
    low, high = chi2.ppf([5e-4, 1 - 5e-4], runs)
    for name, values in scores.items():
        assert low <= sum(z**2 for z in values) <= high, name


# -- the Gaussian limit ------------------------------------------------------------------------------------

GAUSSIAN_PLANS = {
    "outpainting": Plan((4.0, 4.0), 2, 4.0, 6, 6, references=References.last(2)),
    "fresh": Plan((4.0, 4.0), 2, 4.0, 6, 6, references=References.last(2, 0.3)),
    "FIFO": Plan((1.0, 2.5, 4.0), 1, 4.0, 3, 6, references=References.last(1)),
    "chunks": Plan((2.0, 2.0, 4.0, 4.0), 2, 4.0, 4, 4, floor=0.05, spacing="geometric", initialisation="warmup"),
}


@pytest.mark.parametrize("name", GAUSSIAN_PLANS)
@pytest.mark.parametrize("step", ["exponential", "euler"])
def test_one_state_is_a_gaussian_video(name: str, step: str) -> None:
    plan, score = GAUSSIAN_PLANS[name], PerturbedScore(0.05, 0.02)
    picture, noise = np.array([0.7, -0.3]), 0.5
    finite = FiniteStateVideo(MarkovChain([[1.0]], [1.0]), Codebook(picture[None], noise))
    frames = plan.total_frames(3)
    gaussian = ArrayVideo(noise * np.eye(2 * frames), 2, np.tile(picture, frames))
    sampled = ledger(finite, plan, 3, score=score, step=step, samples=600, seed=5)
    exact = ledger(gaussian, plan, 3, score=score, step=step)
    for total in ("nie_init", "nie_ar", "mb"):
        # P is the isotropic Gaussian itself, so nothing of it is left to sample.
        assert sampled.totals[total] == pytest.approx(exact.totals[total], abs=EXACT)
    wide = sampled.table.merge(exact.table, on=["stage", "ar_step", "term"], suffixes=("", "_exact"))
    paths = wide[wide.term.str.removesuffix("_INIT").isin(["DE", "SEE", "CROSS"])]
    assert len(paths) == 12
    assert ((paths.value - paths.value_exact).abs() <= Z * paths.stderr).all()
    for total in ("path_init", "path_kl"):
        value, expected = sampled.totals[total], exact.totals[total]
        assert value is not None
        assert expected is not None
        assert within(value, expected, sampled.stderr[total])
    assert ("CLIP_BOUND" in set(sampled.table.term)) == ("CLIP_BOUND" in set(exact.table.term))
    assert ("clip_bound" in sampled.notes) == ("clip_bound" in exact.notes)


def test_one_anisotropic_regime_is_a_gaussian_video() -> None:
    covariance = np.array([[1.0, 0.4], [0.4, 0.5]])
    finite = FiniteStateVideo(MarkovChain([[1.0]], [1.0]), GaussianRegimes([[0.2, -0.5]], covariance[None]))
    plan = GAUSSIAN_PLANS["chunks"]
    frames = plan.total_frames(2)
    gaussian = ArrayVideo(np.kron(np.eye(frames), covariance), 2, np.tile([0.2, -0.5], frames))
    sampled = ledger(finite, plan, 2, score=PerturbedScore(0.05), samples=2000, seed=6)
    exact = ledger(gaussian, plan, 2, score=PerturbedScore(0.05))
    for total in ("nie_init", "nie_ar", "path_init", "de", "see", "cross", "path_kl"):
        value, expected = sampled.totals[total], exact.totals[total]
        assert value is not None
        assert expected is not None
        assert within(value, expected, sampled.stderr[total])
    assert sampled.totals["mb"] == pytest.approx(0, abs=EXACT)


# -- the ledger closes -------------------------------------------------------------------------------------


def neural_like(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """A score that is affine in nothing: neighbours, references and levels mixed through tanh."""
    pull = torch.tanh(window.roll(1, 1) + 0.3 * window) - window / (0.5 + sigma2(levels)[:, None])
    if references.values.shape[1]:
        weights = 1 / (1 + references.levels)
        pull = pull + 0.4 * torch.tanh((weights[:, None] * references.values).sum(1, keepdim=True))
    return pull * (1 + 0.05 * references.window_frames[0])


def random_case(number: int) -> tuple[FiniteStateVideo, Plan, int, PerturbedScore | None]:
    """Two or three states that are easy to tell apart and slow to change, and any plan of at most three frames."""
    rng = np.random.default_rng([2024, number])
    states, order, dim = int(rng.integers(2, 4)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    rows = 0.4 * random_law(rng, *(states,) * (order + 1)) + 0.6 * torch.eye(states, dtype=torch.float64)
    chain = MarkovChain(rows, random_law(rng, states**order).reshape((states,) * order))
    pictures = 1.5 * rng.normal(size=(states, dim))
    kind = ["plain", "noisy", "hidden", "regimes"][number % 4]
    if kind == "regimes":
        root = rng.normal(size=(states, dim, dim))
        spread = 0.3 * root @ root.swapaxes(1, 2) + 0.2 * np.eye(dim)
        video = FiniteStateVideo(chain, GaussianRegimes(pictures, spread))
    elif kind == "hidden":
        video = FiniteStateVideo(chain, Codebook(pictures[:2], 0.2), random_law(rng, states, 2))
    else:
        video = FiniteStateVideo(chain, Codebook(pictures, 0.0 if kind == "plain" else 0.3))
    window = int(rng.integers(1, 4))
    stride = int(rng.integers(1, window + 1))
    floor = 0.0 if kind in ("noisy", "regimes") and number % 3 else float(rng.choice([0.05, 0.3]))
    kept = np.sort(rng.uniform(floor, 3.0, window - stride))
    level = float(rng.choice([0.0, 0.6]))
    rules = [References.none(), References.last(2, level), References.first(1, level) + References.last(1)]
    plan = Plan(
        (*kept.tolist(), *(3.0,) * stride), stride, 3.0, int(rng.integers(1, 4)), 2,
        references=rules[int(rng.integers(3))], floor=floor,
        initialisation="warmup" if number % 2 else "renoise",
        visible=(causal_mask(window),) if number % 5 == 0 else None,
    )  # fmt: skip
    return video, plan, 2 if window == 3 else 3, None if number % 2 else PerturbedScore(0.2, -0.1)


def forward(value: Array, below: float, level: float, rng: np.random.Generator) -> Array:
    a = math.exp((below - level) / 2)
    return np.asarray(a * value + math.sqrt(-math.expm1(below - level)) * rng.normal(size=value.shape))


def log_normal(value: Array, mean: Array, variance: float) -> Array:
    per_entry = (value - mean) ** 2 / variance + math.log(2 * math.pi * variance)
    return np.asarray(-0.5 * per_entry.reshape(len(value), -1).sum(-1))


def direct_trajectory(number: int, videos: int) -> Array:
    """log P(trajectory | Input_1) - log Q(trajectory | Input_1) of true videos, without any per-step conditional.

    P: the joint density of the least noisy state of every frame, summed over all state sequences, plus the forward
    noise upwards along each frame's path, minus the same for Input_1. A freshly noised reference has the same
    density given its frame under both laws, so it is drawn but drops out.
    """
    video, plan, steps, perturbed = random_case(number)
    rng = np.random.default_rng([99, number])
    sample = video.sample(videos, plan.total_frames(steps), torch.Generator().manual_seed(number + 500))
    clean = sample.frames.numpy()
    wanted: dict[int, set[float]] = {}
    entered = {f: plan.input_levels[f] if plan.overlapping else plan.floor for f in range(plan.init_frames)}
    for frame, level in entered.items():
        wanted.setdefault(frame, set()).add(level)
    for k in range(1, steps + 1):
        for j, frame in enumerate(plan.window_frames(k)):
            wanted.setdefault(frame, set()).update(row[j] for row in plan.ar_grid)
    state: dict[tuple[int, float], Array] = {}
    log_true = np.zeros(videos)
    for frame, levels in wanted.items():
        below, value = 0.0, clean[:, frame]
        for i, level in enumerate(sorted(levels)):
            upper = forward(value, below, level, rng) if level > below else value
            # Noise above Input_1's own level belongs to no kernel: it is conditioned on, not generated.
            if i and not (frame in entered and below >= entered[frame]):
                a = math.exp((below - level) / 2)
                log_true += log_normal(upper, a * value, 1 - a**2)
            state[frame, level], below, value = upper, level, upper
    last = [State(frame, min(levels)) for frame, levels in wanted.items()]
    first = [State(frame, level) for frame, level in entered.items()]
    log_true += log_joint(video, last, np.stack([state[s.frame, s.level] for s in last], 1))
    log_true -= log_joint(video, first, np.stack([state[s.frame, s.level] for s in first], 1))

    log_own, coefficients = np.zeros(videos), reverse_step("exponential").coefficients
    for k in range(1, steps + 1):
        frames, references = plan.window_frames(k), plan.references_at(k)
        for frame in frames[plan.window - plan.stride :]:
            log_own += log_normal(state[frame, plan.horizon], np.zeros(1), 1.0)
        shown_states, shown = [], np.zeros((videos, 0, video.frame_dim))
        for r in references:
            value, fresh = state[r.frame, plan.floor], r.level > plan.floor
            value = forward(value, plan.floor, r.level, rng) if fresh else value
            path = {"path": k, "parting": plan.floor} if fresh else {}
            shown_states.append(State(r.frame, max(r.level, plan.floor), **path))
            shown = np.concatenate([shown, value[:, None]], 1)
        batch = ReferenceBatch(
            torch.from_numpy(shown), torch.tensor([s.level for s in shown_states], dtype=torch.float64),
            tuple(r.frame for r in references), tuple(frames),
        )  # fmt: skip
        for m in range(plan.reverse_steps):
            high, low = plan.ar_grid[m], plan.ar_grid[m + 1]
            window = torch.from_numpy(np.stack([state[f, t] for f, t in zip(frames, high, strict=True)], 1))
            levels = torch.tensor(high, dtype=torch.float64)
            score = neural_like(window, levels, batch)
            if perturbed is not None:
                rows = []
                for j, frame in enumerate(frames):
                    seen = list(range(j + 1)) if plan.visible else list(range(len(frames)))
                    part = Evidence.noisy([frames[i] for i in seen], [high[i] for i in seen], window[:, seen])
                    given = Evidence(tuple(shown_states), torch.from_numpy(shown)) if references else None
                    rows.append(infer(video, part, given).score[:, seen.index(j)])
                    assert frame == frames[j]
                score = torch.stack(rows, 1) - 0.2 * window - 0.1
            for j, frame in enumerate(frames):
                if high[j] > low[j]:
                    c = coefficients(*torch.tensor([high[j], low[j]], dtype=torch.float64))
                    assert c.variance is not None
                    mean = (c.window * window[:, j] + c.score * score[:, j]).numpy()
                    log_own += log_normal(state[frame, low[j]], mean, float(c.variance))
    return log_true - log_own


def test_the_ledger_closes_on_random_videos_and_plans() -> None:
    """AR terms against the trajectory KL given Input_1, from independent samples, 20 cases judged jointly."""
    cases, scores = 20, []
    for number in range(cases):
        video, plan, steps, perturbed = random_case(number)
        score = neural_like if perturbed is None else perturbed
        terms = ledger_terms(video, plan, steps, score=score, samples=1000, seed=number)
        ours = (terms.ar_paths + terms.of("mb")).sum()
        direct = Number(torch.from_numpy(direct_trajectory(number, 1000)))
        gap = ours.plus_independent(-direct)
        scores.append(gap.value / gap.stderr)
    assert sum(z**2 for z in scores) <= chi2.ppf(1 - 1e-3, cases), scores


def test_the_split_of_a_step_adds_up() -> None:
    """DE + SEE + CROSS against log P - log Q on the same videos: the difference has mean zero."""
    scores = []
    for number in range(12):
        video, plan, steps, perturbed = random_case(number)
        score = neural_like if perturbed is None else perturbed
        terms = ledger_terms(video, plan, steps, score=score, samples=400, seed=77, memory=False)
        gap = (terms.of("direct") - terms.of("de") - terms.of("see") - terms.of("cross")).sum()
        scores.append(gap.value / gap.stderr)
    assert sum(z**2 for z in scores) <= chi2.ppf(1 - 1e-3, len(scores)), scores


def test_moment_matching_lowers_the_error_of_de() -> None:
    plan = Plan((4.0, 4.0), 2, 4.0, 12, 12, floor=0.05, spacing="geometric", references=References.last(2))
    video = FiniteStateVideo(sticky_chain(3, 0.8), Codebook([[-1.0], [0.2], [1.0]]))
    terms = ledger_terms(video, plan, 2, samples=1000, memory=False)
    assert terms.total("de").stderr < 0.5 * terms.total("direct").stderr


# -- scores, options, tables -------------------------------------------------------------------------------


def test_a_callable_that_is_the_exact_score_pays_nothing() -> None:
    video = FiniteStateVideo(sticky_chain(3, 0.8), Codebook([[-1.0], [0.2], [1.0]]))
    plan = Plan((1.0, 3.0), 1, 3.0, 3, 3, floor=0.05, references=References.last(2, 0.4))
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def exact(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen.append((references.frames, references.window_frames))
        assert references.values.shape == (len(window), len(references.frames), 1)
        given = None
        if references.frames:
            states = tuple(State(f, 0.4, path=1, parting=0.05) for f in references.frames)
            given = Evidence(states, references.values)
            assert references.levels.tolist() == [0.4] * len(states)
        return infer(video, Evidence.noisy(references.window_frames, levels.tolist(), window), given).score

    own, best = (ledger(video, plan, 3, score=score, samples=300) for score in (exact, None))
    assert best.totals["see"] == 0.0
    assert own.totals["see"] == pytest.approx(0, abs=1e-20)
    assert own.totals["cross"] == pytest.approx(0, abs=EXACT)
    assert own.totals["path_kl"] == pytest.approx(best.totals["path_kl"], abs=EXACT)
    assert set(seen) == {((), (0,)), ((), (0, 1)), ((0,), (1, 2)), ((0, 1), (2, 3))}


def test_what_a_mask_hides_is_see_or_de() -> None:
    video = FiniteStateVideo(sticky_chain(3, 0.8), Codebook([[-1.0], [0.2], [1.0]]))
    plan = Plan((3.0, 3.0), 2, 3.0, 4, 4, floor=0.1, references=References.last(1), visible=(causal_mask(2),))
    hidden = ledger(video, plan, 2, samples=400)
    moved = ledger(video, plan, 2, samples=400, against=ExactScore(masked=True))
    full = ledger(video, plan, 2, score=ExactScore(masked=False), samples=400)
    assert hidden.totals["see"] > 10 * hidden.stderr["see"]
    assert moved.totals["see"] == 0.0
    assert full.totals["see"] == 0.0
    assert moved.totals["de"] > full.totals["de"]
    gap = hidden.terms.path - moved.terms.path  # the same sum, split differently
    agrees(gap, 0.0)


def test_the_table_and_its_totals_agree() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = Plan((4.0, 4.0), 2, 4.0, 4, 4, floor=0.1, references=References.last(1))
    result = ledger(video, plan, 3, score=PerturbedScore(0.1), samples=200)
    ar = ["NIE_AR", "DE", "SEE", "CROSS", "MB", "CLIP_BOUND"]
    assert sorted(result.table.term) == sorted(["NIE_INIT", "DE_INIT", "SEE_INIT", "CROSS_INIT", *(3 * ar)])
    assert set(result.table.form) == {"average"}
    for total, term in (("nie_ar", "NIE_AR"), ("de", "DE"), ("see", "SEE"), ("cross", "CROSS"), ("mb", "MB")):
        assert sum(result.column(term)) == pytest.approx(result.totals[total], rel=1e-12)
    sums = ("nie_init", "path_init", "nie_ar", "de", "see", "cross", "mb")
    assert sum(result.totals[name] for name in sums) == pytest.approx(result.totals["path_kl"], rel=1e-12)
    start = result.totals["nie_init"] + result.totals["path_init"]
    steps = np.sum([result.column(term) for term in ("NIE_AR", "DE", "SEE", "CROSS")], axis=0)
    assert result.column("CLIP_BOUND") == pytest.approx(start + np.cumsum(steps), rel=1e-12)
    gaussian = ledger(ArrayVideo(np.eye(8), 1), plan, 3)
    assert list(result.table.columns) == list(gaussian.table.columns)
    assert result.totals.keys() == gaussian.totals.keys()
    undefined = {name for name, value in result.totals.items() if value is None}
    assert undefined == {"kl", "ar_step_kl", "trajectory_kl", "ie", "girsanov", "closed", "lower_bound"}
    assert undefined <= result.notes.keys()


def test_runs_are_reproducible_and_may_be_cut_into_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    video = FiniteStateVideo(random_chain(2, generator=torch.Generator().manual_seed(3)), Codebook([[0.0], [1.0]]))
    plan = Plan((1.0, 3.0), 1, 3.0, 2, 2, floor=0.1)
    first, again, other = (ledger(video, plan, 2, samples=300, seed=seed) for seed in (1, 1, 2))
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)
    monkeypatch.setattr("arvdm_theory.laws.stage_law._MOST_ENTRIES", 1700)
    cut = ledger(video, plan, 2, samples=300, seed=1)
    both = [result.terms.of("de").samples for result in (cut, first)]
    assert both[0].shape == both[1].shape
    assert not torch.equal(*both)
    for name, value in cut.totals.items():
        if value is not None:
            expected = first.totals[name]
            assert expected is not None
            assert within(value, expected, math.hypot(cut.stderr[name], first.stderr[name]))


def test_the_true_windows_have_the_true_law() -> None:
    """The mean and covariance of X^T_new against the video's own, through NIE's leading term."""
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = Plan((0.5,), 1, 0.5, 1, 1, floor=0.1)
    terms = ledger_terms(video, plan, 1, samples=20000, memory=False)
    density = 0.5 * (
        normal(GRID, -float(alpha(torch.tensor(0.5))), float(sigma2(torch.tensor(0.5))))
        + normal(GRID, float(alpha(torch.tensor(0.5))), float(sigma2(torch.tensor(0.5))))
    )
    agrees(terms.initialisation.nie, divergence(density, normal(GRID, 0.0, 1.0)))


# -- errors ------------------------------------------------------------------------------------------------


def test_refusals_say_what_to_do() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    clean = Plan((4.0,), 1, 4.0, 2, 2)
    stopped = replace(clean, floor=0.1, output_levels=(), ar_grid=(), init_grid=())
    with pytest.raises(ValueError, match=r"no observation noise.*floor δ > 0.*decoded_ledger"):
        ledger(video, clean, 1)
    noisy = FiniteStateVideo(video.chain, Codebook([[-1.0], [1.0]], 0.1))
    assert ledger(noisy, clean, 1, samples=10).totals["path_kl"] is not None
    with pytest.raises(ValueError, match=r"ancestral.*no Gaussian kernel.*choose exponential"):
        ledger(video, stopped, 1, step="ancestral")
    with pytest.raises(ValueError, match=r"ddim.*without noise.*infinite"):
        ledger(video, stopped, 1, step="ddim")
    with pytest.raises(ValueError, match=r"ddpm.*without noise \(reverse step 2\).*above 0"):
        ledger(noisy, clean, 1, step="ddpm")
    assert ledger(video, stopped, 1, step="ddpm", samples=10).totals["de"] is not None
    with pytest.raises(ValueError, match="at least one AR step"):
        ledger(video, stopped, 0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        ledger(video, stopped, 1, samples=1)
    with pytest.raises(ValueError, match="tensor of the window's shape"):
        ledger(video, stopped, 1, score=lambda window, levels, references: window[:, 0], samples=4)
    with pytest.raises(ValueError, match=r"frames 1 to 1 is not finite at the levels \[4.0\]"):
        ledger(video, stopped, 1, score=lambda window, levels, references: window / 0, samples=4)

    class Affine:
        def affine(self, law: object) -> object:
            return law

    with pytest.raises(ValueError, match=r"score.*called.*Affine"):
        ledger(video, stopped, 1, score=Affine(), samples=4)
    for name in ("girsanov", "closed"):
        with pytest.raises(ValueError, match=rf"{name}: path bounds are computed for Gaussian videos only"):
            ledger(video, stopped, 1, samples=4, **{name: True})
    with pytest.raises(ValueError, match="ar_grid: levels in place of the plan's are for Gaussian videos"):
        ledger(video, stopped, 1, samples=4, ar_grid=torch.tensor(stopped.ar_grid, dtype=torch.float64))


def test_a_plan_that_breaks_the_condition_gets_no_clip_bound() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = Plan((4.0,), 1, 4.0, 2, 2, floor=0.1, references=References.last(2, 0.5))
    result = ledger(video, plan, 3, samples=20)
    assert "AR step 2 noises frame 1, which is neither" in result.notes["clip_bound"]
    assert result.column("CLIP_BOUND") == []


def test_memory_may_be_left_out() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = Plan((4.0,), 1, 4.0, 2, 2, floor=0.1)
    result = ledger(video, plan, 2, samples=20, memory=False)
    for name in ("mb", "path_kl", "floor"):
        assert result.totals[name] is None
        assert "on request" in result.notes[name]
    assert result.column("CLIP_BOUND")
