"""Clips as they come from phones, editors, half-written disks and games: read as they are seen, or refused."""

import json
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.data.basalt import KEYS, Basalt
from arvdm_theory.data.clips import ClipError, read_frames, video_header
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.teco import TecoMinecraft

Pictures = NDArray[np.uint8]


def moving(frames: int = 24, height: int = 48, width: int = 64) -> Pictures:
    """A picture with noise that moves to the right, so that every frame has something to encode."""
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(height, width, 3)).cumsum(0).cumsum(1)
    shown = np.stack([np.roll(picture, t, 1) + 2 * rng.normal(size=picture.shape) for t in range(frames)])
    return np.uint8(255 * (shown - shown.min()) / np.ptp(shown))


def encode(path: Path, pictures: Pictures, codec: str, pixels: str, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(20))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pixels
        stream.options = {"threads": "1", **options}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


FORMATS = {
    "clip.mp4": ("libx264", "yuv420p"),
    "clip.mkv": ("libx264", "yuv420p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "clip.avi": ("mpeg4", "yuv420p"),
    "clip.gif": ("gif", "rgb8"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_zeroed_bytes_are_never_glossed_over(name: str, tmp_path: Path) -> None:
    """64 zeros at 40 places of each format: the pictures are those of the whole file, or the file is refused."""
    path = tmp_path / name
    encode(path, moving(), *FORMATS[name])
    whole, content = read_frames(path), path.read_bytes()
    assert len(whole) == 24
    refused = 0
    for place in np.random.default_rng(1).integers(0, len(content) - 64, 40):
        path.write_bytes(content[:place] + bytes(64) + content[place + 64 :])
        try:
            shown = read_frames(path)
        except ClipError:
            refused += 1
        else:
            np.testing.assert_array_equal(shown, whole, err_msg=f"byte {place}")
    assert refused >= 5  # much of an AVI is padding


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_pictures_of_one_colour_are_not_taken_for_damage(name: str, level: int, tmp_path: Path) -> None:
    pictures = np.full((12, 48, 64, 3), level, np.uint8)
    encode(tmp_path / name, pictures, *FORMATS[name])
    shown = read_frames(tmp_path / name)
    assert shown.shape == pictures.shape
    assert np.abs(shown.astype(int) - level).max() <= 85  # rgb8 has four levels of blue


def atom(content: bytes, name: bytes) -> int:
    """Where the content of an MP4's atom begins."""
    return content.index(name) + 4


def turned(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes a display matrix (a, b, c, d) into the track's header, as a phone does."""
    content = bytearray(path.read_bytes())
    where = atom(bytes(content), b"tkhd") + 40
    a, b, c, d = (65536 * value for value in matrix)
    struct.pack_into(">9i", content, where, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
)
def test_a_turned_clip_is_read_as_it_is_seen(
    matrix: tuple[int, int, int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    """QuickTime's x' = a x + c y, y' = b x + d y, y down: (0, 1, -1, 0) takes the top left to the top right."""
    pictures = np.zeros((6, 48, 80, 3), np.uint8)
    pictures[:, :16, :16] = 255
    path = tmp_path / "clip.mp4"
    encode(path, pictures, "libx264", "yuv420p")
    turned(path, matrix)
    shown, header = read_frames(path), video_header(path)
    size = (80, 48) if matrix[0] == 0 else (48, 80)
    assert shown.shape == (6, *size, 3)
    assert (header.frames, header.height, header.width) == (6, *size)
    bright = np.argwhere(shown[0, ..., 0] > 128).mean(0)
    expected = [7.5 if place == 0 else length - 8.5 for place, length in zip(corner, size, strict=True)]
    np.testing.assert_allclose(bright, expected, atol=1.0)  # the codec blurs the edge


def trimmed(path: Path, pictures: Pictures, first: int) -> None:
    """A clip trimmed without being encoded anew: all packets are there, an edit list hides the first ones."""
    with av.open(str(path), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(20))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1", "bf": "0", "g": "100"}
        packets = []
        for picture in pictures:
            packets += stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        packets += stream.encode()
        for packet in packets:
            length = int(1 / 20 / packet.time_base)
            packet.pts -= first * length
            packet.dts -= first * length
            container.mux(packet)


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path) -> None:
    pictures = moving(40)
    whole = tmp_path / "whole.mp4"
    trimmed(whole, pictures, 0)
    path = tmp_path / "train" / "0" / "clip.mp4"
    path.parent.mkdir(parents=True)
    trimmed(path, pictures, 12)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40  # what a header alone would say
    assert video_header(path).frames == 28
    np.testing.assert_array_equal(read_frames(path), read_frames(whole)[12:])
    np.savez(path.with_suffix(".npz"), actions=np.arange(28) % 4)
    dataset = ClipDataset(build_index(tmp_path, TecoMinecraft(), progress=False), "next")
    np.testing.assert_array_equal(dataset[0].frames, read_frames(whole)[12:])


# -- BASALT -------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path, lossless_mp4: Callable[[Path, Pictures], None]) -> Callable[..., NDArray[np.float32]]:
    """The actions of a recording whose lines are given; a line's fields over those of a quiet frame."""

    def record(*lines: dict[str, object]) -> NDArray[np.float32]:
        quiet = {"mouse": {"dx": 0.0, "dy": 0.0, "buttons": []}, "keyboard": {"keys": []}}
        lossless_mp4(tmp_path / "player.mp4", np.zeros((len(lines), 16, 32, 3), np.uint8))
        text = "".join(json.dumps({**quiet, **line}, ensure_ascii=False) + "\n" for line in lines)
        (tmp_path / "player.jsonl").write_text(text, encoding="utf-8")
        return Basalt().actions(tmp_path / "player.mp4")

    return record


def held(actions: NDArray[np.float32], key: str) -> list[int]:
    return actions[:, 2 + KEYS.index(key)].astype(int).tolist()


def test_a_line_separator_inside_a_line_is_no_end_of_it(recorded: Callable[..., NDArray[np.float32]]) -> None:
    said = [
        {"keyboard": {"keys": ["key.keyboard.w"], "chars": f"a{mark}b"}} for mark in "\u2028\u2029\x85\x0b\x1e"
    ]
    assert held(recorded(*said), "key.keyboard.w") == [1] * 5


def mouse(buttons: list[int], new: list[int]) -> dict[str, object]:
    return {"mouse": {"dx": 0.0, "dy": 0.0, "buttons": buttons, "newButtons": new}}


def test_an_attack_that_nobody_holds_is_not_held(recorded: Callable[..., NDArray[np.float32]]) -> None:
    stuck = recorded(mouse([0], [0]), mouse([0, 1], [1]), mouse([0], []), mouse([0], [0]), mouse([0], []))
    assert held(stuck, "mouse.0") == [0, 0, 0, 1, 1]
    assert held(stuck, "mouse.1") == [0, 1, 0, 0, 0]
    honest = recorded(mouse([], []), mouse([0], [0]), mouse([0], []), mouse([], []))
    assert held(honest, "mouse.0") == [0, 1, 1, 0]


def test_a_slot_that_the_wheel_chose_counts_as_its_key(recorded: Callable[..., NDArray[np.float32]]) -> None:
    actions = recorded({"hotbar": 3}, {"hotbar": 3}, {"hotbar": 5}, {"hotbar": 5}, {"hotbar": 0})
    assert held(actions, "key.keyboard.6") == [0, 0, 1, 0, 0]
    assert held(actions, "key.keyboard.1") == [0, 0, 0, 0, 1]
    assert held(actions, "key.keyboard.4") == [0] * 5


def test_the_camera_stands_still_while_a_menu_is_open(recorded: Callable[..., NDArray[np.float32]]) -> None:
    turn = {"mouse": {"dx": 20.0, "dy": -40.0, "buttons": [0]}}
    actions = recorded({**turn, "isGuiOpen": False}, {**turn, "isGuiOpen": True}, turn)
    np.testing.assert_allclose(actions[:, :2], [[3.0, -6.0], [0.0, 0.0], [3.0, -6.0]])
    assert held(actions, "mouse.0") == [1, 1, 1]


@pytest.mark.parametrize("line", ["[1]", "7", '{"mouse": 3}', '{"mouse": {"dx": 1e999, "dy": 0}}', "[" * 5000])
def test_a_line_that_is_no_action_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "player.jsonl").write_text(line + "\n")
    with pytest.raises(ClipError, match=r"player\.jsonl: line 1 is no action"):
        Basalt().actions(tmp_path / "player.mp4")
