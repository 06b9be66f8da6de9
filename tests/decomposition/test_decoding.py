"""Decoding as a kernel of the sampler: laws of states against enumeration, quadrature and plain simulation.

Statements about averages hold within Z = 4.5 standard errors (as in test_finite.py), families jointly by a
chi-square test at the level 1e-3. Seeds were fixed before the first run.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from finite_enumeration import Array, random_law
from finite_quadrature import CELL, WIDE, Scalar
from scipy.stats import chi2
from torch import Tensor

from arvdm_theory import (
    Codebook,
    FiniteStateVideo,
    MarkovChain,
    Number,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    Result,
    decoded_ledger,
    sticky_chain,
)
from arvdm_theory.decomposition.state_kernels import frames_law, state_kernels
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.information.transfer import TableSizeError, first_frames
from arvdm_theory.laws.chains import ChainError, periodic_chain, random_chain
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.inference import infer, sample_posterior
from arvdm_theory.laws.sampled_information import sampled_information
from arvdm_theory.laws.states import State

Z = 4.5
EXACT = 1e-9
SCALAR = Scalar(np.array([-1.2, 0.7]), np.array([[0.85, 0.15], [0.3, 0.7]]), 0.0)
LEVELS = (3.0, 1.6, 0.8, 0.4)
ERROR = 0.1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plan_of(window: int, references: References, steps: int = 3) -> Plan:
    return Plan((3.0,) * window, window, 3.0, steps, steps, references=references, floor=0.1, spacing="geometric")


# -- laws of states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("frames", [(0,), (1,), (0, 2), (1, 2, 5), (0, 3, 4), (4, 5)])
def test_laws_of_chosen_frames_match_the_whole_joint(order: int, frames: tuple[int, ...]) -> None:
    chain = random_chain(2, order, seeded(order))
    whole = first_frames(chain, 6)
    gone = tuple(frame for frame in range(6) if frame not in frames)
    assert torch.allclose(frames_law(chain, frames), whole.sum(gone), rtol=0, atol=1e-14)


def test_kernels_are_laws_on_the_true_support() -> None:
    """A walk round a circle of three that never steps back: what cannot occur has probability 0, all else not."""
    video = FiniteStateVideo(periodic_chain(3, 0.3), Codebook([[-1.0], [0.2], [1.0]]))
    plan = plan_of(2, References.last(2))
    kernels = state_kernels(video, plan, 2, rollouts=80, seed=4)
    assert kernels.initial.shape == (40, 9)
    assert torch.allclose(kernels.initial.sum(-1), torch.ones(40, dtype=torch.float64))
    for k, table in enumerate(kernels.steps, start=1):
        assert table.shape == (40, 9, 9)
        joint = frames_law(video.chain, (2 * k - 2, 2 * k - 1, 2 * k, 2 * k + 1)).reshape(9, 9)
        possible = joint.sum(-1) > 0
        assert torch.allclose(table[:, possible].sum(-1), torch.ones(40, 6, dtype=torch.float64))
        assert bool((table[:, ~possible] == 0).all())
        assert bool(((table > 0) == (joint > 0)).all())
    # Alike references in front of a stationary chain: one simulation serves all AR steps.
    assert kernels.steps[0] is kernels.steps[1]


def test_alike_steps_share_a_simulation_only_where_their_laws_are_alike() -> None:
    pictures = Codebook([[-1.0], [1.0]])
    drifting = MarkovChain([[0.9, 0.1], [0.4, 0.6]], [0.1, 0.9])
    rules = {"screened": References.last(1), "none": References.none(), "first": References.first(1)}

    def shared(chain: MarkovChain, rule: str) -> bool:
        steps = state_kernels(FiniteStateVideo(chain, pictures), plan_of(1, rules[rule], 1), 3, rollouts=80).steps
        return steps[1] is steps[2]

    assert shared(drifting, "screened")  # the last state hides what is older
    assert not shared(drifting, "none")
    assert not shared(drifting, "first")  # ever further away
    assert shared(MarkovChain.stationary(drifting.transition), "none")


# -- against quadrature ------------------------------------------------------------------------------------


def stationary() -> Array:
    law = np.linalg.matrix_power(SCALAR.transition, 200)[0]
    return np.asarray(law / law.sum())


def scalar_case() -> tuple[FiniteStateVideo, Plan]:
    video = FiniteStateVideo(MarkovChain.stationary(SCALAR.transition), Codebook(SCALAR.pictures[:, None]))
    grid = tuple((level,) for level in LEVELS)
    plan = Plan(
        (LEVELS[0],), 1, LEVELS[0], 3, 3, references=References.last(1), floor=LEVELS[-1], ar_grid=grid,
        init_grid=grid,
    )  # fmt: skip
    return video, plan


def decode(prior: Array) -> Array:
    """The sampler's law of the decoded state for each prior (contexts, y), by quadrature."""
    windows = SCALAR.sampler(LEVELS, prior, ERROR, "exponential")
    joint = prior[:, None, :] * SCALAR.state_density(LEVELS[-1], WIDE)
    posterior = joint / joint.sum(-1, keepdims=True)
    return np.asarray(np.einsum("cx,cxy->cy", windows, posterior) * CELL)


def kl(p: Array, q: Array) -> float:
    return float((p * np.log(p / q)).sum())


def scalar_truth(steps: int) -> dict[str, float]:
    law, transition = stationary(), SCALAR.transition
    start, kernel = decode(law[None])[0], decode(transition)
    step = float(law @ (transition * np.log(transition / kernel)).sum(-1))
    expected = {"ie": kl(law, start), "kernel": step, "kl": kl(law, start) + steps * step}
    marginal = start
    for k in range(1, steps + 1):
        marginal = marginal @ kernel
        expected[f"clip {k}"] = kl(law, marginal)
    return expected


def found(result: Result) -> dict[str, Number]:
    terms = result.terms
    clips = {f"clip {k}": terms.clips[k - 1] for k in range(1, len(terms.ar) + 1)}
    return {"ie": terms.ie, "kl": terms.kl, "kernel": terms.ar_step_errors[0]} | clips


def test_every_number_matches_quadrature() -> None:
    video, plan = scalar_case()
    result = decoded_ledger(video, plan, 3, score=PerturbedScore(ERROR), samples=4000, rollouts=20000, seed=21)
    expected = scalar_truth(3)
    for name, number in found(result).items():
        assert abs(number.value - expected[name]) <= Z * number.stderr, name
        row = result.table[result.table.term == "CLIP_KL"]
        if name.startswith("clip"):
            assert number.value == row[row.ar_step == int(name[-1])].value.item()
    law, transition = stationary(), SCALAR.transition
    for stage, prior, weight in (("init", law[None], np.ones(1)), ("ar", transition, law)):
        nie, de, see, cross = SCALAR.window_terms(LEVELS, prior, weight, ERROR, "exponential")
        start, suffix = ("NIE_INIT", "_INIT") if stage == "init" else ("NIE_AR", "")
        paths = {"DE": de.sum(), "SEE": see.sum(), "CROSS": cross.sum()}
        terms = {start: nie} | {name + suffix: value for name, value in paths.items()}
        rows = result.table[result.table.stage == stage]
        for term, value in terms.items():
            part = rows[rows.term == term]
            assert len(part) == (1 if stage == "init" else 3)
            assert ((part.value - value).abs() <= Z * part.stderr).all(), term
    assert result.column("MB") == [0.0, 0.0, 0.0]


def test_standard_errors_of_the_rollout_are_calibrated() -> None:
    """40 runs: squared errors against quadrature are what the jackknife says on average.

    A KL of a few standard errors is skewed, and so would z-scores be; the ratio of mean squares is not. It is
    judged as a chi-square of 40 degrees of freedom over 40, two-sided at the level 1e-3.
    """
    video, plan = scalar_case()
    expected = scalar_truth(3)
    squares: dict[str, list[tuple[float, float]]] = {name: [] for name in expected}
    for seed in range(40):
        result = decoded_ledger(
            video, plan, 3, score=PerturbedScore(ERROR), samples=2, rollouts=800, seed=2 * seed + 300
        )
        for name, number in found(result).items():
            squares[name].append(((number.value - expected[name]) ** 2, number.stderr**2))
    low, high = chi2.ppf([5e-4, 1 - 5e-4], 40) / 40
    for name, pairs in squares.items():
        own, claimed = np.mean(pairs, axis=0)
        assert low <= own / claimed <= high, name


def test_the_jackknife_is_the_mean_of_pseudo_values() -> None:
    video, plan = scalar_case()
    score = PerturbedScore(ERROR)
    result = decoded_ledger(video, plan, 1, score=score, samples=2, rollouts=200, seed=5)
    tables = state_kernels(video, plan, 1, score, rollouts=200, seed=5).initial.numpy()
    law = stationary()
    groups = len(tables)
    pseudo = [
        groups * kl(law, tables.mean(0)) - (groups - 1) * kl(law, np.delete(tables, g, 0).mean(0))
        for g in range(groups)
    ]
    assert result.totals["ie"] == pytest.approx(np.mean(pseudo), abs=EXACT)
    assert result.stderr["ie"] == pytest.approx(np.std(pseudo, ddof=1) / math.sqrt(groups), abs=EXACT)


# -- against plain simulation ------------------------------------------------------------------------------


def simulate(video: FiniteStateVideo, plan: Plan, steps: int, videos: int, error: float, seed: int) -> Tensor:
    """The algorithm as it is written: reverse steps, then states drawn by backward sampling; (videos, frames)."""
    generator, coefficients = seeded(seed), reverse_step("exponential").coefficients
    states = torch.zeros(videos, 0, dtype=torch.long)
    for k in range(steps + 1):
        frames = plan.window_frames(k) if k else range(plan.init_frames)
        grid = plan.ar_grid if k else plan.init_grid
        shown = [r.frame for r in plan.references_at(k)] if k else []
        given = Evidence.clean(shown, states[:, shown]) if shown else None
        window = torch.randn(videos, len(frames), video.frame_dim, generator=generator, dtype=torch.float64)
        for high, low in itertools.pairwise(grid):
            score = infer(video, Evidence.noisy(frames, high, window), given).score - error * window
            c = coefficients(*(torch.tensor(row, dtype=torch.float64)[:, None] for row in (high, low)))
            assert c.variance is not None
            noise = torch.randn(window.shape, generator=generator, dtype=torch.float64)
            window = c.window * window + c.score * score + c.variance.sqrt() * noise
        evidence = Evidence.noisy(frames, grid[-1], window)
        evidence = evidence if given is None else evidence + given
        states = torch.cat([states, sample_posterior(video, evidence, frames, generator)[0]], 1)
    return states


@pytest.mark.parametrize("case", ["last", "sink", "order 2"])
def test_the_recursion_on_states_is_the_simulated_rollout(case: str) -> None:
    """Counts of whole state sequences and of last clips against the chain of kernels (chi-square, level 1e-3)."""
    rng = np.random.default_rng(5)
    order = 2 if case == "order 2" else 1
    chain = MarkovChain(random_law(rng, *(2,) * (order + 1)), random_law(rng, 2**order).reshape((2,) * order))
    video = FiniteStateVideo(chain, Codebook([[-1.0], [0.8]]))
    rule = References.first(1) + References.last(1) if case == "sink" else References.last(order)
    window, steps, videos = (2, 1, 6000) if case == "order 2" else (1, 3, 6000)
    plan = plan_of(window, rule)
    kernels = state_kernels(video, plan, steps, PerturbedScore(0.3), rollouts=24000, seed=8)
    frames = plan.clean_frames(steps)
    sequences = np.array(list(itertools.product(range(2), repeat=frames)))
    law = kernels.initial.mean(0).numpy()[sequences[:, :window] @ 2 ** np.arange(window)[::-1]]
    for k in range(1, steps + 1):
        old, new = [r.frame for r in plan.references_at(k)], list(plan.window_frames(k))
        table = kernels.steps[k - 1].mean(0).numpy()
        rows = sequences[:, old] @ 2 ** np.arange(len(old))[::-1]
        law = law * table[rows, sequences[:, new] @ 2 ** np.arange(len(new))[::-1]]
    assert law.sum() == pytest.approx(1, abs=1e-12)
    drawn = simulate(video, plan, steps, videos, 0.3, seed=9).numpy()
    counts = np.bincount(drawn @ 2 ** np.arange(frames)[::-1], minlength=2**frames)
    # The kernels' own error, of 24000 rollouts a row, adds at most 6000/24000 to each cell's variance.
    statistic = float(((counts - videos * law) ** 2 / (videos * law)).sum()) / (1 + 6000 / 24000)
    assert statistic <= chi2.ppf(1 - 1e-3, 2**frames - 1)
    assert float((videos * law).min()) > 5

    result = decoded_ledger(video, plan, steps, score=PerturbedScore(0.3), samples=50, rollouts=4000, seed=8)
    true = first_frames(chain, frames).reshape(-1).numpy()
    value, error = result.totals["kl"], result.stderr["kl"]
    assert value is not None
    assert abs(value - kl(true, law)) <= Z * 1.2 * error  # `law` comes from six times the rollouts
    clip = law.reshape(-1, 2**window).sum(0)
    last = result.table[(result.table.term == "CLIP_KL") & (result.table.ar_step == steps)].iloc[0]
    assert abs(last.value - kl(true.reshape(-1, 2**window).sum(0), clip)) <= Z * 1.2 * last.stderr


# -- identities and bounds ---------------------------------------------------------------------------------


def random_case(number: int) -> tuple[FiniteStateVideo, Plan, int]:
    rng = np.random.default_rng([31, number])
    states, order, window = int(rng.integers(2, 4)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    chain = MarkovChain(
        random_law(rng, *(states,) * (order + 1)), random_law(rng, states**order).reshape((states,) * order)
    )
    dim = int(rng.integers(1, 4))
    rules = [References.none(), References.last(1), References.last(2), References.first(1) + References.last(1)]
    video = FiniteStateVideo(chain, Codebook(1.5 * rng.normal(size=(states, dim))))
    return video, plan_of(window, rules[number % 4]), 3


@pytest.mark.parametrize("number", range(8))
def test_the_ladder_holds_on_random_videos_and_plans(number: int) -> None:
    video, plan, steps = random_case(number)
    result = decoded_ledger(video, plan, steps, score=PerturbedScore(0.1), samples=400, rollouts=800, seed=number)
    totals, errors = result.totals, result.stderr
    ie, clean, mb, trajectory = (totals[name] for name in ("ie", "kl", "mb", "trajectory_kl"))
    lower, path = totals["lower_bound"], totals["path_kl"]
    assert ie is not None
    assert clean is not None
    assert mb is not None
    assert trajectory is not None
    assert lower is not None
    assert path is not None
    # The chain rule, term by term; the jackknife is linear, so it holds to rounding.
    assert clean == pytest.approx(ie + mb + float(result.terms.ar_step_errors.value.sum()), abs=EXACT)
    assert lower == pytest.approx(ie + mb, abs=EXACT)
    assert lower <= clean + Z * errors["kl"]
    assert clean <= trajectory + Z * math.hypot(errors["kl"], errors["trajectory_kl"])
    assert trajectory <= path + Z * math.hypot(errors["trajectory_kl"], errors["path_kl"])
    for k, bound in enumerate(result.terms.ar):
        own, path = result.terms.ar_step_errors[k], bound.path
        assert own.value <= path.value + Z * math.hypot(own.stderr, path.stderr)
    rows = {term: result.table[result.table.term == term] for term in ("CLIP_KL", "CLIP_BOUND")}
    assert len(rows["CLIP_BOUND"]) == steps  # references are kept as they came out, within Input_k ∪ Output_k
    for clip, bound in zip(rows["CLIP_KL"].itertuples(), rows["CLIP_BOUND"].itertuples(), strict=True):
        assert clip.value <= bound.value + Z * math.hypot(clip.stderr, bound.stderr)
    paths = np.sum([result.column(term) for term in ("NIE_AR", "DE", "SEE", "CROSS")], axis=0)
    assert result.column("CLIP_BOUND") == pytest.approx(ie + np.cumsum(paths), rel=1e-12)
    # log P - log Q on the same true videos.
    terms = result.terms
    gap = (terms.of("direct") - terms.of("de") - terms.of("see") - terms.of("cross")).sum()
    assert abs(gap.value) <= Z * gap.stderr


@pytest.mark.parametrize("number", [0, 1, 4, 7])
def test_memory_bottlenecks_match_sampled_information(number: int) -> None:
    video, plan, steps = random_case(number)
    exact = decoded_ledger(video, plan, steps, samples=2, rollouts=80).column("MB")
    for k, value in enumerate(exact, start=1):
        shown = {r.frame for r in plan.references_at(k)}
        out, past, given = (
            [State(frame, 0.0) for frame in frames]
            for frames in (plan.window_frames(k), sorted(set(range(plan.frames_out(k))) - shown), sorted(shown))
        )
        sampled = sampled_information(video, out, past, given, 3000, seeded(k))
        assert abs(sampled.value - value) <= Z * sampled.stderr + EXACT


def test_a_callable_is_simulated_at_every_step_and_shown_the_pictures() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.8), Codebook([[-1.0], [1.0]]))
    plan = plan_of(1, References.last(1))
    seen: set[tuple[int, ...]] = set()

    def exact(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen.add(references.window_frames)
        given = None
        if references.frames:
            assert references.levels.tolist() == [0.0]
            assert set(references.values.flatten().tolist()) <= {-1.0, 1.0}
            given = Evidence.clean(references.frames, (references.values[..., 0] > 0).long())
        return infer(video, Evidence.noisy(references.window_frames, levels.tolist(), window), given).score

    kernels = state_kernels(video, plan, 2, exact, rollouts=80)
    assert kernels.steps[0] is not kernels.steps[1]
    own = decoded_ledger(video, plan, 2, score=exact, samples=50, rollouts=4000)
    best = decoded_ledger(video, plan, 2, samples=50, rollouts=4000)
    assert seen == {(0,), (1,), (2,)}
    assert own.totals["see"] == pytest.approx(0, abs=1e-20)
    assert own.totals["de"] == pytest.approx(best.totals["de"], abs=EXACT)
    gap = own.terms.ar_step_errors.plus_independent(-best.terms.ar_step_errors)
    assert bool((gap.value.abs() <= Z * gap.stderr).all())


def test_a_worse_score_costs_more_states() -> None:
    """The score of pure noise, blind to the references, against the exact one."""
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = plan_of(1, References.last(1), 6)
    blind, exact = (
        decoded_ledger(video, plan, 2, score=score, samples=300, rollouts=2000).terms
        for score in (lambda window, levels, references: -window, None)
    )
    gap = blind.ar_step_errors[1].plus_independent(-exact.ar_step_errors[1])
    assert gap.value > Z * gap.stderr
    assert blind.ar_step_errors[1].value <= blind.ar[1].path.value


# -- errors ------------------------------------------------------------------------------------------------


def test_refusals_say_what_to_do() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    plan = plan_of(1, References.last(1))
    with pytest.raises(ValueError, match=r"w = Δ, got w = 2 and Δ = 1.*ledger"):
        decoded_ledger(video, Plan((1.0, 3.0), 1, 3.0, 2, floor=0.1), 1)
    with pytest.raises(ValueError, match=r"AR step 1 noises frame 1 to level 0.5"):
        decoded_ledger(video, plan_of(1, References.last(1, 0.5)), 1)
    with pytest.raises(ValueError, match=r"level 0.*floor δ > 0"):
        decoded_ledger(video, Plan((3.0,), 1, 3.0, 2), 1)
    with pytest.raises(ValueError, match="at least one AR step"):
        decoded_ledger(video, plan, 0)
    with pytest.raises(ValueError, match="40 groups of at least 2"):
        decoded_ledger(video, plan, 1, rollouts=79)
    with pytest.raises(ValueError, match=r"ancestral.*no Gaussian kernel"):
        decoded_ledger(video, plan, 1, step="ancestral")
    with pytest.raises(ValueError, match=r"ddim.*without noise"):
        decoded_ledger(video, plan, 1, step="ddim")
    noisy = FiniteStateVideo(video.chain, Codebook([[-1.0], [1.0]], 0.1))
    hidden = FiniteStateVideo(video.chain, Codebook([[-1.0], [1.0]]), torch.full((2, 2), 0.5))
    alike = FiniteStateVideo(video.chain, Codebook([[1.0], [1.0]]))
    for unreadable in (noisy, hidden, alike):
        with pytest.raises(ChainError):
            decoded_ledger(unreadable, plan, 1)


def test_too_many_states_are_refused_before_anything_is_built() -> None:
    video = FiniteStateVideo(sticky_chain(20, 0.5), Codebook(torch.arange(20.0)[:, None]))
    with pytest.raises(TableSizeError, match=r"AR step 1: .*2 earlier frames.* 2 new has 20\^4 entries.* 65536"):
        decoded_ledger(video, plan_of(2, References.last(1) + References.first(1)), 2)
    # Frames kept for later references count as well: all of them.
    with pytest.raises(TableSizeError, match=r"AR step 16: .*16 earlier frames.* has 2\^17"):
        decoded_ledger(
            FiniteStateVideo(sticky_chain(2, 0.5), Codebook([[0.0], [1.0]])), plan_of(1, References.all()), 17
        )
