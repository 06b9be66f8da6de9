"""``arvdm demo``: small inputs for every command, made from videos whose law is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm demo demo",)

_SIDE, _FRAMES = 32, 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "The files are what the examples of every command's --help are given, which it prints. They are made, "
        "not filmed: two balls on a field whose light drifts; a hidden state and what it shows; noisy frames."
    )
    parser.add_argument("folder", nargs="?", default="demo", metavar="DIR", help="where they go")
    parser.add_argument("--seed", type=seed, default=0, help="of what is drawn")


def run(args: argparse.Namespace) -> int:
    """Makes the inputs, says what each is, and prints commands to try them with."""
    import numpy as np

    from arvdm_theory.cli import COMMANDS, module_of
    from arvdm_theory.cli.video import SUBCOMMANDS
    from arvdm_theory.files import atomic_path, check_folder

    folder = Path(args.folder)
    check_folder("DIR", args.folder)
    for name, (what, write) in _inputs(np.random.default_rng(args.seed)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / name) as temporary:
            write(temporary)
        if what:
            print(f"{folder / name!s:<32} {what}")
    print("\ntry:")
    for command in [*COMMANDS, *(f"video {name}" for name in SUBCOMMANDS)]:
        for line in getattr(module_of(command), "EXAMPLES", ()):
            if command != "demo":
                print("  " + line.replace("demo/", f"{folder}/"))
    return 0


Inputs = dict[str, tuple[str, Callable[[Path], Any]]]


def _inputs(rng: np.random.Generator) -> Inputs:
    """File → what it is (told once of several), and what writes it."""
    import numpy as np

    from arvdm_theory.data.clips import write_mp4
    from arvdm_theory.laws.linear import reference_video

    hidden = rng.normal(size=2000)
    x, z = (hidden + rng.normal(size=2000) for _ in range(2))
    y = hidden + 0.5 * rng.normal(size=2000)
    arrays = {
        "covariance": (
            "covariance of 40 frames of the reference video",
            reference_video().covariance(40)[0],
        ),
        "x": ("2000 samples of X = H + noise", x),
        "z": ("... of Z = H + noise, so that I(X; Z) = ½ log(4/3) = 0.1438 nats", z),
        "y": ("... and of Y = H + noise/2: given it, X and Z share 0.0141 nats", y),
        "p": ("2000 samples of P = N(0, 1)", rng.normal(size=2000)),
        "q": ("... and of Q = N(½, 1): KL(P ‖ Q) = 1/8", 0.5 + rng.normal(size=2000)),
        "joint": ("P(past, input, output): a bit, a poor copy of it, and a better one", _joint()),
        "kernel": ("Q(output | input) that guesses", np.full((2, 2), 0.5)),
    }
    made: Inputs = {f"{name}.npy": (what, partial(_save, array)) for name, (what, array) in arrays.items()}
    for number in range(1, 4):
        what = "" if number > 1 else "three clips of 80 frames of 32 x 32 pixels"
        made[f"clip{number}.mp4"] = what, partial(write_mp4, _film(rng))
    for number in range(3):
        clip = _film(rng)
        fading = np.linspace(2, 40, _FRAMES)[:, None, None, None] * rng.normal(size=clip.shape)
        worse = (clip + fading).clip(0, 255).round().astype(np.uint8)
        for kind, what, video in (("truth", "clips", clip), ("generated", "... that fade into noise", worse)):
            made[f"{kind}/{number}.npz"] = "" if number else what, partial(_save_video, video)
    return made


def _save(array: Any, path: Path) -> None:
    import numpy as np

    np.save(path, np.asarray(array))


def _save_video(video: NDArray[np.uint8], path: Path) -> None:
    import numpy as np

    np.savez_compressed(path, video=video)


def _joint() -> NDArray[np.float64]:
    """P(past, input, output): a fair bit; a copy that is wrong in 3 of 10 cases; one that is wrong in 1."""
    import numpy as np

    poor, good = (np.array([[1 - error, error], [error, 1 - error]]) for error in (0.3, 0.1))
    joint: NDArray[np.float64] = 0.5 * poor[:, :, None] * good[:, None, :]
    return joint


def _film(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Two balls that bounce over a field whose light drifts, (frames, side, side, 3)."""
    import numpy as np

    down, right = np.mgrid[:_SIDE, :_SIDE].astype(float)
    light = np.zeros((_FRAMES, 3))
    for frame in range(1, _FRAMES):
        light[frame] = 0.95 * light[frame - 1] + 6 * rng.normal(size=3)
    frames = 110 + light[:, None, None, :] + 3 * rng.normal(size=(_FRAMES, _SIDE, _SIDE, 3))
    for colour in ((90, -40, -60), (-60, 10, 90)):
        for frame, (y, x) in enumerate(_bounce(rng)):
            ball = np.exp(-((down - y) ** 2 + (right - x) ** 2) / 12)
            frames[frame] += ball[:, :, None] * np.array(colour)
    return frames.clip(0, 255).round().astype(np.uint8)


def _bounce(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    import numpy as np

    start, speed = rng.uniform(0, _SIDE, 2), rng.uniform(0.4, 1.2, 2)
    for frame in range(_FRAMES):
        place = (start + speed * frame) % (2 * _SIDE)
        y, x = np.minimum(place, 2 * _SIDE - place)
        yield float(y), float(x)
