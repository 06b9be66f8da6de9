"""Forward noising: the unit Ornstein-Uhlenbeck clock, other schedules read in it, and time grids.

Every variance-preserving process is the unit OU process run on another clock, so plans, scores and the
ledger speak of OU *levels* only, and the schedules of this module translate native times into them::

    X^t = α(t) X + σ(t) ε,    α(t) = e^{-t/2},    σ²(t) = 1 - e^{-t},    t ∈ [0, T].

Source: arXiv 2503.10704, section 3 (the OU forward process).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "SPACINGS",
    "DiscreteVP",
    "VPSchedule",
    "alpha",
    "clock_from_flow",
    "clock_from_sigma",
    "clock_from_snr",
    "flow_from_clock",
    "joint_noise",
    "noised",
    "sigma2",
    "snr_from_clock",
    "standard_normal",
    "time_grid",
    "transition",
]

Array = NDArray[np.float64]


def alpha(level: Tensor) -> Tensor:
    """Signal scale α(t) = e^{-t/2} of the unit OU process at OU level t."""
    return torch.exp(-level / 2)


def sigma2(level: Tensor) -> Tensor:
    """Noise variance σ²(t) = 1 - e^{-t} of the unit OU process at OU level t."""
    return -torch.expm1(-level)


def transition(level: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
    """Forward kernel X^t | X^s ~ N(a X^s, v) for t = ``level`` ≥ s = ``earlier``.

    Returns (a, v) with a = α(t)/α(s) = e^{-(t-s)/2} and v = σ²(t) - a² σ²(s) = 1 - e^{-(t-s)}.

    Raises:
        ValueError: if some level lies below the earlier one: noise is never taken away.
    """
    step = level - earlier
    if not bool((step >= 0).all()):
        raise ValueError(f"the forward process never lowers a level, but one falls by {-float(step.min())}")
    return torch.exp(-step / 2), -torch.expm1(-step)


def standard_normal(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in float64, on the generator's device."""
    device = torch.device("cpu") if generator is None else generator.device
    return torch.randn(tuple(shape), dtype=torch.float64, generator=generator, device=device)


def noised(
    frames: Tensor, levels: Tensor, earlier: Tensor | None = None, noise: Tensor | torch.Generator | None = None
) -> Tensor:
    """Frames (..., n, d) taken from ``earlier`` levels (clean, if left out) to ``levels``, one a frame.

    Args:
        frames: where they stand.
        levels: (n,) or (..., n), not below the earlier ones.
        earlier: likewise.
        noise: standard normal numbers of the frames' shape, or the generator that they are drawn from.

    Raises:
        ValueError: if a level falls.
    """
    scale, variance = transition(levels, torch.zeros_like(levels) if earlier is None else earlier)
    if not bool((variance > 0).any()):
        return frames
    fresh = noise if isinstance(noise, Tensor) else standard_normal(frames.shape, noise)
    spread = torch.sqrt(variance).to(frames).unsqueeze(-1)
    return scale.to(frames).unsqueeze(-1) * frames + spread * fresh.to(frames)


def joint_noise(levels: Tensor, ancestor: Tensor) -> Tensor:
    """Covariance that the noise alone gives two states of the *same* frame: α(t_a) α(t_b) (e^{s_ab} - 1).

    Two states of one frame share the noise that was added up to the level ``s_ab`` at which their forward
    paths part; after it they are independent. On one path s_ab = min(t_a, t_b), and the formula is the usual
    (α(t)/α(s)) σ²(s); a state freshly noised from a clean frame shares nothing: s_ab = 0.
    It is computed as σ²(s_ab) e^{s_ab - (t_a + t_b)/2}, which cannot overflow and is σ²(t) on the diagonal.

    Args:
        levels: OU levels, shape (..., n).
        ancestor: the parting levels s_ab, shape (..., n, n); on the diagonal the states' own levels.

    Returns:
        shape (..., n, n); entries of different frames must be masked by the caller.
    """
    middle = (levels[..., :, None] + levels[..., None, :]) / 2
    return sigma2(ancestor) * torch.exp(ancestor - middle)


def clock_from_snr(snr: ArrayLike) -> NDArray[np.float64]:
    """OU level with signal-to-noise ratio ``snr`` = α²/σ²: t = log(1 + 1/snr)."""
    values = np.asarray(snr, dtype=np.float64)
    if not np.all(values > 0):
        raise ValueError(f"a signal-to-noise ratio must be positive, got {values.min()}")
    result: NDArray[np.float64] = np.log1p(1.0 / values)
    return result


def snr_from_clock(level: ArrayLike) -> NDArray[np.float64]:
    """Signal-to-noise ratio of an OU level: snr = 1/(e^t - 1) = α²(t)/σ²(t)."""
    values = np.asarray(level, dtype=np.float64)
    if not np.all(values > 0):
        raise ValueError(f"only a positive level has a finite signal-to-noise ratio, got {values.min()}")
    result: NDArray[np.float64] = np.exp(-values) / -np.expm1(-values)
    return result


def clock_from_sigma(sigma: ArrayLike) -> NDArray[np.float64]:
    """OU level of the variance-exploding state X + σ ε (EDM's σ): t = log(1 + σ²)."""
    values = np.asarray(sigma, dtype=np.float64)
    if not np.all((values >= 0) & np.isfinite(values)):
        raise ValueError(f"a noise scale must be finite and not negative, got {values.min()} to {values.max()}")
    result: NDArray[np.float64] = np.log1p(values**2)
    return result


def clock_from_flow(time: ArrayLike) -> NDArray[np.float64]:
    """OU level of the flow-matching state (1 - t) X + t ε: log(1 + (t/(1-t))²), for t in [0, 1)."""
    values = np.asarray(time, dtype=np.float64)
    if not np.all((values >= 0) & (values < 1)):
        raise ValueError(
            f"a flow-matching time must lie in [0, 1): pure noise (t = 1) has no finite level; got "
            f"{values.min()} to {values.max()}"
        )
    result: NDArray[np.float64] = np.log1p((values / (1.0 - values)) ** 2)
    return result


@dataclass(frozen=True)
class VPSchedule:
    """A continuous variance-preserving schedule on native time s ∈ [0, 1], read in the OU clock.

    The OU level is t(s) = -log ᾱ(s), where ᾱ = α² is the signal variance.

    - ``linear``: ᾱ(s) = exp(-β_0 s - (β_1 - β_0) s²/2)  (Song et al. 2021, eq. 33).
    - ``cosine``: ᾱ(s) = f(s)/f(0), f(s) = cos²(π/2 · (s + c)/(1 + c))  (Nichol and Dhariwal 2021, eq. 17).

    Attributes:
        kind: ``linear`` or ``cosine``.
        beta_start: β_0 of the linear schedule.
        beta_end: β_1 of the linear schedule.
        offset: c of the cosine schedule.

    Example:
        >>> schedule = VPSchedule("linear")
        >>> float(schedule.native(schedule.clock(0.3)).round(12))
        0.3
    """

    kind: Literal["linear", "cosine"] = "linear"
    beta_start: float = 0.1
    beta_end: float = 20.0
    offset: float = 0.008

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "cosine"):
            raise ValueError(f"a VP schedule is 'linear' or 'cosine', got {self.kind!r}")
        rising = 0 <= self.beta_start <= self.beta_end and 0 < self.beta_end < math.inf
        if self.kind == "linear" and not rising:
            raise ValueError(
                f"β must be finite, not negative, not fall and not vanish, got {self.beta_start} to "
                f"{self.beta_end}"
            )
        if self.kind == "cosine" and not 0 < self.offset < math.inf:
            raise ValueError(f"the cosine offset must be positive and finite, got {self.offset}")

    def clock(self, native: ArrayLike) -> NDArray[np.float64]:
        """OU level -log ᾱ(s) of native time s, to full relative accuracy also near s = 0.

        Raises:
            ValueError: outside [0, 1], and at s = 1 of the cosine schedule, where no signal is left.
        """
        s = np.asarray(native, dtype=np.float64)
        inside = (s >= 0) & ((s < 1) if self.kind == "cosine" else (s <= 1))
        if not np.all(inside):
            bound = "[0, 1)" if self.kind == "cosine" else "[0, 1]"
            raise ValueError(f"native time must lie in {bound}, got {s.min()} to {s.max()}")
        if self.kind == "linear":
            result: NDArray[np.float64] = self.beta_start * s + (self.beta_end - self.beta_start) * s**2 / 2
            return result
        # α(s) = cos(a + b)/cos(a). Early, α - 1 from terms that vanish with b; late, cos(a + b) from what is
        # left of the quarter turn: each keeps the digits that the plain formula loses.
        angle = self._quarter_turn * s
        early = -2 * np.sin(angle / 2) ** 2 - math.tan(self._first_angle) * np.sin(angle)
        late = np.sin(self._quarter_turn * (1 - s)) / math.cos(self._first_angle)
        half = np.where(s < 0.5, np.log1p(np.where(s < 0.5, early, 0.0)), np.log(late))
        return -2 * half

    def native(self, level: ArrayLike) -> NDArray[np.float64]:
        """Native time s whose OU level is ``level``: the inverse of :meth:`clock`, in closed form.

        A cosine level beyond about 70 rounds to s = 1.

        Raises:
            ValueError: if a level is negative, not finite or beyond the linear schedule's end.
        """
        t = np.asarray(level, dtype=np.float64)
        if not np.all((t >= 0) & np.isfinite(t)):
            raise ValueError(f"an OU level must be finite and not negative, got {t.min()} to {t.max()}")
        if self.kind == "linear":
            last = float(self.clock(1.0))
            if np.any(t > last * (1 + 1e-12)):  # the end computed along another formula may round upwards
                raise ValueError(f"level {t.max()} lies beyond the schedule's end, {last}")
            slope = self.beta_end - self.beta_start
            # The conjugate form of the quadratic's root: it covers slope = 0 and loses no digits near t = 0.
            s: NDArray[np.float64] = (
                2 * t / (self.beta_start + np.sqrt(self.beta_start**2 + 2 * slope * t) + (t == 0))
            )
            return np.minimum(s, 1.0)  # and then stands for the end itself
        # θ = a + b from its sine and cosine, then b from cos a - cos θ = 2 sin((θ + a)/2) sin(b/2).
        first = math.cos(self._first_angle)
        theta = np.arctan2(
            np.sqrt(math.sin(self._first_angle) ** 2 - first**2 * np.expm1(-t)), first * np.exp(-t / 2)
        )
        angle = 2 * np.arcsin(-first * np.expm1(-t / 2) / (2 * np.sin((theta + self._first_angle) / 2)))
        result: NDArray[np.float64] = angle / self._quarter_turn
        return result

    @property
    def _quarter_turn(self) -> float:
        """The angle b of the cosine schedule's native time 1: b(s) = π/2 · s/(1 + c)."""
        return math.pi / 2 / (1 + self.offset)

    @property
    def _first_angle(self) -> float:
        """The angle a of the cosine schedule's native time 0: a = π/2 · c/(1 + c)."""
        return self._quarter_turn * self.offset


@dataclass(frozen=True)
class DiscreteVP:
    """A discrete DDPM schedule of N betas: after n steps the OU level is -Σ_{i<n} log(1 - β_i).

    Timestep n counts the noising steps, 0 (clean) to N. Source: Ho et al. 2020, eq. 4.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise ValueError("a DDPM schedule needs at least one β, each strictly between 0 and 1")

    @classmethod
    def linear(cls, steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> DiscreteVP:
        """The linear schedule of Ho et al. 2020, section 4."""
        return cls(tuple(float(beta) for beta in np.linspace(start, end, steps)))

    def clock(self, timestep: Sequence[int] | int) -> NDArray[np.float64]:
        """OU levels of whole timesteps in 0..N.

        Raises:
            ValueError: if a timestep is not a whole number from 0 to N.
        """
        table = np.concatenate([[0.0], np.cumsum(-np.log1p(-np.asarray(self.betas)))])
        index = np.asarray(timestep)
        if not np.issubdtype(index.dtype, np.integer) or np.any(index < 0) or np.any(index >= len(table)):
            raise ValueError(f"a timestep is a whole number from 0 to {len(self.betas)}, got {timestep}")
        result: NDArray[np.float64] = table[index]
        return result


def _sigma(level: Array) -> Array:
    """EDM's σ of OU levels, √(e^t - 1): the inverse of :func:`clock_from_sigma`."""
    return np.sqrt(np.expm1(level))


def flow_from_clock(level: ArrayLike, shift: float = 1.0) -> Array:
    """Flow-matching time σ/(1 + σ) of OU levels, before its resolution shift."""
    sigma = _sigma(np.asarray(level, dtype=np.float64))
    time: Array = sigma / (1 + sigma)
    return time / (shift - (shift - 1) * time)


_SPACINGS: dict[str, tuple[float | None, Callable[[Array, Any], Array], Callable[[Array, Any], Array]]] = {
    "uniform": (None, lambda t, _: t, lambda u, _: u),
    "geometric": (None, lambda t, _: np.log(t), lambda u, _: np.exp(u)),
    "karras": (7.0, lambda t, rho: _sigma(t) ** (1 / rho), lambda u, rho: clock_from_sigma(u**rho)),
    "tangent": (1.0, lambda t, c: np.arctan(_sigma(t) / c), lambda u, c: clock_from_sigma(c * np.tan(u))),
    "flow": (1.0, flow_from_clock, lambda u, s: clock_from_flow(s * u / (1 + (s - 1) * u))),
    "cosine": (
        0.008,
        lambda t, c: VPSchedule("cosine", offset=c).native(t),
        lambda u, c: VPSchedule("cosine", offset=c).clock(u),
    ),
}
"""By name: the default parameter, the coordinate in which levels are equally far apart, and back from it."""

SPACINGS = tuple(_SPACINGS)
"""The names of spacings; see :func:`time_grid`."""


def time_grid(start: float, end: float, steps: int, spacing: str = "uniform") -> tuple[float, ...]:
    """Falling levels from ``start`` to ``end`` in ``steps`` reverse steps: ``steps + 1`` values, exact ends.

    The levels between are equally far apart in a coordinate of the level t, with σ = √(e^t - 1):

    =============  ===========================================================================================
    spacing        equally far apart
    =============  ===========================================================================================
    uniform        t
    geometric      log t (``end`` must be above 0: stop early)
    karras:ρ       σ^{1/ρ}, ρ = 7 if left out (Karras et al. 2022, eq. 5)
    tangent:c      θ in σ = c tan θ, c = 1 if left out: for a Gaussian of variance c² under DDIM every step of
                   equal angle multiplies the ratio of generated to true deviation alike (2601.13602)
    flow:s         flow-matching time before its resolution shift s, 1 if left out (Esser et al. 2024, eq. 23)
    cosine:c       time of the cosine schedule of offset c, 0.008 if left out (Nichol and Dhariwal 2021, eq. 17);
                   between the same ends this is tangent:1 but for the offset
    =============  ===========================================================================================

    Raises:
        ValueError: if a level is negative, not finite or rises, without a step, or for another spacing.

    Example:
        >>> time_grid(1.0, 0.0, 4)
        (1.0, 0.75, 0.5, 0.25, 0.0)
        >>> [round(level, 4) for level in time_grid(6.0, 0.0, 3, "karras:7")]
        [6.0, 0.8665, 0.0001, 0.0]
    """
    if steps < 1:
        raise ValueError(f"a grid needs at least one reverse step, got {steps}")
    if not (math.isfinite(start) and math.isfinite(end) and start >= end >= 0):
        raise ValueError(f"levels must be finite and fall to a level ≥ 0, got {start} to {end}")
    name, _, given = spacing.partition(":")
    if name not in _SPACINGS or (given and _SPACINGS[name][0] is None):
        raise ValueError(
            f"a spacing is one of {', '.join(SPACINGS)}, the last four also with a number, as in 'karras:7'; got "
            f"{spacing!r}"
        )
    if name == "geometric" and end <= 0:
        raise ValueError("a geometric grid must stop at a level above 0: stop early")
    default, coordinate, level = _SPACINGS[name]
    try:
        parameter = float(given) if given else default
    except ValueError:
        parameter = math.nan
    if parameter is not None and not 0 < parameter < math.inf:
        raise ValueError(f"the number of a spacing must be positive and finite, got {spacing!r}")
    first, last = coordinate(np.array([start, end], dtype=np.float64), parameter)
    inner = level(first + np.arange(1, steps) / steps * (last - first), parameter)
    # Rounding may have left a level a hair above the one before it, or below the end.
    falling = np.minimum.accumulate(np.clip(inner, end, start))
    return (start, *falling.tolist(), end)
