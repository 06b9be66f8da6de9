r"""Conditional mutual information from the losses of two denoisers (the I-MMSE relation), in nats.

    I(Out; Past | In) = ½ ∫_0^∞ [mmse(Out | In; snr) - mmse(Out | In, Past; snr)] d snr,

mmse(Out | ·; snr) being the least summed squared error of Out from √snr Out + N(0, I) and what stands behind the
bar. On the OU clock snr = 1/(e^t - 1): an OU state is σ(t) (√snr Out + N(0, I)), so that a diffusion model's
denoiser serves, see :func:`from_ou_denoiser`.

**Quadrature.** In λ = log snr the integrand is snr · gap(snr), which falls like e^λ to the left (the gap tends to
its value without any signal) and, for laws with a density, like e^-λ to the right (the gap falls like 1/snr²).
The trapezoidal rule on the whole line converges exponentially for such a function: for Gaussian laws it is
analytic for |Im λ| < π, and spacing h costs about (8π²/h) e^{-2π²/h} nats (1e-15 at h = ½); for a three-point
law 1e-8 at h = ½ and 1e-12 at ¼ were measured. :class:`SNRGrid` sums the nodes between ``low`` and ``high`` and
continues both ends by those laws, as the geometric series that the rule itself would add.

**Tails.** With exact denoisers gap ≥ 0 and

- ½ ∫_0^low gap ≤ ½ low E‖Out - E[Out | In]‖²; after the continuation an error of at most
  ¼ low² E‖Out - E[Out | In]‖⁴ is left, since each mmse falls at a rate E‖Cov(Out | ...)‖_F² at most that moment;
- ½ ∫_high^∞ gap ≤ F/(2 high), F the trace of the Fisher information of Out given (In, Past),
  E‖∇ log p(Out | In, Past)‖²: snr · mmse = n - J(√snr Out + N | ·) with n entries of Out and J the Fisher
  information, which convolution lowers, so that snr · gap ≤ J(√snr Out + N | In, Past) ≤ F/snr.
  An Out with finitely many values has no F; its gap falls exponentially once snr exceeds the inverse squared
  distance of the values, and the continuation adds no more than what the last node shows.

**Trained denoisers** have losses above the least ones, so the value is I(Out; Past | In) plus
½ ∫ [excess without Past - excess with Past] d snr: it errs either way, may be negative, and is reported as it is.

Source: Guo, Shamai and Verdú 2005, theorem 1 and section IV (I-MMSE, conditional form).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.information.estimators.samples import SampleError, sample
from arvdm_theory.information.estimators.uncertainty import Dependence, conclude_mean, contribution_error
from arvdm_theory.number import LEVEL, Number

__all__ = [
    "Denoiser",
    "SNRGrid",
    "from_ou_denoiser",
    "from_ou_score",
    "immse_information",
    "immse_integral",
    "information_from_losses",
]

Array = NDArray[np.float64]
GapForm = Literal["losses", "difference"]

# Share of an estimate that may come from beyond the grid before it warns: the continuation is right to a part of
# itself that is of the order of this share, so 10 % of the value stands for about 1 % of error.
_TAIL_SHARE = 0.1


class Denoiser(Protocol):
    """Any callable that gives E[Out | √snr Out + N(0, I) = noisy, conditions]."""

    def __call__(self, noisy: Tensor, snr: float, /, *conditions: Tensor) -> Tensor:
        """The conditional mean of Out.

        Args:
            noisy: (batch, d).
            snr: the signal-to-noise ratio, one for the batch.
            conditions: In, or In and Past, each (batch, d_c); In is left out where there is none.

        Returns:
            (batch, d).
        """
        ...


@dataclass(frozen=True)
class SNRGrid:
    """Signal-to-noise ratios at which losses are evaluated: equally spaced in log snr.

    Attributes:
        low: the least, well below 1 over the variance of Out.
        high: the largest, well above 1 over the smallest variance of Out given In and Past.
        spacing: the largest distance in log snr; ½ is exact to rounding for Gaussian laws.

    Raises:
        SampleError: unless 0 < low < high < ∞ and the spacing is positive.

    Example:
        >>> grid = SNRGrid(1e-6, 1e6)
        >>> gap = lambda snr: 1 / (1 + snr) - 1 / (4 + snr)  # variance 1 given In, ¼ given Past too
        >>> round(immse_integral(gap, grid), 9) == round(math.log(2), 9)
        True
    """

    low: float
    high: float
    spacing: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise SampleError(f"an snr grid needs 0 < low < high < ∞, got {self.low} and {self.high}")
        if not 0 < self.spacing < math.inf:
            raise SampleError(f"the spacing in log snr must be positive and finite, got {self.spacing}")

    @property
    def nodes(self) -> Array:
        """The ratios, rising, (nodes,)."""
        result: Array = np.geomspace(self.low, self.high, self._steps + 1)
        return result

    @property
    def weights(self) -> Array:
        """What each node's gap counts in the integral, its tails included, (nodes,)."""
        weights: Array = self._spread * self.nodes / 2
        weights[0] += self.tail_weights[0]
        weights[-1] += self.tail_weights[1]
        return weights

    @property
    def tail_weights(self) -> tuple[float, float]:
        """What the first and the last node count for beyond the grid: Σ_{k≥1} ½ h snr e^{-kh}."""
        h = self._spread
        return h * self.low / 2 / math.expm1(h), h * self.high / 2 / math.expm1(h)

    def tail_bounds(self, variance: float, fisher_information: float) -> tuple[float, float]:
        """The most that lies below ``low`` and beyond ``high`` for exact denoisers, in nats.

        Args:
            variance: E‖Out - E[Out | In]‖².
            fisher_information: E‖∇ log p(Out | In, Past)‖²; ``inf`` where there is no density.
        """
        return self.low * variance / 2, fisher_information / (2 * self.high)

    @property
    def _steps(self) -> int:
        return max(1, math.ceil(math.log(self.high / self.low) / self.spacing * (1 - 1e-12)))

    @property
    def _spread(self) -> float:
        return math.log(self.high / self.low) / self._steps


def immse_integral(gap: Callable[[Array], ArrayLike], grid: SNRGrid) -> float:
    """½ ∫ gap d snr for a gap that is known, such as that of exact denoisers.

    Args:
        gap: snr (nodes,) ↦ mmse(Out | In; snr) - mmse(Out | In, Past; snr), (nodes,).
        grid: where it is evaluated.

    Raises:
        SampleError: if the gap is not finite or not one number a node.
    """
    nodes = grid.nodes
    values = np.asarray(gap(nodes), dtype=np.float64)
    if values.shape != nodes.shape or not np.isfinite(values).all():
        raise SampleError(f"the gap must be {len(nodes)} finite numbers, one a node; got shape {values.shape}")
    return math.fsum(grid.weights * values)


def information_from_losses(
    losses: ArrayLike,
    losses_with_past: ArrayLike,
    grid: SNRGrid,
    *,
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Number:
    """I(Out; Past | In) from two denoisers' losses on the same samples.

    Evaluate both denoisers on the same noisy Out: what the two losses share then cancels sample by sample.

    Args:
        losses: ‖Out - denoiser(√snr Out + N, snr, In)‖², summed over the entries of Out, a row a sample and a
            column a node of the grid, (n, nodes).
        losses_with_past: the same of the denoiser that is told Past too.
        grid: the nodes.
        dependence: of the samples.
        level: of the confidence interval.

    Raises:
        SampleError: for arrays of another shape, or NaN or infinite losses (the message says in which rows).
    """
    without, told = np.asarray(losses, dtype=np.float64), np.asarray(losses_with_past, dtype=np.float64)
    nodes = len(grid.nodes)
    for name, array in (("losses", without), ("losses with Past", told)):
        if array.ndim != 2 or array.shape[1] != nodes or len(array) < 2:
            raise SampleError(f"the {name} must have shape (n, {nodes}) with n ≥ 2, got {array.shape}")
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if len(bad):
            raise SampleError(
                f"the {name} are not finite in {len(bad)} of {len(array)} rows, first in row {bad[0]}"
            )
    if len(without) != len(told):
        raise SampleError(f"both denoisers must be given the same samples, got {len(without)} and {len(told)}")
    return _from_gaps(without - told, grid, dependence, level)


def _from_gaps(gaps: Array, grid: SNRGrid, dependence: Dependence, level: float) -> Number:
    contributions = gaps @ grid.weights
    value, tails = float(contributions.mean()), gaps[:, [0, -1]].mean(0) * grid.tail_weights
    beyond = float(np.abs(tails).sum())
    notes: list[str] = []
    if beyond > _TAIL_SHARE * abs(value) and beyond > contribution_error(contributions, dependence)[0]:
        notes.append(
            f"of {value:.3g} nats, {tails[0]:.3g} come from below snr {grid.low:.3g} and {tails[1]:.3g} "
            f"from beyond {grid.high:.3g}, where nothing was evaluated: widen the grid at that end."
        )
    return conclude_mean(contributions, method="immse", notes=notes, dependence=dependence, level=level)


def immse_information(
    out: ArrayLike,
    given: ArrayLike | None,
    past: ArrayLike,
    denoiser: Denoiser,
    denoiser_with_past: Denoiser,
    grid: SNRGrid,
    *,
    form: GapForm = "losses",
    draws: int = 1,
    batch: int = 4096,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Number:
    """I(Out; Past | In) from two denoisers, run on samples that they have not been trained on.

    Args:
        out: Out, (n, d) or (n,).
        given: In, (n, d_in) or (n,), or None.
        past: Past, (n, d_past) or (n,).
        denoiser: called with (noisy, snr, In), or (noisy, snr) without In.
        denoiser_with_past: called with (noisy, snr, In, Past), or (noisy, snr, Past).
        grid: signal-to-noise ratios.
        form: ``losses`` averages the difference of the squared errors, I plus the difference of the excess
            losses. ``difference`` averages the squared distance of the two means instead, which is the same
            number for exact denoisers, with far less noise; for trained ones it is never negative and counts
            the errors of both as information.
        draws: noises a sample and node; each sample's are averaged.
        batch: samples evaluated at once.
        dependence: of the samples.
        level: of the confidence interval.
        seed: of the noise, drawn on the CPU: the same on every device.
        device: where the denoisers work.
        progress: show a progress bar over the nodes.

    Raises:
        SampleError: for samples that do not fit together or are not finite; for a denoiser whose result is not
            a finite tensor of the shape of Out.

    Example:
        A pair of trained networks takes the place of the two functions (in evaluation mode, and through
        :func:`from_ou_denoiser` or :func:`from_ou_score` if they know OU levels); they get float64. Here Out is In
        plus a part that Past tells three quarters of the variance of, so that I = ½ log 4.

        >>> rng = np.random.default_rng(0)
        >>> given, told, rest = rng.normal(size=(3, 4000, 1)) * np.array([1, 0.75**0.5, 0.5])[:, None, None]
        >>> def posterior_mean(noisy, snr, prior, variance):
        ...     return prior + variance * snr**0.5 / (1 + snr * variance) * (noisy - snr**0.5 * prior)
        >>> estimate = immse_information(
        ...     given + told + rest, given, told,
        ...     lambda noisy, snr, given: posterior_mean(noisy, snr, given, 1.0),
        ...     lambda noisy, snr, given, past: posterior_mean(noisy, snr, given + past, 0.25),
        ...     SNRGrid(1e-3, 1e3),
        ... )  # fmt: skip
        >>> estimate.ci_low < math.log(4) / 2 < estimate.ci_high
        True
        >>> estimate.stderr < 0.03
        True
    """
    if form not in ("losses", "difference"):
        raise SampleError(f"the form of the gap is 'losses' or 'difference', got {form!r}")
    if draws < 1 or batch < 1:
        raise SampleError(f"at least one draw and one sample a batch are needed, got {draws} and {batch}")
    x = torch.from_numpy(sample(out, "out"))
    conditions = {"given": given, "past": past}
    known = [torch.from_numpy(sample(v, name)).to(device) for name, v in conditions.items() if v is not None]
    if any(len(array) != len(x) for array in known) or len(x) < 2:
        raise SampleError(f"Out, In and Past need the same 2 or more rows, got {[len(a) for a in (x, *known)]}")
    generator = torch.Generator().manual_seed(seed)
    gaps = np.zeros((len(x), len(grid.nodes)))
    with torch.no_grad():
        for node, snr in enumerate(tqdm(grid.nodes.tolist(), "snr", disable=not progress or None, leave=False)):
            for start in range(0, len(x) * draws, batch):
                rows = torch.arange(start, min(start + batch, len(x) * draws)) % len(x)
                clean = x[rows]
                noise = torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
                noisy = (math.sqrt(snr) * clean + noise).to(device)
                told = [array[rows.to(device)] for array in known]
                # The last condition is Past.
                without = _denoised(denoiser, noisy, snr, told[:-1])
                with_past = _denoised(denoiser_with_past, noisy, snr, told)
                if form == "difference":
                    gap = (without - with_past) ** 2
                else:
                    # ‖Out - a‖² - ‖Out - b‖² without the large part that the two share.
                    gap = (with_past - without) * (2 * clean - without - with_past)
                np.add.at(gaps[:, node], rows.numpy(), gap.sum(1).numpy() / draws)
    return _from_gaps(gaps, grid, dependence, level)


def _denoised(denoiser: Denoiser, noisy: Tensor, snr: float, conditions: list[Tensor]) -> Tensor:
    value = denoiser(noisy, snr, *conditions)
    if not isinstance(value, Tensor) or value.shape != noisy.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise SampleError(f"a denoiser must give a tensor of the shape {tuple(noisy.shape)} of Out, got {got}")
    value = value.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(value).all()):
        raise SampleError(f"a denoiser's result is not finite at snr {snr:.3g}")
    return value


def from_ou_denoiser(denoiser: Denoiser) -> Denoiser:
    """A denoiser of the state √snr Out + N(0, I) from one that takes (OU state, OU level, conditions).

    The level is t = log(1 + 1/snr), and the OU state e^{-t/2} Out + (1 - e^{-t})^{1/2} N is σ(t) times the other.
    """

    def denoise(noisy: Tensor, snr: float, *conditions: Tensor) -> Tensor:
        level = math.log1p(1 / snr)
        return denoiser(math.sqrt(-math.expm1(-level)) * noisy, level, *conditions)

    return denoise


def from_ou_score(score: Denoiser) -> Denoiser:
    """A denoiser of √snr Out + N(0, I) from the score of the OU state, (OU state, OU level, conditions) ↦ score.

    Tweedie: E[Out | X^t] = (X^t + σ²(t) ∇ log p(X^t)) / α(t).
    """

    def denoise(state: Tensor, level: float, *conditions: Tensor) -> Tensor:
        return (state - math.expm1(-level) * score(state, level, *conditions)) * math.exp(level / 2)

    return from_ou_denoiser(denoise)
