"""``arvdm advise``: which plan for one's own clips, at a fixed cost of network evaluations a frame."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import seed, whole
from arvdm_theory.cli.fit import add_clips, clip_files, read_clips

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from arvdm_theory.choose.advice import Advice, Remember
    from arvdm_theory.laws.fitted import FittedVideo

__all__ = ["configure", "run"]

EXAMPLES = (
    "arvdm advise demo/clip1.mp4 demo/clip2.mp4 demo/clip3.mp4 --modes 2 --evaluations 2 --strides 1,2 "
    "--most-references 2 --frames 16 --draws 2 --out demo/advice",
)
# Seconds between two writes of what was computed.
_PAUSE = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "A Gaussian video is fitted to the clips; plans of Δ frames at a time, one or several chunks in flight, "
        "different references and their noise, all of N evaluations a frame (w M/Δ), are held against it exactly. "
        "The folder gets the recommended plan as a file, the table, the picture of what can be had at once, the "
        "fitted video, and what was computed: an interrupted run goes on from there."
    )
    add_clips(parser)
    add = parser.add_argument
    add(
        "--evaluations",
        type=whole(),
        required=True,
        metavar="N",
        help="how often a frame goes through the network",
    )
    add("--strides", default="1,2,4", metavar="D,D,...", help="frames at a time that are tried")
    add("--most-references", type=whole(0, 1000), default=8, metavar="M", help="the most past frames to look at")
    add(
        "--frames",
        type=whole(2, 10_000),
        default=24,
        metavar="F",
        help="frames that the KL is taken over, at least",
    )
    add("--horizon", type=float, default=6.0, metavar="T", help="T, the level of pure noise")
    add("--step", default="exponential", metavar="STEP", help="the reverse step, as of `arvdm ledger`")
    add("--draws", type=whole(0, 10_000), default=20, metavar="B", help="bootstraps over the clips")
    add("--seconds", type=float, default=150.0, metavar="S", help="no further bootstrap is begun after so long")
    add("--seed", type=seed, default=0, help="of the bootstrap")
    add("--json", metavar="OUT.json", help="write the advice here, too")
    add("--out", default="advice", metavar="DIR", help="the folder of all that is found")


def run(args: argparse.Namespace) -> int:
    """Fits, compares, and says which plan."""
    from pathlib import Path

    from arvdm_theory.choose.advice import advise
    from arvdm_theory.choose.candidates import shapes
    from arvdm_theory.diffusion.steps import reverse_step
    from arvdm_theory.executors import one_thread
    from arvdm_theory.files import check_folder, check_outputs, locked, write_json
    from arvdm_theory.laws.fitting import fit_video
    from arvdm_theory.plan.file import save_plan
    from arvdm_theory.provenance import provenance
    from arvdm_theory.report.choices import advice_front
    from arvdm_theory.report.style import save, style
    from arvdm_theory.tables import write_table

    began = time.monotonic()
    strides = _strides(args.strides)
    shapes(args.evaluations, strides)  # said before anything is read
    reverse_step(args.step)
    if not args.seconds > 0:
        raise ValueError(f"--seconds must be positive, got {args.seconds}")
    if not 0 < args.horizon < float("inf"):
        raise ValueError(f"--horizon must be positive and finite, got {args.horizon}")
    if args.modes < 1:
        raise ValueError(f"--modes must be at least 1, got {args.modes}")
    paths = clip_files(args.clips)
    check_outputs({"--json": args.json}, paths)
    check_folder("--out", args.out)
    _afford(args, strides)
    clips, source = read_clips(args, paths)
    folder = Path(args.out)
    config = {
        **source, "modes": args.modes, "evaluations": args.evaluations, "strides": strides, "frames": args.frames,
        "most_references": args.most_references, "horizon": args.horizon, "step": args.step, "draws": args.draws,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with one_thread(), locked(folder / "advice.json", wait=False) as held:
        if not held:
            raise ValueError(f"--out {folder}: another run is at work there")
        video, _ = fit_video(clips, args.modes, held_out=0.0, source=source, progress=True)
        draws = (
            [partial(_bootstrap, clips, video, args.seed, n) for n in range(args.draws)] if len(clips) > 1 else []
        )
        with _kept(folder / "progress.json", _key(clips, config, args.seed)) as remember:
            found = advise(
                video, args.evaluations, strides=strides, most=args.most_references, horizon=args.horizon,
                frames=args.frames, step=args.step, draws=draws, remember=remember, progress=True,
                enough=lambda: time.monotonic() - began > args.seconds,
            )  # fmt: skip
        content = found.to_dict() | {"provenance": provenance(config, args.seed)}
        video.save(folder / "fitted.npz")
        save_plan(folder / "recommended.json", found.recommended)
        write_table(found.table, folder / "table.csv")
        write_table(found.sensitivity, folder / "sensitivity.csv")
        with style():
            save(advice_front(found.table), folder / "front.png")
        write_json(folder / "advice.json", content)
    if args.json is not None:
        write_json(args.json, content)
    _print(found, folder)
    return 0


def _strides(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and 0 < int(part[:6]) <= 1000 for part in parts):
        raise ValueError(f"--strides: whole numbers from 1 to 1000 with commas between, as in 1,2,4; got {text!r}")
    return sorted({int(part) for part in parts})


def _afford(args: argparse.Namespace, strides: Sequence[int]) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    frames = max(args.frames, 8 * max(strides)) + max(strides)
    local = (4 * max(strides) + args.most_references) * args.modes
    plans = 13 * len(strides) * (3 + args.draws * 3 / 4)
    once = 4e-9 * float(frames * args.modes) ** 3 + frames * args.evaluations * (4e-4 + 4e-9 * float(local) ** 3)
    require(f"advice on {frames} frames of {args.modes} modes", seconds=plans * once,
            memory=100.0 * (frames * args.modes) ** 2 + 20.0 * args.evaluations * float(local) ** 2)  # fmt: skip


def _bootstrap(clips: Sequence[NDArray[np.float64]], video: FittedVideo, chosen: int, number: int) -> FittedVideo:
    """The video fitted to as many clips, drawn with replacement; its order and kind of memory stay as chosen."""
    import numpy as np

    from arvdm_theory.laws.fitting import fit_video

    rng = np.random.default_rng([chosen, number])
    drawn = rng.integers(len(clips), size=len(clips))
    while len(set(drawn.tolist())) < 2:
        drawn = rng.integers(len(clips), size=len(clips))
    again, _ = fit_video(
        [clips[i] for i in sorted(drawn.tolist())], video.frame_dim, order=video.head, held_out=0.0,
        memory=len(video.tail) > 0,
    )  # fmt: skip
    return again


def _key(clips: Sequence[NDArray[np.float64]], config: dict[str, Any], chosen: int) -> str:
    """What a run's results depend on."""
    import hashlib
    import json

    from arvdm_theory.provenance import source_digest

    modules = ("arvdm_theory.choose.advice", "arvdm_theory.laws.fitting")
    digest = hashlib.sha256("".join(map(source_digest, modules)).encode())
    # More bootstraps, and other folders of the same clips, go on with what there is.
    told = {name: value for name, value in config.items() if name not in ("draws", "clips")}
    digest.update(json.dumps([told, chosen], sort_keys=True).encode())
    for clip in clips:
        digest.update(repr(clip.shape).encode() + clip.tobytes())
    return digest.hexdigest()


@contextmanager
def _kept(path: Path, key: str) -> Iterator[Remember]:
    """Within the block what is computed is kept in a file, and taken from it if it is of the same run."""
    from arvdm_theory.files import read_json, write_json

    values: dict[str, Any] = {}
    if path.exists():
        try:
            before = read_json(path)
        except ValueError:
            before = {}  # cut short by something else: begin anew
        if before.get("key") == key and isinstance(before.get("values"), dict):
            values = before["values"]
    written, fresh = time.monotonic(), False

    def write() -> None:
        nonlocal written, fresh
        if fresh:
            write_json(path, {"key": key, "values": values})
        written, fresh = time.monotonic(), False

    def remember(name: str, compute: Callable[[], Any]) -> Any:
        nonlocal fresh
        if name not in values:
            values[name], fresh = compute(), True
            if time.monotonic() - written > _PAUSE:
                write()
        return values[name]

    try:
        yield remember
    finally:
        write()


def _print(found: Advice, folder: Path) -> None:
    """The best of the table, the reasons, how sure they are, and what is not seen."""
    from arvdm_theory.cli.tables import show_table

    columns = ["name", "kl", "last_clip", "mb", "evaluations", "seen", "front"]
    show_table(found.table[columns].head(12), "{:.4g}".format)
    print(
        f"{len(found.table)} plans, over {found.frames} frames, in nats a frame; all in {folder / 'table.csv'}\n"
    )
    print(f"recommended: {found.name}  ({folder / 'recommended.json'})")
    for reason in found.reasons:
        print(f"  - {reason}")
    stability = found.stability
    if stability["draws"]:
        print(f"  - of the bootstraps, {stability['fixed']}")
    if stability["draws"] < stability["asked"]:
        print(f"  - {stability['asked'] - stability['draws']} bootstraps were left out: the time was up")
    elif not stability["asked"]:
        print("  - there is no bootstrap: how sure this is was not asked, or there is but one clip")
    print("it cannot see:")
    for note in found.unseen:
        print(f"  - {note}")
