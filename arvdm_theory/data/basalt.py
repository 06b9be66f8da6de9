"""MineRL BASALT: ``.mp4`` videos of people playing Minecraft, each with a ``.jsonl`` of their mouse and keys.

A line of the ``.jsonl`` is one frame,

    {"mouse": {"dx": .., "dy": .., "buttons": [..], "newButtons": [..]}, "keyboard": {"keys": [..]},
     "hotbar": .., "isGuiOpen": ..},

and more that is not read here; the last three may be missing. The action of a frame becomes a vector: the camera's
turn to the right and down in degrees, then 1 for every key or button of :data:`KEYS` that is held and 0 for the
others. What recordings are known to say wrongly is put right:

- Some begin with the attack button held that nobody holds (the first line has it as a new one). It counts as held
  from the next time it is pressed.
- The mouse wheel changes the chosen slot of the hot bar, and no key shows it: a slot that differs from the last
  frame's counts as its digit's key.
- While a menu is open the mouse moves a pointer, and the camera stands still.

Source: Milani et al., BEDD: The MineRL BASALT Evaluation and Demonstrations Dataset (arXiv 2312.02405); 2400 mouse
units are one full turn, as in the loader published with OpenAI's VPT, which knows of the first two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.decoding import decode_window, inspect_video
from arvdm_theory.data.formats import Header
from arvdm_theory.files import regular_file

__all__ = ["KEYS", "Basalt"]

KEYS = (
    "key.keyboard.w",
    "key.keyboard.s",
    "key.keyboard.a",
    "key.keyboard.d",
    "key.keyboard.space",
    "key.keyboard.left.shift",
    "key.keyboard.left.control",
    "key.keyboard.e",
    "key.keyboard.q",
    "key.keyboard.f",
    "key.keyboard.escape",
    *(f"key.keyboard.{digit}" for digit in range(1, 10)),
    "mouse.0",
    "mouse.1",
    "mouse.2",
)

_DEGREES_A_MOUSE_UNIT = 360 / 2400


@dataclass(frozen=True)
class Basalt:
    """Videos ``*.mp4`` below a folder, each with a ``.jsonl`` of the same name; a frame's middle square is kept.

    They are 640 x 360 pixels and minutes long, and to reach a window far into a video takes long: read them
    through a :mod:`~arvdm_theory.data.cache`.
    """

    name: str = "MineRL BASALT"
    pattern: str = "**/*.mp4"
    no_action: float = 0.0

    def companions(self, path: Path) -> tuple[Path, ...]:
        """The file of actions."""
        return (path.with_suffix(".jsonl"),)

    def inspect(self, path: Path) -> Header:
        """Looks at every packet of the video and reads all actions.

        Raises:
            ClipError: if one of them cannot be read, or their lengths differ.
        """
        header = inspect_video(path)
        actions = self.actions(path)
        if len(actions) != header.frames:
            raise ClipError(f"{path.name}: {header.frames} frames but {len(actions)} actions")
        return header

    def check_size(self, header: Header, size: int | None) -> tuple[int, int]:
        """Any size up to that of the middle square; a pixel that is cut counts by its share."""
        side = min(header.height, header.width)
        size = side if size is None else size
        if not 1 <= size <= side:
            raise ClipError(
                f"frames of {header.height}x{header.width} pixels cannot be averaged down to {size}x{size}"
            )
        return size, size

    def frames(self, path: Path, start: int, stop: int, size: int | None) -> NDArray[np.uint8]:
        """Frames start, ..., stop - 1, cut out and averaged down."""
        return decode_window(path, start, stop, size, middle_square=True)

    def actions(self, path: Path) -> NDArray[np.float32]:
        """All actions, shape (frames, 2 + len(KEYS))."""
        file = path.with_suffix(".jsonl")
        try:
            # By newlines alone: a text inside a line may hold characters at which splitlines would part it.
            lines = regular_file(file).read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, ValueError) as error:
            raise ClipError(f"{file.name}: no such file, or no text") from error
        actions = np.zeros((len(lines), 2 + len(KEYS)), np.float32)
        stuck, slot = False, None
        for number, line in enumerate(lines):
            try:
                frame = json.loads(line)
                camera, held = _parse(frame)
                pressed = list(frame["mouse"].get("newButtons", ()))
                stuck = pressed == [0] if number == 0 else stuck and 0 not in pressed
                if stuck:
                    held.discard("mouse.0")
                last, slot = slot, frame.get("hotbar")
                if None not in (last, slot) and slot != last:
                    held.add(f"key.keyboard.{int(slot) + 1}")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ClipError(f"{file.name}: line {number + 1} is no action of mouse and keyboard") from error
            actions[number, :2] = camera
            actions[number, 2:] = [key in held for key in KEYS]
        return actions


def _parse(line: dict[str, Any]) -> tuple[tuple[float, float], set[str]]:
    mouse = line["mouse"]
    camera = (float(mouse["dx"]) * _DEGREES_A_MOUSE_UNIT, float(mouse["dy"]) * _DEGREES_A_MOUSE_UNIT)
    if not np.isfinite(camera).all():
        raise ValueError("the mouse must move by finite amounts")
    if line.get("isGuiOpen"):
        camera = (0.0, 0.0)
    return camera, {*line["keyboard"]["keys"], *(f"mouse.{button}" for button in mouse.get("buttons", ()))}
