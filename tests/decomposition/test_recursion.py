"""The ledger by recursions against the dense one, rates against equations of their own, and what is refused."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    GaussianVideo,
    NeedleVideo,
    PerturbedScore,
    PixelVideo,
    Plan,
    References,
    ar1,
    fifo,
    fractional_gaussian_noise,
    ledger,
    ledger_terms,
    outpainting,
    reference_video,
    state_space,
    var,
)
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.recursion import (
    RecursiveTerms,
    SharedSteps,
    rates,
    recursive_form,
    recursive_terms,
)
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.autoregression import lattice_autocovariance
from arvdm_theory.laws.fitted import FittedVideo
from arvdm_theory.laws.long_memory import fractional_correlation
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw, SameMemory
from arvdm_theory.testing import plans

SERIES = ("nie", "de", "see", "cross", "mb", "mb_clean", "girsanov", "closed", "nie_closed")
TOTALS = ("ie", "kl", "clips", "clips_w2", "trajectory", "ar_step_errors", "ar_step_kl", "attribution", "girsanov",
          "closed", "clip_bounds", "floor")  # fmt: skip
# What both ways agree on: condition numbers of the videos below are up to 1e3, and a ledger adds up some 1e2 nats.
AGREE = 1e-9


def recursive(
    video: GaussianVideo, plan: Plan, ar_steps: int, bounds: tuple[bool, bool] = (False, False), **asked: object
) -> RecursiveTerms:
    question = Question(video, plan, ar_steps, girsanov=bounds[0], closed=bounds[1], **asked)  # type: ignore[arg-type]
    terms = recursive_terms(question)
    assert isinstance(terms, RecursiveTerms), terms
    return terms


def assert_same(found: LedgerTerms, dense: LedgerTerms, within: float = AGREE) -> None:
    pairs = {name: (found.of(name), dense.of(name)) for name in SERIES}
    pairs |= {name: (getattr(found, name), getattr(dense, name)) for name in TOTALS}
    for name, (ours, theirs) in pairs.items():
        assert (ours is None) is (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours.samples, theirs.samples, rtol=within, atol=within, msg=name)


def as_array(video: GaussianVideo, frames: int) -> ArrayVideo:
    """The same frames as a video that no recursion knows of."""
    return ArrayVideo(video.covariance(frames)[0], video.frame_dim, video.mean(frames)[0])


def random_state_space(seed: int, stationary: bool) -> GaussianVideo:
    """A stable state space of 1 to 4 states and frames in R^1 or R^2, with a mean."""
    rng = np.random.default_rng(seed)
    s, d = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    A = rng.normal(size=(s, s))
    A *= rng.uniform(0.2, 0.95) / np.abs(np.linalg.eigvals(A)).max()
    noise, first = (root @ root.T for root in (rng.normal(size=(s, s)) / 2, rng.normal(size=(s, s))))
    seen = rng.uniform(0.05, 0.3) * np.eye(d)
    start = {} if stationary else {"initial_covariance": first, "initial_mean": rng.normal(size=s)}
    return state_space(A, noise, rng.normal(size=(d, s)), seen, mean=rng.normal(size=d), **start)


@settings(max_examples=25, deadline=None)
@given(
    plans(masks=True),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([None, PerturbedScore(0.05, 0.2), PerturbedScore(-0.1), ExactScore(masked=False)]),
    st.sampled_from(["exponential", "euler", "ancestral", "ddpm-large"]),
)
def test_every_term_is_that_of_the_dense_ledger(
    plan: Plan, seed: int, stationary: bool, score: object, step: str
) -> None:
    assume(plan.repeats_from is not None)
    assert plan.repeats_from is not None
    video, ar_steps = random_state_space(seed, stationary), plan.repeats_from + 4
    bounds = (step in ("exponential", "euler"),) * 2
    asked = {"score": score, "step": step, "attribution": True}
    found = recursive(video, plan, ar_steps, bounds=bounds, **asked)
    assert_same(found, ledger_terms(video, plan, ar_steps, **asked))  # type: ignore[arg-type]


PLANS = {
    "fifo": fifo(4, References.last(2), reverse_steps=5, init_steps=5),
    "fifo without references": fifo(3, reverse_steps=4, init_steps=4),
    "outpainting without references": outpainting(2, reverse_steps=5, init_steps=5),
    "newest clean, older noised": outpainting(2, References.last(1) + References.last(3, 0.3), 5, 5),
    "first and last": outpainting(2, References.last(2) + References.first(1), 5, 5),
    "first, noised": fifo(3, References.last(2, 0.2) + References.first(2, 0.1), reverse_steps=4, init_steps=4),
    "warmup": Plan((1.0, 2.0, 3.0), 1, 3.0, 3, 3, references=References.last(2), initialisation="warmup"),
    "floor": Plan((1.0, 1.0, 3.0, 3.0), 2, 3.0, 3, 3, references=References.last(3, 0.4), floor=0.1),
}
VIDEOS = {
    "auto-regression": ar1(0.7, [[1.0, 0.3], [0.3, 0.5]], mean=[1.0, 2.0]),
    "vector auto-regression": var(
        [[[0.5, 0.2], [-0.1, 0.3]], [[0.1, 0.0], [0.2, -0.3]]], [[1.0, 0.3], [0.3, 0.5]]
    ),
    "reference": reference_video(),
    "unstable": state_space([[1.05]], [[0.1]], [[1.0]], [[0.1]], initial_covariance=[[1.0]], initial_mean=[0.5]),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("video", VIDEOS)
def test_long_ledgers_take_the_recursion_and_are_the_dense_ones(video: str, plan: str) -> None:
    own, frames = VIDEOS[video], PLANS[plan].total_frames(12)
    found = recursive(own, PLANS[plan], 12, score=PerturbedScore(0.05, 0.1), bounds=(True, True), attribution=True)
    dense = ledger_terms(as_array(own, frames), PLANS[plan], 12, score=PerturbedScore(0.05, 0.1), attribution=True)
    assert_same(found, dense)


PIXELS = ExponentialMemory(tau=5.0, exponent=1.0)


@pytest.mark.parametrize("plan", ["fifo", "newest clean, older noised", "first, noised"])
def test_pixel_videos_are_recursions_in_every_spatial_frequency(plan: str) -> None:
    channels, mean = [[1.0, 0.3], [0.3, 0.5]], [0.5, -1.0]
    own = PixelVideo(4, 6, PowerLaw(), PIXELS, channels, mean)
    # Wrapped, the memory has no state space: the same video by the joint covariance of all frames.
    dense = PixelVideo(4, 6, PowerLaw(), lambda f, lags: PIXELS(f, lags), channels, mean)
    asked = {"score": PerturbedScore(0.05, 0.1), "attribution": True}
    found = recursive(own, PLANS[plan], 12, bounds=(True, True), **asked)
    assert_same(found, ledger_terms(dense, PLANS[plan], 12, **asked))  # type: ignore[arg-type]
    assert recursive_form(dense, PLANS[plan]) == "the video 'pixels' is not known to be a linear state space"


def test_pixel_videos_of_long_memory_are_dense_and_say_how_far_that_goes() -> None:
    video = PixelVideo(64, 64, PowerLaw(), SameMemory(partial(fractional_correlation, 0.8)))
    with pytest.raises(ValueError, match=r"not known to be a linear state space\): that goes up to \d+ AR steps"):
        ledger_terms(video, PLANS["fifo"], 10_000)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_fitted_videos_are_recursions(order: int) -> None:
    rng = np.random.default_rng(order)
    segments = [rng.normal(size=(60, 2)) @ [[1.0, 0.4], [0.0, 0.8]] for _ in range(3)]
    segments = [0.5 * z + 0.5 * np.roll(z, 1, 0) + 0.3 * np.roll(z, 2, 0) for z in segments]
    basis = np.eye(2).reshape(2, 2, 1, 1)
    video = FittedVideo(lattice_autocovariance(segments, order), basis, np.zeros((2, 1, 1)), 1.0)
    plan = PLANS["first and last"]
    found = recursive(video, plan, 10, bounds=(True, True), score=PerturbedScore(0.1))
    assert_same(found, ledger_terms(as_array(video, plan.total_frames(10)), plan, 10, score=PerturbedScore(0.1)))


def test_the_printed_number() -> None:
    found = recursive(ar1(0.9), fifo(4, References.last(2), reverse_steps=10), 12)
    assert float(found.kl.value) == pytest.approx(0.4143180412534768, abs=1e-14)  # type: ignore[union-attr]


def test_the_printed_bottlenecks_of_a_period_that_is_learnt_like_1_over_k() -> None:
    """The reference video's correlation in R^1: its period of 7 frames is a rotation, given its stationary law."""
    turn = 2 * math.pi / 7
    rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    video = state_space(
        scipy.linalg.block_diag([[0.8]], rotation), np.diag([0.5 * (1 - 0.8**2), 0, 0]), [[1, 1, 0]], [[0.1]],
        initial_covariance=np.diag([0.5, 0.4, 0.4]),
    )  # fmt: skip
    bottlenecks = recursive(video, fifo(4, References.last(2), reverse_steps=10), 321).of("mb")
    assert bottlenecks is not None
    printed = {11: 0.1457, 21: 0.1846, 41: 0.2055, 81: 0.2172, 161: 0.2232, 321: 0.2262}
    found = [float(bottlenecks.value[k - 1]) for k in printed]
    np.testing.assert_allclose(found, list(printed.values()), rtol=0, atol=0.5e-4 + 1e-9)
    # The order: MB_k = MB - c/k + O(1/k²), so that a doubling of k halves what it adds.
    *_, first, second, third = found
    assert (third - second) / (second - first) == pytest.approx(0.5, abs=0.05)


# -- scores ---------------------------------------------------------------------------------------------------


def linear(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """Affine in window and references, and the same wherever the window stands."""
    held = references.values.mean(-2, keepdim=True) if references.frames else 0.0
    lag = sum(1.0 / (references.window_frames[0] - frame) for frame in references.frames)
    return -0.8 * window + 0.2 * held * lag + 0.1 * levels[:, None]


def numbered(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """Affine as well, but it knows the frames' numbers."""
    return linear(window, levels, references) + 0.01 * references.window_frames[0]


@pytest.mark.parametrize("video", [VIDEOS["auto-regression"], random_state_space(3, stationary=False)])
@pytest.mark.parametrize("plan", ["fifo", "first and last"])
def test_affine_callables(video: GaussianVideo, plan: str) -> None:
    found = recursive(video, PLANS[plan], 10, score=linear, bounds=(True, True))
    dense = ledger_terms(video, PLANS[plan], 10, score=linear)
    for name in ("see", "cross", "mb", "girsanov"):
        torch.testing.assert_close(found.of(name).samples, dense.of(name).samples, rtol=1e-9, atol=1e-9)
    for ours, theirs in ((found.kl, dense.kl), (found.clips, dense.clips)):
        torch.testing.assert_close(ours.samples, theirs.samples, rtol=1e-9, atol=1e-9)  # type: ignore[union-attr]


def test_scores_that_are_not_the_same_at_every_step_are_dense() -> None:
    plan = PLANS["fifo"]
    refused = recursive_terms(Question(ar1(0.7), plan, 60, score=numbered))
    assert refused == "the score is not the same at every AR step"
    bent = recursive_terms(
        Question(ar1(0.7), plan, 60, score=lambda window, levels, references: -torch.tanh(window))
    )
    assert isinstance(bent, str)
    assert "not affine" in bent
    # The ledger itself goes on without a word.
    video = ar1(0.7)
    numbers = [ledger_terms(each, plan, 40, score=numbered).kl for each in (video, as_array(video, 43))]
    assert float(numbers[0]) == pytest.approx(float(numbers[1]), rel=1e-9)  # type: ignore[arg-type]


def test_another_videos_score_and_ones_own_by_name() -> None:
    video, plan = ar1(0.7), PLANS["fifo"]
    assert float(recursive(video, plan, 12, score=ExactScore(video)).kl) == float(recursive(video, plan, 12).kl)  # type: ignore[arg-type]
    other = ExactScore(ar1(0.5))
    found, dense = recursive(video, plan, 12, score=other), ledger_terms(video, plan, 12, score=other)
    assert float(found.kl) == pytest.approx(float(dense.kl), rel=1e-8)  # type: ignore[arg-type]


# -- the account of many AR steps -----------------------------------------------------------------------------


def test_a_long_account_is_the_dense_one_row_by_row() -> None:
    plan, video = PLANS["newest clean, older noised"], ar1(0.8, mean=[1.0])
    asked = {"score": PerturbedScore(0.05), "attribution": True}
    found = ledger(video, plan, 40, **asked)  # type: ignore[arg-type]
    dense = ledger(as_array(video, plan.total_frames(40)), plan, 40, **asked)  # type: ignore[arg-type]
    assert isinstance(found.terms, RecursiveTerms)
    assert not isinstance(dense.terms, RecursiveTerms)
    labels = ["stage", "ar_step", "term", "form"]
    assert found.table[labels].equals(dense.table[labels])
    assert list(found.table.dtypes) == list(dense.table.dtypes)
    numbers = ["value", "stderr", "ci_low", "ci_high"]
    np.testing.assert_allclose(found.table[numbers], dense.table[numbers], rtol=AGREE, atol=AGREE)
    assert found.notes == dense.notes
    assert found.to_dict().keys() == dense.to_dict().keys()
    for name, value in dense.totals.items():
        assert found.totals[name] == pytest.approx(value, rel=AGREE, abs=AGREE), name


def test_ten_thousand_ar_steps_add_up_and_settle() -> None:
    plan, video, count = fifo(3, References.last(2), reverse_steps=4, init_steps=4), ar1(0.9), 10_000
    result = ledger(video, plan, count)
    terms = result.terms
    assert isinstance(terms.ar, SharedSteps)
    assert len(terms.ar) == count
    assert len(terms.ar.distinct) < 10
    assert len(terms.ar[:3]) == 3
    assert terms.ar[-1].de is terms.ar[500].de
    with pytest.raises(IndexError):
        terms.ar[count]
    for term, total in (("MB", "mb"), ("DE", "de"), ("NIE_AR", "nie_ar")):
        assert len(result.column(term)) == count
        assert sum(result.column(term)) == pytest.approx(result.totals[total], rel=1e-10, abs=1e-12)
    assert result.column("CLIP_KL")[-1] == result.column("CLIP_KL")[count // 2]
    assert result.column("CLIP_BOUND")[-1] == pytest.approx(float(terms.clip_bounds.value[-1]), rel=1e-12)
    # The increments at large K are the rate; KL(K)/K is not.
    rate, shorter = rates(video, plan), ledger_terms(video, plan, count - 1)
    assert float(terms.kl) - float(shorter.kl) == pytest.approx(float(rate.kl), abs=1e-9)  # type: ignore[arg-type]
    assert abs(float(terms.kl) / count - float(rate.kl)) > 1e-7  # type: ignore[arg-type]


def test_a_video_from_a_given_start_settles_on_its_stationary_law() -> None:
    plan, A, Q, C, R = fifo(3, References.last(1), reverse_steps=4, init_steps=4), 0.6, 0.3, 1.0, 0.1
    from_elsewhere = state_space([[A]], [[Q]], [[C]], [[R]], initial_covariance=[[9.0]], initial_mean=[3.0])
    found = recursive(from_elsewhere, plan, 2000)
    limit = rates(state_space([[A]], [[Q]], [[C]], [[R]]), plan)
    assert len(found.ar.distinct) < 200
    assert float(found.clips.value[-1]) == pytest.approx(float(limit.clip), abs=1e-12)  # type: ignore[union-attr, arg-type]
    assert float(found.ar[-1].mb) == pytest.approx(float(limit.mb), abs=1e-12)  # type: ignore[arg-type]
    dense = ledger_terms(from_elsewhere, plan, 12)
    assert_same(recursive(from_elsewhere, plan, 12, bounds=(True, True)), dense)


# -- rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("seed", [1, 2])
def test_rates_are_the_increments_at_large_k(plan: str, seed: int) -> None:
    video, own, score = random_state_space(seed, seed == 1), PLANS[plan], PerturbedScore(0.05, 0.1)
    rate, d = rates(video, own, score), own.stride
    long, less = (recursive(video, own, count, score=score, bounds=(True, True)) for count in (1500, 1499))
    for name in ("kl", "trajectory", "girsanov", "closed", "ar_step_kl"):
        found = (float(getattr(long, name)) - float(getattr(less, name))) / d
        expected = rate.ar_step + rate.mb if name == "ar_step_kl" else getattr(rate, name)
        assert found == pytest.approx(float(expected), abs=1e-9), name
    for name in ("nie", "de", "see", "cross", "mb"):
        assert float(long.of(name).value[-1].sum()) / d == pytest.approx(float(getattr(rate, name)), abs=1e-11)  # type: ignore[union-attr]
    assert float(long.clips.value[-1]) == pytest.approx(float(rate.clip), abs=1e-11)  # type: ignore[union-attr, arg-type]
    # W_2² is a difference of traces of some units: its root keeps 1e-8 where W_2 is of order 1e-1.
    assert float(long.clips_w2.value[-1]) == pytest.approx(float(rate.clip_w2), abs=1e-8)  # type: ignore[union-attr, arg-type]


def test_where_only_clean_frames_are_handed_on_the_rates_add_up() -> None:
    """For w = Δ and clean references the AR-step ledger is that of the clean frames: KL = E + MB."""
    video = random_state_space(5, stationary=True)
    found = rates(video, outpainting(2, References.last(3), 6, 6), PerturbedScore(0.1))
    assert float(found.kl) == pytest.approx(float(found.ar_step + found.mb), rel=1e-11)
    assert float(found.mb) == pytest.approx(float(found.floor), rel=1e-12)  # type: ignore[arg-type]


def test_the_bottlenecks_rate_is_that_of_a_riccati_equation() -> None:
    """One frame at a time and no references: MB → I(X_k; all before) = ½ log(Var X / innovation variance)."""
    a, q, r = 0.9, 0.3, 0.2
    predicted = float(scipy.linalg.solve_discrete_are([[a]], [[1.0]], [[q]], [[r]])[0, 0])
    expected = 0.5 * math.log((q / (1 - a**2) + r) / (predicted + r))
    video = state_space([[a]], [[q]], [[1.0]], [[r]])
    assert float(rates(video, outpainting(1, reverse_steps=3, init_steps=3)).mb) == pytest.approx(
        expected, rel=1e-12
    )


def test_rates_that_do_not_exist_are_refused() -> None:
    plan = PLANS["fifo"]
    with pytest.raises(ValueError, match="like 1/k"):
        rates(reference_video(), plan)
    with pytest.raises(ValueError, match="tends to no stationary one"):
        rates(VIDEOS["unstable"], plan)
    with pytest.raises(ValueError, match="ever more frames"):
        rates(ar1(0.9), replace(plan, references=References.all()))
    for video in (fractional_gaussian_noise(0.8), NeedleVideo(query_start=5, length=20)):
        with pytest.raises(ValueError, match="not known to be a linear state space"):
            rates(video, plan)
    with pytest.raises(ValueError, match="not affine"):
        rates(ar1(0.9), plan, lambda window, levels, references: -torch.tanh(window))


@pytest.mark.parametrize(("error", "contracts"), [(0.05, True), (-0.1, False), (-0.6, False)])
def test_only_a_loop_that_contracts_has_a_clip_in_the_end(error: float, contracts: bool) -> None:
    """Else the sampler's variance grows like a power of k's base, and the clip's KL like k; its rate is finite."""
    plan, score = fifo(3, References.last(1), reverse_steps=5, init_steps=5), PerturbedScore(error)
    found, clips = rates(ar1(0.99), plan, score), recursive(ar1(0.99), plan, 400, score=score).clips
    assert clips is not None
    assert (found.clip is not None) is contracts
    growth = float(clips.value[399]) - float(clips.value[299])
    assert abs(growth) < 1e-6 if contracts else growth > 2.0
    longer, long = (recursive(ar1(0.99), plan, count, score=score).kl for count in (401, 400))
    assert float(longer) - float(long) == pytest.approx(float(found.kl), abs=1e-9)  # type: ignore[arg-type]


# -- refusals and gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("video", "references", "why", "most"),
    [
        (fractional_gaussian_noise(0.8), References.last(2), "is not known to be a linear state space", 8189),
        (reference_video(), References.all(), "'every' and 'all' refer to ever more frames", 4093),
    ],
)
def test_what_has_no_recursion_says_how_far_it_goes(
    video: GaussianVideo, references: References, why: str, most: int
) -> None:
    """Half a gigabyte holds 8192² numbers: K + 3 frames of FIFO w = 4, of d entries each."""
    with pytest.raises(ValueError, match=rf"20003 frames at once \(.*{why}\): that goes up to {most} AR steps"):
        ledger(video, fifo(4, references), 20_000)


@pytest.mark.parametrize("plan", ["fifo", "newest clean, older noised", "first and last"])
def test_gradients_pass_through_the_recursions(plan: str) -> None:
    own = PLANS[plan]
    own = replace(own, ar_grid=(), init_grid=(), reverse_steps=2, init_steps=1)
    grid = torch.tensor(own.ar_grid, dtype=torch.float64)
    B = torch.tensor([[1.2, 0.3], [0.3, 0.7]], dtype=torch.float64)

    def totals(root: Tensor, error: Tensor, inner: Tensor) -> Tensor:
        levels = torch.cat([grid[:1], inner[None], grid[2:]])
        terms = recursive(
            ar1(0.6, root @ root.T), own, 7, score=PerturbedScore(error, 0.1), bounds=(True, True), ar_grid=levels
        )
        found = [terms.kl, terms.trajectory, terms.ar_step_kl, terms.girsanov, terms.total("mb"), terms.clips[-1]]  # type: ignore[index]
        return torch.stack([torch.as_tensor(number.value) for number in found])  # type: ignore[union-attr]

    start = (torch.linalg.cholesky(B), torch.tensor(0.1, dtype=torch.float64), grid[1].clone())
    assert torch.autograd.gradcheck(totals, tuple(each.requires_grad_() for each in start), eps=1e-6, atol=1e-6)


def test_gradients_pass_through_rates() -> None:
    plan = fifo(3, References.last(1), reverse_steps=3, init_steps=3)

    def found(root: Tensor, error: Tensor) -> Tensor:
        rate = rates(ar1(0.6, root @ root.T), plan, PerturbedScore(error))
        assert rate.clip is not None
        return torch.stack([rate.kl, rate.trajectory, rate.ar_step, rate.mb, rate.clip])

    start = torch.linalg.cholesky(torch.tensor([[1.2, 0.3], [0.3, 0.7]], dtype=torch.float64))
    error = torch.tensor(0.1, dtype=torch.float64)
    assert torch.autograd.gradcheck(found, (start.requires_grad_(), error.requires_grad_()), eps=1e-6, atol=1e-6)
