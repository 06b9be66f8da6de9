"""What to hold: against brute force, certificates that hold, and a frontier that nothing beats."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from arvdm_theory import (
    ArrayVideo,
    PixelVideo,
    References,
    ar1,
    fifo,
    memory_bottleneck,
    outpainting,
    reference_video,
)
from arvdm_theory.choose.memory import FAMILIES, MemoryChoice, frame_frontier, nats_frontier
from arvdm_theory.information.gaussian import conditional_mutual_information
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw


def random_choice(seed: int, past: int = 6, dim: int = 1, out: int = 2) -> MemoryChoice:
    """A law with nothing of a video about it: n = ``past`` frames and an output of ``out`` entries."""
    generator = torch.Generator().manual_seed(seed)
    n = past * dim + out
    root = torch.randn(n, n, generator=generator, dtype=torch.float64)
    joint = (root @ root.mT + 0.1 * torch.eye(n, dtype=torch.float64))[None]
    return MemoryChoice(dim, torch.ones(1, dtype=torch.float64), past, joint[:, : past * dim, : past * dim], joint)


def brute(choice: MemoryChoice, frames: int) -> tuple[float, tuple[int, ...]]:
    """The most that a selection tells, by conditional informations of the joint law itself."""
    d, n = choice.frame_dim, choice.prior.shape[-1]
    found = []
    for lags in itertools.combinations(range(1, choice.past + 1), frames):
        held = [(lag - 1) * d + i for lag in lags for i in range(d)]
        told = conditional_mutual_information(choice.joint, list(range(n, choice.joint.shape[-1])), held, [])
        found.append((float((choice.multiplicity * told).sum()), lags))
    return max(found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_best_selection_is_brute_force_s(seed: int, frames: int) -> None:
    choice = random_choice(seed, dim=1 + seed % 2)
    value, lags = brute(choice, frames)
    found = choice.select(frames)
    assert found.lags == lags
    assert found.mb == pytest.approx(choice.total - value, abs=1e-10)
    assert (found.bound, found.certificate) == (found.mb, "all selections")


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 2))
def test_every_certificate_holds(seed: int, frames: int, dim: int) -> None:
    """Of greedy's choice: no bound of the four is below what brute force finds."""
    choice = random_choice(seed, past=5, dim=dim)
    value, _ = brute(choice, frames)
    order = choice.greedy(frames)
    assert choice.numbers_bound(frames) >= value - 1e-9
    for i in range(frames + 1):
        assert choice._chain_bound(order[:i], frames) >= value - 1e-9
    ratio = choice.submodularity_ratio
    assert 0 < ratio <= 1 + 1e-12
    assert choice.information(order) / -math.expm1(-ratio) >= value - 1e-9
    found = choice.select(frames, exhaustive=0)
    assert found.bound - 1e-9 <= choice.total - value <= found.mb + 1e-9
    assert choice.information(found.lags) >= choice.information(order) - 1e-12


def test_the_submodularity_ratio_is_below_the_true_one_and_some_laws_are_not_submodular() -> None:
    """X_1 and X_2 independent, Output their sum in little noise: together they tell more than each by itself."""
    joint = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 2.1]], dtype=torch.float64)[None]
    choice = MemoryChoice(1, torch.ones(1, dtype=torch.float64), 2, joint[:, :2, :2], joint)
    alone, both = choice.information([1]) + choice.information([2]), choice.information([1, 2])
    assert alone < both
    assert choice.submodularity_ratio <= alone / both
    for seed in range(3):
        law = random_choice(seed, past=4)
        for held in itertools.chain([()], ((j,) for j in range(1, 5))):
            left = [j for j in range(1, 5) if j not in held]
            for more in itertools.combinations(left, 2):
                base = law.information(held)
                gains = sum(law.information((*held, j)) - base for j in more)
                assert gains >= law.submodularity_ratio * (law.information((*held, *more)) - base) - 1e-12


def test_what_is_left_is_the_ledger_s_bottleneck_of_such_references() -> None:
    for plan, step in ((outpainting(2, References.last(2)), 3), (fifo(3, References.last(2)), 5)):
        choice = MemoryChoice.of(reference_video(), plan, step)
        assert choice.past == plan.frames_out(step)
        left = choice.total - choice.information([1, 2])
        assert left == pytest.approx(float(memory_bottleneck(reference_video(), plan, step)), abs=1e-10)
    sink = outpainting(2, References.first(1) + References.last(1))
    choice = MemoryChoice.of(reference_video(), sink, 4)
    left = choice.total - choice.information([1, choice.past])
    assert left == pytest.approx(float(memory_bottleneck(reference_video(), sink, 4)), abs=1e-10)


def test_the_frontier_of_frames() -> None:
    choice = MemoryChoice.of(reference_video(), outpainting(2), 4)
    table = frame_frontier(choice, 3)
    assert len(table) == 4 * len(FAMILIES)
    wide = table.pivot_table(index="frames", columns="family", values="mb")
    best = table[table.family == "best"].set_index("frames")
    for family in FAMILIES:
        assert (wide[family] >= wide["best"] - 1e-12).all()
        if family != "best":
            assert (wide[family] <= wide["last"] + 1e-12).all()
    assert (best.mb >= best.floor - 1e-12).all()
    assert wide["best"].is_monotonic_decreasing
    assert wide["best"].iloc[0] == choice.total
    # A video with a period of 7 frames: the best two frames are not the last two.
    assert best.lags[2] != "1 2"
    for row in table.itertuples():
        lags = [int(lag) for lag in row.lags.split()]
        assert len(set(lags)) == row.frames
        assert choice.total - choice.information(lags) == pytest.approx(row.mb, abs=1e-12)


def test_of_a_markov_video_the_last_frame_is_all() -> None:
    choice = MemoryChoice.of(ar1(0.9), outpainting(2), 4)
    assert choice.select(1).lags == (1,)
    assert choice.select(1).mb == pytest.approx(0.0, abs=1e-12)


def test_the_frontier_of_nats_is_below_what_noised_frames_leave_and_they_keep_to_their_budget() -> None:
    choice = MemoryChoice.of(reference_video(), outpainting(2), 3)
    budgets = [0.2, 1.0, 4.0]
    table = nats_frontier(choice, budgets)
    assert (table.floor <= table.mb + 1e-9).all()
    assert table.mb.is_monotonic_decreasing
    assert (table.mb < choice.total).all()
    for row in table.itertuples():
        levels = [math.inf if told == "-" else float(told) for told in row.levels.split()]
        assert len(levels) == choice.past
        precision = torch.tensor([1 / math.expm1(level) if level < math.inf else 0.0 for level in levels])
        told, cost = choice.noised(precision.double())
        assert float(cost) <= row.budget * 1.02  # levels are told to three digits
        assert choice.total - float(told) == pytest.approx(row.mb, abs=0.02)


def test_levels_against_a_mesh() -> None:
    """Two frames: the best split of a budget is searched exhaustively along it."""
    choice = random_choice(5, past=2)
    levels, left = choice.compress(0.8)
    found = []
    for angle in np.linspace(0, math.pi / 2, 60):
        split = torch.tensor([math.cos(angle) ** 2, math.sin(angle) ** 2], dtype=torch.float64)
        scale = brentq(lambda log, split=split: float(choice.noised(math.exp(log) * split)[1]) - 0.8, -20, 20)
        found.append(choice.total - float(choice.noised(math.exp(scale) * split)[0]))
    assert left <= min(found) + 1e-6
    assert left == pytest.approx(min(found), abs=1e-3)
    assert len(levels) == 2


def test_modes_are_counted_as_often_as_they_occur() -> None:
    video = PixelVideo(2, 2, PowerLaw(), ExponentialMemory(tau=3.0, exponent=1.0))
    choice = MemoryChoice.of(video, outpainting(1, References.last(1)), 3)
    left = choice.total - choice.information([1])
    assert left == pytest.approx(float(memory_bottleneck(video, outpainting(1, References.last(1)), 3)), abs=1e-12)
    assert choice.floor(0.0) == pytest.approx(choice.total, rel=1e-9)
    assert choice.floor(0.3) < choice.total
    every = choice.lag_frontier(1, [0.0, 50.0])
    assert every == pytest.approx([0.0, choice.information([1])], rel=1e-6, abs=1e-12)


def test_what_cannot_be_held_is_refused() -> None:
    video, plan = ArrayVideo(np.eye(9), 1), fifo(3)
    with pytest.raises(ValueError, match="no frame is out"):
        MemoryChoice.of(video, plan, 1)
    with pytest.raises(ValueError, match="at least one frame"):
        MemoryChoice.of(video, plan, 3, most=0)
    choice = MemoryChoice.of(video, plan, 3)
    with pytest.raises(ValueError, match="0 to 2 can be held"):
        choice.select(3)
    with pytest.raises(ValueError, match="positive and finite"):
        choice.compress(0.0)
    assert MemoryChoice.of(reference_video(), outpainting(2), 4, most=3).past == 3


def test_the_numbers_that_the_page_on_choosing_tells() -> None:
    choice = MemoryChoice.of(reference_video(), outpainting(2), 8)
    told = {(1, 2): 0.680, (1, 6): 0.511, (1, 2, 3, 4): 0.490, (1, 4, 6, 9): 0.233}
    assert choice.total == pytest.approx(1.489, abs=5e-4)
    for lags, left in told.items():
        assert choice.total - choice.information(lags) == pytest.approx(left, abs=5e-4)
    assert choice.select(2).lags == (1, 6)
    assert choice.select(4).lags == (1, 4, 6, 9)
