"""What a memory tells of generated pictures: a toy whose information is known, exact scores as its networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from arvdm_theory.decomposition.score_gap import score_gap
from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.video.information import MemoryInformation, memory_information
from arvdm_theory.video.memory_plans import MemoryPlan

# Pictures of 16 independent pixels of variance V around grey; a place seen again differs by noise of variance Q.
SHAPE, V, Q = (4, 4, 1), 0.1, 0.01

# | gap | places 0 and 1 | context | two frames, each of place 0 or 1 |
SIZES = {"generated": 2, "window": 2, "context": 1, "reverse_steps": 8}
WITH = MemoryPlan(memory=2, **SIZES)  # type: ignore[arg-type]
WITHOUT = MemoryPlan(memory=0, gap_for=2, **SIZES)  # type: ignore[arg-type]


def clips(n: int, seed: int, copies: int = 1) -> VideoBatch:
    """Float32 clips and the place of each frame, one-hot; ``copies`` of each in a row."""
    generator = torch.Generator().manual_seed(seed)
    frames = math.sqrt(V) * torch.randn(n, WITH.total_frames, 16, generator=generator)
    seen = torch.randint(2, (n, 2), generator=generator)
    copied = frames[torch.arange(n)[:, None], 1 + seen]
    frames[:, 4:] = copied + math.sqrt(Q) * torch.randn(n, 2, 16, generator=generator)
    places = torch.cat([torch.tensor([2, 0, 1, 2]).expand(n, 4), seen], 1)
    told = torch.nn.functional.one_hot(places, 3).float()
    return VideoBatch(frames.repeat_interleave(copies, 0), told.repeat_interleave(copies, 0))


def known(stop: float) -> float:
    """The mean over two frames of one place and two of two places.

    Given the memory and the actions, pixels are left with the variance α²Q + σ²; without it with α²(V + Q) + σ²,
    and two of one place share α²V, so that their half-sum's eigenvalue is α²(2V + Q) + σ².
    """
    a, s = math.exp(-stop), -math.expm1(-stop)
    two = 16 * math.log((a * (V + Q) + s) / (a * Q + s))
    one = 8 * math.log((a * (2 * V + Q) + s) / (a * Q + s))
    return (one + two) / 2


def exact(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
    """E[X | W, R, actions]: pictures of one place are one Gaussian draw, the window's with noise of their own."""
    assert actions is not None
    assert references.actions is not None
    assert window.shape[2:] == references.values.shape[2:] == SHAPE
    own, other = V * actions @ actions.mT, V * actions @ references.actions.mT
    gain = torch.linalg.solve(V * references.actions @ references.actions.mT, other.mT).mT
    mean = (gain @ references.values.flatten(2)).unflatten(2, SHAPE)
    left = own + Q * torch.eye(window.shape[1]).to(own) - gain @ other.mT
    a = torch.exp(-levels / 2)
    noisy = a[:, None] * left * a - torch.diag(torch.expm1(-levels))
    rest = (window - a[:, None, None, None] * mean).flatten(2)
    return mean + (left * a @ torch.linalg.solve(noisy, rest)).unflatten(2, SHAPE)


NETWORK = NetworkScore(exact, "x0", frame_shape=SHAPE, dtype=torch.float64)


def told_by_memory(given: VideoBatch, **options: object) -> MemoryInformation:
    return memory_information(NETWORK, WITHOUT.plan, NETWORK, WITH.plan, given, WITH.last, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stop", "form"), [(0.0, "difference"), (0.02, "losses"), (0.5, "losses")])
def test_exact_networks_find_what_the_memory_tells(stop: float, form: str) -> None:
    """Ten seeds: Σ z² lies within the chi-square quantiles at 1e-4 and 1 - 1e-4 of ten normals, 1.0 and 35.6.

    A pole lies where α²Q + σ² is 0, at level -0.01, and the last step starts at 0.042: the pole is 1.5 half-steps
    from its middle, and 6 nodes leave (1.5 + 1.1)^-12 = 1e-5 of that step's part.
    """
    scores = []
    for seed in range(10):
        found = told_by_memory(clips(150, seed), stop=stop, form=form, points=6, seed=seed + 50)
        assert not found.window.warnings
        scores.append((found.window.value - known(stop)) / found.window.stderr)
    assert 1.0 < float(np.square(scores).sum()) < 35.6


def test_the_default_is_stopped_and_told_a_generated_frame() -> None:
    found = told_by_memory(clips(200, 1))
    assert (found.stop, found.frames, found.clusters, found.window.n) == (0.1, 2, 200, 200)
    assert abs(found.window.value - known(0.1)) < 4 * found.window.stderr
    assert found.window.stderr < 0.05 * found.window.value
    frame = found.per_frame
    for name in ("value", "stderr", "ci_low", "ci_high"):
        assert getattr(frame, name) == getattr(found.window, name) / 2
    assert frame.n == 200


def test_clips_of_one_episode_count_as_one_draw() -> None:
    """Four clips an episode, all alike but for the noise that is added: z has 39 degrees of freedom.

    The interval holds the quadrature's error too, which is told by half the nodes: at 8 it is below 1e-4 of the
    rest.
    """
    labels, scores = np.repeat(np.arange(40), 4).tolist(), []
    for seed in range(10):
        given = clips(40, seed, copies=4)
        found = told_by_memory(given, clusters=labels, stop=0.02, form="difference", points=8, seed=seed).window
        alone = told_by_memory(given, stop=0.02, form="difference", points=8, seed=seed).window
        assert found.value == pytest.approx(alone.value, rel=1e-13)
        assert found.stderr > 1.5 * alone.stderr
        assert found.ci_high - found.value == pytest.approx(2.0227 * found.stderr, rel=1e-4)  # t at 39, 97.5 %
        scores.append((found.value - known(0.02)) / found.stderr)
    assert 1.0 < float(np.square(scores).sum()) < 40
    assert told_by_memory(given, clusters=labels).clusters == 40


def test_a_network_that_ignores_its_memory_tells_nothing() -> None:
    def forgetful(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
        assert references.actions is not None
        context = ReferenceBatch(
            references.values[:, -1:], references.levels[-1:], references.frames[-1:], references.window_frames,
            references.actions[:, -1:], actions,
        )  # fmt: skip
        return exact(window, levels, context, actions)

    other = NetworkScore(forgetful, "x0", frame_shape=SHAPE, dtype=torch.float64)
    found = memory_information(NETWORK, WITHOUT.plan, other, WITH.plan, clips(20, 0), WITH.last, points=2)
    assert (found.window.value, found.window.stderr) == (0, 0)


def test_a_network_with_errors_is_charged_half_their_integral() -> None:
    """x̂ + c is a score off by αc/σ², and ½ ∫ 32 c² α²/σ⁴ dτ from s to ∞ is ∫ 16 c²/y² dy from y = e^s - 1."""
    c, stop = 0.1, 0.3

    def off(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
        return exact(window, levels, references, actions) + c

    other = NetworkScore(off, "x0", frame_shape=SHAPE, dtype=torch.float64)
    given = clips(400, 3)
    right, wrong = (
        score_gap(
            given.frames, WITHOUT.plan, WITH.last, NETWORK, each, actions=given.actions, stop=stop,
            plan_with_past=WITH.plan,
        ).losses
        for each in (NETWORK, other)
    )  # fmt: skip
    # The same clips and noise: but for c² only a cross term of mean 0 is left.
    lost = right - wrong
    stderr = lost.std(ddof=1) / math.sqrt(len(lost))
    assert abs(lost.mean() - 16 * c**2 / math.expm1(stop)) < 4 * stderr
    assert stderr < 0.1 * lost.mean()
    found = memory_information(
        NETWORK, WITHOUT.plan, other, WITH.plan, given, WITH.last, stop=stop, points=4, batch=1024
    )
    assert found.window.value == pytest.approx(wrong.mean(), rel=1e-13)  # but for the order of 400 sums


def test_trained_networks_are_taken_as_they_are() -> None:
    config = DenoiserConfig("mlp", SHAPE, window=2, references=3, action_dim=3)
    torch.manual_seed(0)
    few, many = (Denoiser(config).as_score(4) for _ in range(2))
    found = memory_information(few, WITHOUT.plan, many, WITH.plan, clips(6, 0), WITH.last, points=2)
    assert math.isfinite(found.window.value)
    assert found.window.stderr > 0


def test_refuses_labels_and_plans_that_do_not_fit() -> None:
    with pytest.raises(SampleError, match="one cluster label a clip is needed, got 3 for 5 clips"):
        told_by_memory(clips(5, 0), clusters=["a", "b", "b"])
    with pytest.raises(SampleError, match="AR step 2 frame 1 at level 0 or below, but it is shown not at all"):
        memory_information(NETWORK, WITH.plan, NETWORK, WITHOUT.plan, clips(5, 0), WITH.last)
