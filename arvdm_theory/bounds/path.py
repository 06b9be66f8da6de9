"""Upper bounds on a stage's path KL: the Girsanov form and a closed bound with explicit constants.

The ladder is KL(clean) ≤ KL(trajectory) ≤ Girsanov form ≤ closed bound; the two upper rungs also replace IE,
the error of the first input, by the whole initialisation stage.

**Girsanov form.** Inside a step the clocks run τ_j(u) = τ_j - u h_j, u ∈ [0, 1]. The reverse SDE and the
sampler have the same noise, so the path KL of a step is

    ½ Σ_j h_j ∫_0^1 E ‖Δ_j(u)‖² du,    Δ_j(u) = s*_j(W_u) - s_θ,j(W^m)               (exponential integrator)
                                       Δ_j(u) = ½ (W_u - W^m)_j + s*_j(W_u) - s_θ,j(W^m)    (Euler-Maruyama)

With W^m = a W_u + noise, a = e^{-u h_j / 2}, v = 1 - a², E[s*(W_u) | W^m, R] = a s*(W^m) (the score is a reverse
martingale up to scale), E[W_u | W^m, R] = (W^m + v s*(W^m))/a and E ⟨W_j, s*_j⟩ = -d, all in it is a moment at
level m times a smooth function of u, but for tr J_j(u) = E ‖s*_j(W_u)‖²: with ε_j = s_θ,j - s*_j,

    E ‖Δ_j(u)‖² = tr J_j(u) + (1 - 2a) tr J_j(0) + E ‖ε_j‖² + 2 (1 - a) E ⟨s*_j, ε_j⟩       and for Euler-Maruyama
                  + ¼ E ‖(W_u - W^m)_j‖² - (1 - a) (d + tr J_j(0) + E ⟨s*_j, ε_j⟩)
                  - ((1 - a)/a) E ⟨W_j + s*_j, s_θ,j⟩.

All integrals over u are elementary. That of e^{xu} - 1 is D(x) = (e^x - 1)/x - 1, and Σ_j h_j ∫ tr J_j du, whose
integrand peaks at u = 1 near a singular covariance, follows from a determinant: along the clocks (log det Cov(W_u
| R))' = d Σ_j h_j - Σ_j h_j tr J_j(u), so it is d Σ_j h_j + log det Cov(W^m | R) - log det Cov(W^{m+1} | R).
The kernel on the grid is a marginal of the path, so each step's grid KL is at most this.

**Closed bound.** Let λ ≥ 0 bound the spectrum of Cov(clean window | R) from below, and
κ_j(t) = 1/(α²(t) λ + σ²(t)), which bounds frame j's block of the window precision J ≤ diag(κ_j). Write
Δ(u) = A(u) + B (+ C(u)) with A = s*(W_u) - s*(W^m), B = s*(W^m) - s_θ(W^m), C = ½ (W_u - W^m). By
Minkowski's inequality in L²(Σ_j h_j du, P), the path KL of a step is at most ½ (√𝒜 + √ℬ + √𝒞)², with

    𝒜 = d Σ_j (h_j² γ_j + h_j³ κ_j(τ_j) / 12),    γ_j = (log r + 1/r - 1)/(k_1 - k_0)²,    r = k_1/k_0,
    k_0 = 1/κ_j(τ_j - h_j),    k_1 = 1/κ_j(τ_j)    (γ_j = ½ max(κ_j)² where k_1 ≤ k_0, that is for λ ≥ 1),
    ℬ = Σ_j h_j ε_j²,    ε_j² = E ‖s_θ,j - s*_j‖²,
    𝒞 = ¼ Σ_j h_j (h_j² μ_j / 12 + h_j d / 2)    (Euler-Maruyama only),    μ_j = max(E‖X_j‖², d).

*Proof of 𝒜.* From E[s_u s_m^T] = a J_m one has E‖A_j(u)‖² = tr J_j(u) + (1 - 2a) tr J_j(0). Along the
clocks J' = -½ (J H + H J) + J H J with H = diag(h_j), hence tr J_j' = -h_j tr J_j + tr (J H J)_j, which is at
least -h_j tr J_j, so tr J_j(v) ≥ e^{-h_j v} tr J_j(0). Inserting J' once and that inequality once,

    Σ_j h_j E‖A_j(u)‖² ≤ ∫_0^u Σ_j h_j tr (J H J)_j dv + Σ_j h_j [2(1 - a) - (1 - a²)] tr J_j(0).

The bracket is (1 - a)² ≤ (u h_j / 2)², and tr J_j(0) ≤ d κ_j(τ_j). Σ_j h_j tr (J H J)_j = ‖H^½ J H^½‖_F² is
monotone in J ≤ diag(κ), so it is at most d Σ_j h_j² κ_j(τ_j(v))². Integrating over u ∈ [0, 1] gives
d Σ_j h_j² ∫_0^1 (1 - v) κ_j(τ_j(v))² dv and 1/12. 1/κ_j(t) = 1 - (1 - λ) e^{-t} is concave in t for λ ≤ 1, so it
lies above its chord from k_0 to k_1, and the integral of the chord's form is γ_j. ∎

*Proof of 𝒞.* E‖W_u - W^m‖² = (1 - a)² E‖W_u,j‖² + d (1 - a²)
with (1 - a)² ≤ u² h_j² / 4, 1 - a² ≤ u h_j and E‖W_u,j‖² ≤ μ_j. ∎

With λ = 0 this needs a last level δ > 0; with neither no such bound exists at level 0.

**Noise initialisation.** KL is convex in its first argument, so for n entries started from N(0, I) at T

    E KL(P(X^T | input) ‖ N(0, I)) ≤ E_X KL(N(α X, σ² I) ‖ N(0, I))
        = ½ [e^{-T} (E‖X‖² - n) - n log(1 - e^{-T})] ≤ ½ e^{-T} (E‖X‖² + n e^{-T} / (1 - e^{-T})).

Sources: arXiv 2503.10704, Theorem 1; Chen et al. 2023 and Benton et al. 2024 for the style of 𝒜.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.information.gaussian import log_det
from arvdm_theory.laws.gaussian_window import WindowLaw
from arvdm_theory.laws.stage_law import Moments
from arvdm_theory.noise import alpha, sigma2

__all__ = ["closed_initialisation_bound", "closed_path_bound", "girsanov_path_bound"]

# Below this |x| the series of D(x) is used: 20 terms leave less than 1e-20 of it.
_SERIES = 1.0


def _mean_growth(x: Tensor) -> Tensor:
    """D(x) = ∫_0^1 (e^{xu} - 1) du = (e^x - 1)/x - 1, without cancellation near 0."""
    small = x.abs() < _SERIES
    near, far = torch.where(small, x, torch.zeros_like(x)), torch.where(small, torch.ones_like(x), x)
    series = torch.zeros_like(x)
    for n in range(20, 0, -1):
        series = (series + 1) * near / (n + 1)
    return torch.where(small, series, torch.expm1(far) / far - 1)


def girsanov_path_bound(law: WindowLaw, moments: Moments, step: ReverseStep) -> Tensor:
    """The Girsanov form of every reverse step, (samples, M, modes), in nats; its mean over the samples counts.

    Args:
        law: the true law of the window.
        moments: of the score's error.
        step: exponential or Euler-Maruyama.

    Raises:
        ValueError: for a step whose noise is not the reverse SDE's.
    """
    if not step.girsanov:
        raise ValueError(f"Girsanov's theorem does not cover the {step.name} step: its noise is not the SDE's")
    high, low = law.levels[:-1].unsqueeze(-2), law.levels[1:].unsqueeze(-2)
    h = high - low  # (M, 1, w), against (samples, M, modes, w) moments
    trace = law.per_frame(torch.diagonal(law.precision[:-1], dim1=-2, dim2=-1))
    falling = _mean_growth(-h / 2)  # the mean of a - 1
    square = -(1 + 2 * falling) * trace + moments.square - 2 * falling * moments.with_exact
    if step.name == "euler":
        rising, twice = _mean_growth(h / 2), _mean_growth(-h)  # of 1/a - 1 and of a² - 1 = -v
        d = law.dim
        # E ‖W_u,j‖² = d + (E ‖X_j‖² - d) α²/a², and the mean of α² (1 - a)²/a² must not overflow.
        small = h < _SERIES
        slow = torch.where(small, h, torch.zeros_like(h))
        near = alpha(high) ** 2 * (_mean_growth(slow) - 2 * _mean_growth(slow / 2))
        wide = torch.where(small, torch.ones_like(h), h)
        far = (alpha(low) ** 2 - alpha(high) ** 2) / wide
        far = far - 4 * (alpha(high) * alpha(low) - alpha(high) ** 2) / wide + alpha(high) ** 2
        stretched = (law.second_moments() - d) * torch.where(small, near, far)
        moved = (d * (twice - 2 * falling) + stretched - d * twice) / 4
        square = square + moved + falling * (d + trace + moments.with_exact)
        # Over a long step 1/a is huge where E ⟨W + s*, s_θ⟩ vanishes: only their product has a size.
        still = law.per_frame(torch.diagonal(law.near_noise.window, dim1=-2, dim2=-1))
        square = square + rising * (still - moments.with_near_noise)
    volume = log_det(law.factor)
    energy = law.dim * h.sum(-1) + volume[:-1] - volume[1:]
    bound: Tensor = 0.5 * (energy + (h * square).sum(-1))
    return bound


def closed_path_bound(law: WindowLaw, moments: Moments, step: ReverseStep, smallest: Tensor) -> Tensor:
    """The closed bound ½ (√𝒜 + √ℬ + √𝒞)² of every reverse step, (samples, M, modes), in nats.

    Its mean over the samples counts. Where there are several, ℬ is their mean and each row is the bound's
    linearisation in its own ℬ, so that the rows' spread gives the standard error.

    Args:
        law: the true law of the window.
        moments: of the score's error.
        step: exponential or Euler-Maruyama.
        smallest: λ, a lower bound ≥ 0 on the eigenvalues of Cov(clean window | R), (modes,).

    Raises:
        ValueError: for a step whose noise is not the reverse SDE's, and where λ = 0 meets a last level of 0.
    """
    if not step.girsanov:
        raise ValueError(f"Girsanov's theorem does not cover the {step.name} step: its noise is not the SDE's")
    if bool((smallest <= 0).any()) and bool((law.levels[-1] <= 0).any()):
        raise ValueError("at level 0 a closed bound needs a smallest eigenvalue above 0, or a stop at δ > 0")
    h = (law.levels[:-1] - law.levels[1:]).unsqueeze(-2)
    levels = law.levels.unsqueeze(-2)
    kappa = 1 / (alpha(levels) ** 2 * smallest[:, None] + sigma2(levels))  # (M + 1, modes, w)
    low, high = 1 / kappa[1:], 1 / kappa[:-1]
    rise = high / low - 1
    # Below a relative rise of 1e-3 the chord's form cancels; κ² at its largest is a bound too, and 0.1 % off.
    bent = rise > 1e-3
    rise = torch.where(bent, rise, torch.ones_like(rise))
    chord = (torch.log1p(rise) - rise / (1 + rise)) / (rise * low) ** 2
    gamma = torch.where(bent, chord, torch.maximum(kappa[:-1], kappa[1:]) ** 2 / 2)
    a_part = law.dim * (h**2 * gamma + h**3 * kappa[:-1] / 12).sum(-1)
    each = (h * moments.square).sum(-1)
    b_root = _root(each.mean(0))
    root = _root(a_part) + b_root
    if step.name == "euler":
        size = torch.clamp(law.second_moments(), min=float(law.dim))
        root = root + _root((h * (h**2 * size / 12 + h * law.dim / 2)).sum(-1) / 4)
    slope = root / (2 * torch.where(b_root > 0, b_root, 1.0))
    bound: Tensor = root**2 / 2 + slope.detach() * (each - each.mean(0)).detach()
    return bound


def _root(values: Tensor) -> Tensor:
    """√values, with derivative 0 where the value is 0: there nothing moves or nothing is missed."""
    positive = values > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, values, 1.0)), torch.zeros_like(values))


def closed_initialisation_bound(law: WindowLaw, fresh: int, horizon: float) -> Tensor:
    """½ e^{-T} (E‖X‖² + n e^{-T}/(1 - e^{-T})) for the last ``fresh`` window frames, (modes,), in nats."""
    decay = math.exp(-horizon)
    moments = law.second_moments()[:, law.stage.window - fresh :].sum(-1)
    n = fresh * law.dim
    bound: Tensor = 0.5 * decay * (moments + n * decay / -math.expm1(-horizon))
    return bound
