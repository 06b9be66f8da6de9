"""The rungs above the ledger: the Girsanov form, the closed bound and each of its ingredients, and rates in M."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from arvdm_theory.decomposition.stage import StageTerms, stage_terms
from arvdm_theory.diffusion.window import WindowLaw, ar_window, init_window
from reference_cases import MORE_PLANS, PLANS, Array, ar1, random_video
from scipy.integrate import quad
from scipy.linalg import eigh
from torch import Tensor

from arvdm_theory import ArrayVideo, ExactScore, PerturbedScore, Plan, References, ledger, ledger_terms
from arvdm_theory.bounds.path import closed_initialisation_bound, closed_path_bound, girsanov_path_bound
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.diffusion.steps import STEPS

EVERY_PLAN = {**PLANS, **MORE_PLANS}
FULL = ExactScore(masked=False)
# Both sides are sums of numbers of order 1 to 100 with thirteen correct digits.
ROUNDING = 1e-11


def window_law(covariance: Array, levels: list[list[float]], mean: Array | None = None) -> WindowLaw:
    """The law of scalar frames that go through ``levels`` together or each on its own, without references."""
    grid = torch.tensor(levels, dtype=torch.float64)
    frames = grid.shape[1]
    plan = Plan((9.0,) * frames, frames, 9.0, 1, len(grid) - 1, floor=1e-9)
    centre = np.zeros(frames) if mean is None else mean
    return init_window(torch.from_numpy(centre)[None], torch.from_numpy(covariance)[None], 1, plan, grid)


def terms_of(law: WindowLaw, step: str, error: float = 0.0, bias: float = 0.0) -> StageTerms:
    return stage_terms(law, PerturbedScore(error, bias).affine(law), STEPS[step], FULL)


def exact_terms(law: WindowLaw, step: str) -> StageTerms:
    return stage_terms(law, law.score, STEPS[step], FULL)


def smallest(law: WindowLaw) -> Tensor:
    eigenvalues: Tensor = torch.linalg.eigvalsh(law.covariance)
    return eigenvalues[:, 0]


def path_of(terms: StageTerms) -> Array:
    result: Array = (terms.de + terms.see + terms.cross)[:, 0].numpy()
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
    found = girsanov_path_bound(law, terms_of(law, step, error, bias).moments, STEPS[step])
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
    assert float(found) == pytest.approx(total, rel=1e-10 + 1e-16 / (1 - correlation))


@pytest.mark.parametrize("step", ["exponential", "euler"])
def test_quadrature_of_the_smooth_part_converges_at_once(step: str) -> None:
    """Its integrands are exponentials of u h/2 up to e^{h}: n nodes err by about (h/2)^{2n}/(2n)! of them."""
    law = window_law(np.array([[1.0, 0.9], [0.9, 1.0]]), [[8.0] * 2, [2.0] * 2, [0.0] * 2], np.array([1.0, -2.0]))
    moments = terms_of(law, step, 0.3, 0.1).moments
    values = {n: girsanov_path_bound(law, moments, STEPS[step], n) for n in (1, 2, 3, 4, 12, 40)}
    errors = [float((values[n] - values[40]).abs().max()) for n in (1, 2, 3, 4)]
    assert all(coarse > 5 * fine for coarse, fine in pairwise(errors))
    np.testing.assert_allclose(values[12], values[40], rtol=1e-12)


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
    found = float(girsanov_path_bound(law, terms.moments, STEPS["euler"]))
    without = float(girsanov_path_bound(law, terms.moments, STEPS["exponential"]))
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
    girsanov = float(girsanov_path_bound(law, terms.moments, STEPS["exponential"]))
    closed = float(closed_path_bound(law, terms.moments, STEPS["exponential"], smallest(law)))
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
        girsanov = girsanov_path_bound(law, terms.moments, STEPS["exponential"])
        closed = closed_path_bound(law, terms.moments, STEPS["exponential"], smallest(law))
        rows.append((path_of(terms)[0], float(girsanov), float(closed)))
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
    alpha2 = np.exp(-law.levels.numpy())
    kappa = 1 / (alpha2 * float(smallest(law)) + 1 - alpha2)
    for precision, bound in zip(law.precision[:, 0].numpy(), kappa, strict=True):
        assert eigh(np.diag(bound) - precision, eigvals_only=True)[0] > -ROUNDING * bound.max()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_a_bounds_the_integral_of_the_scores_own_change(seed: int, scale: float) -> None:
    """With the exact score the Girsanov form is ½ Σ h ∫ E‖s*(W_u) - s*(W^m)‖², and the closed bound ½ 𝒜."""
    rng = np.random.default_rng(seed)
    covariance, _ = random_video(3, 1, seed)
    law = window_law(covariance * scale, random_levels(rng, 3, 5, 1e-3))
    moments = exact_terms(law, "exponential").moments
    girsanov = girsanov_path_bound(law, moments, STEPS["exponential"])
    closed = closed_path_bound(law, moments, STEPS["exponential"], smallest(law))
    assert bool((girsanov > 0).all())
    assert bool((girsanov <= closed).all())


@pytest.mark.parametrize("variance", [1e-6, 0.01, 0.5, 0.999, 1.0, 4.0])
@pytest.mark.parametrize(("high", "low"), [(6.0, 5.0), (1.0, 0.9), (0.3, 0.0), (0.5, 0.4999)])
def test_gamma_is_the_chords_integral(variance: float, high: float, low: float) -> None:
    """½ 𝒜 = ½ (h² γ + h³ κ(τ)/12) for one scalar frame, whose λ is its variance."""
    law = window_law(np.array([[variance]]), [[high], [low]])
    moments = exact_terms(law, "exponential").moments
    found = float(closed_path_bound(law, moments, STEPS["exponential"], smallest(law)))

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
    lam = smallest(law)
    half_a = closed_path_bound(law, exact_terms(law, "exponential").moments, STEPS["exponential"], lam)[0, :, 0]
    terms = terms_of(law, step, 0.2, 0.1)
    found = closed_path_bound(law, terms.moments, STEPS[step], lam)[0, :, 0]
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
    np.testing.assert_allclose(found, (np.sqrt(2 * half_a.numpy()) + np.sqrt(b) + np.sqrt(c)) ** 2 / 2, rtol=1e-10)


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
    assert bool((terms.nie_init <= terms.nie_init_closed).all())
    assert bool((terms.nie_ar <= terms.nie_ar_closed).all())


@pytest.mark.parametrize("horizon", [0.5, 2.0, 6.0, 12.0])
def test_the_closed_initialisation_bound_is_convexity_of_kl(horizon: float) -> None:
    """E_X KL(N(αX, σ²) ‖ N(0, 1)) ≤ it; the last inequality, -log(1-x) ≤ x + ½x²/(1-x), is all that is lost."""
    variance, centre = 2.5, 1.5
    law = window_law(np.array([[variance]]), [[horizon], [0.1]], np.array([centre]))
    alpha2 = math.exp(-horizon)
    average = 0.5 * (alpha2 * (variance + centre**2 - 1) - math.log1p(-alpha2))
    found = float(closed_initialisation_bound(law, 1, horizon))
    assert found == pytest.approx(0.5 * alpha2 * (variance + centre**2 + alpha2 / (1 - alpha2)), rel=1e-12)
    assert average <= found <= average + alpha2**2 / (2 * (1 - alpha2))


# -- the ladder as a whole ----------------------------------------------------------------------------


def assert_ladder(terms: LedgerTerms) -> None:
    """Step by step, and rung by rung."""
    path = terms.de + terms.see + terms.cross
    init = terms.init_de + terms.init_see + terms.init_cross
    assert terms.clean is not None
    assert terms.trajectory is not None
    assert terms.ie is not None
    size = 1 + float(terms.path)
    rungs = [float(terms.over_modes(terms.clean)), float(terms.trajectory), float(terms.path)]
    assert (
        float(terms.over_modes(terms.ie)) <= float(terms.over_modes(terms.nie_init) + terms.path_init) + ROUNDING
    )
    if terms.girsanov is not None and terms.init_girsanov is not None:
        assert terms.closed is not None
        assert terms.init_closed is not None
        for low, high in (
            (path, terms.girsanov),
            (init, terms.init_girsanov),
            (terms.girsanov, terms.closed),
            (terms.init_girsanov, terms.init_closed),
            (terms.nie_ar, terms.nie_ar_closed),
            (terms.nie_init, terms.nie_init_closed),
        ):
            assert float((low - high).max()) <= ROUNDING * size
        rungs += [float(value) for value in (terms.girsanov_total, terms.closed_total) if value is not None]
    assert len(rungs) in (3, 5)
    assert all(low <= high + ROUNDING * size for low, high in pairwise(rungs))
    # Cauchy-Schwarz: DE holds ½E‖μ_P - μ_*‖², so CROSS² ≤ 4 DE · SEE and |CROSS| ≤ η DE + SEE/η.
    assert bool((terms.cross**2 <= 4 * terms.de * terms.see * (1 + 1e-9) + 1e-24).all())
    for eta in (0.1, 1.0, 10.0):
        assert bool((terms.cross.abs() <= eta * terms.de + terms.see / eta + 1e-12).all())


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
    moments = exact_terms(law, "ancestral").moments
    for name in ("ancestral", "ddpm", "ddim"):
        with pytest.raises(ValueError, match=f"does not cover the {name} step"):
            girsanov_path_bound(law, moments, STEPS[name])
        with pytest.raises(ValueError, match=f"does not cover the {name} step"):
            closed_path_bound(law, moments, STEPS[name], smallest(law))
    with pytest.raises(ValueError, match="at least one point, got 0"):
        girsanov_path_bound(law, moments, STEPS["euler"], 0)
    with pytest.raises(ValueError, match="smallest eigenvalue above 0, or a stop at δ > 0"):
        closed_path_bound(law, moments, STEPS["euler"], torch.zeros(1, dtype=torch.float64))
    stopped = window_law(np.eye(1), [[1.0], [0.1]])
    bound = closed_path_bound(stopped, exact_terms(stopped, "euler").moments, STEPS["euler"], torch.zeros(1))
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
        values.append(float(terms.de.sum()))
        assert terms.closed is not None
        closed.append(float(terms.closed.sum()))
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
    assert float(terms.de.abs().max()) < 1e-26
    assert float(terms.init_de.abs().max()) < 1e-26


@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
def test_score_error_counts_by_its_square_and_cross_by_itself(step: str) -> None:
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(2), 2, 6)
    video = ArrayVideo(covariance, 2, mean)
    small, large, other = (
        ledger_terms(video, plan, 2, score=PerturbedScore(e), step=step) for e in (0.1, 0.4, -0.1)
    )
    np.testing.assert_allclose(large.see, 16 * small.see, rtol=1e-12)
    np.testing.assert_allclose(other.see, small.see, rtol=1e-12)
    np.testing.assert_allclose(large.cross, 4 * small.cross, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(other.cross, -small.cross, rtol=1e-9, atol=1e-13)
    assert torch.equal(large.de, small.de)
    if step != "ancestral":
        assert float(small.cross.abs().max()) > 1e-3


def test_a_window_law_of_an_ar_step_has_the_same_rungs() -> None:
    """References change the law of the window, not the argument: λ is that of Cov(window | R)."""
    plan = PLANS["chunks, mixed references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 7)
    law = ar_window(torch.from_numpy(mean)[None], torch.from_numpy(covariance)[None], 2, plan, 3)
    terms = terms_of(law, "exponential", 0.1)
    girsanov = girsanov_path_bound(law, terms.moments, STEPS["exponential"])[0, :, 0].numpy()
    closed = closed_path_bound(law, terms.moments, STEPS["exponential"], smallest(law))[0, :, 0].numpy()
    assert np.all(path_of(terms) <= girsanov)
    assert np.all(girsanov <= closed)
