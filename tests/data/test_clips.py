"""Clips from every kind of file, cut-outs, area averages, and files that are not what they claim to be."""

import io
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.data.clips import (
    ClipError,
    Region,
    crop,
    looks_side_by_side,
    parse_size,
    prepare,
    read_clip,
    read_frames,
    resize,
    to_grey,
    to_unit,
)

PAPER_CLIPS = Path(__file__).parents[3] / "shared" / "data" / "paper_clips"


def _colours(frames: int, height: int = 16, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def _write(path: Path, pictures: NDArray[np.uint8], codec: str, pixels: str, **options: str) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pixels
        # With more threads an encoder's bytes differ from run to run; so do those of x264's look ahead, which of
        # pictures this small reads memory that nobody has written.
        stream.options = {"threads": "1", **({"rc-lookahead": "0"} if codec == "libx264" else {})}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _lossless(path: Path, pictures: NDArray[np.uint8]) -> Path:
    return _write(path, pictures, "ffv1", "bgr0")


def test_a_lossless_video_comes_back_exactly(tmp_path: Path) -> None:
    pictures = _colours(7)
    path = _lossless(tmp_path / "clip.mkv", pictures)
    frames = read_frames(path)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, pictures)
    np.testing.assert_array_equal(read_clip(path), pictures / 127.5 - 1)


def test_an_mp4_decodes_the_same_every_time(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 32) / np.arange(1, 10)[:, None]
    smooth = np.broadcast_to(ramp.astype(np.uint8)[:, None, :, None], (9, 16, 32, 3))
    path = _write(tmp_path / "clip.mp4", smooth.copy(), "libx264", "yuv420p")
    first = read_frames(path)
    assert first.shape == (9, 16, 32, 3)
    np.testing.assert_array_equal(first, read_frames(path))
    # A codec of default quality keeps smooth grey pictures to a few levels; another scale or order would not.
    assert np.abs(first.astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("kind", ["npy", "npz video", "npz single"])
@pytest.mark.parametrize("shape", [(5, 4, 6, 3), (5, 4, 6, 1), (5, 4, 6)])
def test_array_files(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    clip = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"clip.{kind[:3]}"
    if kind == "npy":
        np.save(path, clip)
    elif kind == "npz video":
        np.savez(path, actions=np.arange(5), video=clip)
    else:
        np.savez(path, anything=clip)
    np.testing.assert_array_equal(read_frames(path), clip.reshape(5, 4, 6, -1))


def test_floating_point_files_are_taken_as_they_are(tmp_path: Path) -> None:
    clip = np.random.default_rng(2).uniform(-1, 1, (3, 4, 4, 3)).astype(np.float32)
    np.save(tmp_path / "clip.npy", clip)
    frames = read_clip(tmp_path / "clip.npy")
    assert frames.dtype == np.float64
    np.testing.assert_array_equal(frames, clip)


def test_bytes_reach_both_ends_of_the_scale() -> None:
    ends = to_unit(np.array([0, 255, 51], dtype=np.uint8).reshape(3, 1, 1, 1)).ravel()
    np.testing.assert_allclose(ends, [-1, 1, -0.6], atol=1e-15)


def test_region_and_left_half() -> None:
    frames = _colours(2, 4, 8)
    cut = prepare(frames, region=Region(5, 1, 3, 2))
    np.testing.assert_array_equal(cut, to_unit(frames[:, 1:3, 5:8]))
    np.testing.assert_array_equal(prepare(frames, left_half=True), prepare(frames, region=Region.parse("0,0,4,4")))
    np.testing.assert_array_equal(crop(frames, Region(0, 0, 8, 4)), frames)
    assert looks_side_by_side(frames)
    assert not looks_side_by_side(frames[:, :, :4])


def test_grey_weights_the_primaries() -> None:
    primaries = np.eye(3).reshape(1, 1, 3, 3)
    np.testing.assert_allclose(to_grey(primaries).ravel(), [0.299, 0.587, 0.114])
    white = np.ones((1, 2, 2, 3))
    np.testing.assert_allclose(to_grey(white), np.ones((1, 2, 2, 1)), atol=1e-15)
    np.testing.assert_array_equal(to_grey(white[..., :1]), white[..., :1])


def test_area_average_by_whole_blocks() -> None:
    frames = np.random.default_rng(3).normal(size=(2, 6, 8, 3))
    blocks = frames.reshape(2, 3, 2, 2, 4, 3).mean((2, 4))
    np.testing.assert_allclose(resize(frames, 3, 2), blocks, atol=1e-14)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (4, 3), (6, 8)])
def test_area_average_by_shares_of_pixels(size: tuple[int, int]) -> None:
    """Blow each pixel up so that all borders fall between pixels; then the average is one over whole blocks."""
    frames = np.random.default_rng(4).normal(size=(2, 6, 8, 1))
    height, width = size
    blown = frames.repeat(height, 1).repeat(width, 2)
    blocks = blown.reshape(2, height, 6, width, 8, 1).mean((2, 4))
    small = resize(frames, height, width)
    np.testing.assert_allclose(small, blocks, atol=1e-14)
    np.testing.assert_allclose(small.mean((1, 2)), frames.mean((1, 2)), atol=1e-14)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "0,0,0,4", "-1,0,2,2", "1.5,0,2,2", ""])
def test_regions_that_are_none(text: str) -> None:
    with pytest.raises(ClipError, match="region"):
        Region.parse(text)


def test_sizes() -> None:
    assert parse_size("32x48") == (32, 48)
    for text in ("32", "0x4", "axb", "1x2x3"):
        with pytest.raises(ClipError, match="HxW"):
            parse_size(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"region": Region(0, 0, 9, 4)}, "outside the picture, which is 8 wide and 4 high"),
        ({"region": Region(0, 4, 1, 1)}, "outside"),
        ({"region": Region(0, 0, 1, 1), "left_half": True}, "not both"),
        ({"size": (5, 8)}, "cannot be averaged down to 5x8"),
    ],
)
def test_impossible_wishes_name_the_file(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    np.save(tmp_path / "clip.npy", _colours(2, 4, 8))
    with pytest.raises(ClipError, match=words) as caught:
        read_clip(tmp_path / "clip.npy", **options)
    assert "clip.npy" in str(caught.value)


def test_an_odd_picture_has_no_left_half() -> None:
    with pytest.raises(ClipError, match="7 pixels wide"):
        prepare(_colours(2, 4, 7), left_half=True)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4)), "shape"),
        (np.zeros((3, 4, 4, 2), np.uint8), "shape"),
        (np.zeros((3, 4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 4, 3), np.uint8), "empty"),
        (np.zeros((3, 4, 0, 3), np.uint8), "empty"),
        (np.zeros((3, 4, 4, 3), np.int64), "int64"),
        (np.zeros((3, 4, 4, 3), complex), "complex"),
        (np.full((3, 4, 4, 3), np.nan), "NaN"),
        (np.full((3, 4, 4, 3), 7.0), r"\[-1, 1\]"),
    ],
)
def test_arrays_that_are_no_clips(tmp_path: Path, array: NDArray[Any], words: str) -> None:
    np.savez(tmp_path / "clip.npz", video=array)
    with pytest.raises(ClipError, match=words):
        read_clip(tmp_path / "clip.npz")


def test_an_archive_without_a_clip(tmp_path: Path) -> None:
    np.savez(tmp_path / "clip.npz", first=_colours(1), second=_colours(1))
    with pytest.raises(ClipError, match="'video' or the only one"):
        read_frames(tmp_path / "clip.npz")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.array([{"frames": 3}], dtype=object), allow_pickle=True)
    with pytest.raises(ClipError, match="which is never opened"):
        read_frames(tmp_path / "clip.npy")


@pytest.mark.parametrize("name", ["clip.npy", "clip.npz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_truncated_array_files(tmp_path: Path, name: str, share: float) -> None:
    buffer = io.BytesIO()
    if name.endswith("npy"):
        np.save(buffer, _colours(20))
    else:
        np.savez(buffer, video=_colours(20))
    whole = buffer.getvalue()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ClipError, match="truncated"):
        read_frames(tmp_path / name)


def test_a_damaged_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "clip.npz", video=_colours(20))
    damaged = bytearray((tmp_path / "clip.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF  # the archive's own checksum must notice
    (tmp_path / "clip.npz").write_bytes(bytes(damaged))
    with pytest.raises(ClipError, match="truncated or damaged"):
        read_frames(tmp_path / "clip.npz")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clip.npz", "w") as archive:
        archive.writestr("video", "hello")
    with pytest.raises(ClipError):
        read_frames(tmp_path / "clip.npz")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("layout", ["mp4", "mp4 with its index first", "mkv"])
def test_truncated_videos(tmp_path: Path, layout: str, share: float) -> None:
    pictures = _colours(20)
    if layout == "mkv":
        path = _lossless(tmp_path / "clip.mkv", pictures)
    else:
        options = {"movflags": "faststart"} if "first" in layout else {}
        path = _write(tmp_path / "clip.mp4", pictures, "libx264", "yuv420p", **options)
    assert len(read_frames(path)) == 20
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ClipError, match="truncated") as caught:
        read_frames(path)
    assert path.name in str(caught.value)


def test_a_video_cut_within_its_last_frame(tmp_path: Path) -> None:
    """Motion JPEG decodes whatever is left of a frame, so only the container knows."""
    path = _write(tmp_path / "clip.mov", _colours(5), "mjpeg", "yuvj420p", movflags="faststart")
    assert len(read_frames(path)) == 5
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ClipError, match="ends within frame 5 of 5"):
        read_frames(path)


def test_a_damaged_video(tmp_path: Path) -> None:
    path = _write(tmp_path / "clip.mp4", _colours(20), "libx264", "yuv420p")
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(bytes(damaged))
    with pytest.raises(ClipError, match=r"damaged|not a readable video"):
        read_frames(path)


@pytest.mark.parametrize("content", [b"", b"hello " * 100])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(ClipError, match="not a readable video"):
        read_frames(tmp_path / "clip.mp4")


def test_sound_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ClipError, match="no video"):
        read_frames(path)


def test_a_video_of_no_frames(tmp_path: Path) -> None:
    path = _lossless(tmp_path / "clip.nut", _colours(1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        container.start_encoding()
    with pytest.raises(ClipError, match=r"0 frames|not a readable video"):
        read_frames(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        read_frames(tmp_path / "nowhere.mp4")
    with pytest.raises(ClipError, match="not a file"):
        read_frames(tmp_path)


@pytest.mark.skipif(not PAPER_CLIPS.is_dir(), reason="the paper's clips are not on this machine")
@pytest.mark.parametrize(("name", "side"), [("dmlab", 64), ("minecraft", 128)])
def test_the_papers_clips(name: str, side: int) -> None:
    path = sorted(PAPER_CLIPS.glob(f"{name}_*.mp4"))[0]
    frames = read_frames(path)
    assert frames.shape == (128, side, 2 * side, 3)
    assert looks_side_by_side(frames)
    truth = read_clip(path, left_half=True)
    np.testing.assert_array_equal(truth, read_clip(path, region=Region(0, 0, side, side)))
    small = read_clip(path, left_half=True, size=(32, 32), grey=True)
    np.testing.assert_allclose(small.mean((1, 2)), to_grey(truth).mean((1, 2)), atol=1e-12)
