"""The ledger against the dense reference term by term, the printed cases, and what it refuses."""

import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import DenseLedger, Move, Score, Step, Term, dense_ledger
from reference_cases import (
    CASES,
    DIAL,
    FIVE_DIGITS,
    FOUR_DIGITS,
    IDEAL,
    MORE_PLANS,
    PLANS,
    PRINTED,
    SIX_DIGITS,
    THREE_DIGITS,
    ar1,
    dial_plan,
    random_video,
    table_video,
)

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    Number,
    PerturbedScore,
    PixelVideo,
    Plan,
    References,
    Result,
    ledger,
    ledger_terms,
)
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw

EVERY_PLAN = {**PLANS, **MORE_PLANS}


def close(found: object, expected: object) -> None:
    """Equal to 1e-9: both sides are sums over spectra of matrices of condition number κ < 1e4 and size n < 100.

    Rounding leaves n κ 2^-53 = 1e-10 of them. A term that vanishes, or in which larger numbers cancel (CROSS),
    keeps the rounding of what it is made of, numbers of order 1: 1e-12.
    """
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-9, atol=1e-12)


class TiltedScore:
    """s* of what a frame sees - e W, and a further error that no scalar describes; says that it is affine."""

    def __init__(self, error: float) -> None:
        self.base = PerturbedScore(error)

    def affine(self, law: WindowLaw) -> AffineMap:
        window, refs, bias = law.raw(self.base.affine(law))
        n, r = law.mean.shape[-1], law.gain.shape[-1]
        bend, reading = tilt_of(n, r)
        shift = torch.arange(1, law.steps + 1, dtype=torch.float64)[:, None, None] * 0.1
        return law.centred(window + torch.from_numpy(bend), refs + torch.from_numpy(reading), bias + shift)


def tilt_of(n: int, r: int) -> tuple[np.ndarray, np.ndarray]:
    return 0.05 * np.sin(np.arange(n * n)).reshape(n, n), 0.03 * np.cos(np.arange(n * r)).reshape(n, r)


def tilt(move: Move, score: Score) -> Score:
    """The same error, for the dense reference."""
    bend, reading = tilt_of(len(score.window), score.references.shape[1])
    return Score(score.window + bend, score.references + reading, score.offset + 0.1 * (1 + move.reverse_step))


def value(number: Number | None) -> Any:
    """An exact number's value; that it is there and exact is part of the test."""
    assert number is not None
    assert number.is_exact
    return number.value


def columns(rows: list[list[Term]], name: str) -> list[list[float]]:
    return [[getattr(term, name) for term in row] for row in rows]


def assert_same(terms: LedgerTerms, dense: DenseLedger) -> None:
    """Every number of the ledger, AR step by AR step and reverse step by reverse step."""
    close(value(terms.initialisation.nie), dense.nie_init)
    close(value(terms.of("nie")), dense.nie_ar)
    close(value(terms.of("mb")), dense.mb)
    if terms.of("mb_clean") is None:
        assert np.isnan(dense.mb_unnoised).all()
    else:
        close(value(terms.of("mb_clean")), dense.mb_unnoised)
        close(value(terms.ie) + value(terms.floor), dense.lower_bound)
    close(value(terms.ie), dense.ie)
    close(value(terms.kl), dense.clean)
    close(value(terms.clips), dense.clip)
    close(value(terms.ar_step_errors), dense.ar_step_errors)
    if math.isinf(dense.trajectory):
        close(value(terms.of("de")), columns(dense.terms, "de"))
        return
    names = ["de", "see", "cross"]
    if terms.girsanov is not None:
        names.append("girsanov")
        close(value(terms.girsanov), dense.girsanov)
    for name in names:
        close(value(terms.of(name)), columns(dense.terms, name))
        close(value(getattr(terms.initialisation, name)), [getattr(term, name) for term in dense.init_terms])
    close(value(terms.trajectory), dense.trajectory)
    close(value(terms.path), dense.ledger - dense.ie + dense.ie_bound)
    close(value(terms.clip_bounds), dense.clip_bound)


# -- against the dense reference ----------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_PLAN)
@pytest.mark.parametrize(("step", "ar_steps"), [("exponential", 3), ("euler", 2), ("ancestral", 2)])
def test_every_term_is_that_of_the_dense_reference(name: str, step: Step, ar_steps: int) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(ar_steps), 2, 3)
    # The nodes leave less than 1e-10 of a Girsanov form here: eigenvalues ≥ 0.3 and h ≤ 1.6 (2.0 for one step)
    # put the integrand's nearest pole beyond u = 1.15, where Gauss-Legendre gains a factor above 4.5 a node.
    nodes = 20 if name == "one frame, one step" else 10
    dense = dense_ledger(covariance, mean, 2, plan, ar_steps, step, 0.05, tilt, nodes=nodes)
    assert_same(
        ledger_terms(ArrayVideo(covariance, 2, mean), plan, ar_steps, score=TiltedScore(0.05), step=step), dense
    )


@pytest.mark.parametrize("name", ["geometric chunks", "rolling, noised references, floor"])
def test_ddpm_steps_that_stop_early(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(2), 2, 4)
    dense = dense_ledger(covariance, mean, 2, plan, 2, "ddpm", 0.05, tilt)
    assert_same(
        ledger_terms(ArrayVideo(covariance, 2, mean), plan, 2, score=TiltedScore(0.05), step="ddpm"), dense
    )


@pytest.mark.parametrize("step", ["ddim", "ddpm"])
def test_a_step_without_noise_has_an_infinite_path_but_a_finite_output(step: Step) -> None:
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(2), 2, 5)
    dense = dense_ledger(covariance, mean, 2, plan, 2, "ddim", 0.05, tilt)
    result = ledger(ArrayVideo(covariance, 2, mean), plan, 2, score=TiltedScore(0.05), step=step)
    # DDPM adds no noise where a frame comes down to level 0, DDIM none at all.
    silent = [[False, False, True]] * 2 if step == "ddpm" else [[True] * 3] * 2
    assert torch.isinf(value(result.terms.of("de"))).tolist() == silent
    assert torch.isnan(value(result.terms.of("see"))).tolist() == silent
    undefined = ("trajectory_kl", "path_kl", "de", "see", "cross", "path_init", "girsanov", "closed")
    assert all(result.totals[name] is None for name in undefined)
    assert all(step in result.notes[name] for name in undefined)
    assert "CLIP_BOUND" not in set(result.table.term)
    kl, whole = result.totals["kl"], result.totals["ar_step_kl"]
    assert kl is not None
    json.loads(result.to_json(), parse_constant=pytest.fail)  # which knows no infinity
    if step == "ddim":  # given its input, an AR step's output is singular as well
        assert whole is None
        assert step in result.notes["ar_step_error"]
    else:
        assert whole is not None
        assert kl <= whole < math.inf
    assert 0 < max(result.column("CLIP_KL")) <= kl < math.inf
    if step == "ddim":
        close(kl, dense.clean)
        close(result.column("CLIP_KL"), dense.clip)
        close(result.totals["ie"], dense.ie)
        close(result.column("MB"), dense.mb)


def test_a_score_error_and_a_bias_in_numbers() -> None:
    plan = PLANS["chunks, mixed references, floor"]
    covariance, mean = random_video(plan.total_frames(2), 2, 6)

    def shift(move: Move, score: Score) -> Score:
        return replace(score, offset=score.offset - 0.2)

    dense = dense_ledger(covariance, mean, 2, plan, 2, "exponential", -0.1, shift, nodes=10)
    assert_same(
        ledger_terms(ArrayVideo(covariance, 2, mean), plan, 2, score=PerturbedScore(-0.1, bias=-0.2)), dense
    )


def test_a_masks_loss_is_score_error_or_moves_into_de() -> None:
    plan = MORE_PLANS["a mask a step that reads references"]
    covariance, mean = random_video(plan.total_frames(3), 2, 7)
    video = ArrayVideo(covariance, 2, mean)
    for masked in (False, True):
        dense = dense_ledger(covariance, mean, 2, plan, 3, "exponential", 0.05, masked_target=masked, nodes=10)
        terms = ledger_terms(video, plan, 3, score=PerturbedScore(0.05), against=ExactScore(masked=masked))
        assert_same(terms, dense)
    hidden, seen = ledger_terms(video, plan, 3), ledger_terms(video, plan, 3, against=ExactScore(masked=True))
    see = value(hidden.of("see"))
    assert float(see[:, 0].min()) > 1e-4  # the first mask hides something from every AR step
    # The last one hides nothing; s* is computed twice then, along two ways that each round at 1e-15.
    assert float(see[:, -1].max()) < 1e-28
    assert float(value(seen.of("see")).abs().max()) == float(value(seen.of("cross")).abs().max()) == 0.0
    close(value(seen.of("de")), sum(value(hidden.of(name)) for name in ("de", "see", "cross")))


def test_the_unmasked_score_is_the_one_of_a_plan_without_a_mask() -> None:
    plan = PLANS["chunks, causal mask"]
    covariance, mean = random_video(plan.total_frames(2), 1, 8)
    video = ArrayVideo(covariance, 1, mean)
    free = ledger_terms(video, replace(plan, visible=None), 2)
    told = ledger_terms(video, plan, 2, score=ExactScore(masked=False))
    close(value(told.of("de")), value(free.of("de")))
    close(value(told.kl), value(free.kl))
    assert float(value(told.of("see")).abs().max()) == 0.0


# -- the printed cases --------------------------------------------------------------------------------


@lru_cache
def case(name: str) -> Result:
    plan, steps = CASES[name]
    return ledger(ArrayVideo(table_video(plan.total_frames(steps)), 2), plan, steps)


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference_cases(name: str) -> None:
    totals = case(name).totals
    found = [totals[key] for key in ("kl", "trajectory_kl", "girsanov", "ie", "nie_ar", "de", "mb")]
    found.append(case(name).column("CLIP_KL")[-1])
    for place, (value, printed) in enumerate(zip(found, PRINTED[name], strict=True)):
        assert value == pytest.approx(printed, rel=0, abs=FIVE_DIGITS if place == 2 else SIX_DIGITS), place
    assert totals["see"] == totals["cross"] == 0.0


@pytest.mark.parametrize(("level", "clean", "first", "last", "bottleneck"), DIAL)
def test_reproduces_the_noise_augmentation_dial(
    level: float, clean: float, first: float, last: float, bottleneck: float
) -> None:
    plan = dial_plan(level)
    result = ledger(ArrayVideo(ar1(plan.total_frames(12), 0.95), 1), plan, 12, girsanov=False)
    assert result.totals["kl"] == pytest.approx(clean, rel=0, abs=THREE_DIGITS)
    clips = result.column("CLIP_KL")
    for value, printed in ((clips[0], first), (clips[-1], last), (result.column("MB")[-1], bottleneck)):
        assert value == pytest.approx(printed, rel=0, abs=FOUR_DIGITS)


def test_noised_references_with_ideal_kernels_in_printed_numbers() -> None:
    """ρ = 0.3 and AR kernels P(Out | R): KL(clean) = 3.770 < Σ MB = 5.180."""
    result = ledger(ArrayVideo(ar1(IDEAL.total_frames(12), 0.95), 1), IDEAL, 12, step="ancestral")
    assert result.totals["kl"] == pytest.approx(3.770, rel=0, abs=THREE_DIGITS)
    assert result.totals["mb"] == pytest.approx(5.180, rel=0, abs=THREE_DIGITS)


# -- the table and its totals -------------------------------------------------------------------------


def test_the_table_adds_up_to_the_totals() -> None:
    result = case("B")
    table, totals = result.table, result.totals
    columns = ["stage", "ar_step", "term", "form", "value", "stderr", "ci_low", "ci_high"]
    assert list(table.columns) == columns
    assert set(table.form) == {"exact"}
    assert (table.ci_low == table.value).all()
    assert (table.ci_high == table.value).all()
    assert set(table[table.stage == "init"].term) == {"NIE_INIT", "DE_INIT", "SEE_INIT", "CROSS_INIT", "IE"}
    assert set(table[table.stage == "init"].ar_step) == {0}
    ar = table[table.stage == "ar"]
    assert set(ar.term) == {"NIE_AR", "DE", "SEE", "CROSS", "MB", "AR_STEP", "CLIP_KL", "CLIP_W2", "CLIP_BOUND"}
    assert set(ar.groupby("term").ar_step.apply(tuple)) == {(1, 2, 3, 4, 5)}
    assert float(table.stderr.abs().max()) == 0.0
    assert not result.stderr

    def of(*terms: str) -> float:
        """Whatever stage the rows are of: those of the initialisation have names of their own."""
        return float(table[table.term.isin(terms)].value.sum())

    # Sums of at most 100 terms of one sign: 100 · 2^-53.
    for name in ("ie", "nie_init", "nie_ar", "de", "see", "cross", "mb"):
        assert totals[name] == pytest.approx(of(name.upper()), rel=1e-13), name
    path, init = ("DE", "SEE", "CROSS"), ("DE_INIT", "SEE_INIT", "CROSS_INIT")
    assert totals["trajectory_kl"] == pytest.approx(of("IE", "NIE_AR", "MB", *path), rel=1e-13)
    assert totals["path_init"] == pytest.approx(of(*init), rel=1e-13)
    assert totals["path_kl"] == pytest.approx(of("NIE_INIT", *init, "NIE_AR", "MB", *path), rel=1e-13)
    assert result.column("CLIP_BOUND")[-1] == pytest.approx(of("IE", "NIE_AR", *path), rel=1e-13)
    assert totals["ar_step_kl"] == pytest.approx(of("IE", "AR_STEP", "MB"), rel=1e-13)
    assert totals["floor"] == pytest.approx(of("MB"), rel=1e-13)  # its references are clean
    assert totals["lower_bound"] == pytest.approx(of("IE", "MB"), rel=1e-13)
    assert set(result.notes) == set()
    assert result.column("NOTHING") == []


def test_notes_say_why_a_total_is_missing() -> None:
    rolling = case("C")
    for name in ("floor", "lower_bound"):
        assert rolling.totals[name] is None
        assert "w > Δ" in rolling.notes[name]
    plan, steps = CASES["A"]
    video = ArrayVideo(table_video(plan.total_frames(steps)), 2)
    lean = ledger(video, plan, steps, girsanov=False, memory=False)
    for name in ("girsanov", "closed", "mb", "ar_step_kl", "trajectory_kl", "path_kl", "floor", "lower_bound"):
        assert lean.totals[name] is None
        assert "left out on request" in lean.notes[name]
    assert lean.totals["kl"] == case("A").totals["kl"]
    open_ended = ledger(video, plan, steps, closed=False)
    assert open_ended.totals["closed"] is None
    assert open_ended.notes["closed"] == "left out on request"
    assert open_ended.totals["girsanov"] == case("A").totals["girsanov"]


def test_frames_beyond_the_plan_are_ignored() -> None:
    plan, steps = CASES["D"]
    long = ledger(ArrayVideo(table_video(plan.total_frames(steps) + 7), 2), plan, steps)
    assert long.totals == case("D").totals


def test_refuses_what_makes_no_ledger() -> None:
    plan = PLANS["chunks with references"]
    video = ArrayVideo(ar1(6, 0.5), 1)
    with pytest.raises(ValueError, match="at least one AR step is needed, got 0"):
        ledger(video, plan, 0)
    with pytest.raises(ValueError, match="8 frames are needed, but the video 'array' has 6"):
        ledger(video, plan, 3)
    with pytest.raises(ValueError, match=r"a reverse step is one of exponential, .*, got 'rk4'"):
        ledger(video, plan, 2, step="rk4")
    with pytest.raises(ValueError, match="error e must be finite, got inf"):
        PerturbedScore(math.inf)
    with pytest.raises(ValueError, match="bias c must be finite, got nan"):
        PerturbedScore(0.1, bias=math.nan)
    for grid in (torch.ones(3, 2, dtype=torch.float64), torch.tensor(plan.ar_grid)):
        with pytest.raises(ValueError, match=r"the AR grid must be float64 levels of shape \(4, 2\), got"):
            ledger(video, plan, 2, ar_grid=grid)
    with pytest.raises(ValueError, match=r"the initialisation grid must be float64 levels of shape \(4, 2\)"):
        ledger(video, plan, 2, init_grid=torch.ones(4, 3, dtype=torch.float64))


def test_a_plans_own_grid_given_as_a_tensor_changes_nothing() -> None:
    plan, steps = CASES["D"]
    video = ArrayVideo(table_video(plan.total_frames(steps)), 2)
    ar_grid, init_grid = (torch.tensor(grid, dtype=torch.float64) for grid in (plan.ar_grid, plan.init_grid))
    assert ledger(video, plan, steps, ar_grid=ar_grid, init_grid=init_grid).totals == case("D").totals


# -- videos of several modes --------------------------------------------------------------------------


def test_modes_add_up_with_their_multiplicities() -> None:
    plan = PLANS["chunks, mixed references, floor"]
    channels, mean = ((1.0, 0.3), (0.3, 0.5)), (0.5, -1.0)
    pixels = PixelVideo(1, 3, [[4.0, 1.0, 1.0]], ExponentialMemory(4.0, 1.0), channels, mean)
    assert pixels.multiplicity.tolist() == [1.0, 2.0]
    frames = plan.total_frames(3)
    score = PerturbedScore(0.05, bias=0.1)
    joint = ledger(pixels, plan, 3, score=score)
    single = [
        ledger(ArrayVideo(pixels.covariance(frames)[b], 2, pixels.mean(frames)[b]), plan, 3, score=score)
        for b in (0, 1)
    ]
    for name, value in joint.totals.items():
        assert value == pytest.approx((single[0].totals[name] or 0) + 2 * (single[1].totals[name] or 0), rel=1e-12)
    own, once, twice = (result.table.value.to_numpy() for result in (joint, *single))
    distances = (joint.table.term == "CLIP_W2").to_numpy()  # of which the squares add up
    merged = np.where(distances, np.sqrt(once**2 + 2 * twice**2), once + 2 * twice)
    np.testing.assert_allclose(own, merged, rtol=1e-12, atol=1e-13)


def test_a_pixel_video_is_the_dense_video_of_all_its_pixels() -> None:
    pixels = PixelVideo(4, 4, PowerLaw(), ExponentialMemory(tau=6.0, exponent=1.0), mean=(0.7,))
    plan = Plan((2.0, 4.0), 1, 4.0, 3, 3, references=References.last(1, 0.2) + References.first(1))
    frames = plan.total_frames(2)
    dense = pixels.dense(frames)
    # A bias in every mode would be another error than one in every pixel, so the error has none.
    by_modes, by_pixels = (ledger(video, plan, 2, score=PerturbedScore(0.05)) for video in (pixels, dense))
    for name, value in by_modes.totals.items():
        if name not in ("closed", "floor", "lower_bound"):
            assert value == pytest.approx(by_pixels.totals[name], rel=1e-9), name
    # The closed bound knows each mode's own smallest eigenvalue, and Minkowski's inequality is used mode by mode.
    assert (by_modes.totals["closed"] or math.inf) < (by_pixels.totals["closed"] or 0.0)
    np.testing.assert_allclose(by_modes.table.value, by_pixels.table.value, rtol=1e-9, atol=1e-12)
    covariance, mean = dense.covariance(frames)[0].numpy(), dense.mean(frames)[0].numpy()
    reference = dense_ledger(covariance, mean, 16, plan, 2, "exponential", 0.05)
    close(by_modes.totals["trajectory_kl"], reference.trajectory)
    close(by_modes.totals["kl"], reference.clean)
    close(by_modes.column("MB"), reference.mb)
