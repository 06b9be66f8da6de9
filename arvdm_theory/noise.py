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
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "SPACINGS",
    "NoiseSchedule",
    "alpha",
    "clock_from_flow",
    "clock_from_sigma",
    "clock_from_snr",
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
class NoiseSchedule:
    """A noise schedule's native time, whatever its authors count in, read in the OU clock; both ways.

    Made by :meth:`linear`, :meth:`cosine`, :meth:`flow`, :meth:`sigma`, :meth:`edm` (closed forms) and
    :meth:`ddpm`, :meth:`from_betas`, :meth:`from_sigmas` (tables). Levels of equal signal-to-noise ratio are the
    same level: t = -log ᾱ with the signal variance ᾱ = α². A table is interpolated between its finite entries,
    linearly in log σ or in σ = √(e^t - 1); between clean and its first noise in σ.

    Attributes:
        kind: which of them.
        parameters: β_0 and β_1 (``linear``), the offset c (``cosine``), the shift (``flow``).
        scale: native time units in one of the closed form's: 1000 where it is told in thousandths.
        levels: of a table, rising from 0; the last may be infinite (no signal left).
        first: native time of a table's level 0; the others follow in steps of 1.
        interpolation: ``log_sigma`` or ``sigma``.

    Example:
        >>> schedule = NoiseSchedule.linear()
        >>> float(schedule.native(schedule.clock(0.3)).round(12))
        0.3
        >>> NoiseSchedule.flow(scale=1000).clock(torch.tensor([500.0]))
        tensor([0.6931], dtype=torch.float64)
    """

    kind: Literal["linear", "cosine", "flow", "sigma", "edm", "table"]
    parameters: tuple[float, ...] = ()
    scale: float = 1.0
    levels: tuple[float, ...] = ()
    first: float = 0.0
    interpolation: Literal["log_sigma", "sigma"] = "log_sigma"

    # -- makers ---------------------------------------------------------------------------------------

    @classmethod
    def linear(cls, start: float = 0.1, end: float = 20.0, scale: float = 1.0) -> NoiseSchedule:
        """ᾱ(s) = exp(-β_0 s - (β_1 - β_0) s²/2), s ∈ [0, 1] (Song et al. 2021, eq. 33)."""
        if not (0 <= start <= end and 0 < end < math.inf):
            raise ValueError(f"β must be finite, not negative, not fall and not vanish, got {start} to {end}")
        return cls("linear", (float(start), float(end)), _scale(scale))

    @classmethod
    def cosine(cls, offset: float = 0.008, scale: float = 1.0) -> NoiseSchedule:
        """ᾱ(s) = f(s)/f(0), f(s) = cos²(π/2 · (s + c)/(1 + c)), s ∈ [0, 1) (Nichol and Dhariwal 2021, eq. 17)."""
        if not 0 < offset < math.inf:
            raise ValueError(f"the cosine offset must be positive and finite, got {offset}")
        return cls("cosine", (float(offset),), _scale(scale))

    @classmethod
    def flow(cls, shift: float = 1.0, scale: float = 1.0) -> NoiseSchedule:
        """The state (1 - u) X + u ε with u = k s/(1 + (k - 1) s), k the shift, s ∈ [0, 1)
        (Esser et al. 2024, eq. 23)."""
        if not 0 < shift < math.inf:
            raise ValueError(f"a flow's shift must be positive and finite, got {shift}")
        return cls("flow", (float(shift),), _scale(scale))

    @classmethod
    def sigma(cls) -> NoiseSchedule:
        """The state X + σ ε; native time is σ ≥ 0 itself."""
        return cls("sigma")

    @classmethod
    def edm(cls) -> NoiseSchedule:
        """The state X + σ ε; native time is ¼ log σ, as networks are told it by Karras et al. 2022, table 1."""
        return cls("edm")

    @classmethod
    def ddpm(cls, steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """The linear betas of Ho et al. 2020, section 4; native time n counts noising steps."""
        return cls.from_betas(np.linspace(start, end, steps))

    @classmethod
    def from_betas(
        cls,
        betas: ArrayLike | Tensor,
        first: float = 0.0,
        interpolation: Literal["log_sigma", "sigma"] = "log_sigma",
    ) -> NoiseSchedule:
        """Discrete betas: n noising steps stand at level -Σ_{i<n} log(1 - β_i) (Ho et al. 2020, eq. 4).

        Args:
            betas: each in (0, 1); the last may be 1, which leaves no signal.
            first: native time of a clean frame: 0 counts noising steps; -1 counts entries, as diffusers does.
            interpolation: between entries.
        """
        values = _floats(betas)
        inside = (values > 0) & (
            (values < 1) | ((values == 1) & (np.arange(values.size) == max(values.size - 1, 1)))
        )
        if values.ndim != 1 or not len(values) or not inside.all():
            raise ValueError(
                "a DDPM schedule needs at least one β, each strictly between 0 and 1 (the last may be 1)"
            )
        with np.errstate(divide="ignore"):
            levels = np.concatenate([[0.0], np.cumsum(-np.log1p(-values))])
        return cls("table", levels=tuple(levels.tolist()), first=float(first), interpolation=interpolation)

    @classmethod
    def from_sigmas(
        cls,
        sigmas: ArrayLike | Tensor,
        first: float = 0.0,
        interpolation: Literal["log_sigma", "sigma"] = "log_sigma",
    ) -> NoiseSchedule:
        """The table of rising noise scales σ of states X + σ ε, behind a clean frame at native time ``first``."""
        values = _floats(sigmas)
        if values.ndim != 1 or not len(values) or not (values[0] > 0 and np.all(np.diff(values) > 0)):
            raise ValueError("a table of noise scales needs positive σ that rise")
        levels = np.log1p(values**2)
        return cls("table", levels=(0.0, *levels.tolist()), first=float(first), interpolation=interpolation)

    # -- both ways ------------------------------------------------------------------------------------

    @overload
    def clock(self, native: Tensor) -> Tensor: ...
    @overload
    def clock(self, native: ArrayLike) -> Array: ...
    def clock(self, native: ArrayLike | Tensor) -> Array | Tensor:
        """OU level of a native time, to full relative accuracy also near clean; a tensor for a tensor.

        Raises:
            ValueError: outside the schedule, and where no signal is left.
        """
        s = _floats(native) / self.scale
        low, high, open_end = self._range
        if not np.all((s >= low) & ((s < high) if open_end else (s <= high))):
            bound = f"[{low:g}, {high:g}{')' if open_end else ']'}"
            scaled = "" if self.scale == 1 else f" times {self.scale:g}"
            raise ValueError(
                f"native time must lie in {bound}{scaled}, got {s.min() * self.scale} to {s.max() * self.scale}"
            )
        if self.kind == "linear":
            start, end = self.parameters
            return _like(native, start * s + (end - start) * s**2 / 2)
        if self.kind == "cosine":
            return _like(native, self._cosine(s))
        if self.kind == "flow":
            shift = self.parameters[0]
            return _like(native, clock_from_flow(shift * s / (1 + (shift - 1) * s)))
        if self.kind == "sigma":
            return _like(native, clock_from_sigma(s))
        if self.kind == "edm":
            return _like(native, clock_from_sigma(np.exp(4 * s)))
        levels = self._table
        below = np.clip(np.floor(s - self.first).astype(int), 0, len(levels) - 2)
        share = s - self.first - below
        low_sigma, high_sigma = _sigma(levels[below]), _sigma(levels[below + 1])
        linear = low_sigma + share * (high_sigma - low_sigma)
        if self.interpolation == "log_sigma":
            positive = np.where(low_sigma > 0, low_sigma, high_sigma)
            geometric = positive * (high_sigma / positive) ** share
            linear = np.where(low_sigma > 0, geometric, linear)
        # At its own entries a table says its own numbers.
        inner = np.where(share == 0, levels[below], clock_from_sigma(linear))
        return _like(native, np.where(share == 1, levels[below + 1], inner))

    @overload
    def native(self, level: Tensor) -> Tensor: ...
    @overload
    def native(self, level: ArrayLike) -> Array: ...
    def native(self, level: ArrayLike | Tensor) -> Array | Tensor:
        """Native time whose OU level is ``level``: the inverse of :meth:`clock`; a tensor for a tensor.

        A cosine level beyond about 70 rounds to its end. Where a table ends without signal, all levels above its
        last finite one stand for that end.

        Raises:
            ValueError: if a level is negative, not finite or beyond the schedule's end.
        """
        t = _floats(level)
        if not np.all((t >= 0) & np.isfinite(t)):
            raise ValueError(f"an OU level must be finite and not negative, got {t.min()} to {t.max()}")
        if self.kind in ("linear", "table"):
            last = self.last_level
            if np.any(t > last * (1 + 1e-12)):  # the end computed along another formula may round upwards
                raise ValueError(f"level {t.max()} lies beyond the schedule's end, {last}")
        if self.kind == "linear":
            start, end = self.parameters
            # The conjugate form of the quadratic's root: it covers slope = 0 and loses no digits near t = 0.
            root = 2 * t / (start + np.sqrt(start**2 + 2 * (end - start) * t) + (t == 0))
            found = np.minimum(root, 1.0)  # and then stands for the end itself
        elif self.kind == "cosine":
            found = self._cosine_time(t)
        elif self.kind == "flow":
            found = _flow_time(t, self.parameters[0])
        elif self.kind == "sigma":
            found = _sigma(t)
        elif self.kind == "edm":
            if not np.all(t > 0):
                raise ValueError("a clean frame has no ¼ log σ: its level is 0")
            found = np.log(_sigma(t)) / 4
        else:
            found = self._table_time(t)
        return _like(level, self.scale * found)

    @property
    def last_level(self) -> float:
        """The largest level; infinite where no signal is left at the end."""
        if self.kind == "linear":
            return float(self.clock(self.scale))
        return self.levels[-1] if self.kind == "table" else math.inf

    @property
    def last(self) -> float:
        """Native time of the largest level."""
        return self.first + len(self.levels) - 1 if self.kind == "table" else self.scale * self._range[1]

    # -- their formulas -------------------------------------------------------------------------------

    @property
    def _range(self) -> tuple[float, float, bool]:
        """The first and last native time of a level, before scaling, and whether the last is never reached."""
        if self.kind == "table":
            return self.first, self.first + len(self._table) - 1, False
        if self.kind in ("sigma", "edm"):
            return 0.0 if self.kind == "sigma" else -math.inf, math.inf, True
        return 0.0, 1.0, self.kind != "linear"

    @property
    def _table(self) -> Array:
        """Its finite levels."""
        levels = np.asarray(self.levels, dtype=np.float64)
        return levels[np.isfinite(levels)]

    def _table_time(self, level: Array) -> Array:
        levels = self._table
        below = np.clip(np.searchsorted(levels, level, side="right") - 1, 0, len(levels) - 2)
        low, high, at = _sigma(levels[below]), _sigma(levels[below + 1]), _sigma(level)
        share = (at - low) / (high - low)
        if self.interpolation == "log_sigma":
            positive = np.where(low > 0, low, 1.0)
            share = np.where(
                low > 0, np.log(np.where(low > 0, at, 1.0) / positive) / np.log(high / positive), share
            )
        found = self.first + below + np.clip(share, 0.0, 1.0)
        return np.where(level > levels[-1] * (1 + 1e-12), self.last, found)

    def _cosine(self, s: Array) -> Array:
        # α(s) = cos(a + b)/cos(a). Early, α - 1 from terms that vanish with b; late, cos(a + b) from what is
        # left of the quarter turn: each keeps the digits that the plain formula loses.
        turn, angle = self._quarter_turn, self._quarter_turn * s
        early = -2 * np.sin(angle / 2) ** 2 - math.tan(self._first_angle) * np.sin(angle)
        late = np.sin(turn * (1 - s)) / math.cos(self._first_angle)
        half = np.where(s < 0.5, np.log1p(np.where(s < 0.5, early, 0.0)), np.log(late))
        return -2 * half

    def _cosine_time(self, t: Array) -> Array:
        # θ = a + b from its sine and cosine, then b from cos a - cos θ = 2 sin((θ + a)/2) sin(b/2).
        first = math.cos(self._first_angle)
        theta = np.arctan2(
            np.sqrt(math.sin(self._first_angle) ** 2 - first**2 * np.expm1(-t)), first * np.exp(-t / 2)
        )
        angle = 2 * np.arcsin(-first * np.expm1(-t / 2) / (2 * np.sin((theta + self._first_angle) / 2)))
        found: Array = angle / self._quarter_turn
        return found

    @property
    def _quarter_turn(self) -> float:
        """The angle b of the cosine schedule's native time 1: b(s) = π/2 · s/(1 + c)."""
        return math.pi / 2 / (1 + self.parameters[0])

    @property
    def _first_angle(self) -> float:
        """The angle a of the cosine schedule's native time 0: a = π/2 · c/(1 + c)."""
        return self._quarter_turn * self.parameters[0]


def _floats(values: ArrayLike | Tensor) -> Array:
    """Numbers as a float64 array, whatever held them."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _like(given: ArrayLike | Tensor, values: Array) -> Array | Tensor:
    """An array, or a tensor on the given one's device."""
    return torch.as_tensor(values, device=given.device) if isinstance(given, Tensor) else np.asarray(values)


def _scale(scale: float) -> float:
    if not 0 < scale < math.inf:
        raise ValueError(f"a native time unit must be positive and finite, got {scale}")
    return float(scale)


def _sigma(level: Array) -> Array:
    """EDM's σ of OU levels, √(e^t - 1): the inverse of :func:`clock_from_sigma`."""
    return np.sqrt(np.expm1(level))


def _flow_time(level: Array, shift: float) -> Array:
    """Flow-matching time σ/(1 + σ) before its shift."""
    time = _sigma(level) / (1 + _sigma(level))
    return time / (shift - (shift - 1) * time)


_SPACINGS: dict[str, tuple[float | None, Callable[[Array, Any], Array], Callable[[Array, Any], Array]]] = {
    "uniform": (None, lambda t, _: t, lambda u, _: u),
    "geometric": (None, lambda t, _: np.log(t), lambda u, _: np.exp(u)),
    "karras": (7.0, lambda t, rho: _sigma(t) ** (1 / rho), lambda u, rho: clock_from_sigma(u**rho)),
    "tangent": (1.0, lambda t, c: np.arctan(_sigma(t) / c), lambda u, c: clock_from_sigma(c * np.tan(u))),
    "flow": (1.0, _flow_time, lambda u, s: clock_from_flow(s * u / (1 + (s - 1) * u))),
    "cosine": (
        0.008,
        lambda t, c: NoiseSchedule.cosine(c).native(t),
        lambda u, c: NoiseSchedule.cosine(c).clock(u),
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
