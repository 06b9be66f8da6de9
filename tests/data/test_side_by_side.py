"""Two pictures side by side: halves, names and verdicts."""

from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.data.clips import ClipError, read_frames
from arvdm_theory.data.side_by_side import find_side_by_side, read_side_by_side

PAPER_CLIPS = Path(__file__).parents[3] / "shared" / "data" / "paper_clips"


def test_the_halves(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "cave_success_7.npy", frames)
    clip = read_side_by_side(tmp_path / "cave_success_7.npy")
    np.testing.assert_array_equal(clip.truth, frames[:, :, :4])
    np.testing.assert_array_equal(clip.shown, frames[:, :, 4:])
    assert (clip.name, clip.verdict) == ("cave_success_7", "success")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("maze_fail_1", "fail"),
        ("failure_1", None),
        ("success_or_fail", None),
        ("maze-success", "success"),
        ("x", None),
    ],
)
def test_verdicts(tmp_path: Path, name: str, verdict: str | None) -> None:
    np.save(tmp_path / f"{name}.npy", np.zeros((1, 2, 4, 3), np.uint8))
    assert read_side_by_side(tmp_path / f"{name}.npy").verdict == verdict


def test_what_is_no_such_clip(tmp_path: Path) -> None:
    np.save(tmp_path / "square.npy", np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ClipError, match="twice as wide as high, got 4 high and 4 wide"):
        read_side_by_side(tmp_path / "square.npy")
    np.save(tmp_path / "float.npy", np.zeros((1, 4, 8, 3)))
    with pytest.raises(ClipError, match="uint8"):
        read_side_by_side(tmp_path / "float.npy")
    with pytest.raises(ClipError, match=r"no \.mp4 clips"):
        find_side_by_side(tmp_path)


def test_the_papers_own_clips() -> None:
    if not PAPER_CLIPS.is_dir():
        pytest.skip("the paper's clips are not in ../shared/data/paper_clips")
    paths = find_side_by_side(PAPER_CLIPS)
    assert len(paths) >= 2
    for path in (paths[0], paths[-1]):
        clip = read_side_by_side(path)
        size = 64 if clip.name.startswith("dmlab") else 128
        assert clip.truth.shape == clip.shown.shape == (128, size, size, 3)
        assert clip.verdict in ("success", "fail")
        assert clip.verdict in path.name
        # The model is given the first frames: there the halves agree but for the codec, later they need not.
        difference = np.abs(clip.truth[:8, 8:-8, 8:-8].astype(int) - clip.shown[:8, 8:-8, 8:-8]).mean()
        assert difference < 16
        np.testing.assert_array_equal(np.concatenate([clip.truth, clip.shown], 2), read_frames(path))
