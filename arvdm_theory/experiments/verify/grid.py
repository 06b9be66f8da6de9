"""The videos and plans that the bound-checking experiments run over, by name."""

from __future__ import annotations

from collections.abc import Callable

from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.linear import ar1, reference_video, state_space
from arvdm_theory.laws.long_memory import NeedleVideo, fractional_gaussian_noise
from arvdm_theory.laws.pixels import ExponentialMemory, PixelVideo, PowerLaw
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References, causal_mask

__all__ = ["PLANS", "VIDEOS"]


def _hidden() -> GaussianVideo:
    """A hidden rotation seen in noise: the observed frames have unbounded memory."""
    turn = ((0.94, -0.25), (0.25, 0.94))
    noise = ((0.05, 0.0), (0.0, 0.05))
    return state_space(turn, noise, ((1.0, 0.0), (0.5, 1.0)), ((0.1, 0.0), (0.0, 0.1)), name="hidden state")


VIDEOS: dict[str, Callable[[], GaussianVideo]] = {
    "AR(1) 0.8": lambda: ar1(0.8, name="AR(1) 0.8"),
    "reference": lambda: reference_video(),
    "hidden state": _hidden,
    "long memory": lambda: fractional_gaussian_noise(0.85, name="long memory"),
    "needle": lambda: NeedleVideo(
        query_start=8, seen=2, queries=6, strength=2.0, background_correlation=0.5, length=32, name="needle"
    ),
    "pixels 8x8": lambda: PixelVideo(
        8, 8, PowerLaw(), ExponentialMemory(tau=8.0, exponent=1.0), name="pixels 8x8"
    ),
}
"""Videos by name; each has at least 32 frames."""


def _chunks(reverse_steps: int, init_steps: int) -> Plan:
    return Plan((3.0, 3.0, 6.0, 6.0), 2, 6.0, reverse_steps, init_steps, references=References.last(2))


PLANS: dict[str, Callable[[int, int], Plan]] = {
    "outpainting, last 1": lambda m, n: outpainting(2, References.last(1), m, n),
    "outpainting, last 4": lambda m, n: outpainting(2, References.last(4), m, n),
    "outpainting, last 3 noised": lambda m, n: outpainting(2, References.last(3, 0.3), m, n),
    "outpainting, sink + last 2": lambda m, n: outpainting(2, References.first(1) + References.last(2), m, n),
    "outpainting, all": lambda m, n: outpainting(2, References.all(), m, n),
    "FIFO": lambda m, n: fifo(4, References.none(), m, n),
    "FIFO, last 3": lambda m, n: fifo(4, References.last(3), m, n),
    "FIFO, warm-up": lambda m, n: Plan(
        (1.5, 3.0, 4.5, 6.0), 1, 6.0, m, n, references=References.last(1), initialisation="warmup"
    ),
    "FIFO, stopped early": lambda m, n: Plan((2.0, 4.0, 6.0), 1, 6.0, m, n, floor=0.02, spacing="geometric"),
    "chunks of 2": _chunks,
    "causal": lambda m, n: Plan(
        (6.0, 6.0), 2, 6.0, m, n, references=References.last(2), visible=(causal_mask(2),)
    ),
}
"""Plans by name, from the numbers of reverse steps (AR step, initialisation); T = 6 throughout."""
