"""A controlled video: terms given the actions, that the score is told or not, against dense algebra by hand.

The joint law of frames and actions is written out from the recursion of the states, column by column, and
conditioned with NumPy. Averages hold within Z = 4.5 standard errors; seeds were fixed before the first run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from arvdm_theory import (
    ArrayVideo,
    ControlledVideo,
    ExactScore,
    Number,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    VideoBatch,
    VideoLaw,
    generate,
    ledger,
    ledger_terms,
    memory_bottleneck,
    memory_bottleneck_from_scores,
    predicted_clip_kl,
)
from arvdm_theory.decomposition.terms import StageErrors
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.stage_law import WindowPosterior
from arvdm_theory.laws.states import State
from arvdm_theory.plan.references import causal_mask
from arvdm_theory.rollout.measure import divergence_from_known

Array = NDArray[np.float64]
Z = 4.5
EXACT = 1e-9

A = np.array([[0.8, 0.1], [0.0, 0.6]])
Q = np.array([[0.2, 0.05], [0.05, 0.1]])
C = np.array([[1.0, 0.0], [0.5, 1.0]])
R = np.array([[0.1, 0.02], [0.02, 0.2]])
G = np.array([[0.7], [-0.4]])
U = np.array([[1.3]])
MEAN = np.array([0.3, -0.2])
START = np.array([[0.5, 0.1], [0.1, 0.4]])
D, ACTION = 2, 1


def video(**changes: Any) -> ControlledVideo:
    given = {
        "transition": A, "process_noise": Q, "observation": C, "observation_noise": R, "control": G, "policy": U,
        "mean": MEAN, "initial_covariance": START,
    }  # fmt: skip
    return ControlledVideo(**(given | changes))


PLANS = {
    "outpainting": Plan((3.0, 3.0), 2, 3.0, 3, 3, references=References.last(1)),
    "noised reference": Plan((3.0, 3.0), 2, 3.0, 3, 3, references=References.last(2, 0.5), floor=0.1),
    "FIFO": Plan((1.0, 2.0, 3.0), 1, 3.0, 2, 3, references=References.last(1)),
    "masked": Plan((1.5, 3.0, 3.0), 2, 3.0, 2, 3, references=References.last(1), visible=(causal_mask(3),)),
}
STEPS = 2


# -- by hand -----------------------------------------------------------------------------------------------


def joint(frames: int) -> tuple[Array, Array]:
    """Covariance of (frames, actions) and the frames' mean, by running the recursion on every unit of noise."""
    sources = [("start", i) for i in range(2)] + [(kind, t, i) for t in range(frames)
               for kind, n in (("q", 2), ("r", D), ("u", ACTION)) for i in range(n)]  # fmt: skip
    roots = {"start": START, "q": Q, "r": R, "u": U}
    columns = []
    for source in sources:

        def unit(kind: str, t: int, source: tuple[Any, ...] = source) -> Array:
            if source[0] != kind or (len(source) == 3 and source[1] != t):
                return np.zeros(len(roots[kind]))
            return np.linalg.cholesky(roots[kind])[:, source[-1]]

        column, actions, state = [], [], unit("start", 0)
        for t in range(frames):
            action = unit("u", t)
            # The start is the covariance of z_0 - G u_0: the first state has no process noise of its own.
            state = (A @ state + unit("q", t) if t else state) + G @ action
            column.append(C @ state + unit("r", t))
            actions.append(action)
        columns.append(np.concatenate([*column, *actions]))
    root = np.stack(columns, 1)
    return root @ root.T, np.tile(MEAN, frames)


class Dense:
    """The joint law of noisy states and actions, conditioned with NumPy."""

    def __init__(self, frames: int) -> None:
        self.covariance, self.mean = joint(frames)
        self.frames = frames

    def of(self, states: list[tuple[int, float, float | None]], actions: bool) -> Array:
        """Covariance of states (frame, level, where it parts from the frame's own path) and then actions."""
        rows = [f * D + i for f, _, _ in states for i in range(D)]
        rows += list(range(self.frames * D, self.frames * (D + ACTION))) if actions else []
        clean = self.covariance[np.ix_(rows, rows)].copy()
        scale = np.ones(len(rows))
        noise = np.zeros_like(clean)
        for a, (f, t, own_t) in enumerate(states):
            scale[a * D : (a + 1) * D] = math.exp(-t / 2)
            for b, (g, s, own_s) in enumerate(states):
                if f == g:
                    shared = min(t, s, *(x for x in (own_t, own_s) if a != b and x is not None))
                    noise[a * D : (a + 1) * D, b * D : (b + 1) * D] = np.eye(D) * math.expm1(shared)
        return scale[:, None] * scale * (clean + noise)


def conditional(covariance: Array, n: int) -> tuple[Array, Array]:
    """Gain and covariance of the first n entries given the others."""
    if n == len(covariance):
        return np.zeros((n, 0)), covariance
    gain = np.linalg.solve(covariance[n:, n:], covariance[n:, :n]).T
    return gain, covariance[:n, :n] - gain @ covariance[n:, :n]


def by_hand(plan: Plan, k: int, error: float, told: bool) -> dict[str, float]:
    """NIE, DE, SEE and CROSS summed over the stage, and MB, all given the actions up to the window's last.

    The sampler is the exponential integrator with the exact score (told the actions or not) minus ``error`` times
    the window; SEE is against the score that is told all. Everything is a quadratic form of one Gaussian vector.
    """
    stage = plan.stage(k)
    dense, w = Dense(stage.frames.stop), stage.window
    known = [(r.frame, r.level, plan.floor if r.level > plan.floor else None) for r in stage.references]
    size, y = w * D, len(known) * D

    fresh = [(f, plan.horizon, None) for f in list(stage.frames)[stage.kept :]]
    entering = [(stage.frames[j], stage.grid[0][j], None) for j in range(stage.kept)]
    full = dense.of([*fresh, *entering, *known], True)
    left = conditional(full, len(fresh) * D)[1]
    mean = np.repeat(np.exp(-plan.horizon / 2), len(fresh) * D) * np.tile(MEAN, len(fresh))
    # E[KL(N(m, S) ‖ N(0, I))] with E[m mᵀ] = Cov - S + mean meanᵀ.
    second = full[: len(fresh) * D, : len(fresh) * D] + np.outer(mean, mean)
    found = {"nie": 0.5 * (np.trace(second) - len(mean) - np.linalg.slogdet(left)[1])}
    found |= dict.fromkeys(("de", "see", "cross"), 0.0)
    for m in range(stage.steps):
        high, low = stage.grid[m], stage.grid[m + 1]
        window = [(f, t, None) for f, t in zip(stage.frames, high, strict=True)]
        moved = [j for j in range(w) if high[j] > low[j]]
        below = [(stage.frames[j], low[j], None) for j in moved]
        everything = dense.of([*below, *window, *known], True)  # (W', W, R, U), all conditional laws are linear
        n = len(moved) * D
        index = [j * D + i for j in moved for i in range(D)]
        gain, spread = conditional(everything, n)
        upper = everything[n:, n:]
        scores = {}
        for name, size_known in (("told", len(upper)), ("not", size + y)):
            on_known, open_ = conditional(upper[:size_known, :size_known], size)
            rows = np.zeros((size, len(upper)))
            rows[:, :size] = -np.linalg.inv(open_)
            rows[:, size:size_known] = np.linalg.solve(open_, on_known)
            scores[name] = rows[index]
        h = np.array([high[j] - low[j] for j in moved]).repeat(D)
        on_window, on_score, q = np.exp(h / 2), 2 * np.expm1(h / 2), np.expm1(h)
        pick = np.eye(len(upper))[index]
        star = on_window[:, None] * pick + on_score[:, None] * scores["told"]
        miss = on_score[:, None] * ((scores["told"] if told else scores["not"]) - error * pick - scores["told"])
        # Means: the exact score of either kind has none about the conditional mean; -e W has -e E[W].
        level = np.exp(-np.array([high[j] for j in moved]) / 2).repeat(D)
        bias = -on_score * error * level * np.tile(MEAN, len(moved))
        gap = star - gain
        gap_mean = on_window * level * np.tile(MEAN, len(moved)) - np.exp(
            -np.array([low[j] for j in moved]) / 2
        ).repeat(D) * np.tile(MEAN, len(moved))  # star's mean less the true one's

        def form(first: Array, second: Array, a: Array, b: Array, q: Array = q, upper: Array = upper) -> float:
            return float(((first @ upper * second).sum(1) / q).sum() + (a * b / q).sum())

        found["de"] += 0.5 * (
            np.sum(np.diag(spread) / q) - n + np.log(q).sum() - np.linalg.slogdet(spread)[1]
            + form(gap, gap, gap_mean, gap_mean)
        )  # fmt: skip
        found["see"] += 0.5 * form(miss, miss, bias, bias)
        found["cross"] += form(gap, miss, gap_mean, bias)
    if k:
        out = [(stage.frames[j], stage.grid[-1][j], None) for j in stage.output]
        past = [(f, plan.floor, None) for f in stage.past]
        full = dense.of([*out, *entering, *known, *past], True)
        if past:
            order = [
                *range((len(out) + len(entering)) * D + y),
                *range(len(full) - dense.frames * ACTION, len(full)),
            ]
            wide = conditional(full[np.ix_(order, order)], len(out) * D)[1]
            found["mb"] = 0.5 * (
                np.linalg.slogdet(wide)[1] - np.linalg.slogdet(conditional(full, len(out) * D)[1])[1]
            )
        else:
            found["mb"] = 0.0
    return found


def totals(errors: StageErrors) -> dict[str, float]:
    found = {"nie": float(errors.nie)} | {
        name: float(getattr(errors, name).sum()) for name in ("de", "see", "cross")
    }
    return found if errors.mb is None else found | {"mb": float(errors.mb)}


@pytest.mark.parametrize("name", [name for name in PLANS if name != "masked"])
@pytest.mark.parametrize("told", [True, False])
def test_every_term_is_that_of_the_joint_law_given_the_actions(name: str, told: bool) -> None:
    plan = PLANS[name]
    score = PerturbedScore(0.1, base=ExactScore(actions=told))
    terms = ledger_terms(video(), plan, STEPS, score=score)
    for k, stage in enumerate((terms.initialisation, *terms.ar)):
        assert totals(stage) == pytest.approx(by_hand(plan, k, 0.1, told), abs=EXACT)
    assert (float(terms.ar[1].mb) > 0.01) == (name != "FIFO")  # whose two references are all that is out


def test_told_its_actions_it_is_the_video_without_them_moved_about() -> None:
    """DE, SEE, MB and clip KL of the exact score do not see the mean, so they are those of the still video."""
    plan = PLANS["outpainting"]
    frames = plan.total_frames(STEPS)
    full, n = joint(frames)[0], frames * D
    still = ArrayVideo(conditional(full, n)[1], D, np.tile(MEAN, frames))
    controlled, alone = ledger(video(), plan, STEPS), ledger(still, plan, STEPS)
    for term in ("DE", "SEE", "MB"):
        assert controlled.column(term) == pytest.approx(alone.column(term), abs=EXACT)
    blind = ledger(video(), plan, STEPS, score=ExactScore(actions=False))
    assert blind.totals["see"] > 0.1  # what the actions tell
    assert blind.totals["mb"] == pytest.approx(controlled.totals["mb"], abs=EXACT)
    assert blind.totals["kl"] > controlled.totals["kl"]
    free = ledger(video(control=np.zeros((2, 1))), plan, STEPS, score=ExactScore(actions=False))
    assert free.totals["see"] == pytest.approx(0, abs=EXACT)
    assert free.totals["kl"] == pytest.approx(alone.totals["kl"], abs=EXACT)


# -- the default path --------------------------------------------------------------------------------------


class Plain(VideoLaw):
    """The controlled video that only draws, with actions, and knows densities with their gradients."""

    frame_dim, name = D, "plain"

    def __init__(self) -> None:
        self.video = video()

    @property
    def action_dim(self) -> int:
        return ACTION

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        return self.video.draw(videos, frames, generator)

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        return self.video.log_density(window, given)

    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior:
        return self.video.posterior(window, given)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("told", [True, False])
def test_averages_over_true_videos_agree(name: str, told: bool) -> None:
    score = PerturbedScore(0.1, base=ExactScore(actions=told))
    exact = ledger_terms(video(), PLANS[name], STEPS, score=score, girsanov=False)
    sampled = ledger_terms(Plain(), PLANS[name], STEPS, score=score, samples=2000, seed=1)
    for mine, true in zip((sampled.initialisation, *sampled.ar), (exact.initialisation, *exact.ar), strict=True):
        pairs = [(getattr(mine, term), getattr(true, term)) for term in ("nie", "de", "see", "cross", "mb")]
        pairs.append((mine.direct, true.de + true.see + true.cross))
        for number, right in pairs:
            assert (number is None) == (right is None)
            if number is not None:
                gap, room = torch.as_tensor(number.value - right.value), torch.as_tensor(number.stderr)
                assert bool((gap.abs() <= Z * room + EXACT).all())


def test_scores_against_the_joint_law_and_what_they_are_told() -> None:
    law, dense = video(), Dense(4)
    generator = torch.Generator().manual_seed(2)
    window = torch.randn(3, 2, D, dtype=torch.float64, generator=generator)
    values = torch.randn(3, 1, D, dtype=torch.float64, generator=generator)
    actions = torch.randn(3, 6, ACTION, dtype=torch.float64, generator=generator)
    levels = torch.tensor([0.4, 1.2], dtype=torch.float64)
    shown = ReferenceBatch.shown(values, torch.tensor([0.3], dtype=torch.float64), (1,), (2, 3), actions)
    scale = np.exp(-np.array([0.4, 1.2, 0.3]) / 2).repeat(D)
    for told in (True, False):
        full = dense.of([(2, 0.4, None), (3, 1.2, None), (1, 0.3, None)], told)
        seen = np.concatenate([window.flatten(1).numpy(), values.flatten(1).numpy()], 1) - scale * np.tile(MEAN, 3)
        if told:
            seen = np.concatenate([seen, actions[:, :4].flatten(1).numpy()], 1)
        right = -np.linalg.solve(full, seen.T).T[:, : 2 * D]
        for each in (law, Plain()):
            found = ExactScore(each, actions=told)(window, levels, shown)
            assert np.allclose(found.flatten(1).numpy(), right, rtol=0, atol=EXACT)


# -- rollout, bottleneck, prediction -----------------------------------------------------------------------

PLAN = PLANS["noised reference"]


def clip_kl(made: Tensor, actions: Tensor, plan: Plan, k: int) -> Number:
    """KL of the clip conditional on the actions: the joint KL of (actions, clip), whose actions are the same."""
    last = plan.clean_frames(k)
    clip, frames = range(last - plan.stride, last), plan.total_frames(STEPS)
    states = [(f, plan.floor, None) for f in clip]
    covariance = Dense(frames).of(states, True)
    mean = np.concatenate([math.exp(-plan.floor / 2) * np.tile(MEAN, len(clip)), np.zeros(frames * ACTION)])
    both = torch.cat([made[:, clip.start : clip.stop].flatten(1), actions[:, :frames].flatten(1)], 1)
    return divergence_from_known(mean, covariance, both.numpy())


@pytest.mark.parametrize("told", [True, False])
def test_the_rollout_is_conditional_on_the_actions(told: bool) -> None:
    law, n = video(), 12000
    frames = PLAN.total_frames(STEPS)
    actions = law.draw(n, frames, torch.Generator().manual_seed(3)).actions
    assert actions is not None
    score = ExactScore(actions=told)
    made = generate(score, PLAN, STEPS, n, video=law, actions=actions, seed=4)
    exact = ledger(law, PLAN, STEPS, score=score)
    for k, right in enumerate(exact.column("CLIP_KL"), start=1):
        found = clip_kl(made, actions, PLAN, k)
        assert abs(found.value - right) <= Z * found.stderr
        assert right > (20 * found.stderr if not told else 0)
    # The frames follow the actions if the score is told them, and never those that come after.
    final = made[:, -1, 0]
    own, later = (float(torch.corrcoef(torch.stack([final, actions[:, t, 0]]))[0, 1]) for t in (-1, 0))
    assert (abs(own) > 0.2) == told
    other = generate(score, PLAN, STEPS, n, video=law, actions=-actions, seed=4)
    assert torch.equal(other, made) == (not told)
    first = actions.clone()
    first[:, -2:] *= -1  # those of the last window's frames alone
    again = generate(score, PLAN, STEPS, n, video=law, actions=first, seed=4)
    assert torch.equal(again[:, : frames - 2], made[:, : frames - 2])
    assert torch.equal(again[:, -1], made[:, -1]) == (not told)
    assert abs(later) < 1


def test_without_given_actions_they_are_drawn_from_the_policy() -> None:
    made = generate(None, PLAN, 1, 6000, video=video(), seed=5)
    at = math.exp(-PLAN.floor)
    right = at * joint(4)[0][6, 6] + 1 - at  # the first entry of the last frame, actions averaged out
    own = made[:, 3, 0] - made[:, 3, 0].mean()
    # Three reverse steps are a coarse sampler: the spread is that of its own closed form, not of the truth.
    exact = ledger(video(), PLAN, 1)
    assert exact.totals["kl"] is not None
    found = divergence_from_known(
        math.exp(-PLAN.floor / 2) * np.tile(MEAN, 2), Dense(4).of([(2, 0.1, None), (3, 0.1, None)], False),
        made[:, 2:4].flatten(1).numpy(),
    )  # fmt: skip
    assert found.value <= exact.column("CLIP_KL")[0] + Z * found.stderr  # averaging loses information
    assert 0.3 * right < float((own**2).mean()) < 3 * right


def test_the_bottleneck_from_scores_is_conditional_on_the_actions() -> None:
    law, plan = video(), PLANS["outpainting"]
    right = by_hand(plan, 2, 0.0, True)["mb"]
    exact = memory_bottleneck(law, plan, 2)
    assert exact.is_exact
    assert float(exact) == pytest.approx(right, abs=EXACT)
    made = law.draw(1500, plan.total_frames(2), torch.Generator().manual_seed(6))
    found = memory_bottleneck_from_scores(
        made.frames, plan, 2, video=law, actions=made.actions, form="difference", points=6
    )
    assert abs(found.value - right) <= Z * found.stderr
    assert found.stderr < 0.2 * right


@pytest.mark.parametrize("told", [True, False])
def test_the_prediction_is_conditional_on_the_actions(told: bool) -> None:
    score = PerturbedScore(0.1, base=ExactScore(actions=told))
    right = ledger(video(), PLAN, STEPS, score=score)
    found = predicted_clip_kl(video(), PLAN, STEPS, score, samples=600, seed=7)
    # The regression on all that a score is told finds an affine score exactly, whatever the samples.
    for form in ("linear", "linear_residual"):
        assert found.column("CLIP_KL", form) == pytest.approx(right.column("CLIP_KL"), rel=1e-6)
    bounds = found.column("CLIP_KL", "bound")
    assert bounds == pytest.approx(right.column("CLIP_BOUND"), rel=1e-12)
    assert all(bound > clip for bound, clip in zip(bounds, right.column("CLIP_KL"), strict=True))


# -- the law itself, and bad input -------------------------------------------------------------------------


def test_draws_and_moments_are_those_of_the_recursion() -> None:
    law, frames, n = video(), 4, 20000
    covariance, mean = joint(frames)
    found_mean, found = law.joint_moments(frames)
    assert np.allclose(found[0].numpy(), covariance, rtol=0, atol=1e-12)
    assert np.allclose(found_mean[0].numpy(), np.concatenate([mean, np.zeros(frames)]), rtol=0, atol=1e-12)
    made = law.draw(n, frames, torch.Generator().manual_seed(8))
    assert made.actions is not None
    rows = torch.cat([made.frames.flatten(1), made.actions.flatten(1)], 1).numpy()
    own = np.cov(rows.T)
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert (np.abs(own - covariance) <= 5 * error).all()
    density = law.log_density(Evidence((State(1, 0.2),), made.frames[:3, 1:2]), Evidence(actions=made.actions[:3]))
    assert density.shape == (3,)
    stationary = video(initial_covariance=None)
    late = stationary.joint_moments(60)[1][0]
    assert torch.allclose(late[-62:-60, -62:-60], late[-62:-60, -62:-60].mT)
    still = conditional(stationary.joint_moments(3)[1][0].numpy(), 3 * D)[1]
    assert np.allclose(still[:D, :D], still[2 * D :, 2 * D :], rtol=0, atol=1e-12)  # stationary given the actions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": np.ones((2, 2))}, r"control G must be finite numbers of shape \(2, 1\), got \(2, 2\)"),
        ({"control": np.full((2, 1), math.nan)}, r"control G must be finite numbers"),
        ({"policy": np.ones((1, 2))}, "policy U"),
        ({"transition": 1.1 * np.eye(2), "initial_covariance": None}, "spectral radius"),
        ({"mean": np.zeros(3)}, "mean"),
    ],
)
def test_malformed_videos_are_refused(changes: dict[str, Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        video(**changes)


def test_a_policy_must_be_positive_definite() -> None:
    with pytest.raises(NotPositiveDefiniteError, match="policy U"):
        video(policy=np.zeros((1, 1)))


def test_missing_or_misshapen_actions_are_refused() -> None:
    law, plan = video(), PLANS["outpainting"]
    frames = plan.total_frames(1)
    with pytest.raises(ValueError, match=rf"{frames} frames are generated or begun, and have actions, but only 3"):
        generate(None, plan, 1, 4, video=law, actions=torch.zeros(4, 3, ACTION))
    with pytest.raises(ValueError, match=r"the actions must be finite numbers of shape \(4, frames, entries\)"):
        generate(None, plan, 1, 4, video=law, actions=torch.zeros(5, frames, ACTION))
    with pytest.raises(ValueError, match=r"an action of 'controlled' has 1 entries, got 2"):
        generate(None, plan, 1, 4, video=law, actions=torch.zeros(4, frames, 2))
    with pytest.raises(ValueError, match=r"exact score of 'controlled' is told its actions"):
        ExactScore(law)(torch.zeros(1, 2, D), torch.ones(2), ReferenceBatch(
            torch.zeros(1, 0, D), torch.zeros(0), (), (0, 1)))  # fmt: skip
    made = law.draw(40, plan.total_frames(2), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"exact score of 'controlled' is told its actions: give them"):
        memory_bottleneck_from_scores(made.frames, plan, 2, video=law)
    with pytest.raises(ValueError, match=r"an action of 'controlled' has 1 entries, got 3"):
        law.log_density(Evidence((State(1, 0.2),), made.frames[:3, 1:2]), Evidence(actions=torch.zeros(3, 2, 3)))
    with pytest.raises(ValueError, match=r"4 frames are needed, but the video 'controlled' has 1"):
        ledger(video(length=1), plan, 1)
