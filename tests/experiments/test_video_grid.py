"""The grid of films: a file that plays, with every picture where it belongs."""

from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from arvdm_theory.data.clips import read_frames
from arvdm_theory.experiments.video.grid_figure import draw_grid
from arvdm_theory.experiments.video.run import film_table
from arvdm_theory.video.samples import Samples
from arvdm_theory.video.windows import Window

GIVEN, FRAMES = 2, 5
WINDOWS = (Window(0, 0, ((1, 3),)), Window(1, 0, ((0, 4),)))


def film(side: int, channels: int = 3) -> tuple[pd.DataFrame, dict[str, NDArray[np.uint8]]]:
    """Pictures of a truth and two networks, each of its own colour, and brighter on the left than on the right."""
    rng = np.random.default_rng(0)
    clips = {}
    for name in ("truth", "cross", "none"):
        flat = rng.integers(40, 216, (len(WINDOWS), FRAMES, 1, 1, channels), dtype=np.uint8)
        clips[name] = np.broadcast_to(flat, (len(WINDOWS), FRAMES, side, side, channels)).copy()
        clips[name][..., : side // 2, :] += 30
    for name in ("cross", "none"):
        clips[name][:, :GIVEN] = clips["truth"][:, :GIVEN]
    table = film_table(
        {
            name: Samples(WINDOWS, ("first", "second"), clips["truth"], clips[name], GIVEN)
            for name in ("cross", "none")
        }
    )
    return table, clips


# At the quantiser 10 a step of the transform is 2, so a coefficient that is rounded or dropped, and by Parseval
# the root mean square of a plane, is off by at most 2; red and blue are 1.16 of the brightness and up to 2.02 of a
# colour difference, which makes 6.4, and rounding to whole levels on the way there and back adds 1.6.
CODEC = 8.0


@pytest.mark.parametrize(("size", "channels", "side", "pitch"), [(16, 3, 96, 108), (13, 1, 91, 104)])
def test_every_picture_is_where_it_belongs(
    size: int, channels: int, side: int, pitch: int, tmp_path: Path
) -> None:
    table, clips = film(size, channels)
    draw_grid(table, tmp_path / "grid.mp4")
    shown = read_frames(tmp_path / "grid.mp4").astype(float)
    assert shown.shape == (FRAMES, 4 + 3 * pitch, 4 + 2 * pitch, 3)
    half = side * (size // 2) // size
    for row, name in enumerate(("truth", "none", "cross")):
        for column in range(len(WINDOWS)):
            top, left = 8 + row * pitch, 8 + column * pitch
            # Colour has half the resolution: away from edges.
            for part, source in (
                (slice(left + 6, left + half - 6), 0),
                (slice(left + half + 6, left + side - 6), -1),
            ):
                drawn = shown[:, top + 6 : top + side - 6, part]
                meant = clips[name][column, :, :1, source, None].astype(float)
                off = np.sqrt(((drawn - meant) ** 2).mean((1, 2)))
                assert (off < CODEC).all()


def test_every_pixel_stays_as_sharp_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 256, (1, FRAMES, 13, 13, 1), dtype=np.uint8)
    draw_grid(film_table({"none": Samples(WINDOWS[:1], ("a",), truth, truth, GIVEN)}), tmp_path / "grid.mp4")
    shown = read_frames(tmp_path / "grid.mp4").astype(float)
    meant = truth[0].repeat(7, 1).repeat(7, 2)
    for top in (8, 8 + 104):
        # Grey has brightness alone: 1.16 of a step of 2, and 1.1 for rounding.
        off = shown[:, top + 6 : top + 85, 14:93] - meant[:, 6:85, 6:85]
        assert (np.sqrt((off**2).mean((1, 2, 3))) < 3.5).all()


def test_borders_tell_what_is_generated(tmp_path: Path) -> None:
    table, _ = film(16)
    draw_grid(table, tmp_path / "grid.mp4")
    shown = read_frames(tmp_path / "grid.mp4").astype(float)
    colours = np.array([[128, 128, 128], [213, 0, 0], [255, 255, 255]])
    for row in range(3):
        for column in range(len(WINDOWS)):
            top, left = 4 + row * 108, 4 + column * 108
            edges = [shown[:, top + 1 : top + 3, left + 8 : left + 96], shown[:, top + 102, left + 8 : left + 96]]
            edges += [shown[:, top + 8 : top + 96, left + 2], shown[:, top + 8 : top + 96, left + 102]]
            for edge in edges:
                means = edge.reshape(FRAMES, -1, 3).mean(1)
                nearest = np.linalg.norm(means[:, None] - colours, axis=-1).argmin(1)
                made = 0 if row == 0 else 1
                assert nearest.tolist() == [0] * GIVEN + [made] * (FRAMES - GIVEN)


def test_browsers_play_it(tmp_path: Path) -> None:
    draw_grid(film(16)[0], tmp_path / "grid.mp4")
    with av.open(str(tmp_path / "grid.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        # Lossless H.264 has a profile of its own that browsers lack.
        assert stream.codec_context.profile in ("Constrained Baseline", "Baseline", "Main", "High")
        assert (stream.average_rate, stream.frames) == (8, FRAMES)
    # The index comes before the pictures.
    data = (tmp_path / "grid.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_what_makes_no_grid_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    table, _ = film(16)
    with pytest.raises(ValueError, match=r"an \.mp4 file, got grid\.gif"):
        draw_grid(table, tmp_path / "grid.gif")
    gone = (table["window"] == "second") & (table["source"] == "cross") & (table["frame"] == 3)
    with pytest.raises(ValueError, match="frame 3 of window second is missing from cross"):
        draw_grid(table[~gone], tmp_path / "grid.mp4")
    mixed = table.copy()
    mixed.loc[0, "shape"] = "8x32x3"
    with pytest.raises(ValueError, match="pictures of one size make a grid, got 8x32x3, 16x16x3"):
        draw_grid(mixed, tmp_path / "grid.mp4")
    assert list(tmp_path.iterdir()) == []
