"""Clips: a video file or an array file in, frames as an array (frames, height, width, channels) out.

Pixels come out on one scale, [-1, 1], whatever the file held: bytes v become v/127.5 - 1, and floating-point
numbers must lie in [-1, 1] already. Reading is deterministic: one decoding thread, and no resampling other
than the exact area average of :func:`resize`. Damage is an error where the decoder or the container notices it:
H.264 has no checksum, and pictures that were written over may decode to others without a complaint.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.arrays import load_array, npz_array, npz_names
from arvdm_theory.files import regular_file
from arvdm_theory.limits import require

__all__ = [
    "ClipError",
    "Region",
    "VideoHeader",
    "crop",
    "decode_frames",
    "looks_side_by_side",
    "parse_size",
    "prepare",
    "read_clip",
    "read_frames",
    "resize",
    "to_grey",
    "to_unit",
    "video_header",
    "write_mp4",
]

# Rec. 601 luma, the weights by which the 8-bit video of these files is itself encoded.
_LUMA = np.array([0.299, 0.587, 0.114])


class ClipError(ValueError):
    """A file is not a readable clip, or is not the clip that was asked for; the message names the file."""


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture: its top left corner (x right, y down) and its size, in pixels.

    Example:
        >>> Region.parse("0,0,64,64")
        Region(x=0, y=0, width=64, height=64)
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.x < 0 or self.y < 0 or self.width < 1 or self.height < 1:
            raise ClipError(f"a region needs x, y ≥ 0 and a size of at least 1 x 1 pixel, got {self}")

    @classmethod
    def parse(cls, text: str) -> Region:
        """Reads ``x,y,w,h``."""
        numbers = _whole_numbers(text, ",")
        if numbers is None or len(numbers) != 4:
            raise ClipError(f"a region is four whole numbers x,y,w,h, got {text!r}")
        return cls(*numbers)


def parse_size(text: str) -> tuple[int, int]:
    """Reads a picture size ``HxW``; (height, width), both at least 1."""
    numbers = _whole_numbers(text.lower(), "x")
    if numbers is None or len(numbers) != 2 or min(numbers) < 1:
        raise ClipError(f"a size is two positive whole numbers HxW, got {text!r}")
    return numbers[0], numbers[1]


def read_frames(path: str | Path) -> NDArray[Any]:
    """The frames of a clip as the file holds them, shape (frames, height, width, channels).

    ``.npy`` and ``.npz`` files give their own array: uint8, or floats as float64; grey clips (frames, height,
    width) get one channel. An ``.npz`` holds the clip under ``video``, or is a single array. Every other
    file is decoded by FFmpeg (PyAV) into 8-bit RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ClipError: if the file cannot be read, holds no frame, ends before its own header says it does, has
            damaged frames, or holds an array that is no clip (shape, type, NaN).
    """
    try:
        file = regular_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ClipError(f"{path}: not a file but a folder") from error
    except ValueError as error:
        raise ClipError(str(error)) from error
    if file.suffix.lower() in (".npy", ".npz"):
        return _checked(_load_array(file), file)
    frames = list(decode_frames(file))
    if not frames:
        raise ClipError(f"{file}: the video has 0 frames")
    if len({frame.shape for frame in frames}) > 1:
        raise ClipError(f"{file}: the pictures change size from {frames[0].shape} within the video")
    return np.stack(frames)


def to_unit(frames: NDArray[Any]) -> NDArray[np.float64]:
    """Pixels on the scale [-1, 1] as float64: uint8 v becomes v/127.5 - 1, floats must be on it already.

    Raises:
        ClipError: if floating-point pixels are NaN or leave [-1, 1].
    """
    if frames.dtype == np.uint8:
        scaled: NDArray[np.float64] = frames / 127.5 - 1.0
        return scaled
    values = frames.astype(np.float64)
    if not np.isfinite(values).all():
        raise ClipError("the clip has pixels that are NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < -1 or high > 1:
        raise ClipError(
            f"floating-point pixels must lie in [-1, 1], got {low:g} to {high:g} (store 0..255 as uint8)"
        )
    return values


def crop(frames: NDArray[Any], region: Region) -> NDArray[Any]:
    """The region of every frame.

    Raises:
        ClipError: if the region reaches outside the picture.
    """
    height, width = frames.shape[1:3]
    if region.x + region.width > width or region.y + region.height > height:
        raise ClipError(
            f"the region x,y,w,h = {region.x},{region.y},{region.width},{region.height} reaches outside the "
            f"picture, which is {width} wide and {height} high"
        )
    return frames[:, region.y : region.y + region.height, region.x : region.x + region.width]


def to_grey(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness 0.299 R + 0.587 G + 0.114 B (Rec. 601), one channel; a grey clip stays as it is."""
    return frames if frames.shape[-1] == 1 else (frames @ _LUMA)[..., None]


def resize(frames: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Every frame shrunk to height x width; each new pixel is the mean over the area that it covers.

    Sizes need not divide: a pixel cut by a border counts by the share of it that lies inside.

    Raises:
        ClipError: if the new size is not between 1 x 1 and the old one.
    """
    old_height, old_width = frames.shape[1:3]
    if not (1 <= height <= old_height and 1 <= width <= old_width):
        raise ClipError(f"a picture of {old_height}x{old_width} cannot be averaged down to {height}x{width}")
    rows, columns = _area_weights(old_height, height), _area_weights(old_width, width)
    small: NDArray[np.float64] = np.einsum("hy,tyxc,wx->thwc", rows, frames, columns, optimize=True)
    return small


def looks_side_by_side(frames: NDArray[Any]) -> bool:
    """Whether the picture is exactly twice as wide as high, as two square pictures side by side are."""
    return bool(frames.shape[2] == 2 * frames.shape[1])


def prepare(
    frames: NDArray[Any],
    *,
    region: Region | None = None,
    left_half: bool = False,
    grey: bool = False,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float64]:
    """Frames ready for fitting: cut out, on the scale [-1, 1], grey if wanted, averaged down to a size.

    Args:
        frames: shape (frames, height, width, channels), as :func:`read_frames` gives them.
        region: the part of the picture to keep.
        left_half: keep the left half of a picture that shows two side by side.
        grey: brightness instead of colour.
        size: (height, width) to average down to.

    Returns:
        float64, shape (frames, height, width, channels), in [-1, 1].

    Raises:
        ClipError: as :func:`crop`, :func:`to_unit` and :func:`resize`, or if both a region and the left half
            are asked for, or the picture has no middle.
    """
    if left_half:
        if region is not None:
            raise ClipError("choose a region or the left half, not both")
        height, width = frames.shape[1:3]
        if width % 2:
            raise ClipError(f"a picture {width} pixels wide has no left half")
        region = Region(0, 0, width // 2, height)
    if region is not None:
        frames = crop(frames, region)
    pixels = to_unit(frames)
    if grey:
        pixels = to_grey(pixels)
    return pixels if size is None else resize(pixels, *size)


def read_clip(
    path: str | Path,
    *,
    region: Region | None = None,
    left_half: bool = False,
    grey: bool = False,
    size: tuple[int, int] | None = None,
) -> NDArray[np.float64]:
    """The clip in a file, ready for fitting: :func:`read_frames`, then :func:`prepare`.

    Raises:
        FileNotFoundError: if there is no such file.
        ClipError: as those two; the message names the file.
    """
    frames = read_frames(path)
    try:
        return prepare(frames, region=region, left_half=left_half, grey=grey, size=size)
    except ClipError as error:
        raise ClipError(f"{path}: {error}") from error


def _whole_numbers(text: str, separator: str) -> list[int] | None:
    parts = [part.strip() for part in text.split(separator)]
    return [int(part) for part in parts] if all(part.isascii() and part.isdigit() for part in parts) else None


def _area_weights(old: int, new: int) -> NDArray[np.float64]:
    """Row i holds the share of each old pixel in new pixel [i·old/new, (i+1)·old/new], rows summing to 1."""
    edges = np.arange(new + 1) * (old / new)
    start = np.arange(old)
    overlap = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    weights: NDArray[np.float64] = np.maximum(overlap, 0) * (new / old)
    return weights


def _load_array(file: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file; of an ``.npz``, the one called ``video``, or the only one."""
    try:
        with file.open("rb") as stream:
            if stream.read(2) != b"PK":
                return load_array(file)
        names = npz_names(file)
        if "video" in names or len(names) == 1:
            return npz_array(file, "video" if "video" in names else names[0])
    except ValueError as error:
        raise ClipError(str(error)) from error
    raise ClipError(f"{file}: the clip must be the array 'video' or the only one, got {names}")


def _checked(array: NDArray[Any], file: Path) -> NDArray[Any]:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ClipError(f"{file}: pixels must be uint8 or floating-point, got {array.dtype}")
    clip = array[..., None] if array.ndim == 3 else array
    if clip.ndim != 4 or clip.shape[-1] not in (1, 3):
        raise ClipError(
            f"{file}: a clip has shape (frames, height, width) or (frames, height, width, 1 or 3), "
            f"got {array.shape}"
        )
    if 0 in clip.shape:
        raise ClipError(f"{file}: the clip is empty, shape {array.shape}")
    if clip.dtype.kind == "f":
        clip = clip.astype(np.float64)
        if not np.isfinite(clip).all():
            raise ClipError(f"{file}: the clip has pixels that are NaN or infinite")
    return clip


@dataclass(frozen=True)
class VideoHeader:
    """What a video file shows: how many frames, and their height and width as they are seen."""

    frames: int
    height: int
    width: int


def video_header(file: Path) -> VideoHeader:
    """Looks at every packet of a video file, and decodes the first frame, which knows how it is turned.

    Frames that the file's edit list leaves out, as in a clip that was trimmed without being encoded anew, do not
    count.

    Raises:
        ClipError: if the file is no video, is damaged, or holds fewer frames than its header says.
    """
    shown, size = 0, (0, 0)
    with _opened(file) as (container, stream):
        packets = 0
        for packet in container.demux(stream):
            packets += packet.size > 0
            shown += packet.size > 0 and not packet.is_discard
            if size == (0, 0):
                frame = next(iter(packet.decode()), None)
                if frame is not None:
                    size = (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)
        if packets < stream.frames or size == (0, 0):
            raise ClipError(f"{file}: truncated: of {stream.frames} frames only {packets} are there")
    return VideoHeader(shown, *size)


def decode_frames(file: Path) -> Iterator[NDArray[np.uint8]]:
    """Decoded frames, upright; what FFmpeg would gloss over (a file cut short, a frame patched up) is an error.

    Raises:
        ClipError: naming the file and what is wrong with it.
    """
    with _opened(file) as (container, stream):
        packets, count, end = 0, 0, 0.0
        first: Any = None
        last: Any = None
        usual: Any = None
        step: Any = None
        for packet in container.demux(stream):
            packets += packet.size > 0
            if packet.is_corrupt:
                raise ClipError(f"{file}: truncated: it ends within frame {packets} of {stream.frames}")
            if stream.codec_context.name in _NO_ZEROS and packet.size and bytes(_ZEROS) in bytes(packet):
                raise ClipError(f"{file}: damaged: zeros in place of frame {packets}")
            if packet.pts is not None and stream.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * stream.time_base))
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ClipError(f"{file}: frame {count + 1} is damaged")
                step = None if last is None or frame.pts is None else frame.pts - last
                # Matroska's readers skip what they do not understand; frames are missed by their time alone.
                gap = "matroska" in container.format.name and step and usual and step > 1.5 * usual
                if gap or (step is not None and step <= 0):
                    raise ClipError(
                        f"{file}: damaged or cut: frames are missing or out of order after frame {count}"
                    )
                first = frame.pts if first is None else first
                last, usual, count = frame.pts, step or usual, count + 1
                yield np.asarray(_turned(frame), dtype=np.uint8)
        promised = _tagged_seconds(stream.metadata.get("DURATION", ""))
        half_frame = 0.5 / float(stream.average_rate or 1)
        if packets < stream.frames or end < promised - half_frame:
            unit = "frames" if stream.frames else "seconds"
            there = (stream.frames, packets) if stream.frames else (promised, end)
            raise ClipError(f"{file}: truncated: of {there[0]} {unit} only {there[1]} are there")
        timed = usual is not None
        # What its edit list shows, in the stream's own time; a frame is left to rounding.
        if "mp4" in container.format.name and timed and last + 2 * usual - first < (stream.duration or 0):
            raise ClipError(f"{file}: damaged: it shows less than its header says")


# Codecs whose packets are entropy coded, which leaves no long run of zeros: pictures of one colour have 8 at most
# (measured on black, grey and white ones). A disk that was full or a download with a hole leaves blocks of them.
_NO_ZEROS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mjpeg", "mpeg4", "mpeg2video"})
_ZEROS = 32


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """A container and its first video stream, of which nothing that FFmpeg complains about goes unheard."""
    import av
    import av.logging

    if file.suffix.lower() == ".gif":
        _check_gif(file)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with (
            av.logging.Capture() as told,
            av.open(str(file), options={"err_detect": _STRICT}, metadata_errors="replace") as container,
        ):
            if not container.streams.video:
                raise ClipError(f"{file}: there is no video in this file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ClipError(f"{file}: its video is of no known kind")
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": _STRICT}
            height, width = stream.height, stream.width
            require(
                f"{file}: {stream.frames} frames of {width}x{height}", memory=3.0 * stream.frames * height * width
            )
            yield container, stream
            complaints = [message for grade, _, message in told if grade <= av.logging.ERROR]
            if complaints:
                raise ClipError(f"{file}: damaged ({complaints[0].strip()})")
    except ClipError as error:
        raise ClipError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
    except av.error.FFmpegError as error:
        raise ClipError(f"{file}: not a readable video, or truncated ({error.strerror})") from error
    finally:
        av.logging.set_level(level)


_STRICT = "explode+crccheck+bitstream+buffer"


def _turns(frame: Any) -> int:
    """Quarter turns to the left that show a picture as it is seen: a phone held upright films lying down.

    Raises:
        ClipError: if the file's display matrix turns by another angle, mirrors or squeezes.
    """
    from av.sidedata.sidedata import Type

    told = frame.side_data.get(Type.DISPLAYMATRIX)
    if told is None:
        return 0
    a, b, _, c, d, *_ = (value / 65536 for value in struct.unpack("=9i", bytes(told)))
    # Where x' = a x + c y and y' = b x + d y, with y down.
    turns = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
    try:
        return turns[a, b, c, d]
    except KeyError:
        raise ClipError(f"its display matrix {a:g}, {b:g}, {c:g}, {d:g} is no quarter turn") from None


def _turned(frame: Any) -> NDArray[Any]:
    turns, picture = _turns(frame), frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else np.asarray(picture)


def _check_gif(file: Path) -> None:
    """Walks a GIF's blocks, which have no check sums: FFmpeg passes over what it does not understand.

    Raises:
        ClipError: if a block is none, the file ends before its mark of the end, or a picture's data are zeros.
    """
    content, where = file.read_bytes(), 13

    def colours(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    try:
        if content[:3] != b"GIF":
            raise ClipError(f"{file}: not a GIF")
        where += colours(content[10])
        while content[where] != 0x3B:
            kind, parts = content[where], bytearray()
            if kind == 0x2C:  # a picture: its place, its colours, the width of its codes
                where += 11 + colours(content[where + 9])
            elif kind == 0x21:  # an extension
                where += 2
            else:
                raise ClipError(f"{file}: damaged: no block of a GIF at byte {where}")
            while size := content[where]:
                parts += content[where + 1 : where + 1 + size]
                where += 1 + size
            where += 1
            if kind == 0x2C and bytes(_ZEROS) in parts:
                raise ClipError(f"{file}: damaged: zeros in place of a picture before byte {where}")
    except IndexError:
        raise ClipError(f"{file}: truncated: a GIF without its end") from None


def _tagged_seconds(tag: str) -> float:
    """Seconds of Matroska's DURATION tag, hh:mm:ss.fraction; 0 where there is none."""
    try:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def write_mp4(frames: Iterable[NDArray[np.uint8]], path: Path, rate: int = 10, lossless: bool = True) -> None:
    """Writes pictures (height, width, 3), one a frame, as H.264 with one thread: the same bytes every time.

    Args:
        frames: all of one size; even sides unless ``lossless``.
        path: written as it is; for a whole file or none, the path of :func:`arvdm_theory.files.atomic_path`.
        rate: frames a second.
        lossless: equal frames stay equal; else for every player, at a fixed quantiser whose steps are about 2 of
            the 219 grey levels.
    """
    import av

    codec, pixels = ("libx264rgb", "rgb24") if lossless else ("libx264", "yuv420p")
    options = {"qp": "0", "preset": "veryfast"} if lossless else {"qp": "10", "bf": "0"}
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate))
        stream.pix_fmt = pixels
        stream.options = {**options, "threads": "1"}
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
