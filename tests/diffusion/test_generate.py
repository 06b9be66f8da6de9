"""Videos generated from a score alone: their exact law where it is known, prompts, actions, seeds and batches."""

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from moments import assert_moments
from oracle_score import OracleScore
from reference_cases import MORE_PLANS, PLANS, random_video
from torch import Tensor
from tqdm import tqdm

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    NetworkScore,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    generate,
)
from arvdm_theory.diffusion.sampler import first_ar_step
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.laws.gaussian_kernel import stage_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.states import State

EVERY_PLAN = {**PLANS, **MORE_PLANS}
VIDEOS = 20_000


def wrong(window: Tensor, references: Tensor) -> Tensor:
    return -0.05 * window + 0.1


KNOWN = PerturbedScore(0.05, bias=0.1)  # the same error


def sampler_law(
    video: ArrayVideo, plan: Plan, ar_steps: int, step: str, start: SamplerLaw | None = None, first: int = 1
) -> SamplerLaw:
    """The exact law of the sampler, from the initialisation stage or from what is given."""
    if start is None:
        init = video.at(plan.stage(0)).window
        start = SamplerLaw.initial(plan, stage_kernel(init, KNOWN.affine(init), STEPS[step]), video.frame_dim)
    for k in range(first, ar_steps + 1):
        window = video.at(plan.stage(k)).window
        start = start.advance(plan, window.stage, stage_kernel(window, KNOWN.affine(window), STEPS[step]))
    return start


# -- the law of what is generated -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("chunks, mixed references, floor", "exponential"),
        ("chunks with references", "ddim"),
        ("rolling, noised references, floor", "ddpm"),
        ("rolling, warmup", "euler"),
        ("stride does not divide the window", "exponential"),
    ],
)
def test_generated_videos_have_the_samplers_exact_law(name: str, step: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    made = generate(OracleScore(covariance, mean, 2, wrong), plan, 3, VIDEOS, 2, step=step, seed=1)
    clean = plan.clean_frames(3)
    assert made.shape == (VIDEOS, clean, 2)
    law = sampler_law(ArrayVideo(covariance, 2, mean), plan, 3, step)
    expected_mean, expected = law.frames(range(clean))
    assert_moments(made.reshape(VIDEOS, -1), expected_mean[0], expected[0])


@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "rolling", "enters clean"])
def test_it_draws_what_the_known_videos_own_score_draws(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 1)
    made = generate(OracleScore(covariance, mean, 2, wrong), plan, 3, 20, 2, seed=7)
    video = ArrayVideo(covariance, 2, mean)
    known = generate(KNOWN, plan, 3, 20, video=video, seed=7)
    np.testing.assert_allclose(made, known, rtol=0, atol=1e-10)
    # A score that knows its video needs none beside it.
    assert torch.equal(generate(KNOWN.of(video), plan, 3, 20, seed=7), known)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("chunks with references", 0),
        ("chunks, mixed references, floor", 1),
        ("rolling", 0),
        ("rolling, noised references, floor", 2),
        ("rolling, warmup", 1),
        ("stride does not divide the window", 1),
    ],
)
def test_prompted_videos_have_the_law_that_starts_from_true_frames(name: str, extra: int) -> None:
    """Prompts are true videos: the law goes on from the joint law of their states, where the plan has them."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(4), 2, 2)
    video = ArrayVideo(covariance, 2, mean)
    given = plan.init_frames + extra * plan.stride
    first = first_ar_step(plan, given)
    assert first == 1 + extra
    prompt = video.sample(VIDEOS, given, torch.Generator().manual_seed(3))[:, 0]
    made = generate(OracleScore(covariance, mean, 2, wrong), plan, 4, VIDEOS, 2, prompt=prompt, seed=4)
    levels = [plan.floor] * given
    if plan.overlapping:
        levels[given - plan.init_frames :] = plan.input_levels[: plan.init_frames]
    start = SamplerLaw(*video.joint([State(i, level) for i, level in enumerate(levels)]), 2)
    law = sampler_law(video, plan, 4, "exponential", start, first)
    expected_mean, expected = law.frames(range(plan.clean_frames(4)))
    assert made.shape[1] == plan.clean_frames(4)
    assert_moments(made.reshape(VIDEOS, -1), expected_mean[0], expected[0])
    if plan.floor == 0:
        out = plan.frames_out(first)
        assert torch.equal(made[:, :out], prompt[:, :out])


def test_only_prompts_that_an_ar_step_follows_are_taken() -> None:
    chunks, rolling = PLANS["chunks with references"], PLANS["stride does not divide the window"]
    assert [first_ar_step(chunks, p) for p in (2, 4, 6)] == [1, 2, 3]
    assert [first_ar_step(rolling, p) for p in (1, 3, 5)] == [1, 2, 3]
    for plan, frames in ((chunks, 3), (chunks, 0), (rolling, 2)):
        with pytest.raises(ValueError, match=rf"start after .* frames, not after the {frames} that are given"):
            generate(flat, plan, 3, 5, 2, prompt=torch.zeros(5, frames, 2))
    with pytest.raises(ValueError, match="leaves nothing to generate: AR step 3 would be next, and 2 is the last"):
        generate(flat, chunks, 2, 5, 2, prompt=torch.zeros(5, 6, 2))


# -- seeds, batches, dtypes -----------------------------------------------------------------------------


def flat(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    return -window


def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
    """A float32 network that looks at everything it is shown."""
    assert window.dtype == torch.float32
    seen = references.values.sum((1, 2)) if references.values.shape[1] else window.new_zeros(len(window))
    return torch.tanh(window.cumsum(-1) + 0.3 * seen[:, None, None]) * levels[:, None]


def test_a_seeds_videos_do_not_depend_on_the_batch() -> None:
    plan, score = PLANS["rolling, noised references, floor"], NetworkScore(network)
    whole, sevens, ones = (generate(score, plan, 3, 30, 3, seed=5, batch=batch) for batch in (1000, 7, 1))
    # The same noise; the network's sums may be taken in another order, which float32 rounds at 1e-7 of values of
    # size 10, and 9 reverse steps gain e^{T/2} = 4.5 each stage.
    for other in (sevens, ones):
        np.testing.assert_allclose(other, whole, rtol=0, atol=1e-4)
    assert not torch.isclose(generate(score, plan, 3, 30, 3, seed=6), whole).any()
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(generate(score, plan, 3, 30, 3, generator=generator), whole)


def test_videos_can_be_kept_in_float32() -> None:
    plan, score = PLANS["chunks, noised references"], NetworkScore(network)
    double, single = (generate(score, plan, 2, 8, 3, dtype=dtype) for dtype in (torch.float64, torch.float32))
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4)


def test_a_network_generates_with_frames_that_stand_at_level_0() -> None:
    made = generate(NetworkScore(network, "x0"), PLANS["enters clean"], 3, 5, 2)
    assert torch.isfinite(made).all()


# -- what the score is told -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first clean, last noised", "rolling, noised references, floor"])
def test_actions_of_the_references_and_of_the_window_are_told(name: str) -> None:
    plan, videos = EVERY_PLAN[name], 6
    frames = plan.total_frames(3)
    actions = torch.arange(videos * frames, dtype=torch.float64).reshape(videos, frames, 1)
    told: list[tuple[Sequence[float], ReferenceBatch]] = []

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        told.append((tuple(levels.tolist()), references))
        return -window

    generate(score, plan, 3, videos, 2, actions=actions, batch=4)
    asked = iter(told)
    for k in range(4):
        grid = plan.ar_grid if k else plan.init_grid
        window = tuple(plan.window_frames(k)) if k else tuple(range(plan.init_frames))
        references = plan.references_at(k) if k else ()
        for row in grid[:-1]:
            for rows in (slice(0, 4), slice(4, 6)):
                levels, shown = next(asked)
                assert levels == row
                assert shown.window_frames == window
                assert shown.frames == tuple(r.frame for r in references)
                assert shown.levels.tolist() == [max(r.level, plan.floor) for r in references]
                assert shown.window_actions is not None
                assert shown.actions is not None
                assert torch.equal(shown.window_actions, actions[rows, list(window)])
                assert torch.equal(shown.actions, actions[rows, list(shown.frames)])
                assert shown.values.shape == (len(actions[rows]), len(references), 2)
    assert next(asked, None) is None


def test_references_are_the_frames_that_came_out() -> None:
    """Clean references are bit for bit the frames that the finished video has."""
    plan = PLANS["chunks with references"]
    seen: dict[int, Tensor] = {}

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        for i, frame in enumerate(references.frames):
            seen[frame] = references.values[:, i]
        return -window

    made = generate(score, plan, 3, 4, 2)
    assert sorted(seen) == [1, 3, 5]
    for frame, value in seen.items():
        assert torch.equal(value, made[:, frame])


# -- refusals and interruption --------------------------------------------------------------------------


def test_refuses_what_it_cannot_generate_from() -> None:
    plan = PLANS["rolling"]
    for what, arguments in (
        ("AR step", (0, 5, 2)),
        ("video", (2, 0, 2)),
        ("entry a frame", (2, 5, 0)),
    ):
        with pytest.raises(ValueError, match=f"at least one {what} is needed, got 0"):
            generate(flat, plan, *arguments)
    with pytest.raises(ValueError, match="at least one video a batch is needed, got 0"):
        generate(flat, plan, 2, 5, 2, batch=0)
    with pytest.raises(ValueError, match="ancestral step has the exact posterior's covariance"):
        generate(flat, plan, 2, 5, 2, step="ancestral")
    with pytest.raises(ValueError, match="ExactScore is a known video's score: give the video"):
        generate(ExactScore(), plan, 2, 5, 2)
    with pytest.raises(ValueError, match="PerturbedScore is a known video's score: give the video"):
        generate(KNOWN, plan, 2, 5, 2)
    with pytest.raises(ValueError, match="frame_dim, are needed where no video is known"):
        generate(flat, plan, 2, 5)
    with pytest.raises(ValueError, match=r"a score is None, .*got str"):
        generate("exact", plan, 2, 5, 2)
    with pytest.raises(ValueError, match=r"prompt must be finite numbers of shape \(5, frames, entries\)"):
        generate(flat, plan, 2, 5, 2, prompt=torch.zeros(4, 2, 2))
    with pytest.raises(ValueError, match="prompt's frames have 3 entries, not 2"):
        generate(flat, plan, 2, 5, 2, prompt=torch.zeros(5, 2, 3))
    with pytest.raises(ValueError, match="4 frames are generated or begun, and have actions, but only 3"):
        generate(flat, plan, 2, 5, 2, actions=torch.zeros(5, 3, 1))
    with pytest.raises(ValueError, match="actions must be finite"):
        generate(flat, plan, 2, 5, 2, actions=torch.full((5, 4, 1), torch.nan))
    with pytest.raises(ValueError, match=r"videos are of real numbers, not torch\.int64"):
        generate(flat, plan, 2, 5, 2, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"score of frames 1 to 3 is not finite at the levels \[0\.6667, 1\.6667, 2\.6667\]"
    ):
        generate(lambda w, t, r: w / (t[0] != plan.ar_grid[1][0]), plan, 2, 5, 2)
    with pytest.raises(ValueError, match=r"tensor of the window's shape \(5, 2, 2\), got \(5, 2\)"):
        generate(lambda w, t, r: w.sum(-1), plan, 2, 5, 2)


def test_an_interrupt_passes_through_and_leaves_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def impatient(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return -window

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # bars are for terminals
    with pytest.raises(KeyboardInterrupt):
        generate(impatient, PLANS["rolling"], 3, 4, 2, progress=True)
    assert calls == 5
    assert not getattr(tqdm, "_instances", ())
    assert "reverse steps" in capsys.readouterr().err


def test_the_bar_counts_the_reverse_steps_that_are_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    plan = Plan((3.0, 3.0), 2, 3.0, 3, 4, references=References.last(1))
    generate(flat, plan, 2, 4, 2, progress=True)
    assert "/10" in capsys.readouterr().err  # 4 + 2 · 3
    generate(flat, plan, 3, 4, 2, prompt=torch.zeros(4, 4, 2), progress=True)
    assert "/6" in capsys.readouterr().err  # AR steps 2 and 3
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    generate(flat, plan, 2, 4, 2, progress=True)
    assert capsys.readouterr().err == ""
