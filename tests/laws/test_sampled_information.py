"""Sampled memory bottlenecks against enumeration (discrete symbols) and quadrature (noisy scalar frames)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from arvdm_theory import Codebook, FiniteStateVideo, Number, Plan, sticky_chain
from arvdm_theory.information.transfer import memory_bottleneck
from arvdm_theory.laws.chains import random_chain
from arvdm_theory.laws.emission import GaussianRegimes
from arvdm_theory.laws.evidence import EvidenceError
from arvdm_theory.laws.gaussian import State
from arvdm_theory.laws.sampled_information import observe, sampled_information
from arvdm_theory.plan.plan import References

VIDEOS = 6000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def agrees(estimate: Number, expected: float) -> None:
    """Within 4 standard errors, which are themselves small enough for the check to mean something."""
    assert abs(estimate.value - expected) <= 4 * estimate.stderr
    assert 0 < estimate.stderr < 0.03


def clean(frames: list[int]) -> list[State]:
    return [State(frame, 0.0) for frame in frames]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("out", "past", "given"),
    [([4, 5], [0, 1, 2, 3], []), ([5], [0, 1, 3], [2, 4]), ([3, 4, 5], [0, 2], [1])],
)
def test_hidden_symbols_against_enumeration(order: int, out: list[int], past: list[int], given: list[int]) -> None:
    emission = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.3, 0.7]], dtype=torch.float64)
    chain = random_chain(3, order, seeded(13))
    video = FiniteStateVideo(chain, Codebook([[0.0], [1.0], [2.0]]), emission)
    table = np.zeros((3,) * 6)
    start, step, shows = chain.initial.numpy(), chain.transition.numpy(), emission.numpy()
    for path in itertools.product(range(3), repeat=6):
        p = start[path[:order]] * math.prod(step[path[i - order : i + 1]] for i in range(order, 6))
        table += p * np.einsum("a,b,c,d,e,f->abcdef", *(shows[s] for s in path))

    def h(*frames: int) -> float:
        p = table.sum(tuple(i for i in range(6) if i not in frames)).reshape(-1)
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    expected = h(*out, *given) + h(*past, *given) - h(*out, *past, *given) - (h(*given) if given else 0)
    agrees(sampled_information(video, clean(out), clean(past), clean(given), VIDEOS, seeded(order)), expected)


def test_readable_frames_against_transfer_matrices() -> None:
    chain = random_chain(4, 2, seeded(3))
    video = FiniteStateVideo(chain, Codebook([[0.0], [1.0], [2.0], [3.0]]))
    plan = Plan(
        input_levels=(6.0, 6.0),
        stride=2,
        horizon=6.0,
        reverse_steps=4,
        references=References.every(3),
    )
    for step in (1, 2, 3):
        known = [r.frame for r in plan.references_at(step)]
        expected = float(memory_bottleneck(chain, plan.window_frames(step), known))
        estimate = sampled_information(
            video,
            clean(list(plan.window_frames(step))),
            clean(list(plan.past_frames(step))),
            clean(known),
            VIDEOS,
            seeded(step),
        )
        agrees(estimate, expected)


# Quadrature: trapezoids on [-7, 7] in steps of h, for densities whose narrowest factor has standard deviation σ:
# the error is of order exp(-2 (π σ / h)²), below 1e-8 for h ≤ 0.95 σ, and so is what lies outside.
def information(density: np.ndarray, h: float, given: bool) -> float:
    """I(axis 0; axis 1), or given axis 2 if there is one, of a density on a grid with spacing h."""
    p = density if given else density[..., None]
    volume = h ** (3 if given else 2)
    width = h if given else 1.0
    joint = p * volume
    out = joint.sum(1, keepdims=True)
    past = joint.sum(0, keepdims=True)
    known = joint.sum((0, 1), keepdims=True)
    assert abs(joint.sum() - 1) < 1e-8 * max(1, width)
    seen = joint > 0
    ratio = np.where(seen, joint * known, 1) / np.where(seen, out * past, 1)
    return float((joint * np.log(ratio)).sum())


def normal(x: np.ndarray, mean: float | np.ndarray, variance: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def scale(level: float) -> float:
    return math.exp(-level / 2)


def noise(level: float) -> float:
    return -math.expm1(-level)


PICTURES = [-1.2, 0.9]


def two_states(variance: float = 0.0) -> FiniteStateVideo:
    return FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[c] for c in PICTURES], variance))


def test_noisy_frames_against_quadrature() -> None:
    """I(X_1^t; X_0^s) of one noisy frame and an earlier one, with and without observation noise."""
    h = 0.14
    x = np.arange(-7, 7 + h / 2, h)
    regimes = GaussianRegimes([[c] for c in PICTURES], [[[0.25]], [[0.6]]])
    switching = FiniteStateVideo(sticky_chain(2, 0.9), regimes)
    for video, spread in ((two_states(), (0, 0)), (two_states(0.3), (0.3, 0.3)), (switching, (0.25, 0.6))):
        t, s = 0.5, 0.2
        frames = [
            [normal(x, scale(u) * c, scale(u) ** 2 * v + noise(u)) for c, v in zip(PICTURES, spread, strict=True)]
            for u in (t, s)
        ]
        step = video.chain.transition.numpy()
        density = sum(0.5 * step[a, b] * frames[0][b][:, None] * frames[1][a] for a in range(2) for b in range(2))
        expected = information(density, h, given=False)
        agrees(sampled_information(video, [State(1, t)], [State(0, s)], [], VIDEOS, seeded(1)), expected)


def test_a_frame_on_its_way_down_against_quadrature() -> None:
    """I(X_1^{t_O}; X_0^δ | X_1^{t_I}): the frame's own noisier state is the input, as in plans with w > Δ."""
    h, t_out, t_in, floor = 0.2, 0.3, 0.9, 0.2
    x = np.arange(-7, 7 + h / 2, h)
    up = scale(t_in) / scale(t_out)
    forth = normal(x[None, :], up * x[:, None], noise(t_in) - up**2 * noise(t_out))  # (x_out, x_in)
    step = two_states().chain.transition.numpy()
    density = sum(
        0.5
        * step[a, b]
        * normal(x, scale(t_out) * PICTURES[b], noise(t_out))[:, None, None]
        * normal(x, scale(floor) * PICTURES[a], noise(floor))[:, None]
        * forth[:, None, :]
        for a in range(2)
        for b in range(2)
    )
    expected = information(density, h, given=True)
    estimate = sampled_information(
        two_states(), [State(1, t_out)], [State(0, floor)], [State(1, t_in)], VIDEOS, seeded(2)
    )
    agrees(estimate, expected)


def test_references_noised_from_where_the_sampler_stopped_against_quadrature() -> None:
    """I(X_1^t; X_0^δ | X_0^δ noised afresh to ρ): noised references hide nothing from the past."""
    h, t, floor, rho = 0.2, 0.3, 0.25, 1.0
    x = np.arange(-7, 7 + h / 2, h)
    up = scale(rho) / scale(floor)
    forth = normal(x[None, :], up * x[:, None], noise(rho) - up**2 * noise(floor))  # (x_past, x_reference)
    step = two_states().chain.transition.numpy()
    density = sum(
        0.5
        * step[a, b]
        * normal(x, scale(t) * PICTURES[b], noise(t))[:, None, None]
        * normal(x, scale(floor) * PICTURES[a], noise(floor))[:, None]
        * forth[None]
        for a in range(2)
        for b in range(2)
    )
    expected = information(density, h, given=True)
    reference = State(0, rho, path=1, parting=floor)
    estimate = sampled_information(two_states(), [State(1, t)], [State(0, floor)], [reference], VIDEOS, seeded(3))
    agrees(estimate, expected)


def test_standard_errors_are_those_of_repetition() -> None:
    video, out, past = two_states(), [State(1, 0.3)], [State(0, 0.3)]
    runs = [sampled_information(video, out, past, [], 400, seeded(100 + i)) for i in range(60)]
    spread = float(np.std([run.value for run in runs], ddof=1))
    said = float(np.mean([run.stderr for run in runs]))
    # The standard deviation of 60 values is known to 1/√118 = 9%; allow 4 times that.
    assert abs(spread / said - 1) < 0.37


def test_observed_states_have_the_covariance_of_their_paths() -> None:
    video, draws = two_states(0.3), 20_000
    states = [State(1, 0.4), State(1, 0.0), State(1, 1.0), State(1, 0.8, 2, parting=0.4), State(0, 0.4)]
    sample = video.sample(draws, 2, seeded(0))
    evidence = observe(video, sample, states, seeded(1))
    assert evidence.states == tuple(states)
    assert evidence.values is not None
    assert torch.equal(evidence.values[:, 1], sample.frames[:, 1])
    alpha = torch.tensor([scale(s.level) for s in states], dtype=torch.float64)
    added = evidence.values[..., 0] - alpha * sample.frames[:, [1, 1, 1, 1, 0], 0]
    shared = torch.zeros(5, 5, dtype=torch.float64)
    for i, j, level in ((0, 0, 0.4), (2, 2, 1.0), (3, 3, 0.8), (4, 4, 0.4), (0, 2, 0.4), (0, 3, 0.4), (2, 3, 0.4)):
        shared[i, j] = shared[j, i] = alpha[i] * alpha[j] * math.expm1(level)
    error = torch.sqrt((torch.outer(shared.diagonal(), shared.diagonal()) + shared**2) / draws)
    assert bool(((torch.cov(added.T) - shared).abs() <= 5 * error + 1e-15).all())


def test_what_is_refused_and_what_is_zero() -> None:
    video = two_states()
    assert sampled_information(video, clean([1]), [], clean([0]), 10).value == 0
    with pytest.raises(ValueError, match="two videos or more"):
        sampled_information(video, clean([1]), clean([0]), [], 1)
    alike = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[1.0], [1.0]]))
    with pytest.raises(EvidenceError, match="two pictures are equal"):
        sampled_information(alike, clean([1]), clean([0]), [], 10)
    with pytest.raises(EvidenceError, match=r"frame 0 is given twice at level 0\.5 of path 0"):
        sampled_information(video, clean([1]), [State(0, 0.5)], [State(0, 0.5)], 10)
    with pytest.raises(EvidenceError, match="frame 5 lies beyond the 3 sampled ones"):
        observe(video, video.sample(2, 3, seeded(0)), [State(5, 0.1)])
