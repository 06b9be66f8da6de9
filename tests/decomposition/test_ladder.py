"""The rungs above the ledger: the Girsanov form, the closed bound and each of its ingredients, and rates in M."""

import math
from collections.abc import Callable
from itertools import pairwise

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from reference_cases import MORE_PLANS, PLANS, Array, ar1, random_video
from scipy.integrate import quad
from scipy.linalg import eigh
from torch import Tensor

from arvdm_theory import ArrayVideo, ExactScore, PerturbedScore, Plan, References, ledger, ledger_terms
from arvdm_theory.bounds.path import closed_initialisation_bound, closed_path_bound, girsanov_path_bound
from arvdm_theory.decomposition.terms import LedgerTerms, StageErrors
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.stage_law import StepTerms, TrueVideos

EVERY_PLAN = {**PLANS, **MORE_PLANS}
FULL = ExactScore(masked=False)
# Both sides are sums of numbers of order 1 to 100 with thirteen correct digits.
ROUNDING = 1e-11


def window_law(covariance: Array, levels: list[list[float]], mean: Array | None = None) -> GaussianStage:
    """The law of scalar frames that go through ``levels`` together or each on its own, without references."""
    grid = torch.tensor(levels, dtype=torch.float64)
    frames = grid.shape[1]
    plan = Plan((9.0,) * frames, frames, 9.0, 1, len(grid) - 1, floor=1e-9)
    return ArrayVideo(covariance, 1, mean).at(plan.stage(0, grid))


def terms_of(law: GaussianStage, step: str, error: float = 0.0, bias: float = 0.0) -> StepTerms:
    """Exact, so that nothing is drawn."""
    nothing = TrueVideos(law.video, 0, torch.Generator(), torch.zeros(0))
    return law.reverse_terms(nothing, PerturbedScore(error, bias), STEPS[step], FULL)


def exact_terms(law: GaussianStage, step: str) -> StepTerms:
    return terms_of(law, step)


def girsanov_of(law: GaussianStage, terms: StepTerms, step: str) -> Array:
    """Of every reverse step, (M,)."""
    assert terms.moments is not None
    result: Array = girsanov_path_bound(law.window, terms.moments, STEPS[step])[0, :, 0].numpy()
    return result


def closed_of(law: GaussianStage, terms: StepTerms, step: str, least: Tensor | None = None) -> Array:
    assert terms.moments is not None
    own = smallest(law) if least is None else least
    result: Array = closed_path_bound(law.window, terms.moments, STEPS[step], own)[0, :, 0].numpy()
    return result


def smallest(law: GaussianStage) -> Tensor:
    eigenvalues: Tensor = torch.linalg.eigvalsh(law.window.covariance)
    return eigenvalues[:, 0]


def path_of(terms: StepTerms) -> Array:
    result: Array = (terms.de + terms.see + terms.cross)[0].numpy()
    return result


# -- the Girsanov form --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["exponential", "euler"])
@pytest.mark.parametrize("correlation", [0.0, 0.9, 1 - 1e-4, 1 - 1e-8])
def test_girsanov_form_against_adaptive_quadrature_of_its_definition(step: str, correlation: float) -> None:
    """Two scalar frames of equal levels: everything splits into the modes 1 ± ρ of their covariance.

    In mode λ the state has variance x(u) = e^{-t} λ + 1 - e^{-t} and score -W/x, so Δ(u) is affine in (W_u, W^m).
    """
    high, low, error, bias = 0.3, 0.0, 0.2, 0.1
    law = window_law(np.array([[1, correlation], [correlation, 1]]), [[high] * 2, [low] * 2])
    found = girsanov_of(law, terms_of(law, step, error, bias), step)
    h, total = high - low, 0.0
    for sign in (1, -1):
        lam = 1 + sign * correlation
        # The bias (c, c) lies in the mode 1 + ρ, where it is c √2.
        shift = bias * math.sqrt(2) if sign == 1 else 0.0

        def variance(t: float, lam: float = lam) -> float:
            return math.exp(-t) * lam - math.expm1(-t)

        def integrand(v: float, lam: float = lam, shift: float = shift) -> float:
            """E Δ² at u = 1 - v; W^m = a W_u + √(1 - a²) ξ."""
            t = low + v * h
            x, a2 = variance(t), math.exp(-(high - t))
            drift = 0.5 if step == "euler" else 0.0
            on_late = 1 / variance(high) + error - drift  # s* - s_θ and the drift, as multiples of W^m
            on_inside = drift - 1 / x
            through = on_inside + math.sqrt(a2) * on_late
            return through**2 * x + on_late**2 * (1 - a2) + shift**2

        # The peak at v = 0 has width λ; quad integrates it decade by decade to 1e-12.
        edges = [0.0, *(10.0**k for k in range(-9, 0)), 1.0]
        parts = [quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges)]
        total += h / 2 * sum(parts)
    # λ itself is known to 2^-53, the log-determinants to 2^-53/λ: 1e-8 at ρ = 1 - 1e-8.
    assert found[0] == pytest.approx(total, rel=1e-10 + 1e-16 / (1 - correlation))


@pytest.mark.parametrize("step", ["exponential", "euler", "ddpm"])
@pytest.mark.parametrize("variance", [1e-4, 0.3, 50.0])
@pytest.mark.parametrize("h", [0.3, 1.0, 1.5, 7.0, 30.0, 100.0])
def test_path_terms_of_a_step_of_any_length(h: float, variance: float, step: str) -> None:
    """E KL(P ‖ Q) of one scalar frame in forty digits, from the two kernels as they are."""
    mean, error, bias, low = 1.5, 0.2, -0.1, 0.05
    law = window_law(np.array([[variance]]), [[low + h], [low]], np.array([mean]))
    terms = terms_of(law, step, error, bias)
    with mp.workdps(120):  # e^h squared is 1e87, and what remains of it a number of size 1
        high, end = mp.mpf(low + h), mp.mpf(low)
        x, y = (mp.exp(-t) * mp.mpf(variance) - mp.expm1(-t) for t in (high, end))
        m, n = (mp.exp(-t / 2) * mp.mpf(mean) for t in (high, end))
        a = mp.exp((end - high) / 2)
        true_gain, true_noise = a * y / x, y - (a * y) ** 2 / x  # P: the regression of W' on W
        gap = high - end
        keep, push, noise = {
            "exponential": (1 / a, 2 * (1 / a - 1), mp.expm1(gap)),
            "euler": (1 + gap / 2, gap, gap),
            "ddpm": (1 / a, (1 - a**2) / a, (1 - a**2) * mp.expm1(-end) / mp.expm1(-high)),
        }[step]

        def divergence(e: float, c: float) -> mp.mpf:
            """Averaged over W = m + √x z."""
            gain = keep + push * (-1 / x - mp.mpf(e))
            offset = gain * m + push * (m / x + mp.mpf(c)) - n
            ratio = true_noise / noise
            return (ratio - 1 - mp.log(ratio) + ((gain - true_gain) ** 2 * x + offset**2) / noise) / 2

        de = divergence(0.0, 0.0)
        miss = push**2 * (mp.mpf(error) ** 2 * x + (mp.mpf(bias) - mp.mpf(error) * m) ** 2) / (2 * noise)
        whole = divergence(error, bias)
    # Each is known to a few roundings of its own size, h of the levels'; CROSS is what is left of the others.
    assert float(terms.de[0, 0]) == pytest.approx(float(de), rel=1e-12, abs=1e-14)
    assert float(terms.see[0, 0]) == pytest.approx(float(miss), rel=1e-12)
    assert float(terms.cross[0, 0]) == pytest.approx(float(whole - de - miss), rel=1e-10, abs=1e-13 * float(whole))


def girsanov_by_quadrature(
    step: str, variance: float, mean: float, error: float, bias: float, high: float, low: float
) -> float:
    """½ h ∫ E (s*(W_u) - s_θ(W^m) [+ ½ (W_u - W^m)])² du of one scalar frame, in forty digits.

    With m_u and x_u the mean and variance at level t, W_u = m_u + e and W^m = m_0 + a e + √(1 - a²) ξ.
    """
    with mp.workdps(40):
        lam, centre, e, c = (mp.mpf(value) for value in (variance, mean, error, bias))
        top, end, drift = mp.mpf(high), mp.mpf(low), mp.mpf("0.5") if step == "euler" else mp.mpf(0)

        def moments(t: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
            return mp.exp(-t / 2) * centre, mp.exp(-t) * lam - mp.expm1(-t)

        m_0, x_0 = moments(top)
        on_late = 1 / x_0 + e - drift

        def integrand(rest: mp.mpf) -> mp.mpf:
            m_u, x_u = moments(end + rest)
            a = mp.exp(-(top - end - rest) / 2)
            through = drift - 1 / x_u + a * on_late
            shift = drift * m_u + (e - drift) * m_0 - c
            return through**2 * x_u + on_late**2 * (1 - a**2) + shift**2

        # The peak at the end has the width of the variance there; beyond it nothing changes faster than in a unit.
        h = top - end
        edges = [
            mp.mpf(0),
            *(mp.mpf(10) ** k for k in range(-8, 0)),
            *(mp.mpf(k) for k in (1, 2, 4, 8, 16, 32, 64)),
        ]
        return float(mp.quad(integrand, [*(edge for edge in edges if edge < h), h]) / 2)


@pytest.mark.parametrize("step", ["exponential", "euler"])
@pytest.mark.parametrize("low", [0.0, 0.05])
@pytest.mark.parametrize("variance", [1e-4, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("h", [1e-6, 1e-3, 0.3, 0.999, 1.001, 7.0, 30.0, 50.0, 100.0])
def test_girsanov_form_of_a_step_of_any_length(h: float, variance: float, low: float, step: str) -> None:
    mean, error, bias = 1.5, 0.2, -0.1
    law = window_law(np.array([[variance]]), [[low + h], [low]], np.array([mean]))
    [found] = girsanov_of(law, terms_of(law, step, error, bias), step)
    expected = girsanov_by_quadrature(step, variance, mean, error, bias, low + h, low)
    # A sum of numbers of the size of h and its moments, and of log-determinants of numbers that are known to a few
    # roundings of 1; h itself is the difference of two levels.
    room = 4 * 2.0**-53 * (1 + h * (1 + mean**2 + variance) + abs(math.log(variance)))
    assert found == pytest.approx(expected, rel=1e-13, abs=room)
    [exact] = girsanov_of(law, exact_terms(law, step), step)
    expected = girsanov_by_quadrature(step, variance, mean, 0.0, 0.0, low + h, low)
    assert exact == pytest.approx(expected, rel=1e-13, abs=room)


@pytest.mark.parametrize("step", ["exponential", "euler"])
@pytest.mark.parametrize("references", [References.none(), References.last(1)])
@pytest.mark.parametrize("score", [None, PerturbedScore(0.1, bias=0.05)])
def test_the_ladder_rises_in_one_step_from_far_away(
    step: str, references: References, score: PerturbedScore | None
) -> None:
    """T = 100 in one reverse step: KL(clean) ≤ KL(AR-step trajectory) ≤ KL(trajectory) ≤ Girsanov ≤ closed."""
    plan = Plan((100.0, 100.0), 2, 100.0, 1, 1, references=references)
    video = ArrayVideo(ar1(plan.total_frames(3), 0.8), 1)
    terms = ledger_terms(video, plan, 3, score=score, step=step)
    assert_ladder(terms)
    assert terms.kl is not None
    assert float(terms.kl) > 1


def test_girsanov_form_of_many_small_steps_is_the_ledgers_own_sum() -> None:
    """For h → 0 the grid and the path are one: their difference falls like h² a unit of time."""
    differences = []
    for steps in (64, 128, 256):
        plan = Plan((3.0, 3.0), 2, 3.0, steps, steps, references=References.last(1), floor=0.1)
        totals = ledger(ArrayVideo(ar1(4, 0.8), 1), plan, 1, score=PerturbedScore(0.1), closed=False).totals
        differences.append((totals["girsanov"] or 0.0) - (totals["path_kl"] or 0.0))
    slopes = np.diff(np.log(differences)) / math.log(2)
    # c₂/M² + c₃/M³: the slope's distance to -2 halves as M doubles, and is of order h = 3/64 at first.
    assert np.all(np.abs(slopes + 2) < 3 / 64)
    assert (slopes[1] + 2) / (slopes[0] + 2) == pytest.approx(0.5, abs=0.1)


def test_euler_needs_the_drift_of_the_state() -> None:
    """Scalar variance 1000, t = 2, h = 0.3: the step's KL is 0.0378, its Girsanov form 0.048942, else 8e-6."""
    law = window_law(np.array([[1000.0]]), [[2.0], [1.7]])
    terms = exact_terms(law, "euler")
    found = girsanov_of(law, terms, "euler")[0]
    without = girsanov_of(law, terms, "exponential")[0]
    assert path_of(terms)[0] == pytest.approx(0.0378, rel=0, abs=0.5e-4)
    assert found == pytest.approx(0.048942, rel=0, abs=0.5e-6)
    assert without == pytest.approx(8e-6, rel=0, abs=0.5e-6)
    assert without < path_of(terms)[0] <= found


@pytest.mark.parametrize(("correlation", "printed"), [(0.9, 0.37), (0.999, 2.44), (1 - 1e-7, 7.04)])
def test_the_last_step_is_unbounded_in_the_smallest_eigenvalue(correlation: float, printed: float) -> None:
    law = window_law(np.array([[1, correlation], [correlation, 1]]), [[0.3] * 2, [0.0] * 2])
    terms = exact_terms(law, "exponential")
    kl = path_of(terms)[0]
    assert kl == pytest.approx(printed, rel=0, abs=0.5e-2)
    girsanov = girsanov_of(law, terms, "exponential")[0]
    closed = closed_of(law, terms, "exponential")[0]
    assert kl <= girsanov <= closed


def test_both_bounds_grow_with_the_logarithm_of_the_smallest_eigenvalue() -> None:
    """A thousand times less λ adds ½ log 1000 to KL and Girsanov form.

    The closed bound takes both modes for the smallest one and adds (h/(1 - e^{-h}))² log 1000, from
    γ = (log r + 1/r - 1)/(k_1 - k_0)² with r = k_1/λ, k_1 - k_0 = (1 - λ)(1 - e^{-h}); all up to O(λ).
    """
    rows = []
    for lam in (1e-6, 1e-9):
        law = window_law(np.array([[1, 1 - lam], [1 - lam, 1]]), [[0.3] * 2, [0.0] * 2])
        terms = exact_terms(law, "exponential")
        rungs = (path_of(terms), girsanov_of(law, terms, "exponential"), closed_of(law, terms, "exponential"))
        rows.append([rung[0] for rung in rungs])
    step = math.log(1000)
    stretch = (0.3 / -math.expm1(-0.3)) ** 2
    # λ = 1e-9 is what is left of 1 - (1 - 1e-9), so it has seven digits.
    np.testing.assert_allclose(np.diff(rows, axis=0)[0], [step / 2, step / 2, stretch * step], rtol=1e-5)


# -- the closed bound's ingredients -------------------------------------------------------------------


def random_levels(rng: np.random.Generator, frames: int, steps: int, floor: float) -> list[list[float]]:
    """Levels that fall from below 6 to above the floor, each frame at its own pace; some wait."""
    columns = [np.sort(rng.uniform(floor, 6, steps + 1))[::-1] for _ in range(frames)]
    columns[0][1] = columns[0][0]
    return np.stack(columns, 1).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(6))
def test_the_window_precision_lies_below_kappa(seed: int) -> None:
    """J ≤ diag(κ), κ_j = 1/(α²(τ_j) λ + σ²(τ_j)), in the order of quadratic forms."""
    rng = np.random.default_rng(seed)
    covariance, _ = random_video(3, 1, seed)
    law = window_law(covariance * 10 ** rng.uniform(-2, 1), random_levels(rng, 3, 4, 1e-3))
    alpha2 = np.exp(-law.window.levels.numpy())
    kappa = 1 / (alpha2 * float(smallest(law)) + 1 - alpha2)
    for precision, bound in zip(law.window.precision[:, 0].numpy(), kappa, strict=True):
        assert eigh(np.diag(bound) - precision, eigvals_only=True)[0] > -ROUNDING * bound.max()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_a_bounds_the_integral_of_the_scores_own_change(seed: int, scale: float) -> None:
    """With the exact score the Girsanov form is ½ Σ h ∫ E‖s*(W_u) - s*(W^m)‖², and the closed bound ½ 𝒜."""
    rng = np.random.default_rng(seed)
    covariance, _ = random_video(3, 1, seed)
    law = window_law(covariance * scale, random_levels(rng, 3, 5, 1e-3))
    terms = exact_terms(law, "exponential")
    girsanov, closed = girsanov_of(law, terms, "exponential"), closed_of(law, terms, "exponential")
    assert np.all(girsanov > 0)
    assert np.all(girsanov <= closed)


@pytest.mark.parametrize("variance", [1e-6, 0.01, 0.5, 0.999, 1.0, 4.0])
@pytest.mark.parametrize(("high", "low"), [(6.0, 5.0), (1.0, 0.9), (0.3, 0.0), (0.5, 0.4999)])
def test_gamma_is_the_chords_integral(variance: float, high: float, low: float) -> None:
    """½ 𝒜 = ½ (h² γ + h³ κ(τ)/12) for one scalar frame, whose λ is its variance."""
    law = window_law(np.array([[variance]]), [[high], [low]])
    [found] = closed_of(law, exact_terms(law, "exponential"), "exponential")

    def kappa(t: float) -> float:
        return 1 / (math.exp(-t) * variance - math.expm1(-t))

    h, k_0, k_1 = high - low, 1 / kappa(low), 1 / kappa(high)
    edges = [0.0, *(10.0**-k for k in range(1, 8)), 1.0]
    edges = sorted({1 - edge for edge in edges})

    def integral(f: Callable[[float], float]) -> float:
        return sum(quad(f, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges))

    chord = integral(lambda v: (1 - v) / (k_1 - (k_1 - k_0) * v) ** 2)
    actual = integral(lambda v: (1 - v) * kappa(high - v * h) ** 2)
    gamma = (2 * found - h**3 * kappa(high) / 12) / h**2
    if k_1 / k_0 - 1 > 1e-3:
        # The chord's closed form cancels by at most 1/rise² = 1e6 in its numerator of size rise².
        assert gamma == pytest.approx(chord, rel=1e-9)
    else:
        assert gamma == pytest.approx(max(kappa(low), kappa(high)) ** 2 / 2, rel=1e-9)
    assert actual <= gamma * (1 + 1e-9)


@pytest.mark.parametrize("step", ["exponential", "euler"])
def test_the_closed_bound_is_minkowskis_sum_of_its_parts(step: str) -> None:
    """½ (√𝒜 + √ℬ + √𝒞)², with ℬ = Σ h_j E‖ε_j‖² and 𝒞 from second moments, each written out."""
    covariance, mean = random_video(3, 1, 1)
    levels = random_levels(np.random.default_rng(1), 3, 4, 0.01)
    law = window_law(covariance, levels, mean)
    half_a = closed_of(law, exact_terms(law, "exponential"), "exponential")
    found = closed_of(law, terms_of(law, step, 0.2, 0.1), step)
    grid = np.array(levels)
    h = grid[:-1] - grid[1:]
    alpha2 = np.exp(-grid[:-1])
    # ε = -e W + c: E ε_j² = e² Var W_j + (c - e E W_j)².
    error = 0.04 * (alpha2 * np.diag(covariance) + 1 - alpha2) + (0.1 - 0.2 * np.sqrt(alpha2) * mean) ** 2
    b = (h * error).sum(-1)
    c = np.zeros(4)
    if step == "euler":
        size = np.maximum(np.diag(covariance) + mean**2, 1)
        c = (h * (h**2 * size / 12 + h / 2)).sum(-1) / 4
    np.testing.assert_allclose(found, (np.sqrt(2 * half_a) + np.sqrt(b) + np.sqrt(c)) ** 2 / 2, rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_c_bounds_the_states_own_change(seed: int) -> None:
    """¼ Σ h ∫ E‖W_u - W^m‖² du by quadrature of its two exponentials, frame by frame."""
    rng = np.random.default_rng(seed)
    variance, centre, high = 10 ** rng.uniform(-2, 2), rng.normal() * 3, rng.uniform(0.5, 6)
    h = rng.uniform(0.01, high)

    def change(u: float) -> float:
        a, t = math.exp(-u * h / 2), high - u * h
        second = math.exp(-t) * (variance + centre**2) - math.expm1(-t)
        return (1 - a) ** 2 * second + 1 - a**2

    bound = h * (h**2 * max(variance + centre**2, 1) / 12 + h / 2) / 4
    assert h / 4 * quad(change, 0, 1, epsrel=1e-12)[0] <= bound


@pytest.mark.parametrize(
    "name", ["chunks, mixed references, floor", "rolling, noised references, floor", "plateau"]
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_closed_initialisation_bounds_lie_above_nie(name: str, scale: float) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 2)
    terms = ledger_terms(ArrayVideo(scale * covariance, 2, 2 * mean), plan, 3)
    for stage in (terms.initialisation, *terms.ar):
        assert float(stage.nie) <= float(stage.nie_closed)


@pytest.mark.parametrize("horizon", [0.5, 2.0, 6.0, 12.0])
def test_the_closed_initialisation_bound_is_convexity_of_kl(horizon: float) -> None:
    """E_X KL(N(αX, σ²) ‖ N(0, 1)) ≤ it; the last inequality, -log(1-x) ≤ x + ½x²/(1-x), is all that is lost."""
    variance, centre = 2.5, 1.5
    law = window_law(np.array([[variance]]), [[horizon], [0.1]], np.array([centre]))
    alpha2 = math.exp(-horizon)
    average = 0.5 * (alpha2 * (variance + centre**2 - 1) - math.log1p(-alpha2))
    found = float(closed_initialisation_bound(law.window, 1, horizon))
    assert found == pytest.approx(0.5 * alpha2 * (variance + centre**2 + alpha2 / (1 - alpha2)), rel=1e-12)
    assert average <= found <= average + alpha2**2 / (2 * (1 - alpha2))


# -- the ladder as a whole ----------------------------------------------------------------------------


def assert_ladder(terms: LedgerTerms) -> None:
    """Step by step, and rung by rung."""

    def of(stage: StageErrors, name: str) -> Tensor:
        return torch.as_tensor(getattr(stage, name).value, dtype=torch.float64)

    room = ROUNDING * (1 + float(terms.path))
    assert float(terms.ie) <= float(terms.initialisation.path) + room
    rungs = [terms.kl, terms.ar_step_kl, terms.trajectory, terms.path]
    if terms.girsanov is not None:
        rungs += [terms.girsanov, terms.closed]
    for stage in (terms.initialisation, *terms.ar):
        de, see, cross = (of(stage, name) for name in ("de", "see", "cross"))
        if terms.girsanov is not None:
            assert float((de + see + cross - of(stage, "girsanov")).max()) <= room
            assert float((of(stage, "girsanov") - of(stage, "closed")).max()) <= room
            assert float(stage.nie) <= float(stage.nie_closed) + room
        # Cauchy-Schwarz: DE holds ½E‖μ_P - μ_*‖², so CROSS² ≤ 4 DE · SEE and |CROSS| ≤ η DE + SEE/η.
        assert bool((cross**2 <= 4 * de * see * (1 + 1e-9) + 1e-24).all())
        for eta in (0.1, 1.0, 10.0):
            assert bool((cross.abs() <= eta * de + see / eta + 1e-12).all())
    for errors, stage in zip(terms.ar_step_errors.value, terms.ar, strict=True):
        assert float(errors) <= float(stage.path) + room
    assert all(float(low) <= float(high) + room for low, high in pairwise(rungs))


@pytest.mark.parametrize("name", EVERY_PLAN)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
def test_the_ladder_rises(name: str, step: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 4)
    video = ArrayVideo(covariance, 2, mean)
    assert_ladder(ledger_terms(video, plan, 3, step=step))
    assert_ladder(ledger_terms(video, plan, 3, score=PerturbedScore(0.3, bias=-0.2), step=step))


@pytest.mark.parametrize("correlation", [0.999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12])
@pytest.mark.parametrize("name", ["chunks with references", "rolling", "rolling, warmup"])
def test_the_ladder_rises_for_nearly_frozen_videos(name: str, correlation: float) -> None:
    """Eigenvalues down to 1e-12: a fixed quadrature of tr J misses the last step's peak by most of its height."""
    plan = EVERY_PLAN[name]
    video = ArrayVideo(ar1(plan.total_frames(3), correlation), 1)
    for step in ("exponential", "euler"):
        assert_ladder(ledger_terms(video, plan, 3, step=step))


def test_the_upper_rungs_are_refused_where_they_do_not_hold() -> None:
    law = window_law(np.eye(1), [[1.0], [0.0]])
    terms = exact_terms(law, "ancestral")
    for name in ("ancestral", "ddpm", "ddim"):
        with pytest.raises(ValueError, match=f"does not cover the {name} step"):
            girsanov_of(law, terms, name)
        with pytest.raises(ValueError, match=f"does not cover the {name} step"):
            closed_of(law, terms, name)
    with pytest.raises(ValueError, match="smallest eigenvalue above 0, or a stop at δ > 0"):
        closed_of(law, exact_terms(law, "euler"), "euler", torch.zeros(1))
    stopped = window_law(np.eye(1), [[1.0], [0.1]])
    [bound] = closed_of(stopped, exact_terms(stopped, "euler"), "euler", torch.zeros(1))
    assert 0 < float(bound) < math.inf


# -- rates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["exponential", "euler"])
@pytest.mark.parametrize(("floor", "spacing"), [(0.1, "uniform"), (0.02, "geometric")])
def test_discretisation_errors_fall_at_the_steps_order(step: str, floor: float, spacing: str) -> None:
    """Σ DE = c₁/M + c₂/M² + ...: the slope in log-log is -order, and its distance from it halves as M doubles."""
    values, closed = [], []
    for steps in (64, 128, 256, 512):
        plan = Plan(
            (3.0, 3.0), 2, 3.0, steps, 1, references=References.last(1), floor=floor, spacing=spacing,  # type: ignore[arg-type]
        )  # fmt: skip
        terms = ledger_terms(ArrayVideo(ar1(4, 0.8), 1), plan, 1, step=step, memory=False)
        values.append(float(terms.total("de")))
        closed.append(float(terms.total("closed")))
    order = STEPS[step].order
    assert order == 1
    distance = np.diff(np.log(values)) / math.log(2) + order
    assert np.all(np.abs(distance) < 3 / 64)  # of order h = 3/M or less
    np.testing.assert_allclose(distance[1:] / distance[:-1], 0.5, atol=0.1)
    # ½𝒜 has the same order; Euler's 𝒞 has it as well.
    assert np.diff(np.log(closed)) / math.log(2) == pytest.approx(-order, abs=0.1)


def test_exact_posterior_steps_have_no_discretisation_error() -> None:
    assert STEPS["ancestral"].order is None
    plan = PLANS["rolling, noised references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 5)
    terms = ledger_terms(ArrayVideo(covariance, 2, mean), plan, 3, step="ancestral")
    # The two means are the same formula, rounded at 1e-16 each: squares of that, in units of the noise.
    for stage in (terms.initialisation, *terms.ar):
        assert float(stage.de.value.abs().max()) < 1e-26


@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
def test_score_error_counts_by_its_square_and_cross_by_itself(step: str) -> None:
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(2), 2, 6)
    video = ArrayVideo(covariance, 2, mean)
    small, large, other = (
        ledger_terms(video, plan, 2, score=PerturbedScore(e), step=step) for e in (0.1, 0.4, -0.1)
    )
    (see, cross, de), (see_4, cross_4, de_4), (see_back, cross_back, _) = (
        [terms.of(name).value for name in ("see", "cross", "de")] for terms in (small, large, other)
    )
    np.testing.assert_allclose(see_4, 16 * see, rtol=1e-12)
    np.testing.assert_allclose(see_back, see, rtol=1e-12)
    np.testing.assert_allclose(cross_4, 4 * cross, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(cross_back, -cross, rtol=1e-9, atol=1e-13)
    assert torch.equal(de_4, de)
    if step != "ancestral":
        assert float(cross.abs().max()) > 1e-3


def test_a_window_law_of_an_ar_step_has_the_same_rungs() -> None:
    """References change the law of the window, not the argument: λ is that of Cov(window | R)."""
    plan = PLANS["chunks, mixed references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 7)
    law = ArrayVideo(covariance, 2, mean).at(plan.stage(3))
    terms = terms_of(law, "exponential", 0.1)
    girsanov = girsanov_of(law, terms, "exponential")
    closed = closed_of(law, terms, "exponential")
    assert np.all(path_of(terms) <= girsanov)
    assert np.all(girsanov <= closed)
