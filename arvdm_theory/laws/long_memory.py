"""Videos that remember: fractional Gaussian noise, and the needle that is seen once and asked for later."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.laws.gaussian import ArrayVideo, StationaryVideo, checked_covariance, separable_video

__all__ = ["NeedleVideo", "fractional_correlation", "fractional_gaussian_noise"]


def fractional_correlation(hurst: float, lags: Tensor) -> Tensor:
    """Correlation of fractional Gaussian noise: r(l) = ½ (|l+1|^{2H} - 2 |l|^{2H} + |l-1|^{2H}).

    Computed as ½ l^{2H} [(1 + 1/l)^{2H} - 1 + (1 - 1/l)^{2H} - 1], whose relative error is some l·1e-16; the
    plain difference of powers loses l² of it.

    Args:
        hurst: H.
        lags: l ≥ 0, float64, any shape.
    """
    l = torch.where(lags == 0, torch.ones_like(lags), lags)  # noqa: E741
    bracket = torch.expm1(2 * hurst * torch.log1p(1 / l)) + torch.expm1(2 * hurst * torch.log1p(-1 / l))
    return torch.where(lags == 0, torch.ones_like(lags), l ** (2 * hurst) / 2 * bracket)


def fractional_gaussian_noise(
    hurst: float,
    frame_covariance: ArrayLike | Tensor = ((1.0,),),
    mean: ArrayLike | Tensor | None = None,
    length: int | None = None,
    name: str = "fractional",
) -> StationaryVideo:
    """Fractional Gaussian noise with frames in R^d: Γ(l) = r(l) B, r(l) ~ H(2H-1) l^{2H-2}.

    The sum of n frames has covariance n^{2H} B. For H > ½ the correlations sum to infinity: no finite number
    of references holds all that the past knows (long memory). H = ½ is independent frames, H < ½ alternates.
    Source: Mandelbrot and Van Ness 1968, SIAM Review 10(4).

    Args:
        hurst: H, strictly between 0 and 1.
        frame_covariance: B, (d, d).
        mean: of every frame, (d,), zero if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.

    Raises:
        ValueError: if H lies outside (0, 1), or B or the mean is malformed.
        NotPositiveDefiniteError: if B is not positive definite.

    Example:
        >>> video = fractional_gaussian_noise(0.75)
        >>> round(float(video.covariance(16).sum()), 9)  # 16^1.5
        64.0
    """
    if not 0 < hurst < 1:
        raise ValueError(f"a Hurst exponent lies strictly between 0 and 1, got {hurst}")
    return separable_video(lambda lags: fractional_correlation(hurst, lags), frame_covariance, mean, length, name)


class NeedleVideo(ArrayVideo):
    """A needle Z ~ N(0, C_z) in view early, then out of view, then asked for again.

    X_i = g_i Z + B_i + V_i with g_i = strength in the frames where Z is in view (``seen`` and ``query``) and
    0 elsewhere, a background B_i of its own, Cov(B_i, B_j) = φ^|i-j| C_b, and observation noise V_i, all
    independent::

        Cov(X_i, X_j) = g_i g_j C_z + φ^|i-j| C_b + [i = j] v I

    Nothing between the two views knows of Z, so only a memory that reaches back to ``seen`` helps the query.
    With φ = 0 all the past knows of a query is I(X_query; X_seen), whatever lies between: with scalar frames,
    n of them seen and one query, ½ log( (1 + q)(1 + n q) / (1 + (n + 1) q) ) nats for q = g² C_z/(C_b + v).

    Args:
        query_start: the first frame (counted from 0) that asks for the needle.
        seen: the needle is in view in frames 0..seen-1.
        queries: how many frames ask for it.
        strength: g.
        needle_covariance: C_z, (d, d).
        background_covariance: C_b, (d, d); the identity if left out.
        background_correlation: φ, strictly between -1 and 1.
        noise: v ≥ 0, the observation noise's variance.
        length: the number of frames; up to the last query if left out.
        name: what tables call it.

    Attributes:
        seen: the frames in which the needle is first in view.
        query: the frames that ask for it.

    Raises:
        ValueError: unless 0 < seen ≤ query_start < query_start + queries ≤ length, or if a parameter lies
            outside its range.
        NotPositiveDefiniteError: if a covariance is not positive definite.

    Example:
        >>> video = NeedleVideo(query_start=5, seen=2, strength=2.0)
        >>> video.length, video.seen, video.query
        (6, range(0, 2), range(5, 6))
        >>> video.covariance(6)[0, 5].tolist()
        [4.0, 4.0, 0.0, 0.0, 0.0, 5.0]
    """

    def __init__(
        self,
        query_start: int,
        seen: int = 1,
        queries: int = 1,
        strength: float = 1.0,
        needle_covariance: ArrayLike | Tensor = ((1.0,),),
        background_covariance: ArrayLike | Tensor | None = None,
        background_correlation: float = 0.0,
        noise: float = 0.0,
        length: int | None = None,
        name: str = "needle",
    ) -> None:
        frames = query_start + queries if length is None else length
        if not 0 < seen <= query_start < query_start + queries <= frames:
            raise ValueError(
                "a needle needs 0 < seen ≤ query_start < query_start + queries ≤ length, got seen "
                f"{seen}, query_start {query_start}, queries {queries}, length {frames}"
            )
        if not abs(background_correlation) < 1:
            raise ValueError(f"the background's correlation lies in (-1, 1), got {background_correlation}")
        if not 0 <= noise < float("inf"):
            raise ValueError(f"the observation noise's variance must be finite and not negative, got {noise}")
        if not abs(strength) < float("inf"):
            raise ValueError(f"the needle's strength must be finite, got {strength}")
        needle = checked_covariance(needle_covariance, "needle covariance")
        eye = torch.eye(needle.shape[0]).to(needle)
        background = (
            eye
            if background_covariance is None
            else checked_covariance(background_covariance, "background covariance").to(needle.device)
        )
        if background.shape != needle.shape:
            raise ValueError(
                f"the background covariance must have shape {tuple(needle.shape)} as the needle's, got "
                f"{tuple(background.shape)}"
            )
        number = torch.arange(frames, dtype=torch.float64, device=needle.device)
        in_view = (number < seen) | ((number >= query_start) & (number < query_start + queries))
        gain = strength * in_view.to(needle)
        lag = (number[:, None] - number).abs()
        own = torch.eye(frames).to(needle)
        super().__init__(
            torch.kron(torch.outer(gain, gain), needle)
            + torch.kron(background_correlation**lag, background)
            + noise * torch.kron(own, eye),
            needle.shape[0],
            name=name,
        )
        self.seen = range(seen)
        self.query = range(query_start, query_start + queries)
