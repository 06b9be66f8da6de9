"""The dense reference itself: against the published tables, the algorithm run literally, and closed forms."""

import math
from dataclasses import replace
from functools import lru_cache

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from dense_reference import (
    DenseLedger,
    Move,
    Score,
    Step,
    conditional,
    dense_ledger,
    exact_score,
    gaussian_kl,
    information,
    true_laws,
    walk,
)
from reference_cases import (
    CASES,
    DIAL,
    FIVE_DIGITS,
    FOUR_DIGITS,
    IDEAL,
    PLANS,
    PRINTED,
    SIX_DIGITS,
    THREE_DIGITS,
    Array,
    ar1,
    dial_plan,
    random_video,
    table_video,
)

from arvdm_theory import Plan, References, outpainting
from arvdm_theory.plan.references import NoReferences


@lru_cache
def case(name: str) -> DenseLedger:
    plan, steps = CASES[name]
    # 8 nodes leave 1.4e-9 (A) and 3.5e-8 (D) of the first two AR steps' Girsanov form, against 24 nodes.
    return dense_ledger(table_video(plan.total_frames(steps)), None, 2, plan, steps, nodes=8)


@lru_cache
def augmented(noise: float) -> DenseLedger:
    plan = dial_plan(noise)
    return dense_ledger(ar1(plan.total_frames(12), 0.95), None, 1, plan, 12)


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference_cases(name: str) -> None:
    found = case(name)
    columns = (
        found.clean, found.trajectory, found.girsanov, found.ie, sum(found.nie_ar), found.sum_of("de"),
        sum(found.mb), found.clip[-1],
    )  # fmt: skip
    for place, (value, printed) in enumerate(zip(columns, PRINTED[name], strict=True)):
        assert value == pytest.approx(printed, rel=0, abs=FIVE_DIGITS if place == 2 else SIX_DIGITS), place
    assert found.ledger == pytest.approx(found.trajectory, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_ladder_rises_term_by_term(name: str) -> None:
    found = case(name)
    assert found.clean <= found.trajectory <= found.girsanov
    assert found.ie <= found.ie_bound
    for term in [*found.init_terms, *(term for row in found.terms for term in row)]:
        assert 0 < term.total <= term.girsanov
    # Clean references within Input_k ∪ Output_k in all four cases: the K-fold bound holds.
    for clip, output, bound in zip(found.clip, found.output, found.clip_bound, strict=True):
        assert clip <= output <= bound


@pytest.mark.parametrize(("noise", "clean", "first", "last", "bottleneck"), DIAL)
def test_reproduces_the_noise_augmentation_dial(
    noise: float, clean: float, first: float, last: float, bottleneck: float
) -> None:
    found = augmented(noise)
    assert found.clean == pytest.approx(clean, rel=0, abs=THREE_DIGITS)
    for value, printed in ((found.clip[0], first), (found.clip[-1], last), (found.mb[-1], bottleneck)):
        assert value == pytest.approx(printed, rel=0, abs=FOUR_DIGITS)
    assert found.ledger == pytest.approx(found.trajectory, rel=1e-9)


# -- the two laws against derivations that do not share the walk through the plan ---------------------


def test_truth_has_the_covariance_of_forward_paths() -> None:
    """Cov(X_f^s, X_g^t) = α(s) α(t) (S_fg + [f = g] (e^u - 1)), u the level at which the two paths part."""
    plan = Plan((0.1, 2.0, 4.0), 1, 4.0, 3, floor=0.1, references=References.last(2, 0.5) + References.first(1))
    covariance, mean = random_video(plan.total_frames(3), 1, 0)
    tour = walk(plan, 3)
    p, _ = true_laws(covariance, mean, 1, plan, tour)
    level = dict(tour.level)
    for step in tour.steps:
        level.update({key: level[source] + change for key, source, change in step.fresh})
    assert {key[0] for key in p.keys} == {"state", "reference"}
    for a in p.keys:
        assert p.mean([a])[0] == pytest.approx(math.exp(-level[a] / 2) * mean[a[1]], rel=1e-12)
        for b in p.keys:
            same_path = a == b or a[0] == b[0] == "state"
            part = min(level[a], level[b]) if same_path else plan.floor
            noise = math.expm1(part) if a[1] == b[1] else 0.0
            expected = math.exp(-(level[a] + level[b]) / 2) * (covariance[a[1], b[1]] + noise)
            assert p.covariance([a], [b])[0, 0] == pytest.approx(expected, rel=1e-10, abs=1e-12)


def score_of_samples(
    covariance: Array,
    mean: Array,
    w: Array,
    levels: list[float],
    r: Array,
    r_levels: list[float],
    at: list[int],
) -> Array:
    """The exact score at samples w (rows) of the window, from the joint precision with the references."""
    every = np.array(levels + r_levels)
    alpha = np.exp(-every / 2)
    joint = alpha[:, None] * alpha * covariance[np.ix_(at, at)] + np.diag(1 - np.exp(-every))
    centred = np.hstack([w, r]) - alpha * mean[at]
    score: Array = -(centred @ np.linalg.inv(joint))[:, : len(levels)]
    return score


def simulate(plan: Plan, covariance: Array, mean: Array, ar_steps: int, samples: int, seed: int) -> Array:
    """The two-stage algorithm run literally on samples of scalar frames; returns the clean frames."""
    rng = np.random.default_rng(seed)
    state: dict[int, Array] = {}
    level: dict[int, float] = {}

    def noise_to(x: Array, change: float) -> Array:
        return math.exp(-change / 2) * x + math.sqrt(-math.expm1(-change)) * rng.normal(size=samples)

    def enter(frame: int) -> None:
        state[frame], level[frame] = rng.normal(size=samples), plan.horizon

    def denoise(
        frames: list[int], row: tuple[float, ...], r: Array, r_levels: list[float], r_frames: list[int]
    ) -> None:
        w = np.stack([state[f] for f in frames], 1)
        s = score_of_samples(covariance, mean, w, [level[f] for f in frames], r, r_levels, frames + r_frames)
        for j, f in enumerate(frames):
            h = level[f] - row[j]
            noise = math.sqrt(math.expm1(h)) * rng.normal(size=samples)
            state[f] = math.exp(h / 2) * w[:, j] + 2 * math.expm1(h / 2) * s[:, j] + noise
            level[f] = row[j]

    begin = list(range(plan.init_frames))
    for f in begin:
        enter(f)
    for row in plan.init_grid[1:]:
        denoise(begin, row, np.zeros((samples, 0)), [], [])
    if plan.overlapping and plan.initialisation == "renoise":
        for f in begin:
            state[f] = noise_to(state[f], plan.input_levels[f] - level[f])
            level[f] = plan.input_levels[f]
    for k in range(1, ar_steps + 1):
        used = plan.references_at(k)
        r_frames, r_levels = [u.frame for u in used], [u.level or plan.floor for u in used]
        seen = [noise_to(state[u.frame], max(u.level - plan.floor, 0.0)) for u in used]
        r = np.stack(seen, 1) if seen else np.zeros((samples, 0))
        window = list(plan.window_frames(k))
        for f in window[-plan.stride :]:
            enter(f)
        for row in plan.ar_grid[1:]:
            denoise(window, row, r, r_levels, r_frames)
    return np.stack([state[f] for f in range(plan.clean_frames(ar_steps))], 1)


@pytest.mark.parametrize(
    "plan",
    [
        Plan((1.2, 1.2, 3.0, 3.0), 2, 3.0, 3, 4, references=References.last(2, 0.2), floor=0.05),
        Plan((1.0, 2.0, 3.0), 1, 3.0, 3, 4, references=References.first(1), initialisation="warmup"),
        Plan((3.0, 3.0), 2, 3.0, 4, 4, references=References.last(3, 0.3) + References.first(1)),
    ],
    ids=["renoise", "warmup", "chunks"],
)
def test_sampler_law_is_that_of_the_algorithm_run_literally(plan: Plan) -> None:
    samples = 100_000
    covariance, mean = random_video(plan.total_frames(3), 1, 1)
    found = dense_ledger(covariance, mean, 1, plan, 3)
    keys = found.tour.clean
    expected, centre = found.q.covariance(keys), found.q.mean(keys)
    video = simulate(plan, covariance, mean, 3, samples, 2)
    spread = np.sqrt(np.diag(expected))
    assert np.all(np.abs(video.mean(0) - centre) < 5 * spread / math.sqrt(samples))
    products = (video - centre).T @ (video - centre) / samples
    # Var of a product of two centred Gaussians: Σ_ii Σ_jj + Σ_ij².
    error = np.sqrt((np.outer(spread**2, spread**2) + expected**2) / samples)
    assert np.all(np.abs(products - expected) < 5 * error)


# -- section 4: the ledger closes ---------------------------------------------------------------------


def tilt(move: Move, score: Score) -> Score:
    """A score error that no scalar describes: other gains, a reading of the references, a shift."""
    n = len(score.window)
    bend = 0.05 * np.sin(np.arange(n * n)).reshape(n, n)
    reading = 0.03 * np.cos(np.arange(score.references.size)).reshape(score.references.shape)
    return Score(score.window + bend, score.references + reading, score.offset + 0.1 * (1 + move.reverse_step))


@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
@pytest.mark.parametrize("name", PLANS)
def test_the_ledger_closes(name: str, step: Step) -> None:
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 3)
    found = dense_ledger(covariance, mean, 2, plan, 3, step, score_error=0.05, modify=tilt)
    # Both sides are sums of about n log-eigenvalues of matrices of condition number κ: rounding n κ 2e-16,
    # with n < 100 and κ < 1e4.
    assert found.ledger == pytest.approx(found.trajectory, rel=1e-9)
    assert found.clean <= found.trajectory
    assert found.ie <= found.ie_bound
    for term in [*found.init_terms, *(term for row in found.terms for term in row)]:
        assert term.de + term.see + term.cross == pytest.approx(term.total, rel=1e-10, abs=1e-12)
        assert term.cross**2 <= 4 * term.mean_error * term.see * (1 + 1e-12) + 1e-24
    if not plan.overlapping:
        assert found.lower_bound <= found.clean


@pytest.mark.parametrize("name", PLANS)
def test_past_frames_stand_for_everything_created_earlier(name: str) -> None:
    """I(all that AR step k creates; all created before | Input_k) is MB_k: noisier states add nothing."""
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(3), 1, 4)
    found = dense_ledger(covariance, mean, 1, plan, 3)
    before = list(found.tour.first)
    for k, step in enumerate(found.tour.steps):
        made = [*step.new, *(key for move in step.moves for key in move.moved)]
        earlier = [key for key in before if key not in step.inputs]
        whole = information(found.p, made, earlier, step.inputs) if earlier else 0.0
        assert found.mb[k] == pytest.approx(whole, rel=0, abs=1e-10)
        before += [key for key, _, _ in step.fresh] + made


def test_exact_ancestral_steps_have_no_discretisation_error() -> None:
    for name in ("chunks, noised references", "rolling, warmup", "enters clean"):
        plan = PLANS[name]
        covariance, mean = random_video(plan.total_frames(3), 2, 5)
        found = dense_ledger(covariance, mean, 2, plan, 3, "ancestral")
        terms = [*found.init_terms, *(term for row in found.terms for term in row)]
        assert max(abs(term.total) for term in terms) < 1e-12
        # All that is left is the law of pure noise and the memory bottleneck.
        assert found.trajectory == pytest.approx(found.ie + sum(found.nie_ar) + sum(found.mb), rel=1e-9)


def test_a_masks_loss_is_score_error_unless_the_target_is_masked_too() -> None:
    plan = PLANS["rolling, two parts"]
    covariance, mean = random_video(plan.total_frames(2), 1, 6)
    plain = dense_ledger(covariance, mean, 1, plan, 2)
    moved = dense_ledger(covariance, mean, 1, plan, 2, masked_target=True)
    assert plain.sum_of("see") > 1e-3
    assert moved.sum_of("see") == 0
    assert moved.sum_of("cross") == 0
    assert moved.sum_of("de") == pytest.approx(plain.sum_of("total"), rel=1e-12)
    sighted = dense_ledger(covariance, mean, 1, replace(plan, visible=None), 2)
    assert plain.sum_of("de") == pytest.approx(sighted.sum_of("de"), rel=1e-12)


def test_a_mask_that_shows_everything_changes_nothing() -> None:
    covariance, mean = random_video(5, 2, 7)
    plan = PLANS["rolling"]
    tour = walk(plan, 3)
    p, _ = true_laws(covariance, mean, 2, plan, tour)
    move = tour.steps[-1].moves[1]
    full = exact_score(p, move.before, move.references)
    shown = exact_score(p, move.before, move.references, ((True,) * 5,) * 3)
    np.testing.assert_allclose(shown.gain, full.gain, rtol=1e-12)
    np.testing.assert_allclose(shown.offset, full.offset, rtol=1e-12)


def test_deterministic_steps_on_one_frame_in_closed_form() -> None:
    """DDIM as its authors write it, x_s = α_s x̂_0 + σ_s (x_t - α_t x̂_0)/σ_t, with x̂_0 the posterior mean."""
    variance, centre, floor = 2.5, 0.7, 0.05
    plan = Plan((4.0,), 1, 4.0, 5, 5, floor=floor)
    found = dense_ledger(variance * np.eye(2), np.full(2, centre), 1, plan, 1, "ddim")
    scale, shift = 1.0, 0.0
    for now, after in zip(np.linspace(4, floor, 6)[:-1], np.linspace(4, floor, 6)[1:], strict=True):
        a, b = math.exp(-now / 2), math.exp(-after / 2)
        gain = a * variance / (a * a * variance + 1 - a * a)
        ratio = math.sqrt((1 - b * b) / (1 - a * a))
        through = (b - ratio * a) * gain + ratio
        scale, shift = through * scale, through * shift + (b - ratio * a) * (1 - gain * a) * centre
    clean = found.tour.clean
    np.testing.assert_allclose(found.q.covariance(clean), scale**2 * np.eye(2), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.q.mean(clean), [shift, shift], rtol=1e-12)


def test_deterministic_steps_have_a_finite_output_and_second_order_clip_error() -> None:
    """DDIM is a first-order method: its covariance is off by O(1/M), so the KL of its output by O(1/M²).

    Down to level 0 a uniform grid adds a factor log M (σ ∝ √t there), so the test stops at 0.2.
    """
    covariance, mean = random_video(4, 1, 8)
    found = []
    for steps in (64, 128):
        plan = Plan((12.0, 12.0), 2, 12.0, steps, steps, references=References.last(2), floor=0.2)
        ledger = dense_ledger(covariance, mean, 1, plan, 1, "ddim")
        assert ledger.trajectory == ledger.ledger == math.inf
        assert 0 < ledger.clip[0] <= ledger.clean < math.inf
        found.append(ledger.clean)
    # The next order in 1/M shifts the ratio by O(h), relatively: h = T/M is 0.19 and 0.09.
    assert found[0] / found[1] == pytest.approx(4, rel=0.1)


# -- section 4: the Girsanov form ---------------------------------------------------------------------


@pytest.mark.parametrize("step", ["exponential", "euler"])
@pytest.mark.parametrize("name", PLANS)
def test_girsanov_form_bounds_every_step(name: str, step: Step) -> None:
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(2), 1, 9)
    found = dense_ledger(covariance, mean, 1, plan, 2, step, 0.05, tilt, nodes=6)
    assert found.trajectory < found.girsanov
    for term in [*found.init_terms, *(term for row in found.terms for term in row)]:
        assert term.total <= term.girsanov


def test_girsanov_integrand_has_the_trace_form() -> None:
    """With the exact score, E‖s_j(W_u) - s_j(W_0)‖² = tr J_j(u) + (1 - 2 e^{-u h_j/2}) tr J_j(0)."""
    plan = PLANS["rolling, noised references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 10)
    found = dense_ledger(covariance, mean, 2, plan, 3, nodes=12)
    points, weights = np.polynomial.legendre.leggauss(12)
    for k, ar in enumerate(found.tour.steps):
        for m, move in enumerate(ar.moves):
            at = [f * 2 + i for f in (*move.frames, *move.reference_frames) for i in (0, 1)]
            n = 2 * len(move.frames)

            def trace(u: float, move: Move = move, at: list[int] = at, n: int = n) -> Array:
                levels = [t - u * h for t, h in zip(move.levels, move.steps, strict=True)]
                every = np.repeat([*levels, *move.reference_levels], 2)
                alpha = np.exp(-every / 2)
                joint = alpha[:, None] * alpha * covariance[np.ix_(at, at)] + np.diag(1 - np.exp(-every))
                # The window's block of the joint precision is the inverse of Cov(W | R).
                diagonal: Array = np.diag(np.linalg.inv(joint))[:n]
                traces: Array = diagonal.reshape(-1, 2).sum(1)
                return traces

            h = np.array(move.steps)
            total = sum(
                weight / 4 * float(np.sum(h * (trace(u) + (1 - 2 * np.exp(-u * h / 2)) * trace(0.0))))
                for u, weight in zip((points + 1) / 2, weights, strict=True)
            )
            assert found.terms[k][m].girsanov == pytest.approx(total, rel=1e-9)


def one_step(covariance: Array, window: int, start: float, end: float, step: Step) -> tuple[float, float]:
    """(KL, Girsanov form) of the initialisation stage's step from ``start`` to ``end``."""
    levels = [2 * start, start, end] + [0.0] * (end > 0)
    grid = tuple((level,) * window for level in levels)
    plan = Plan((2 * start,) * window, window, 2 * start, 1, len(grid) - 1, init_grid=grid)
    term = dense_ledger(covariance, None, 1, plan, 1, step, nodes=12).init_terms[1]
    return term.total, term.girsanov


def test_euler_needs_the_drift_of_the_state() -> None:
    """Variance 1000, t = 2, h = 0.3: without ½ (W_u - W^m) the "bound" would be 8e-6."""
    total, girsanov = one_step(1000 * np.eye(2), 1, 2.0, 1.7, "euler")
    _, without = one_step(1000 * np.eye(2), 1, 2.0, 1.7, "exponential")  # the same integrand without that term
    assert total == pytest.approx(0.0378, rel=0, abs=0.5e-4)
    assert without == pytest.approx(8e-6, rel=0, abs=0.5e-6)
    assert without < total <= girsanov


@pytest.mark.parametrize(("correlation", "printed"), [(0.9, 0.37), (0.999, 2.44), (1 - 1e-7, 7.04)])
def test_the_last_step_is_unbounded_in_the_smallest_eigenvalue(correlation: float, printed: float) -> None:
    pair = np.array([[1, correlation], [correlation, 1]])
    total, _ = one_step(np.kron(np.eye(2), pair), 2, 0.3, 0.0, "exponential")
    assert total == pytest.approx(printed, rel=0, abs=0.5e-2)


# -- sections 2, 5 and 6: what the ledger is used for -------------------------------------------------


def ideal_kernels(covariance: Array, ar_steps: int) -> Array:
    """Covariance of the clean frames when every AR step draws from P(Output_k | R_k): no diffusion at all."""
    made = np.linalg.cholesky(covariance[:2, :2])
    for k in range(1, ar_steps + 1):
        used = IDEAL.references_at(k)
        alpha = np.array([math.exp(-u.level / 2) for u in used])
        seen = [u.frame for u in used]
        out = list(IDEAL.window_frames(k))
        noise = np.diag(1 - alpha**2)
        given = alpha[:, None] * alpha * covariance[np.ix_(seen, seen)] + noise
        gain = np.linalg.solve(given, alpha[:, None] * covariance[np.ix_(seen, out)]).T
        rest = covariance[np.ix_(out, out)] - gain @ (alpha[:, None] * covariance[np.ix_(seen, out)])
        rows = np.hstack([gain @ (alpha[:, None] * made[seen]), gain @ np.sqrt(noise), np.linalg.cholesky(rest)])
        made = np.vstack([np.pad(made, ((0, 0), (0, rows.shape[1] - made.shape[1]))), rows])
    return made @ made.T


def test_noised_references_break_the_bound_by_the_memory_bottleneck() -> None:
    """Ideal kernels, ρ = 0.3: KL(clean) = 3.770 < Σ MB = 5.180, and above the information before noising."""
    covariance = ar1(IDEAL.total_frames(12), 0.95)
    found = dense_ledger(covariance, None, 1, IDEAL, 12, "ancestral")
    direct = gaussian_kl(np.zeros(26), covariance, np.zeros(26), ideal_kernels(covariance, 12))
    assert found.clean == pytest.approx(direct, rel=1e-7)
    assert direct == pytest.approx(3.770, rel=0, abs=0.5e-3)
    assert sum(found.mb) == pytest.approx(5.180, rel=0, abs=0.5e-3)
    assert found.lower_bound <= found.clean < sum(found.mb)


def test_older_noised_references_break_the_clip_bound() -> None:
    """Ideal kernels, ρ = 0.3, three references of which Output_k holds two: the clip KL tends to 0.0031.

    The bound is NIE alone, 0 as the horizon grows.
    """
    steps = 20
    covariance = ar1(2 * steps + 2, 0.95)
    made = ideal_kernels(covariance, steps)
    zero = np.zeros(2)
    direct = [gaussian_kl(zero, covariance[:2, :2], zero, made[n : n + 2, n : n + 2]) for n in range(2, 42, 2)]
    found = dense_ledger(covariance, None, 1, IDEAL, steps, "ancestral")
    np.testing.assert_allclose(found.clip, direct, rtol=1e-6, atol=1e-9)
    assert direct[-1] == pytest.approx(0.0031, rel=0, abs=0.5e-4)
    assert direct[0] == pytest.approx(0, abs=1e-15)  # AR step 1 sees only what Output_0 holds
    assert 0 <= found.clip_bound[-1] < 1e-7
    inside = Plan((20.0, 20.0), 2, 20.0, 1, 1, references=References.last(2, 0.3))
    held = dense_ledger(covariance, None, 1, inside, steps, "ancestral")
    assert all(clip <= bound for clip, bound in zip(held.clip, held.clip_bound, strict=True))


def test_a_clean_lower_bound_does_not_hold_for_overlapping_windows() -> None:
    assert case("C").clean < sum(case("C").mb)
    for name in ("A", "B"):
        assert case(name).clean > case(name).ie + sum(case(name).mb)


@pytest.mark.parametrize(("correlation", "still_grows"), [(0.8, False), (0.999, True)])
def test_clip_error_grows_until_the_closed_loop_has_mixed(correlation: float, still_grows: bool) -> None:
    plan = outpainting(references=References.last(1), reverse_steps=8, init_steps=8)
    found = dense_ledger(ar1(plan.total_frames(60), correlation), None, 1, plan, 60)
    growth = np.diff(found.clip) / found.clip[-1]
    assert np.all(growth > -1e-9)
    assert (growth[-1] > 1e-3) == still_grows
    assert (growth[5] < 1e-3) == (not still_grows)


def test_memory_bottleneck_from_scores_along_the_plans_clocks() -> None:
    """MB_k = I(X^T_new; Past | In) + ½ Σ_j ∫ E‖s*_j(W | R, Past) - s*_j(W | R)‖² dτ_j, on case C."""
    found = case("C")
    ar = found.tour.steps[4]
    covariance = table_video(CASES["C"][0].total_frames(8))
    frames, past = list(ar.moves[0].frames), [key[1] for key in ar.past]
    at = [f * 2 + i for f in (*frames, *past) for i in (0, 1)]
    n = 2 * len(frames)
    points, weights = np.polynomial.legendre.leggauss(24)
    total = information(found.p, ar.new, ar.past, ar.inputs)
    for move in ar.moves:
        for u, weight in zip((points + 1) / 2, weights / 2, strict=True):
            levels = np.repeat(
                [t - u * h for t, h in zip(move.levels, move.steps, strict=True)] + [0.0] * len(past), 2
            )
            alpha = np.exp(-levels / 2)
            joint = alpha[:, None] * alpha * covariance[np.ix_(at, at)] + np.diag(1 - np.exp(-levels))
            # s(W | Past) and s(W) as matrices acting on (W, Past).
            gap = -np.linalg.inv(joint)[:n]
            gap[:, :n] += np.linalg.inv(joint[:n, :n])
            squares = np.diag(gap @ joint @ gap.T)
            total += weight * 0.5 * float(np.repeat(move.steps, 2) @ squares)
    assert found.mb[4] > 0.1
    assert total == pytest.approx(found.mb[4], rel=1e-12)


# -- the pieces ---------------------------------------------------------------------------------------


def test_gaussian_kl_against_fifty_digits() -> None:
    rng = np.random.default_rng(11)
    for scale in (
        1.0,
        1e-3,
        1e-6,
    ):  # the last: a KL of order 1e-12, where trace - n - logdet has lost every digit
        a = rng.normal(size=(6, 6))
        cov_q = a @ a.T + np.eye(6)
        b = rng.normal(size=(6, 6))
        cov_p = cov_q + scale * (b + b.T) / 10
        shift = scale * rng.normal(size=6)
        with mpmath.workdps(50):
            p, q, m = (
                mpmath.matrix(cov_p.tolist()),
                mpmath.matrix(cov_q.tolist()),
                mpmath.matrix(shift.tolist()),
            )
            inverse = q**-1
            trace = mpmath.fsum((inverse * p)[i, i] for i in range(6))
            exact = (trace - 6 + (m.T * inverse * m)[0] + mpmath.log(mpmath.det(q) / mpmath.det(p))) / 2
        # cov_p - cov_q is rounded at 1e-16 ‖cov_q‖: relative to the difference itself, 1e-14 / scale.
        assert gaussian_kl(shift, cov_p, np.zeros(6), cov_q) == pytest.approx(float(exact), rel=1e-13 / scale)


def test_conditional_and_information_against_the_joint_precision() -> None:
    covariance, mean = random_video(4, 2, 12)
    plan = Plan((3.0,), 1, 3.0, 1, 1, references=NoReferences)
    tour = walk(plan, 3)
    p, _ = true_laws(covariance, mean, 2, plan, tour)
    a, b, c = tour.clean[0], tour.clean[2], tour.clean[1]
    gain, offset, cov = conditional(p, [a], [b, c])
    precision = np.linalg.inv(covariance[np.ix_(at := [0, 1, 4, 5, 2, 3], at)])
    np.testing.assert_allclose(cov, np.linalg.inv(precision[:2, :2]), rtol=1e-10)
    np.testing.assert_allclose(gain, -cov @ precision[:2, 2:], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gain @ mean[at][2:] + offset, mean[:2], rtol=1e-10)
    # I(A; B | C) = h(A | C) - h(A | B, C).
    wider = conditional(p, [a], [c])[2]
    expected = 0.5 * (np.linalg.slogdet(wider)[1] - np.linalg.slogdet(cov)[1])
    assert information(p, [a], [b], [c]) == pytest.approx(expected, rel=1e-10)
