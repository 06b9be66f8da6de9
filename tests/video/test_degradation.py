"""Predicted decay against rollouts and unrolled covariances, ridge against refits, ranks against scipy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import block_diag, solve_discrete_lyapunov

from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.video.degradation import (
    StepResponse,
    error_gain,
    leading_components,
    predicted_by_gain,
    predicted_degradation,
    ridge,
    step_response,
)
from arvdm_theory.video.metrics import mean_squared_error

Array = NDArray[np.float64]


def _basis(rng: np.random.Generator, d: int, q: int) -> Array:
    basis: Array = np.linalg.qr(rng.normal(size=(d, q)))[0]
    return basis


def _step(rng: np.random.Generator, basis: Array, out: int, references: int, scale: float = 0.4) -> StepResponse:
    """Some response, bias and covariance; nothing about it is special."""
    q = basis.shape[1]
    factor = rng.normal(size=(out * q, out * q))
    return StepResponse(
        basis,
        scale * rng.normal(size=(out, references, q, q)),
        rng.normal(size=(out, q)),
        factor @ factor.T,
        rng.uniform(size=out),
    )


def _one_reference(response: Array, bias: Array, covariance: Array) -> StepResponse:
    q = len(bias)
    return StepResponse(np.eye(q), response[None, None], bias[None], covariance, np.zeros(1))


LAST_ONE = outpainting(window=1, references=References.last(1))


# -- propagation -------------------------------------------------------------------------------------


def _unrolled(steps: list[StepResponse], plan: Plan, prompt: int, first: int) -> tuple[Array, Array, Array]:
    """All errors at once: e = L e + ε, so e has mean (I - L)^{-1} b and covariance (I - L)^{-1} S (I - L)^{-T}."""
    q = steps[0].basis.shape[1]
    frames = [f for k in range(first, first + len(steps)) for f in plan.window_frames(k)[: plan.stride]]
    place = {frame: number for number, frame in enumerate(frames)}
    links = np.zeros((len(frames) * q, len(frames) * q))
    for number, step in enumerate(steps):
        for j, frame in enumerate(plan.window_frames(first + number)[: plan.stride]):
            for i, reference in enumerate(plan.references_at(first + number)):
                if reference.frame in place:
                    rows, columns = (slice(place[f] * q, (place[f] + 1) * q) for f in (frame, reference.frame))
                    links[rows, columns] = step.response[j, i]
    inverse = np.linalg.inv(np.eye(len(links)) - links)
    mean = inverse @ np.concatenate([step.bias.ravel() for step in steps])
    covariance = inverse @ block_diag(*(step.covariance for step in steps)) @ inverse.T
    new = [number for frame, number in place.items() if frame >= prompt]
    index = np.concatenate([np.arange(number * q, (number + 1) * q) for number in new])
    outside = np.concatenate([step.outside for step in steps])[new]
    return mean[index].reshape(-1, q), covariance[np.ix_(index, index)], outside


@pytest.mark.parametrize(
    ("plan", "prompt", "first", "last"),
    [
        (outpainting(window=2, references=References.first(1) + References.last(3)), 6, 3, 7),
        (outpainting(window=3, references=References.every(2)), 3, 1, 4),
        (fifo(window=3, references=References.first(2) + References.last(2)), 7, 6, 14),
        (Plan((1.0, 1.0, 2.0, 2.0), 2, 2.0, 4, references=References.last(3, level=0.1)), 8, 4, 8),
    ],
    ids=["sink", "growing", "diagonal", "diagonal of two"],
)
def test_the_recursion_is_the_unrolled_covariance(plan: Plan, prompt: int, first: int, last: int) -> None:
    rng = np.random.default_rng(0)
    basis = _basis(rng, 5, 3)
    steps = [_step(rng, basis, plan.stride, len(plan.references_at(k)), 0.3) for k in range(first, last + 1)]
    found = predicted_degradation(steps, plan, prompt, last)
    mean, covariance, outside = _unrolled(steps, plan, prompt, first)
    assert len(found.mse) == plan.clean_frames(last) - prompt
    # L is nilpotent and some entries of its powers large, so to 1e-10 of the largest number.
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-10 * np.abs(mean).max())
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-10 * np.abs(covariance).max())
    second = np.diag(covariance + np.outer(mean, mean)).reshape(-1, 3).sum(1)
    np.testing.assert_allclose(found.mse, second / 5 + outside, rtol=1e-10)


def _linear_rollout(
    rng: np.random.Generator, videos: int, plan: Plan, prompt: int, steps: range, slope: Array, bias: Array
) -> tuple[Array, Array, Array, Array]:
    """A Gaussian video and what a network with its slope, a bias and noise of its own makes of it.

    Returns:
        true frames, the rollout's frames, and the first AR step's references and outputs on them.
    """
    d, out = slope.shape[1] // len(plan.references_at(steps[0])), plan.stride
    start = rng.normal(size=(videos, prompt, d)) + 0.5 * rng.normal(size=(videos, 1, d))
    true, made = start, start
    first: list[Array] = []
    for k in steps:
        told = [reference.frame for reference in plan.references_at(k)]
        seen, shown = (frames[:, told].reshape(videos, -1) for frames in (true, made))
        innovation = 0.45 * rng.normal(size=(videos, out * d))
        noise = 0.1 * rng.normal(size=(videos, out * d)) + bias
        if k == steps[0]:
            first = [seen.reshape(videos, -1, d), (seen @ slope.T + noise).reshape(videos, out, d)]
        true = np.concatenate([true, (seen @ slope.T + innovation).reshape(videos, out, d)], 1)
        made = np.concatenate([made, (shown @ slope.T + noise).reshape(videos, out, d)], 1)
    return true, made, first[0], first[1]


def test_the_prediction_is_the_error_of_a_linear_network_on_a_gaussian_video() -> None:
    rng = np.random.default_rng(1)
    plan, d, out, videos = outpainting(window=2, references=References.first(1) + References.last(2)), 3, 2, 20000
    slope, bias = 0.35 * rng.normal(size=(out * d, 3 * d)), 0.2 * rng.normal(size=out * d)
    true, made, _, _ = _linear_rollout(rng, videos, plan, 4, range(2, 7), slope, bias)
    errors = (made - true)[:, 4:]
    known = StepResponse(
        np.eye(d),
        slope.reshape(out, d, 3, d).transpose(0, 2, 1, 3),
        bias.reshape(out, d),
        (0.45**2 + 0.1**2) * np.eye(out * d),
        np.zeros(out),
    )
    found = predicted_degradation(known, plan, 4, 6)
    # The largest of some 500 standard normal numbers, moments of the errors, exceeds 4.5 once in 300 seeds.
    squared = (errors**2).mean(2)
    np.testing.assert_array_less(np.abs(squared.mean(0) - found.mse), 4.5 * squared.std(0) / np.sqrt(videos))
    flat = errors.reshape(videos, -1)
    np.testing.assert_array_less(np.abs(flat.mean(0) - found.mean.ravel()), 4.5 * flat.std(0) / np.sqrt(videos))
    products = (flat - found.mean.ravel())[:, :, None] * (flat - found.mean.ravel())[:, None]
    spread = products.std(0) / np.sqrt(videos)
    np.testing.assert_array_less(np.abs(products.mean(0) - found.covariance), 4.5 * spread)
    # Errors do add up here: a test that no accumulation would pass says nothing.
    assert found.mse[-1] > 1.5 * found.mse[0]


def test_what_is_fitted_to_teacher_forced_outputs_predicts_the_rollout() -> None:
    rng = np.random.default_rng(2)
    plan, q, d, out, videos = outpainting(window=2, references=References.last(2)), 3, 7, 2, 2000
    slope, bias = 0.5 * rng.normal(size=(out * q, 2 * q)), 0.2 * rng.normal(size=out * q)
    span = _basis(rng, d, q)
    beyond = np.eye(d) - span @ span.T
    gaps = []
    for _ in range(20):
        true, made, told, said = _linear_rollout(rng, videos, plan, 2, range(1, 6), slope, bias)
        # Pixels: frames lie in a subspace, and outputs have noise outside it that no reference brings back.
        blur = 0.3 * rng.normal(size=(*made[:, 2:].shape[:2], d)) @ beyond
        outputs = said @ span.T + 0.3 * rng.normal(size=(videos, out, d)) @ beyond
        basis = leading_components(true[:, :4] @ span.T, q)
        step = step_response(told @ span.T, true[:, 2:4] @ span.T, outputs, basis)
        measured = (((made - true)[:, 2:] @ span.T + blur) ** 2).mean((0, 2))
        gaps.append(predicted_degradation(step, plan, 2, 5).mse - measured)
    stderr = np.std(gaps, axis=0, ddof=1) / np.sqrt(len(gaps))
    # Student's t of 19 degrees of freedom, 10 frames: beyond 4.5 once in 400 seeds. The bias of the fitted slope
    # is of relative order p/n · noise/error variance = 6/2000 · 0.05, below a tenth of a standard error.
    np.testing.assert_array_less(np.abs(np.mean(gaps, axis=0)), 4.5 * stderr)


def test_a_contracting_response_levels_off_at_the_lyapunov_fixed_point() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(3, 3))
    matrix *= 0.7 / np.abs(np.linalg.eigvals(matrix)).max()
    factor, bias = rng.normal(size=(3, 3)), rng.normal(size=3)
    found = predicted_degradation(_one_reference(matrix, bias, factor @ factor.T), LAST_ONE, 1, 120)
    fixed, centre = solve_discrete_lyapunov(matrix, factor @ factor.T), np.linalg.solve(np.eye(3) - matrix, bias)
    # What is left of the start is 0.7^119 ≈ 4e-19 of it: only rounding.
    np.testing.assert_allclose(found.covariance[-3:, -3:], fixed, rtol=1e-11)
    np.testing.assert_allclose(found.covariance[-3:, -6:-3], matrix @ fixed, rtol=1e-11)
    np.testing.assert_allclose(found.mean[-1], centre, rtol=1e-11)
    assert found.mse[-1] == pytest.approx((np.trace(fixed) + centre @ centre) / 3, rel=1e-11)
    assert found.mse[-1] == pytest.approx(found.mse[-2], rel=1e-11)


def test_an_expanding_response_grows_at_its_rate() -> None:
    rng = np.random.default_rng(4)
    growth, turn = 1.1, _basis(rng, 3, 3)
    step = _one_reference(growth * turn, np.zeros(3), 0.01 * np.eye(3))
    found = predicted_degradation(step, LAST_ONE, 1, 200)
    # A turn leaves the identity alone, so the variance is a geometric sum.
    index = np.arange(1, 201)
    np.testing.assert_allclose(found.mse, 0.01 * (growth ** (2 * index) - 1) / (growth**2 - 1), rtol=1e-11)


def test_errors_that_depend_on_the_past_are_underrated() -> None:
    """The uncontrolled assumption, where it fails: a network that shrinks what it is shown to half its slope."""
    correlation, slope, steps = 0.9, 0.45, 12
    k = np.arange(1, steps + 1)
    # AR(1) frames of variance 1; the rollout is slope^k times the given frame.
    truth = 1 + slope ** (2 * k) - 2 * (slope * correlation) ** k
    own = np.array([[1 + slope**2 - 2 * slope * correlation]])
    found = predicted_degradation(_one_reference(np.array([[slope]]), np.zeros(1), own), LAST_ONE, 1, steps)
    assert found.mse[0] == pytest.approx(truth[0], rel=1e-12)
    assert (found.mse[1:] < truth[1:]).all()
    # The limits are S/(1 - slope²) = 0.49 and the variance of the video.
    assert found.mse[-1] == pytest.approx(own[0, 0] / (1 - slope**2), rel=1e-4)
    assert truth[-1] == pytest.approx(1, rel=1e-4)


def test_the_constant_proxy_is_the_measured_teacher_forced_error() -> None:
    rng = np.random.default_rng(5)
    truth, outputs = rng.uniform(-1, 1, size=(2, 30, 2, 4, 4, 3))
    references = rng.uniform(-1, 1, size=(30, 3, 48))
    basis = leading_components(truth.reshape(30, 2, 48), 5)
    step = step_response(references, truth.reshape(30, 2, 48), outputs.reshape(30, 2, 48), basis)
    plan = outpainting(window=2, references=References.last(3))
    found = predicted_degradation(step, plan, 4, 4, "constant")
    expected = np.tile(mean_squared_error(truth, outputs).mean(0), 3)
    np.testing.assert_allclose(found.mse, expected, rtol=1e-12)
    # On true references the two proxies are one.
    np.testing.assert_allclose(predicted_degradation(step, plan, 4, 4).mse[:2], expected[:2], rtol=1e-12)


def test_a_perfect_step_errs_nowhere() -> None:
    perfect = _one_reference(np.eye(2), np.zeros(2), np.zeros((2, 2)))
    assert (predicted_degradation(perfect, LAST_ONE, 1, 3).mse == 0).all()


# -- the fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(25, 6), (12, 20)])
def test_the_leave_one_out_score_is_that_of_refits(n: int, p: int) -> None:
    rng = np.random.default_rng(6)
    x, strengths = 3 + rng.normal(size=(n, p)) * np.geomspace(1, 0.05, p), (1e-3, 0.1, 10.0)
    y = x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4)) - 2
    fit = ridge(x, y, strengths)
    unit = (np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2).mean()

    def refit(rows: NDArray[Any], strength: float) -> tuple[Array, Array]:
        """Normal equations with a column of ones, which goes unpenalised."""
        design = np.column_stack([np.ones(len(rows)), x[rows]])
        penalty = np.diag([0.0] + [strength * unit] * p)
        found = np.linalg.solve(design.T @ design + penalty, design.T @ y[rows])
        return found[0], found[1:]

    for strength, score in zip(strengths, fit.scores, strict=True):
        total = 0.0
        for i in range(n):
            offset, slope = refit(np.delete(np.arange(n), i), strength)
            total += float(((y[i] - offset - x[i] @ slope) ** 2).sum())
        # The smallest strength is 1e-3 of the mean eigenvalue: a condition of some 1e4.
        assert score == pytest.approx(total / n, rel=1e-9)
    assert fit.strength == strengths[int(np.argmin(fit.scores))]
    np.testing.assert_allclose(fit.slope, refit(np.arange(n), fit.strength)[1], rtol=0, atol=1e-10)


def test_noise_makes_the_ridge_strong_and_no_noise_makes_it_weak() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(40, 30))
    known, noise = x @ rng.normal(size=(30, 5)), rng.normal(size=(40, 5))
    clear, lost = ridge(x, known), ridge(x, noise)
    assert clear.strength < 1e-5
    assert clear.scores.min() < 1e-3 * known.var(0).sum()
    assert lost.strength > 1
    # Nothing foretells noise: the ratio of two means of 200 squares is 1, off by 1/√200 or so.
    assert lost.scores.min() > (1 - 3 / np.sqrt(200)) * noise.var(0, ddof=1).sum()


def test_without_noise_the_response_is_recovered() -> None:
    rng = np.random.default_rng(8)
    basis, known = _basis(rng, 8, 3), rng.normal(size=(2, 2, 3, 3))
    told = rng.normal(size=(300, 2, 8)) + 1
    said = np.einsum("jiab,nib->nja", known, told @ basis) @ basis.T + 0.25
    strength = 1e-12
    step = step_response(told, rng.normal(size=(300, 2, 8)), said, basis, (strength,))
    seen = (told @ basis).reshape(300, 6)
    values = np.linalg.svd(seen - seen.mean(0), compute_uv=False) ** 2
    # Ridge shrinks a direction by λ/(s² + λ) at most; to that comes rounding.
    slack = (strength * values.mean() / values.min() + 1e-13) * np.linalg.norm(known)
    np.testing.assert_allclose(step.response, known, rtol=0, atol=slack)


def test_gains_are_the_energy_that_a_network_passes_on() -> None:
    """A network that looks up one reference, a different one in every window: small mean response, gain 0.64."""
    rng = np.random.default_rng(11)
    n, r, d = 4000, 4, 6
    pick = rng.choice(r, n, p=[0.5, 0.25, 0.25, 0.0])
    shift = 0.3 * rng.normal(size=(n, r, d)) * rng.integers(0, 2, (n, r, 1))
    moved = 0.8 * shift[np.arange(n), pick][:, None]
    gain = error_gain(shift, moved)
    assert gain.shape == (1, r)
    # E‖moved‖² given the shifts is 0.64 Σ_i p_i ‖shift_i‖². Residuals have at most the spread of ‖shift‖² itself,
    # some 0.4 a window, and each regressor has a variance of 0.1: standard errors below 0.4/√(4000·0.1) = 0.02.
    np.testing.assert_allclose(gain[0], 0.64 * np.array([0.5, 0.25, 0.25, 0.0]), atol=0.06)
    exact = error_gain(shift, 0.8 * shift[:, 1:2])
    np.testing.assert_allclose(exact, [[0, 0.64, 0, 0]], atol=1e-10)
    with pytest.raises(ValueError, match=r"shifts \(n, r, d\)"):
        error_gain(shift, moved[:, :, 1:])
    with pytest.raises(ValueError, match="4 references need as many windows"):
        error_gain(shift[:3], moved[:3])


@pytest.mark.parametrize(
    "plan", [outpainting(window=2, references=References.last(3)), fifo(3, References.last(4))]
)
def test_the_prediction_by_gain_is_that_of_independent_errors(plan: Plan) -> None:
    """One entry a frame and no bias: the covariance recursion without its correlations, unrolled."""
    rng = np.random.default_rng(3)
    prompt, stride = (6, 2) if plan.stride == 2 else (8, 1)
    first, last = (3, 8) if plan.stride == 2 else (7, 14)
    references = len(plan.references_at(first))
    gain, own = rng.uniform(0, 0.5, (stride, references)), rng.uniform(size=stride)
    found = predicted_by_gain(gain, own, plan, prompt, last)
    frames = [f for k in range(first, last + 1) for f in plan.window_frames(k)[:stride]]
    links = np.zeros((len(frames), len(frames)))
    for k in range(first, last + 1):
        for j, frame in enumerate(plan.window_frames(k)[:stride]):
            for i, reference in enumerate(plan.references_at(k)):
                if reference.frame in frames:
                    links[frames.index(frame), frames.index(reference.frame)] = gain[j, i]
    expected = np.linalg.solve(np.eye(len(frames)) - links, np.tile(own, last + 1 - first))
    np.testing.assert_allclose(found, expected[[f >= prompt for f in frames]], rtol=1e-12)
    with pytest.raises(ValueError, match="gain has shape"):
        predicted_by_gain(gain[:, 1:], own, plan, prompt, last)


def test_error_moments_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(9)
    told, truth, outputs = rng.normal(size=(50, 2, 9)), *rng.normal(size=(2, 50, 3, 9))
    basis = _basis(rng, 9, 4)
    step, error = step_response(told, truth, outputs, basis), outputs - truth
    np.testing.assert_allclose(step.teacher_forced, (error**2).mean((0, 2)), rtol=1e-12)
    flat = np.concatenate([error[:, j] @ basis for j in range(3)], 1)
    np.testing.assert_allclose(step.bias.ravel(), flat.mean(0), atol=1e-14)
    np.testing.assert_allclose(step.covariance, np.cov(flat.T, bias=True), atol=1e-14)


@pytest.mark.parametrize(("frames", "d"), [(60, 10), (12, 40)])
def test_components_are_those_of_the_singular_value_decomposition(frames: int, d: int) -> None:
    rng = np.random.default_rng(10)
    rows = 5 + rng.normal(size=(frames, d)) * np.geomspace(1, 1e-2, d)
    right = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:4]
    basis = leading_components(rows.reshape(frames // 2, 2, d), 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-13)
    # Eigenvalues of the Gram matrix are some percent apart, and it has the squared condition.
    np.testing.assert_allclose(basis @ basis.T, right.T @ right, atol=1e-11)
    np.testing.assert_allclose(np.abs(np.diag(right @ basis)), 1, atol=1e-11)


# -- what cannot be said -----------------------------------------------------------------------------


def test_regressions_that_say_nothing_are_refused() -> None:
    rng = np.random.default_rng(17)
    x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
    for wrong, match in (
        ((x, y[:9]), "as many outputs"), ((x[:2], y[:2]), "3 or more"), ((x[0], y), "2 axes"),
        ((x * np.nan, y), "finite"), ((np.ones((10, 3)), y), "does not vary"),
        ((x, y, ()), "positive"), ((x, y, (0.0,)), "positive"), ((x, y, (np.inf,)), "positive"),
        ((rng.normal(size=(10, 30)), y, (1e-12,)), "leverage is 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            ridge(*wrong)
    told, frames = rng.normal(size=(10, 2, 4)), rng.normal(size=(10, 1, 4))
    for given, match in (
        ((told, frames, frames[:, :, :3], np.eye(4)), "shapes"), ((told[:9], frames, frames, np.eye(4)), "shapes"),
        ((told[:, :0], frames, frames, np.eye(4)), "at least one reference"),
        ((told, frames, frames, 2 * np.eye(4)), "orthonormal"), ((told, frames, frames, np.eye(5)), "numbers"),
        ((told, frames * np.inf, frames, np.eye(4)), "truth are finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            step_response(*given)


def test_subspaces_that_frames_do_not_have_are_refused() -> None:
    rng = np.random.default_rng(18)
    frames = rng.normal(size=(6, 4))
    for wrong, components, match in (
        (frames[0], 1, "shape"), (frames * np.nan, 1, "finite"), (frames, 5, "1 to 4"), (frames, 0, "1 to 4"),
        (frames[:3], 3, "1 to 2"), (np.repeat(frames[:, :1], 4, 1), 2, "fewer than 2 directions"),
        (np.repeat(frames[:2], 3, 0) @ rng.normal(size=(4, 50)), 2, "fewer than 2 directions"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            leading_components(wrong, components)


def test_responses_that_do_not_fit_their_plan_are_refused() -> None:
    rng = np.random.default_rng(19)
    basis = _basis(rng, 5, 2)
    step, plan = _step(rng, basis, 2, 3), outpainting(window=2, references=References.last(3))
    other = replace(step, basis=_basis(rng, 5, 2))
    for responses, prompt, last, match in (
        (step, 2, 3, "AR step 1 puts out 2 frames and is shown 2 references"),
        (_step(rng, basis, 1, 3), 4, 4, "puts out 2 frames"),
        (step, 8, 3, "AR step 4 follows"), ([step], 4, 3, "need 2 responses"), ([step, other], 4, 3, "subspaces"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            predicted_degradation(responses, plan, prompt, last)
    with pytest.raises(ValueError, match="AR steps of the plan"):
        predicted_degradation(step, plan, 3, 4)
    with pytest.raises(ValueError, match="a proxy is"):
        predicted_degradation(step, plan, 4, 4, "quadratic")  # type: ignore[arg-type]
    for change, match in (
        ({"bias": step.bias * np.nan}, "bias of an AR step is NaN"), ({"basis": basis.T}, "orthonormal"),
        ({"bias": step.bias[:1]}, "bias has shape"), ({"response": step.response[0]}, "response has shape"),
        ({"covariance": step.covariance[:2]}, "covariance has shape"), ({"outside": step.outside[:1]}, "outside"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            replace(step, **change)  # type: ignore[arg-type]
