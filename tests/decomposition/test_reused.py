"""References that keep their noise: the ledger against one dense joint law, written out variable by variable.

The oracle knows nothing of stages, segments or held states. Scalar frames; a variable is a (frame, level, copy)
whose law under P follows from the video and the forward noise, and under Q from the sampler's own steps, in the
order in which HiAR takes them: one reverse step of all frames, then the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory import (
    ExactScore,
    GaussianVideo,
    PerturbedScore,
    Plan,
    PlanError,
    References,
    ar1,
    fifo,
    generate,
    ledger,
    method,
    outpainting,
    predicted_clip_kl,
    rates,
    sticky_chain,
)
from arvdm_theory.bounds.saturation import closed_loop
from arvdm_theory.experiments.claims.accumulation import same_level_plan
from arvdm_theory.laws.emission import Codebook
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.plan.file import plan_from_dict, plan_to_dict

Array = NDArray[np.float64]
Key = tuple[int, float, str]  # frame, level, and "" on the frame's own path or the name of a copy
ERROR, BIAS = 0.1, 0.2


def rotation() -> GaussianVideo:
    from arvdm_theory import state_space

    turn = [[0.9 * math.cos(0.9), -0.9 * math.sin(0.9)], [0.9 * math.sin(0.9), 0.9 * math.cos(0.9)]]
    return state_space(turn, 0.2 * np.eye(2), [[1.0, 0.4]], [[0.1]], mean=[0.7])


@dataclass
class Oracle:
    """Both laws of all variables so far."""

    clean: Array
    mean: float
    keys: list[Key] = field(default_factory=list)
    q_mean: Array = field(default_factory=lambda: np.zeros(0))
    q_cov: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def true(self, keys: list[Key]) -> tuple[Array, Array]:
        scale = np.array([math.exp(-level / 2) for _, level, _ in keys])
        cov = np.array([[self.clean[a[0], b[0]] for b in keys] for a in keys]) * np.outer(scale, scale)
        for i, a in enumerate(keys):
            for j, b in enumerate(keys):
                if a[0] == b[0]:
                    shared = min(a[1], b[1]) if a[2] == b[2] else 0.0
                    cov[i, j] += scale[i] * scale[j] * math.expm1(shared)
        return scale * self.mean, cov

    def sampled(self, keys: list[Key]) -> tuple[Array, Array]:
        at = [self.keys.index(key) for key in keys]
        return self.q_mean[at], self.q_cov[np.ix_(at, at)]

    def add(self, key: Key, source: list[Key], gain: Array, bias: float, noise: float) -> None:
        at = [self.keys.index(other) for other in source]
        cross = gain @ self.q_cov[at] if at else np.zeros(len(self.keys))
        own = (cross[at] @ gain if at else 0.0) + noise
        self.q_mean = np.append(self.q_mean, (gain @ self.q_mean[at] if at else 0.0) + bias)
        self.q_cov = np.block([[self.q_cov, cross[:, None]], [cross[None], np.array([[own]])]])
        self.keys.append(key)

    def reverse(self, window: list[Key], to: list[Key], shown: list[Key]) -> None:
        """One reverse step of the exponential integrator with s* - e W + c, frames apart only in their noise."""
        mean, cov = self.true([*window, *shown])
        n = len(window)
        on = np.linalg.solve(cov[n:, n:], cov[n:, :n]).T if shown else np.zeros((n, 0))
        precision = np.linalg.inv(cov[:n, :n] - on @ cov[n:, :n])
        gain = np.hstack([-precision, precision @ on])
        offset = -gain @ mean + BIAS
        gain[:, :n] -= ERROR * np.eye(n)
        for j, (before, after) in enumerate(zip(window, to, strict=True)):
            h = before[1] - after[1]
            if h > 0:
                row = 2 * math.expm1(h / 2) * gain[j]
                row[j] += math.exp(h / 2)
                bias = 2 * math.expm1(h / 2) * offset[j]
                self.add(after, [*window, *shown], row, bias, math.expm1(h))

    def ideal(self, window: list[Key], to: list[Key], shown: list[Key]) -> None:
        """The true law of the next state given window and references, of a window of one frame."""
        [key], source = to, [*window, *shown]
        mean, cov = self.true([key, *source])
        gain = np.linalg.solve(cov[1:, 1:], cov[1:, 0])
        self.add(key, source, gain, float(mean[0] - gain @ mean[1:]), float(cov[0, 0] - gain @ cov[1:, 0]))

    def kl(self, keys: list[Key]) -> float:
        (mean, cov), (q_mean, q_cov) = self.true(keys), self.sampled(keys)
        inverse, gap = np.linalg.inv(q_cov), mean - q_mean
        logs = np.linalg.slogdet(q_cov)[1] - np.linalg.slogdet(cov)[1]
        return float(np.trace(inverse @ cov) - len(keys) + logs + gap @ inverse @ gap) / 2


def chunks(
    video: GaussianVideo, plan: Plan, ar_steps: int, ideal: bool = False
) -> tuple[Oracle, list[Key], list[Key], list[Key]]:
    """The oracle of a plan with w = Δ; variables of Input_1, at the ends of AR steps, and of the trajectory."""
    frames = plan.total_frames(ar_steps)
    oracle = Oracle(video.covariance(frames)[0].numpy(), float(video.mean(1)[0, 0]))
    [pick] = plan.references.picks
    width, level = plan.window, pick.level
    first, steps, trajectory = [], [], []
    for k in range(ar_steps + 1):
        for frame in range(k * width, (k + 1) * width):
            oracle.add((frame, plan.horizon, ""), [], np.zeros(0), 0.0, 1.0)
            trajectory += [(frame, plan.horizon, "")] if k else []

    def shown(k: int, end: float) -> list[Key]:
        references = range(max(0, k * width - pick.count), k * width) if k else range(0)
        if pick.noise == "once":
            for frame in references:
                key = (frame, level, "once")
                if key not in oracle.keys:
                    a = math.exp(-level / 2)
                    oracle.add(key, [(frame, 0.0, "")], np.array([a]), 0.0, -math.expm1(-level))
                    steps.append(key)
                    trajectory.append(key)
            return [(frame, level, "once") for frame in references]
        return [(frame, end if pick.noise == "matched" else level, "") for frame in references]

    def reverse(k: int, m: int) -> None:
        rows = plan.ar_grid if k else plan.init_grid
        window, to = ([(k * width + j, rows[m + i][j], "") for j in range(width)] for i in range(2))
        (oracle.ideal if ideal else oracle.reverse)(window, to, shown(k, rows[m + 1][0]))
        last = m + 1 == len(rows) - 1
        kept = last or pick.noise == "matched" or (pick.noise == "own" and rows[m + 1][0] == level)
        steps.extend(to if kept else [])
        first.extend(to if kept and not k else [])
        trajectory.extend(to if k or kept else [])

    if pick.noise == "matched":
        for m in range(plan.reverse_steps):
            for k in range(ar_steps + 1):
                reverse(k, m)
    else:
        for k in range(ar_steps + 1):
            for m in range(plan.reverse_steps if k else plan.init_steps):
                reverse(k, m)
    return oracle, first, steps, trajectory


def chunk_plan(noise: str, level: float, count: int = 3) -> Plan:
    references = References.last(count, level, noise)  # type: ignore[arg-type]
    return Plan((4.0, 4.0), 2, 4.0, 4, 4, references=references)


KINDS = {"once": chunk_plan("once", 0.5), "own": chunk_plan("own", 2.0), "matched": chunk_plan("matched", 0.0)}


@pytest.mark.parametrize("video", [ar1(0.8), rotation()], ids=["auto-regression", "rotation"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kl_is_that_of_one_joint_law(kind: str, video: GaussianVideo) -> None:
    plan, count = KINDS[kind], 4
    oracle, first, steps, trajectory = chunks(video, plan, count)
    result = ledger(video, plan, count, score=PerturbedScore(ERROR, BIAS))
    clean: list[Key] = [(frame, 0.0, "") for frame in range(plan.clean_frames(count))]
    expected = {
        "ie": oracle.kl(first),
        "kl": oracle.kl(clean),
        "ar_step_kl": oracle.kl(steps),
        "trajectory_kl": oracle.kl(trajectory),
    }
    for name, value in expected.items():
        assert result.totals[name] == pytest.approx(value, rel=1e-9), name
    for k, found in enumerate(result.column("CLIP_KL"), start=1):
        assert found == pytest.approx(oracle.kl([(frame, 0.0, "") for frame in plan.clip_frames(k)]), rel=1e-9)
    ladder = [result.totals[name] for name in ("kl", "ar_step_kl", "trajectory_kl", "girsanov", "closed")]
    assert ladder == sorted(ladder)  # type: ignore[type-var]
    assert result.totals["floor"] is None
    assert "tell of older frames" in result.notes["floor"]


@pytest.mark.parametrize("kind", KINDS)
def test_ideal_kernels_of_kept_noise(kind: str) -> None:
    """Every reverse step is right given what it is shown: IE is NIE's, and yet matched references cost clip KL."""
    alone = {"input_levels": (4.0,), "output_levels": (), "stride": 1, "ar_grid": (), "init_grid": ()}
    plan, count = replace(KINDS[kind], **alone), 4  # type: ignore[arg-type]
    oracle, first, steps, trajectory = chunks(rotation(), plan, count, ideal=True)
    result = ledger(rotation(), plan, count, step="ancestral")
    clean: list[Key] = [(frame, 0.0, "") for frame in range(plan.clean_frames(count))]
    expected = {"ie": first, "kl": clean, "ar_step_kl": steps, "trajectory_kl": trajectory}
    for name, keys in expected.items():
        assert result.totals[name] == pytest.approx(oracle.kl(keys), rel=1e-8, abs=1e-10), name
    assert result.totals["de"] == pytest.approx(0.0, abs=1e-12)
    assert (result.column("CLIP_KL")[-1] > 0.01) == (kind == "matched")


def test_the_errors_of_ar_steps_are_those_of_their_kernels() -> None:
    """E_k + MB_k is what an AR step adds to the KL of all that stands at the ends of AR steps."""
    video = rotation()
    for plan in KINDS.values():
        kls = [chunks(video, plan, k) for k in (2, 3)]
        less, more = (oracle.kl(steps) for oracle, _, steps, _ in kls)
        terms = ledger(video, plan, 3, score=PerturbedScore(ERROR, BIAS)).terms
        added = float(terms.ar_step_errors[2]) + float(terms.held_mb[2])
        assert added == pytest.approx(more - less, rel=1e-8)


def fifo_oracle(video: GaussianVideo, plan: Plan, ar_steps: int) -> tuple[Oracle, list[Key]]:
    """Δ = 1 and references noised once; the trajectory's variables."""
    frames, w = plan.total_frames(ar_steps), plan.window
    oracle = Oracle(video.covariance(frames)[0].numpy(), float(video.mean(1)[0, 0]))
    [pick] = plan.references.picks
    start = list(range(w - 1))
    for frame in start:
        oracle.add((frame, plan.horizon, "begun"), [], np.zeros(0), 0.0, 1.0)
    for m in range(plan.init_steps):  # on paths of their own: clean versions are thrown away
        window, to = ([(frame, plan.init_grid[m + i][frame], "begun") for frame in start] for i in range(2))
        oracle.reverse(window, to, [])
    trajectory: list[Key] = []
    for frame in start:
        level = plan.input_levels[frame]
        key, a = (frame, level, ""), math.exp(-level / 2)
        oracle.add(key, [(frame, 0.0, "begun")], np.array([a]), 0.0, -math.expm1(-level))
        trajectory.append(key)
    for k in range(1, ar_steps + 1):
        new = k - 1 + w - 1
        oracle.add((new, plan.horizon, ""), [], np.zeros(0), 0.0, 1.0)
        shown: list[Key] = []
        for frame in range(max(0, k - 1 - pick.count), k - 1):
            key, a = (frame, pick.level, "once"), math.exp(-pick.level / 2)
            if key not in oracle.keys:
                oracle.add(key, [(frame, 0.0, "")], np.array([a]), 0.0, -math.expm1(-pick.level))
                trajectory.append(key)
            shown.append(key)
        trajectory.append((new, plan.horizon, ""))
        for m in range(plan.reverse_steps):
            window, to = ([(k - 1 + j, plan.ar_grid[m + i][j], "") for j in range(w)] for i in range(2))
            oracle.reverse(window, to, shown)
            trajectory.extend(to)
    return oracle, trajectory


def test_copies_that_are_noised_once_where_windows_overlap() -> None:
    video, plan = rotation(), fifo(3, References.last(2, 0.5, "once"), 3, 4, 3.0)
    oracle, trajectory = fifo_oracle(video, plan, 4)
    result = ledger(video, plan, 4, score=PerturbedScore(ERROR, BIAS))
    assert result.totals["trajectory_kl"] == pytest.approx(oracle.kl(trajectory), rel=1e-9)
    assert result.totals["kl"] == pytest.approx(oracle.kl([(frame, 0.0, "") for frame in range(4)]), rel=1e-9)


def test_several_modes_and_frames_of_two_entries() -> None:
    """Frames of independent entries are so many scalar videos."""
    kinds = [ledger(ar1(0.8, np.diag([1.0, 1.0])), plan, 3, score=PerturbedScore(0.1)) for plan in KINDS.values()]
    for plan, both in zip(KINDS.values(), kinds, strict=True):
        one = ledger(ar1(0.8), plan, 3, score=PerturbedScore(0.1))
        for name in ("kl", "ar_step_kl", "trajectory_kl", "mb"):
            assert both.totals[name] == pytest.approx(2 * one.totals[name], rel=1e-10)  # type: ignore[operator]


def test_matched_references_are_a_pipeline_whose_frames_see_the_one_before() -> None:
    """The same sampler as another plan, Δ = 1 with a mask, whose rate comes from recursions."""
    plan = Plan((6.0,), 1, 6.0, 5, 5, references=References.last(1, noise="matched"))
    kls = [ledger(ar1(0.8), plan, k, girsanov=False, memory=False).totals["kl"] for k in (29, 30)]
    assert kls[1] - kls[0] == pytest.approx(float(rates(ar1(0.8), same_level_plan(5)).kl), rel=1e-9)  # type: ignore[operator]


# -- what is generated --------------------------------------------------------------------------------


def standard_errors(plan: Plan, law: tuple[Array, Array], n: int = 20_000) -> float:
    """The largest gap between the moments of generated videos and a law's, in standard errors."""
    mean, cov = law
    variance = np.diag(cov)
    made = generate(PerturbedScore(ERROR, BIAS), plan, 2, n, video=rotation(), seed=1)[..., 0].numpy()
    gaps = np.abs(made.mean(0) - mean) / np.sqrt(variance / n)
    spread = np.abs(np.cov(made.T) - cov) / np.sqrt((np.outer(variance, variance) + cov**2) / n)
    return float(max(gaps.max(), spread.max()))


def sampled(plan: Plan) -> tuple[Array, Array]:
    oracle, *_ = chunks(rotation(), plan, 2)
    return oracle.sampled([(frame, 0.0, "") for frame in range(plan.clean_frames(2))])


@pytest.mark.parametrize("kind", KINDS)
def test_generated_videos_have_the_samplers_law(kind: str) -> None:
    assert standard_errors(KINDS[kind], sampled(KINDS[kind])) < 5


def test_fresh_noise_is_told_apart() -> None:
    """The last test can fail."""
    fresh = replace(KINDS["own"], references=References.last(3, 2.0))
    assert standard_errors(fresh, sampled(KINDS["own"])) > 7
    assert standard_errors(fresh, sampled(KINDS["matched"])) > 7


@pytest.mark.parametrize("key", ["causvid", "self-forcing", "hiar"])
def test_published_samplers_that_noise_their_prediction_again(key: str) -> None:
    """Their last step adds no noise: the KL of the path is infinite, that of clean frames and clips is not."""
    entry = method(key)
    plan = entry.build(frames=1, **({} if key == "causvid" else {"memory": 2}))
    result = ledger(ar1(0.8), plan, 3, step=entry.step)
    assert result.totals["trajectory_kl"] is None
    assert 0 < result.totals["kl"] < math.inf  # type: ignore[operator]
    assert all(0 < value < math.inf for value in result.column("CLIP_KL"))
    assert (result.totals["ie"] is None) == (key == "hiar")


# -- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: References.last(2, 0.0, "once"), "needs a level above 0"),
        (lambda: References.last(2, 0.5, "matched"), "at none of its own, got 0.5"),
        (lambda: References.last(2, 0.5, "sometimes"), "the noise is fresh, once, own, matched, got 'sometimes'"),
        (lambda: fifo(3, References.last(2, 1.0, "own")), "are kept where w = Δ, but w = 3 and Δ = 1"),
        (lambda: outpainting(2, References.last(2, noise="matched"), 10, 20), "its 10 reverse steps"),
        (lambda: chunk_plan("own", 1.7), "never stands at level 1.7 in the initialisation grid.*nearest is 2.0"),
    ],
)
def test_plans_that_have_no_such_states(make: object, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        make()  # type: ignore[operator]


def test_what_is_for_fresh_noise_says_so() -> None:
    video, plan, matched = ar1(0.8), KINDS["own"], KINDS["matched"]
    with pytest.raises(ValueError, match="keep their noise are states of their own"):
        rates(video, plan)
    with pytest.raises(PlanError, match="the saturating bound is for plans whose references are clean"):
        closed_loop(video, plan, 3)
    with pytest.raises(PlanError, match="a prediction of rollouts"):
        predicted_clip_kl(video, plan, 2, ExactScore(video))
    with pytest.raises(PlanError, match="shows frames at the level of each reverse step"):
        matched.stage(1)
    with pytest.raises(ValueError, match="dpm\\+\\+2m step reaches over"):
        ledger(video, matched, 2, step="dpm++2m")
    grid = torch.tensor(plan.ar_grid, dtype=torch.float64)
    with pytest.raises(PlanError, match="a grid in place of the plan's"):
        ledger(video, plan, 2, ar_grid=grid)
    with pytest.raises(ValueError, match="states of their own on the way out"):
        generate(ExactScore(video), plan, 3, 2, video=video, prompt=torch.zeros(2, 2, 1, dtype=torch.float64))
    poses = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]], 0.3))
    with pytest.raises(ValueError, match="are for Gaussian videos"):
        ledger(poses, matched, 1, samples=10)
    assert "references at one level" in ledger(video, matched, 2).notes["clip_bound"]
    assert ledger(video, matched, 2, accumulation=True).notes["accumulation_bound"].endswith("keep their noise")


def test_section_5_holds_for_what_is_kept() -> None:
    """A copy that was noised once is handed on, a fresh one is not: the bound on clips holds for the first."""
    video = ar1(0.8)
    for kind in ("once", "own"):
        result = ledger(video, KINDS[kind], 5, score=PerturbedScore(0.1))
        bounds = result.column("CLIP_BOUND")
        assert bounds
        assert all(a <= b for a, b in zip(result.column("CLIP_KL"), bounds, strict=True))
    assert not ledger(video, replace(KINDS["once"], references=References.last(3, 0.5)), 5).column("CLIP_BOUND")


def test_plan_files_hold_whose_noise_it_is() -> None:
    for plan in KINDS.values():
        assert plan_from_dict(plan_to_dict(plan)) == plan


def test_a_network_pays_the_same_terms_as_with_fresh_noise() -> None:
    """NIE, DE, SEE, CROSS and MB are the law's and the score's; only IE and the rollout know whose noise it is."""
    video, plan = ar1(0.8), KINDS["once"]
    bent = lambda window, levels, references: -torch.tanh(window)  # noqa: E731
    kept, fresh = (
        ledger(video, each, 3, score=bent, samples=200, seed=3)
        for each in (plan, replace(plan, references=References.last(3, 0.5)))
    )
    for name in ("nie_ar", "de", "see", "cross", "mb", "path_kl"):
        assert kept.totals[name] == pytest.approx(fresh.totals[name], rel=1e-12)
    assert kept.totals["kl"] is None
