"""Long rollouts, measured and predicted, with networks whose errors are known in place of trained ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.video.decay import decay_slope
from arvdm_theory.video.degradation import leading_components
from arvdm_theory.video.rollouts import (
    COMPONENTS,
    ON_TRUE_FRAMES,
    PROXIES,
    Way,
    decay_table,
    on_true_frames,
    predict_decay,
    rollout_plan,
    rollout_source,
)
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.samples import Samples, sample_run
from arvdm_theory.video.windows import EpisodeSet, Window, pose_code

SMOKE = VideoRun(preset="smoke", device="cpu")


class Copying:
    """In a denoiser's place: the newest frame that is remembered of each pose, or else the newest of all."""

    def as_score(self, batch: int = 64) -> NetworkScore:
        def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
            assert references.actions is not None
            assert actions is not None
            same = (actions[:, :, None] == references.actions[:, None]).all(-1)
            age = torch.arange(same.shape[-1], 0, -1)
            newest = torch.where(same, age, 10_000).argmin(-1)
            newest = torch.where(same.any(-1), newest, same.shape[-1] - 1)
            index = newest[..., None].expand(-1, -1, references.values.shape[-1])
            return torch.gather(references.values, 1, index)

        return NetworkScore(network, "x0", batch=batch)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("plan", ["outpainting", "fifo"])
def test_a_rollout_turns_to_and_fro_within_what_is_remembered(plan: str, store: Path) -> None:
    run = dataclasses.replace(SMOKE, plan=plan)  # type: ignore[arg-type]
    source, long = rollout_source(run, store, progress=False), rollout_plan(run)
    assert (long.generated, long.total_frames) == (8, source.plan.total_frames)
    assert source.episodes.poses is not None
    for poses in source.episodes.poses:
        away = (poses[:, 2] - poses[0, 2] + 180) % 360 - 180
        assert np.abs(away).max() <= 75
    samples = sample_run(run, Copying(), source, 3, progress=False)  # type: ignore[arg-type]
    assert samples.truth.shape[1] == long.prompt + 8
    # Until something generated is handed on, true frames are all that there is.
    alone = on_true_frames(run, Copying(), source, samples, progress=False)  # type: ignore[arg-type]
    own = samples.generated[:, long.prompt :]
    assert alone.shape == own.shape
    assert (alone[:, : long.plan.stride] == own[:, : long.plan.stride]).all()
    # A network that copies what it remembers of a pose is right wherever the pose is remembered.
    for number, window in enumerate(samples.windows):
        assert len(window.queries) == 0 or all(
            np.abs(
                samples.generated[number, asked].astype(int) - samples.truth[number, asked].astype(int)
            ).max() <= 1
            for _, asked in window.queries
        )  # fmt: skip


class Looking(Copying):
    """What it was told of the last frame that is out, and the levels that it was shown."""

    def __init__(self) -> None:
        self.last: list[Tensor] = []
        self.shown: list[Tensor] = []

    def as_score(self, batch: int = 64) -> NetworkScore:
        own = super().as_score(batch)

        def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
            self.shown.append(references.levels)
            if not len(references.levels):
                return torch.zeros_like(window)
            assert references.actions is not None
            self.last.append(references.actions[:, -1])
            return own.network(window, levels, references, actions)

        return NetworkScore(network, "x0", batch=batch)


@pytest.mark.parametrize(
    "way",
    [Way("rolling"), Way("fifo"), Way("pyramid"), Way("outpainting", (0.0, 0.3)), Way(guidance=1.5)],
    ids=lambda way: f"{way.kind} {way.noise} {way.guidance}",
)
def test_a_network_is_told_of_frames_as_in_training_whatever_it_is_sampled_by(way: Way, store: Path) -> None:
    """Poses are seen from the frame before the window, from which they are an angle of 0."""
    run = dataclasses.replace(SMOKE, preset="smoke-history")
    source, network = rollout_source(run, store, False, way), Looking()
    samples = sample_run(run, network, source, 3, progress=False, guidance=way.guidance)  # type: ignore[arg-type]
    assert samples.generated.shape[1] - samples.given == 8
    alone = on_true_frames(run, network, source, samples, False, way.guidance)  # type: ignore[arg-type]
    stride = rollout_plan(run, way).stride
    if way.kind != "outpainting":  # noise is drawn for every frame, and by another number of them
        assert (alone[:, :stride] == samples.generated[:, samples.given :][:, :stride]).all()
    here = torch.from_numpy(pose_code(np.zeros((1, 3)), np.zeros(3)))[0]
    assert all((code == here).all() for code in network.last)
    assert {len(levels) for levels in network.shown} == ({0, 10} if way.guidance != 1 else {10})
    if way.noise:
        assert all(levels.tolist() == pytest.approx([*[0.3] * 9, 0.0]) for levels in network.shown)


def test_what_a_network_was_not_trained_for_is_said() -> None:
    history = dataclasses.replace(SMOKE, preset="smoke-history")
    assert Way().untrained(SMOKE) is Way("outpainting").untrained(SMOKE) is None
    for way, words in (
        (Way("fifo"), "trained on the levels of outpainting alone, not on those of fifo"),
        (Way(noise=(0.1,)), "shown remembered frames clean in training, not at level 0.1"),
        (Way(guidance=2.0), "without its references"),
    ):
        assert words in str(way.untrained(SMOKE))
        assert way.untrained(history) is None
    assert "up to level 1 in training, not at level 2" in str(Way(noise=(0.0, 2.0)).untrained(history))


@pytest.mark.parametrize("name", ["cpu", "cpu-walk", "cpu-between"])
@pytest.mark.parametrize("plan", ["outpainting", "fifo"])
def test_every_view_of_a_rollout_is_one_that_the_memory_was_shown(name: str, plan: str) -> None:
    """As the presets walk, in an open hall: what is lost in their rollouts is lost by drift."""
    run = VideoRun(preset=name, plan=plan)  # type: ignore[arg-type]
    long, chosen = rollout_plan(run), run.settings
    hall = np.ones((6, 6, 4), bool)
    hall[0, :, 0] = hall[:, -1, 1] = hall[-1, :, 2] = hall[:, 0, 3] = False
    assert chosen.rollout_trajectory is not None
    steps = (long.total_frames - 1) * chosen.skip + 1
    for seed in range(10):
        walk = dataclasses.replace(chosen.rollout_trajectory, frames=steps).walk(hall, np.random.default_rng(seed))
        poses = [tuple(pose) for pose in walk.poses[:: chosen.skip].tolist()]
        for k in range(long.first, long.last + 1):
            shown = {poses[reference.frame] for reference in long.plan.references_at(k)}
            out = [f for f in long.plan.window_frames(k)[: long.plan.stride] if f >= long.prompt]
            assert {poses[frame] for frame in out} <= shown


def test_fading_copies_decay_and_are_predicted_as_the_closed_form_says(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Still pictures x and a network that shows its newest reference times κ: AR step i errs by (κ^i - 1) x.

    Its gain of errors in that reference is κ², and of others 0, so the second step is predicted to err by 1 + κ²
    times the square of the first. Of true references, all alike, linear response cannot tell which one it is: its
    responses add up to κ. It takes the errors (κ - 1) x of both steps for independent, and in the components that
    gives a mean of (κ² - 1) m and a covariance of (1 - κ)²(1 + κ²) Σ, both references being frames of one step.
    """
    run, keep = dataclasses.replace(SMOKE, memory="none"), 0.9

    class Newest:
        def as_score(self, batch: int = 64) -> NetworkScore:
            def network(
                window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None
            ) -> Tensor:
                return keep * references.values[:, -1:].expand_as(window)

            return NetworkScore(network, "x0", batch=batch)

    rng = np.random.default_rng(1)
    pictures = rng.integers(64, 256, (30, 16, 16, 3), dtype=np.uint8)
    videos = [np.repeat(picture[None], 60, 0) for picture in pictures]
    poses = [np.zeros((60, 3))] * 30
    episodes = EpisodeSet(videos, [f"{number}.npz:0" for number in range(30)], poses, [np.zeros(60, int)] * 30, 3)
    monkeypatch.setattr(type(run.episodes), "load", lambda self, *words: episodes)
    source = rollout_source(run, store, progress=False)
    samples = sample_run(run, Newest(), source, 30, progress=False)  # type: ignore[arg-type]
    predicted = predict_decay(run, Newest(), source, 60, progress=False)  # type: ignore[arg-type]
    assert set(predicted) == set(PROXIES)
    table = decay_table(samples, predicted)
    own = table[table["source"] == "generated"]
    alone = on_true_frames(run, Newest(), source, samples, progress=False)  # type: ignore[arg-type]
    both = decay_table(samples, predicted, alone)
    x = (pictures / 127.5 - 1).reshape(30, -1)
    step = 1 + np.arange(8) // run.windows.window
    # Pictures are rounded to bytes: an error of at most 1/255 beside a root mean square error of 0.06 or more.
    np.testing.assert_allclose(own["mse"], (1 - keep**step) ** 2 * (x**2).mean(), rtol=0.01)
    # Shown true frames, every step is a first one.
    fresh = both[both["source"] == ON_TRUE_FRAMES]
    np.testing.assert_allclose(fresh["mse"], (1 - keep) ** 2 * (x**2).mean(), rtol=0.01)
    pd.testing.assert_frame_equal(both[both["source"] != ON_TRUE_FRAMES], table)

    basis = leading_components(x, COMPONENTS)
    inside = x @ basis
    mean, variance = (inside.mean(0) ** 2).sum(), inside.var(0).sum()
    outside = (x**2).sum() / 30 - (inside**2).sum() / 30
    first = (1 - keep) ** 2 * (mean + variance + outside)
    second = (1 - keep**2) ** 2 * mean + (1 - keep) ** 2 * ((1 + keep**2) * variance + outside)
    expected = np.where(step == 1, first, second) / x.shape[1]
    # The network runs in float32, and ridge at its smallest strength shrinks the response by a millionth or so.
    np.testing.assert_allclose(predicted["linear_response"], expected, rtol=1e-3)
    np.testing.assert_allclose(predicted["constant"], first / x.shape[1], rtol=1e-4)
    by_gain = np.where(step == 1, 1, 1 + keep**2) * first / x.shape[1]
    np.testing.assert_allclose(predicted["error_gain"], by_gain, rtol=1e-4)
    assert np.isinf(table.loc[table["source"] == "copy of the last frame", "psnr"]).all()


def test_curves_are_means_over_videos_with_intervals_by_episode() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (6, 5, 12, 12, 3), dtype=np.uint8)
    generated = truth.copy()
    generated[:, 2:] = rng.integers(0, 256, (6, 3, 12, 12, 3), dtype=np.uint8)
    windows = tuple(Window(number // 2, 0) for number in range(6))
    table = decay_table(Samples(windows, tuple("abcdef"), truth, generated, 2), {})
    own = table[table["source"] == "generated"]
    assert own["ahead"].tolist() == [1, 2, 3]
    apart = (truth[:, 2:].astype(float) - generated[:, 2:]) ** 2
    byte = apart.mean((0, 2, 3, 4))
    np.testing.assert_allclose(own["psnr"], 10 * np.log10(255**2 / byte), rtol=1e-12)
    each = 10 * np.log10(255**2 / apart.mean((2, 3, 4)))
    np.testing.assert_allclose(own["psnr_mean"], each.mean(0), rtol=1e-12)
    assert (own["psnr_mean_low"] < own["psnr_mean"]).all()
    assert (own["psnr_mean"] > own["psnr"]).all()  # Jensen: the logarithm of a mean error against a mean logarithm
    slope = decay_slope(each, [window.episode for window in windows])
    assert slope.value == pytest.approx(np.polyfit([1, 2, 3], own["psnr"], 1)[0])
    assert len(slope.samples) == 3
