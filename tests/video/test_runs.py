"""Runs on first-person video: trained, killed and resumed, sampled, scored; an oracle in the network's place."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from arvdm_theory.data.clips import ClipError
from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import ModelError
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.training import loop
from arvdm_theory.training.config import TrainingError
from arvdm_theory.training.loop import describe
from arvdm_theory.training.windows import WindowSampler
from arvdm_theory.video.baselines import BASELINES
from arvdm_theory.video.presets import PRESETS
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.runs import STRUCTURES, VideoRun, load_run, train_run
from arvdm_theory.video.samples import (
    Samples,
    quality_summary,
    sample_folder,
    sample_run,
    score_samples,
    summarise,
    write_samples,
)
from arvdm_theory.video.windows import EpisodeSet, Window, WindowSource, find_windows

SMOKE = VideoRun(preset="smoke", device="cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated episodes that all runs here share."""
    pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")
    folder = tmp_path_factory.mktemp("store")
    for split in ("train", "test"):
        SMOKE.source(split, folder, progress=False)
    return folder


class Oracle:
    """In a denoiser's place: shows the referenced frame of the very pose of each window frame, else grey."""

    def as_score(self, batch: int = 64) -> NetworkScore:
        def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
            assert references.actions is not None
            assert actions is not None
            same = (actions[:, :, None] == references.actions[:, None]).all(-1).to(window)
            total = same.sum(-1, keepdim=True)
            return same @ references.values / total.clamp(min=1)

        return NetworkScore(network, "x0", batch=batch)


def scored(run: VideoRun, store: Path) -> tuple[Samples, WindowSource]:
    source = run.source("test", store, progress=False)
    return sample_run(run, Oracle(), source, progress=False), source  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", ["outpainting", "fifo"])
def test_an_oracle_that_looks_poses_up_retrieves_with_memory_and_not_without(plan: str, store: Path) -> None:
    """Frames, poses and references meet at the right places, all the way from the files to the rate."""
    run = dataclasses.replace(SMOKE, plan=plan)  # type: ignore[arg-type]
    samples, source = scored(run, store)
    rates = summarise(score_samples(samples, source)).set_index("source")
    assert rates.loc["generated", "rate"] == 1.0
    assert rates.loc["copy of the right memory frame", "rate"] == 1.0
    for number, window in enumerate(samples.windows):
        for needle, query in window.queries:
            np.testing.assert_array_equal(samples.truth[number, needle], samples.truth[number, query])
            # DDIM ends at x̂ itself; float32 and the last rounding to bytes leave one level at most.
            apart = samples.generated[number, query].astype(int) - samples.truth[number, query].astype(int)
            assert np.abs(apart).max() <= 1
    without, source = scored(dataclasses.replace(run, memory="none"), store)
    assert without.names == samples.names
    np.testing.assert_array_equal(without.truth, samples.truth)
    rates = summarise(score_samples(without, source)).set_index("source")
    for number, window in enumerate(without.windows):
        asked = [query for _, query in window.queries]
        assert np.abs(without.generated[number, asked].astype(float) - 127.5).max() <= 1  # nothing but grey
    assert rates.loc["copy of the right memory frame", "rate"] == 1.0


def test_one_window_of_every_episode_comes_first(store: Path) -> None:
    source = SMOKE.source("test", store, progress=False)
    few = sample_run(SMOKE, Oracle(), source, 3, progress=False)  # type: ignore[arg-type]
    assert len({window.episode for window in few.windows}) == 3
    more = sample_run(SMOKE, Oracle(), source, 10**6, batch=5, progress=False)  # type: ignore[arg-type]
    assert len(more.windows) == len(source.windows)
    assert set(few.windows) <= set(more.windows)
    with pytest.raises(ValueError, match="at least one window"):
        sample_run(SMOKE, Oracle(), source, 0, progress=False)  # type: ignore[arg-type]


def test_training_and_test_are_other_worlds(store: Path) -> None:
    train, test = (SMOKE.source(split, store, progress=False).episodes for split in ("train", "test"))  # type: ignore[arg-type]
    assert (len(train.frames), len(test.frames)) == PRESETS["dmlab", "smoke"].episodes
    first = {frames[0].tobytes() for frames in train.frames}
    assert len(first) == len(train.frames)
    assert not first & {frames[0].tobytes() for frames in test.frames}


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run(SMOKE, tmp_path / "whole", store, progress=False)
    save = loop._Run._save

    def killed(self: loop._Run) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_run(SMOKE, tmp_path / "killed", store, progress=False)
    resumed = train_run(SMOKE, tmp_path / "killed", store, progress=False)
    ours, theirs = resumed.denoiser.state_dict(), whole.denoiser.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert resumed.history["step"].tolist() == [3, 6]
    with pytest.raises(TrainingError, match=r"belongs to another run: .*memory\.structure"):
        train_run(dataclasses.replace(SMOKE, memory="prepend"), tmp_path / "killed", store, progress=False)

    # A trained run is sampled from its folder: what was given stays, and the same seed gives the same frames.
    assert load_run(tmp_path / "whole") == SMOKE
    samples, scores = sample_folder(SMOKE, tmp_path / "whole", progress=False)
    again, _ = sample_folder(SMOKE, tmp_path / "killed", progress=False)
    np.testing.assert_array_equal(samples.generated, again.generated)
    np.testing.assert_array_equal(samples.generated[:, :12], samples.truth[:, :12])
    assert not np.array_equal(samples.generated[:, 12:], samples.truth[:, 12:])
    other = {"generated with shuffled memory", "generated with memory of another world"}
    assert set(scores["source"]) == {*SOURCES, *BASELINES, *other}
    write_samples(samples, tmp_path / "clips")
    names = sorted(path.stem for path in (tmp_path / "clips" / "generated").iterdir())
    assert names == sorted(samples.names)
    with np.load(tmp_path / "clips" / "truth" / f"{samples.names[0]}.npz", allow_pickle=False) as clip:
        np.testing.assert_array_equal(clip["video"], samples.truth[0])
        assert [tuple(pair) for pair in clip["needles"]] == list(samples.windows[0].queries)
    with pytest.raises(ValueError, match="no run of a video network"):
        load_run(tmp_path / "clips")


def test_a_diagonal_is_trained_on_every_ar_step_after_the_given_frames(store: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(SMOKE, plan="fifo", memory="concat")
    assert (run.training.first_ar_step, run.training.ar_steps) == (11, 17)
    train_run(run, tmp_path / "run", store, progress=False)
    samples, _ = sample_folder(run, tmp_path / "run", progress=False)
    np.testing.assert_array_equal(samples.generated[:, :13], samples.truth[:, :13])
    assert all((samples.generated[:, frame] != samples.truth[:, frame]).any() for frame in range(13, 17))


def test_without_memory_the_network_is_shown_the_context_alone(store: Path) -> None:
    run = dataclasses.replace(SMOKE, memory="none")
    source = run.source("train", store, progress=False)
    config = run.network(3, source.action_dim, 0.0, 1.0)
    assert config.references == 2
    drawer = WindowSampler(
        run.windows.plan, run.training.ar_steps, source, init_share=0.0, first_ar_step=run.training.first_ar_step,
        precision=Denoiser(config).output_precision,
    )  # fmt: skip
    batch = drawer.draw(4, 0, 1)
    assert batch.references.frames == (10, 11)
    assert batch.references.window_frames == (12, 13, 14, 15)
    assert describe(config, run.windows.plan, source, run.training)["training"]["first_ar_step"] == 3


def test_episodes_without_poses_are_scored_by_quality_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8) for _ in range(2)]
    actions = [rng.integers(0, 3, 20) for _ in range(2)]
    episodes = EpisodeSet(pictures, ["a.npz:0", "b.npz:0"], None, actions, 3)
    plan = SMOKE.windows
    source = WindowSource(find_windows(episodes, plan))
    window = Window(1, 2)
    truth = pictures[1][None, 2:18]
    table = score_samples(Samples((window,), ("b",), truth, truth.copy(), 12), source)
    assert table.groupby("source").size().tolist() == [4, 4]
    summary = quality_summary(table).set_index("source")
    assert summary.loc["generated", "ssim"] == pytest.approx(1.0)
    assert np.isinf(summary.loc["generated", "psnr"])
    assert summary.loc["copy of the last frame", "psnr"] < 12
    assert "rate" not in summarise(table)


@pytest.mark.parametrize("memory", STRUCTURES[1:])
@pytest.mark.parametrize(
    ("compression", "compress"), [("spatial", 4), ("temporal", 4), ("tokens", 16)], ids=lambda value: str(value)
)
def test_compressed_memories_are_smaller(memory: str, compression: str, compress: int) -> None:
    run = VideoRun(preset="smoke", memory=memory, compression=compression, compress=compress)  # type: ignore[arg-type]
    options = run.network(3, 18, 0.0, 1.0).options["memory"]
    assert options["structure"] == memory
    network = Denoiser(run.network(3, 18, 0.0, 1.0))
    compressed = network.backbone.memory.compress  # type: ignore[union-attr]
    height, width = compressed.grid  # type: ignore[union-attr, misc]
    left = compressed.slots(10) * height * width  # type: ignore[union-attr, operator]
    # 10 frames of 4 x 4 places; ten frames in groups of four leave three.
    assert left == (3 * 16 if compression == "temporal" else 160 // compress)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"memory": "recurrent"}, ValueError, "memory is one of none, prepend"),
        ({"compress": 3}, ValueError, "square number"),
        ({"memory": "none", "compress": 4}, ValueError, "no memory to compress"),
        ({"size": 18}, ModelError, "patch 4 does not divide"),
        ({"size": 4}, ValueError, "size is at least 12"),
        ({"memory_frames": 0}, ValueError, "memory_frames is at least 1"),
        ({"told": "secrets"}, ValueError, "told is one of poses, reckoned, actions"),
        ({"architecture": "mlp"}, ValueError, "architecture is one of transformer, unet"),
        ({"preset": "tiny"}, ValueError, "smoke, cpu"),
        ({"data": "quake"}, ValueError, "dmlab, minecraft or doom; got quake"),
    ],
)
def test_runs_that_cannot_be_say_why(fields: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        VideoRun(**{"preset": "smoke", **fields})  # type: ignore[arg-type]


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no such folder"):
        dataclasses.replace(SMOKE, folder=str(tmp_path / "none")).source("train", tmp_path, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipError, match="no TECO DMLab clips"):
        dataclasses.replace(SMOKE, folder=str(tmp_path / "empty")).source("train", tmp_path, progress=False)


def test_a_folder_of_larger_pictures_is_averaged_down_and_others_are_refused(store: Path, tmp_path: Path) -> None:
    made = dataclasses.replace(SMOKE, size=32)
    folder = tmp_path / "large"
    made.episodes._simulate(folder, progress=False)
    small = dataclasses.replace(SMOKE, folder=str(folder)).source("test", tmp_path / "small", progress=False)
    large = made.source("test", tmp_path, progress=False).episodes.frames[0].astype(float)
    averaged = large.reshape(len(large), 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(small.episodes.frames[0], np.rint(averaged).astype(np.uint8))
    refused = dataclasses.replace(SMOKE, folder=str(folder), size=24)
    with pytest.raises(ClipError, match="32x32 pixels cannot be divided into 24x24"):
        refused.source("test", tmp_path / "refused", progress=False)


@pytest.mark.parametrize("data", ["dmlab", "minecraft"])
@pytest.mark.parametrize("memory", STRUCTURES)
def test_full_size_networks_are_built(data: str, memory: str) -> None:
    """All their frames and channels, without their numbers."""
    run = VideoRun(data=data, preset="gpu", memory=memory)  # type: ignore[arg-type]
    with torch.device("meta"):
        network = Denoiser(run.network(3, 18, 0.0, 1.0))
    weights = sum(weight.numel() for weight in network.parameters())
    assert 20e6 < weights < 50e6
    given = {"dmlab": 52, "minecraft": 112}[data]
    assert (run.windows.prompt, run.windows.total_frames) == (given, given + run.settings.generated)
    assert run.windows.references == (4 if memory == "none" else given)


@pytest.mark.parametrize("data", ["dmlab", "minecraft"])
def test_a_full_size_network_takes_a_training_step(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures, channels and training; of the frames two are remembered, two seen and two generated."""
    full = PRESETS[data, "gpu"]
    short = dataclasses.replace(full, memory=2, context=2, generated=2, window=2)
    monkeypatch.setitem(PRESETS, (data, "gpu"), short)
    run = VideoRun(data=data, preset="gpu", memory="cross")  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, full.size, full.size, 3), dtype=np.uint8)
    episodes = EpisodeSet([pictures], ["a.npz:0"], None, [np.arange(6) % 3], 3)
    source = WindowSource(find_windows(episodes, run.windows))
    torch.manual_seed(0)
    network = Denoiser(run.network(3, source.action_dim, 0.0, 0.58))
    training = run.training
    drawer = WindowSampler(
        run.windows.plan, training.ar_steps, source, init_share=0.0, first_ar_step=training.first_ar_step,
        weighting=training.weighting, precision=network.output_precision,
    )  # fmt: skip
    batch = drawer.draw(1, 0, 1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.rate(training.warmup))
    before = [weight.detach().clone() for weight in network.parameters()]
    loss = batch.loss(network(batch.window, batch.levels, batch.references))
    loss.backward()
    optimiser.step()
    # A fresh network says nothing, and what it should say has unit scale.
    assert 0.3 < loss.item() < 3
    moved = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert all(moved)
