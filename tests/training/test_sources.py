"""Sources: a law's own numbers, data sets cut fairly, actions beside their frames."""

import math

import numpy as np
import pytest
import torch

from arvdm_theory import (
    Codebook,
    ControlledVideo,
    FiniteStateVideo,
    GaussianVideo,
    GridVideo,
    PixelVideo,
    moving_sprite,
    reference_video,
    sticky_chain,
)
from arvdm_theory.interfaces import VideoSource
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import RandomWalk, ring, torus
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw
from arvdm_theory.training.sources import SourceError, data_moments, dataset_source


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def controlled() -> ControlledVideo:
    return ControlledVideo(0.7 * np.eye(2), np.eye(2), np.eye(2), 0.1 * np.eye(2), [[1.0], [0.5]], [[1.0]])


PIXELS = PixelVideo(4, 6, PowerLaw(), ExponentialMemory(tau=3.0, exponent=1.0), variance=1.0)
GRID = GridVideo(ring(5), View("firstperson", size=8), colours=3, path=RandomWalk())


@pytest.mark.parametrize(
    ("source", "shape", "actions"),
    [
        (reference_video(), (2,), 0),
        (PIXELS, (4, 6, 1), 0),
        (moving_sprite((2, 2), (4, 4)), (4, 4, 1), 0),
        (FiniteStateVideo(sticky_chain(2, 0.9), Codebook(torch.eye(2))), (2,), 0),
        (GRID, (8, 8, 3), 9),
        (controlled(), (2,), 1),
        (dataset_source(np.zeros((3, 7, 4, 5, 2))), (4, 5, 2), 0),
    ],
)
def test_every_source_keeps_the_protocol(source: VideoSource, shape: tuple[int, ...], actions: int) -> None:
    assert isinstance(source, VideoSource)
    assert source.frame_shape == shape
    assert source.action_dim == actions
    first, again = (source.draw(3, 5, seeded()) for _ in range(2))
    assert first.frames.shape == (3, 5, math.prod(shape))
    assert torch.equal(first.frames, again.frames)
    assert (first.actions is None) == (actions == 0)
    if actions:
        assert first.actions.shape == (3, 5, actions)


def test_a_gaussian_law_gives_its_own_samples() -> None:
    video = reference_video()
    for _ in range(2):  # the second time from the kept factor
        assert torch.equal(video.draw(4, 6, seeded()).frames, video.sample(4, 6, seeded())[:, 0])
    pixels = PIXELS.draw(4, 3, seeded()).frames
    assert torch.equal(pixels.reshape(4, 3, 4, 6, 1), PIXELS.sample_pixels(4, 3, seeded()))


def test_modes_become_entries_of_the_frame() -> None:
    video = PixelVideo(4, 4, PowerLaw(), ExponentialMemory(tau=3.0, exponent=1.0), channel_covariance=np.eye(2))
    # Taken as what it is without its pixels.
    drawn, own = GaussianVideo.draw(video, 3, 5, seeded()).frames, video.sample(3, 5, seeded())
    assert drawn.shape == (3, 5, video.modes * 2)
    for mode in range(video.modes):
        assert torch.equal(drawn[..., 2 * mode : 2 * mode + 2], own[:, mode])


@pytest.mark.parametrize("kind", ["patch", "firstperson"])
def test_a_walkers_pose_is_the_action_that_leads_to_the_frame(kind: str) -> None:
    video = GridVideo(torus(3, 3), View(kind, size=6), colours=4, path=RandomWalk())
    drawn, sample = video.draw(4, 9, seeded()), video.sample(4, 9, seeded())
    assert torch.equal(drawn.frames, sample.frames.flatten(2))
    assert torch.equal(drawn.actions[..., :9].argmax(-1), sample.paths // 4)
    assert drawn.actions.shape[-1] == (13 if kind == "firstperson" else 9)
    if kind == "firstperson":
        assert torch.equal(drawn.actions[..., 9:].argmax(-1), sample.paths % 4)
    assert torch.equal(drawn.actions.sum(-1), torch.full((4, 9), 2.0 if kind == "firstperson" else 1.0).double())


def test_a_data_set_is_cut_anywhere_and_its_actions_with_it() -> None:
    lengths = (6, 9)
    frames = [100.0 * e + np.arange(n, dtype=np.float64)[:, None] for e, n in enumerate(lengths)]
    source = dataset_source(frames, [f + 0.5 for f in frames])
    batch = source.draw(4000, 6, seeded())
    assert torch.equal(batch.actions, batch.frames + 0.5)
    assert torch.equal(batch.frames[..., 0] - batch.frames[:, :1, 0], torch.arange(6.0).double().expand(4000, 6))
    first = batch.frames[:, 0, 0]
    starts = {start: float((first == start).double().mean()) for start in (0, 100, 101, 102, 103)}
    # Episodes alike, then starts alike.
    for start, share in starts.items():
        expected = 0.5 if start == 0 else 0.125
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / 4000)
    still = dataset_source(frames, random_start=False).draw(50, 6, seeded())
    assert set(still.frames[:, 0, 0].tolist()) == {0.0, 100.0}


def test_bytes_stand_for_zero_to_one() -> None:
    pictures = np.full((2, 3, 2, 2, 1), 51, dtype=np.uint8)
    drawn = dataset_source(pictures).draw(2, 3, seeded()).frames
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn, torch.full((2, 3, 4), 0.2))


def test_flat_pictures_get_their_shape() -> None:
    assert dataset_source(torch.zeros(2, 3, 12), frame_shape=(2, 2, 3)).frame_shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("frames", "actions", "shape", "message"),
    [
        ([], None, None, "at least one episode"),
        (np.zeros((2, 3, 4)), None, (5,), "was asked for"),
        (np.zeros((2, 3, 4, 4)), None, None, r"\(d,\) or \(H, W, C\)"),
        ([np.zeros((3, 4)), np.zeros((3, 5))], None, None, "episode 1 has shape"),
        (np.zeros((2, 3, 4)), np.zeros((2, 2, 1)), None, "actions of episode 0"),
        (np.zeros((2, 3, 4)), np.zeros((1, 3, 1)), None, "2 episodes but actions of 1"),
    ],
)
def test_what_is_no_data_set_is_refused(frames: object, actions: object, shape: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        dataset_source(frames, actions, shape)  # type: ignore[arg-type]


def test_an_episode_that_is_too_short_is_named() -> None:
    with pytest.raises(SourceError, match="episode 1 has 3"):
        dataset_source([np.zeros((5, 2)), np.zeros((3, 2))]).draw(1, 4, seeded())


def test_moments_are_those_of_all_entries() -> None:
    frames = np.random.default_rng(0).normal(3.0, 2.0, (50, 4, 6))
    mean, scale = data_moments(dataset_source(frames), frames=4, videos=2000)
    # 2000 draws with replacement of 50 episodes of 24 entries: 1200 independent entries.
    assert abs(mean - frames.mean()) < 5 * 2 / math.sqrt(1200)
    assert abs(scale - frames.std()) < 5 * 2 / math.sqrt(2 * 1200)
