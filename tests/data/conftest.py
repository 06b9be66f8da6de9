"""Small data sets in the layouts of the public ones."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]


def _numbered(frames: int, height: int, width: int, first: int = 0) -> Pictures:
    """Plain pictures whose brightness is their number."""
    pictures = np.zeros((frames, height, width, 3), np.uint8)
    pictures[:] = (first + np.arange(frames, dtype=np.uint8))[:, None, None, None]
    return pictures


def _lossless_mp4(path: Path, pictures: Pictures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(20))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "rgb24"
        stream.options = {"qp": "0", "threads": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def numbered() -> Callable[..., Pictures]:
    return _numbered


@pytest.fixture
def lossless_mp4() -> Callable[[Path, Pictures], None]:
    return _lossless_mp4


@pytest.fixture
def dmlab(tmp_path: Path) -> Path:
    """Five clips of 12 frames, 16 x 16; clip i begins with brightness 20 i; action t is (t + i) mod 3."""
    root = tmp_path / "dmlab"
    for i in range(5):
        path = root / "train" / str(i % 2) / f"clip{i}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        actions = (np.arange(12) + i) % 3
        np.savez_compressed(path, video=_numbered(12, 16, 16, 20 * i), actions=actions)
    return root


@pytest.fixture
def minecraft(tmp_path: Path) -> Path:
    """Two clips of 6 frames, 16 x 16; action t is t mod 4."""
    root = tmp_path / "minecraft"
    for i in range(2):
        path = root / "test" / "0" / f"clip{i}.mp4"
        _lossless_mp4(path, _numbered(6, 16, 16, 20 * i))
        np.savez(path.with_suffix(".npz"), actions=np.arange(6) % 4)
    return root


@pytest.fixture
def basalt(tmp_path: Path) -> Path:
    """One clip of 7 frames, 64 x 36, black but for its middle 36 x 36 square."""
    root = tmp_path / "basalt"
    pictures = np.zeros((7, 36, 64, 3), np.uint8)
    pictures[:, :, 14:50] = 10 + np.arange(7, dtype=np.uint8)[:, None, None, None]
    _lossless_mp4(root / "player-1.mp4", pictures)
    lines = [
        {
            "mouse": {"dx": 20.0 * t, "dy": -40.0, "buttons": [0]},
            "keyboard": {"keys": ["key.keyboard.w"]},
            "tick": t,
        }
        for t in range(7)
    ]
    (root / "player-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root
