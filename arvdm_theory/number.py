"""One number: a value with what is known of its error, the same for a term, an estimate, a score or a prediction.

A number is a mean over samples, kept with a leading sample axis:

    value = mean over the samples,    stderr² = Var(samples)/n + extra².

An exact number has one sample and no error. Numbers that were averaged over the *same* draws add sample by
sample, so that what they have in common cancels or adds as it should; ``extra`` is an error that the samples do
not hold (a quadrature's, a jackknife's), independent of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["LEVEL", "Number", "half_width"]

LEVEL = 0.95
"""Nominal coverage of a confidence interval, unless asked otherwise."""


def half_width(stderr: float, freedom: float = math.inf, level: float = LEVEL) -> float:
    """Half the width of a confidence interval: a Student-t quantile (a normal one for infinite freedom).

    Raises:
        ValueError: unless the level lies between 0 and 1.
    """
    from scipy.stats import norm, t

    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, got {level}")
    quantile = norm.ppf((1 + level) / 2) if math.isinf(freedom) else t.ppf((1 + level) / 2, freedom)
    return float(quantile) * stderr


def _aligned(samples: Tensor, axes: int) -> Tensor:
    """Draws at the first of ``axes`` axes and entries at the last ones, so that draws never meet entries."""
    return samples.reshape(len(samples), *(1,) * (axes - samples.ndim), *samples.shape[1:])


def _plain(value: Tensor) -> Any:
    """A Python float where there is one entry and nothing to differentiate."""
    return float(value) if value.ndim == 0 and not value.requires_grad else value


@dataclass(frozen=True, eq=False)
class Number:
    """A quantity and how well it is known.

    A single number comes out as Python floats (a tensor where it carries a gradient), an array of them as tensors.

    Attributes:
        samples: (n, ...), float64; n = 1: exact, but for ``extra``.
        extra: a standard error that the samples do not hold, broadcast to (...).
        interval: (low, high) where the confidence interval is not value ± a quantile of the standard error.
        freedom: degrees of freedom of the standard error.
        method: how it was found.
        n: how many samples went in.
        k: number of neighbours; None for methods without.
        warnings: what is to be said of it, each one sentence or two on what is wrong and what to do.
        diagnosis: what was seen in the samples before the estimate, of an estimator that looks.

    Example:
        >>> once, often = Number.exact(2.0), Number(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        >>> total = once + often
        >>> total.value, round(total.stderr, 4)
        (3.5, 0.6455)
        >>> float(total - often), (total - often).stderr
        (2.0, 0.0)
    """

    samples: Tensor
    extra: Tensor | float = 0.0
    interval: tuple[Any, Any] | None = None
    freedom: float = math.inf
    method: str = ""
    n: int | None = None
    k: int | None = None
    warnings: tuple[str, ...] = ()
    diagnosis: Any = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen; this is where it is filled
        samples = torch.as_tensor(self.samples, dtype=torch.float64)
        put(self, "samples", samples)
        if samples.ndim == 0 or len(samples) == 0:
            raise ValueError(f"a number has samples along its first axis, got shape {tuple(samples.shape)}")
        if self.n is None:
            put(self, "n", len(samples))

    # -- ways to make one ----------------------------------------------------------------------------

    @classmethod
    def exact(cls, value: Tensor | float, method: str = "exact") -> Number:
        """A value that is known but for rounding."""
        return cls(torch.as_tensor(value, dtype=torch.float64)[None], method=method)

    @classmethod
    def stated(
        cls,
        value: float,
        stderr: float,
        low: float | None = None,
        high: float | None = None,
        *,
        method: str,
        n: int,
        k: int | None = None,
        warnings: Sequence[str] = (),
    ) -> Number:
        """A value whose error was found by a method of its own; without ends, the interval is a normal one."""
        interval = None if low is None or high is None else (float(low), float(high))
        return cls(
            torch.tensor([float(value)], dtype=torch.float64), float(stderr), interval,
            method=method, n=n, k=k, warnings=tuple(warnings),
        )  # fmt: skip

    @classmethod
    def stack(cls, numbers: Sequence[Number]) -> Number:
        """Numbers of one shape, over the same draws or exact, along a new first axis behind the samples."""
        rows = max(len(number.samples) for number in numbers)
        parts = [number.samples.expand(rows, *number.samples.shape[1:]) for number in numbers]
        extra: Tensor | float = 0.0
        if any(number._has_extra for number in numbers):
            extra = torch.stack(
                [
                    torch.as_tensor(number.extra, dtype=torch.float64).expand(part.shape[1:]).to(part.device)
                    for number, part in zip(numbers, parts, strict=True)
                ]
            )
        warnings = tuple(dict.fromkeys(text for number in numbers for text in number.warnings))
        return cls(torch.stack(parts, 1), extra, method=numbers[0].method,
                   freedom=min(number.freedom for number in numbers),
                   n=max(number.n or 1 for number in numbers), warnings=warnings)  # fmt: skip

    @classmethod
    def clustered(cls, values: ArrayLike, clusters: ArrayLike, method: str = "mean over clusters") -> Number:
        """The mean of values that come in clusters, such as queries of one episode, which are drawn independently.

        With r_e = Σ_{i in e} (x_i - x̄), the variance of x̄ is G/(G - 1) Σ_e r_e² / N² for G clusters and N values:
        the linearised variance of a ratio of totals. It is that of G samples x̄ + G r_e/N, one a cluster, and the
        interval is Student's with G - 1 degrees of freedom. NaN where fewer than two clusters leave it unknown.

        Args:
            values: shape (N,); none give NaN.
            clusters: shape (N,), a label each.
            method: how the number is said to be found.

        Raises:
            ValueError: if the shapes differ.

        Example:
            >>> found = Number.clustered([1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"])
            >>> found.value, found.stderr, found.n
            (4.0, 2.0, 4)
        """
        x, names = np.asarray(values, dtype=np.float64), np.asarray(clusters)
        if x.ndim != 1 or x.shape != names.shape:
            raise ValueError(
                f"values and clusters are two lists of one length, got shapes {x.shape}, {names.shape}"
            )
        mean = float(x.mean()) if len(x) else math.nan
        labels = np.unique(names, return_inverse=True)[1]
        groups = len(np.unique(labels))
        if groups < 2 or not math.isfinite(mean):
            return cls.stated(mean, math.nan, method=method, n=len(x))
        moves = groups / len(x) * np.bincount(labels, x - mean)
        return cls(torch.from_numpy(mean + moves), method=method, n=len(x))

    # -- what it says --------------------------------------------------------------------------------

    @property
    def value(self) -> Any:
        """The mean over the samples."""
        first = self.samples[0]
        return _plain(first + (self.samples - first).mean(0) if len(self.samples) > 1 else first)

    @property
    def stderr(self) -> Any:
        """Its standard error; 0 where it is exact."""
        return _plain(torch.sqrt(self._variance))

    @property
    def _variance(self) -> Tensor:
        samples = self.samples.detach()
        extra = torch.as_tensor(self.extra, dtype=torch.float64, device=samples.device).detach() ** 2
        if len(samples) == 1:
            return extra.expand_as(samples[0])
        return (samples - samples[0]).var(0) / len(samples) + extra

    @property
    def is_exact(self) -> bool:
        """Whether it has no error but rounding."""
        return len(self.samples) == 1 and not self._has_extra

    @property
    def _has_extra(self) -> bool:
        return bool((self.extra != 0).any()) if isinstance(self.extra, Tensor) else self.extra != 0

    def ends(self, level: float = LEVEL) -> tuple[Any, Any]:
        """The confidence interval; where an interval of its own is known, that one, whatever the level."""
        if self.interval is not None:
            return self.interval
        if self.is_exact:
            return self.value, self.value
        width = half_width(1.0, self._own_freedom, level) * torch.sqrt(self._variance)
        middle = torch.as_tensor(self.value, dtype=torch.float64)
        return _plain(middle - width), _plain(middle + width)

    @property
    def _own_freedom(self) -> float:
        few = len(self.samples)
        return min(self.freedom, few - 1 if few > 1 else math.inf)

    @property
    def ci_low(self) -> Any:
        """Lower end of the 95 % confidence interval (or of the level it was made with)."""
        return self.ends()[0]

    @property
    def ci_high(self) -> Any:
        """Its upper end."""
        return self.ends()[1]

    def __float__(self) -> float:
        return float(self.value.detach() if isinstance(self.value, Tensor) else self.value)

    def __repr__(self) -> str:
        if self.samples.ndim > 1:
            return f"Number(shape={tuple(self.samples.shape[1:])}, samples={len(self.samples)})"
        error = "" if self.is_exact else f" ± {self.stderr:.2g}"
        return f"Number({float(self):.6g}{error})"

    # -- arithmetic ----------------------------------------------------------------------------------

    def _mapped(self, change: Callable[[Tensor], Tensor], extra: Tensor | float) -> Number:
        """The same map of every sample; an interval of its own does not survive it."""
        return replace(self, samples=change(self.samples), extra=extra, interval=None)

    def __add__(self, other: Number | Tensor | float) -> Number:
        """The sum; two sampled numbers are taken to come from the same draws, one a row."""
        mine, theirs = self, other if isinstance(other, Number) else Number.exact(other)
        rows = {len(each.samples) for each in (mine, theirs)} - {1}
        if len(rows) > 1:
            raise ValueError(
                f"numbers over {sorted(rows)} samples are not of the same draws: take plus_independent"
            )
        extra: Tensor | float = 0.0
        if mine._has_extra or theirs._has_extra:
            extra = torch.hypot(*(torch.as_tensor(each.extra, dtype=torch.float64) for each in (mine, theirs)))
        axes = max(mine.samples.ndim, theirs.samples.ndim)
        samples = _aligned(mine.samples, axes) + _aligned(theirs.samples, axes)
        warnings = tuple(dict.fromkeys(mine.warnings + theirs.warnings))
        freedom = min(mine.freedom, theirs.freedom)
        return Number(samples, extra, None, freedom, mine.method or theirs.method, max(mine.n or 1, theirs.n or 1),
                      None, warnings)  # fmt: skip

    __radd__ = __add__

    def __mul__(self, factor: Tensor | float) -> Number:
        by = torch.as_tensor(factor, dtype=torch.float64, device=self.samples.device)
        extra: Tensor | float = 0.0
        if self._has_extra:
            extra = abs(torch.as_tensor(self.extra, dtype=torch.float64, device=self.samples.device) * by.detach())
        axes = max(self.samples.ndim, by.ndim + 1)
        scaled = self._mapped(lambda samples: _aligned(samples, axes) * by, extra)
        if self.interval is None or by.ndim:
            return scaled
        ends = sorted(float(end) * float(by) for end in self.interval)
        return replace(scaled, interval=(ends[0], ends[1]))

    __rmul__ = __mul__

    def __neg__(self) -> Number:
        return self * -1.0

    def __sub__(self, other: Number | Tensor | float) -> Number:
        return self + (-other)

    def plus_independent(self, other: Number) -> Number:
        """The sum of two numbers whose errors are independent; the value may carry a gradient.

        Its degrees of freedom are the fewer of the two, with which the interval covers no less than it says.
        """
        value, more = (torch.as_tensor(each.value, dtype=torch.float64) for each in (self, other))
        extra = torch.sqrt(self._variance + other._variance)
        freedom = min(self._own_freedom, other._own_freedom)
        return Number((value + more)[None], extra, freedom=freedom, method=self.method or other.method,
                      n=max(self.n or 1, other.n or 1),
                      warnings=tuple(dict.fromkeys(self.warnings + other.warnings)))  # fmt: skip

    def _error_free(self, what: str) -> None:
        if self._has_extra:
            raise ValueError(f"{what} of numbers whose errors lie outside the samples is not known: take each")

    def sum(self) -> Number:
        """The sum over all entries."""
        self._error_free("the sum")
        return self._mapped(lambda samples: samples.flatten(1).sum(1) if samples.ndim > 1 else samples, 0.0)

    def sum_last(self) -> Number:
        """The sum over the last axis."""
        self._error_free("the sum")
        return self._mapped(lambda samples: samples.sum(-1), 0.0)

    def cumsum(self) -> Number:
        """Partial sums along the last axis."""
        self._error_free("a partial sum")
        return self._mapped(lambda samples: samples.cumsum(-1), 0.0)

    def __getitem__(self, index: Any) -> Number:
        part: Tensor | float = self.extra
        if isinstance(part, Tensor) and part.ndim:
            part = part.expand(self.samples.shape[1:])[index]
        return self._mapped(lambda samples: samples[(slice(None), *index) if isinstance(index, tuple)
                                                    else (slice(None), index)], part)  # fmt: skip
