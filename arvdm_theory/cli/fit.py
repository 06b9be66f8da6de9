"""``arvdm fit``: real clips in, a fitted Gaussian video and its held-out score out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from arvdm_theory.laws.fitted import FittedVideo
    from arvdm_theory.laws.fitting import FitReport

__all__ = ["add_clips", "clip_files", "configure", "read_clips", "run"]

# Modes that lose so much of the variance on held-out frames were fitted to what is particular to the others.
_LOST = 0.25
_CLIPS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".npy", ".npz", ".webm")

EXAMPLES = (
    "arvdm fit demo/clip1.mp4 demo/clip2.mp4 demo/clip3.mp4 --modes 4 --out demo/fitted.npz",
    "arvdm ledger --video demo/fitted.npz --references 4 --ar-steps 3",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "The last quarter of the clips (of one clip: of its frames) is held out and scored; clips that show the "
        "same frames stay together. The paper's own "
        "clips show the truth on the left and a model's frames on the right: fit them with --left-half."
    )
    add_clips(parser)
    add = parser.add_argument
    add("--order", default="auto", metavar="P", help="order of the autoregression, or 'auto' (cross-validated)")
    add("--memory", default="auto", choices=("auto", "long", "short"),
        help="long: memory goes on beyond the order, up to 64 frames; short: it ends there; auto: long, unless "
        "clips left out speak against it")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of the bottleneck's null and networks")
    add("--held-out", type=float, default=0.25, metavar="SHARE", help="share held out; 0 fits everything")
    add("--out", default="fitted.npz", metavar="FILE", help="where the fitted video goes")
    add("--bottleneck", default=None, metavar="M,M,...",
        help="also the memory bottleneck of the clips at so many references, three ways: second order, revisits "
        "and small networks (minutes)")  # fmt: skip
    add("--json", default=None, metavar="FILE", help="write the report there too")


def add_clips(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which clips, and what of them; :func:`read_clips` reads them."""
    add = parser.add_argument
    add("clips", nargs="+", metavar="CLIP",
        help="a video (mp4, ...), an .npz with the array 'video', an .npy, or a folder of such")  # fmt: skip
    add("--region", metavar="X,Y,W,H", help="fit this part of the picture (default: all of it)", default=None)
    add("--left-half", action="store_true", help="fit the left half of a picture that shows two side by side")
    add("--size", metavar="HxW", help="average the picture, or the part of it, down to this size", default=None)
    add("--grey", action="store_true", help="fit brightness, not colour")
    add("--modes", type=whole(), default=8, metavar="K", help="spatial modes, the dimension of a frame")


def run(args: argparse.Namespace) -> int:
    """Fits, writes the video, then prints the scores."""
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.laws.fitting import fit_video

    order, references = _order(args.order), _references(args.bottleneck)
    paths = clip_files(args.clips)
    check_outputs({"--out": args.out, "--json": args.json}, paths)
    clips, source = read_clips(args, paths)
    source["held_out"] = args.held_out
    memory = {"auto": None, "long": True, "short": False}[args.memory]
    video, report = fit_video(clips, args.modes, order, args.held_out, source, memory, progress=True)
    video.save(args.out)
    bottleneck = None
    if references:
        from arvdm_theory.video.bottleneck import clip_bottleneck

        memory_frames = max(16, 2 * max(references))
        bottleneck = clip_bottleneck(
            clips, references, modes=args.modes, memory=memory_frames, seed=args.seed, progress=True
        )
    if args.json is not None:
        model = {
            "modes": video.frame_dim,
            "order": video.head,
            "memory_frames": video.order,
            "tail": video.tail.tolist(),
            "cross_shrinkage": video.cross,
            "white_shrinkage": video.white,
            "scale": video.scale,
            "residual_variance": video.residual_variance,
        }
        told = {"source": source, "model": model, **report.as_dict()}
        if bottleneck is not None:
            told["bottleneck"] = bottleneck.as_dict()
        write_json(args.json, told)
    _print(video, report)
    if bottleneck is not None:
        from arvdm_theory.cli.tables import show_table

        print("\nmemory bottleneck, nats a frame:")
        show_table(bottleneck.table.drop(columns="notes"), number="{:.4f}".format)
        for line in bottleneck.words:
            print(line)
    print(f"\nwritten to {args.out}")
    return 0


def read_clips(args: argparse.Namespace, paths: list[str]) -> tuple[list[NDArray[np.float64]], dict[str, Any]]:
    """The pictures of every clip, and what they are, in words.

    Raises:
        ValueError: naming the clip that cannot be read, or the option.
        OSError: likewise.
    """
    from tqdm import tqdm

    from arvdm_theory.data.clips import ClipError, Region, looks_side_by_side, parse_size, prepare, read_frames
    from arvdm_theory.limits import require

    region = None if args.region is None else Region.parse(args.region)
    size = None if args.size is None else parse_size(args.size)
    clips: list[NDArray[np.float64]] = []
    wide = []
    seen: dict[str, str] = {}
    for path in tqdm(paths, "reading clips", disable=None, leave=False):
        frames = read_frames(path)
        _once(path, frames, seen)
        # The floats, a copy of them while they are fitted, and their moments.
        require(f"fitting {len(frames)} frames of {path}", memory=4 * 8.0 * frames.size)
        try:
            clips.append(prepare(frames, region=region, left_half=args.left_half, grey=args.grey, size=size))
        except ClipError as error:
            raise ClipError(f"{path}: {error}") from error
        if clips[-1].shape[1:] != clips[0].shape[1:]:
            raise ClipError(
                f"{path} has pictures of shape {clips[-1].shape[1:]}, {paths[0]} of {clips[0].shape[1:]}; "
                "--size brings them to one size"
            )
        if region is None and not args.left_half and looks_side_by_side(frames):
            wide.append(path)
    if wide:
        print(
            f"arvdm {args.command}: warning: the picture of {wide[0]} is twice as wide as high; if it shows two "
            "side by side, fit one with --left-half",
            file=sys.stderr,
        )
    return clips, {
        "clips": paths,
        "region": args.region,
        "left_half": args.left_half,
        "size": args.size,
        "grey": args.grey,
    }


def clip_files(paths: list[str]) -> list[str]:
    """The clips, those of folders in the order of their names."""
    found: list[str] = []
    for path in map(Path, paths):
        inside = (
            sorted(file for file in path.iterdir() if file.suffix.lower() in _CLIPS) if path.is_dir() else [path]
        )
        if not inside:
            raise ValueError(f"{path}: a folder without clips ({', '.join(_CLIPS)})")
        found += map(str, inside)
    return found


def _order(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise ValueError(f"--order is a whole number of at least 1, or 'auto', got {text!r}")
    return int(text)


def _references(text: str | None) -> list[int]:
    try:
        found = [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if any(count < 1 for count in found):
        raise ValueError(f"--bottleneck is numbers of references such as 1,2,4, got {text!r}")
    return found


def _once(path: str, frames: NDArray[Any], seen: dict[str, str]) -> None:
    """Refuses a clip that was given already: what is fitted would be held out, too, and score too well."""
    import hashlib

    digest = hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest()
    if digest in seen:
        raise ValueError(f"{path} shows the same as {seen[digest]}: give each clip once")
    seen[digest] = path


def _print(video: FittedVideo, report: FitReport) -> None:
    seen = report.variance_kept_held_out
    rows: list[tuple[str, Any]] = [
        ("modes", video.frame_dim),
        ("order of the autoregression", video.head),
        ("memory goes on to frame", video.order if len(video.tail) else "- (it ends at the order)"),
        ("  worth, on training clips left out", _gain(report.memory(), "nats/frame")),
        ("shrinkage: modes unrelated, white noise", f"{video.cross:g}, {video.white:g}"),
        ("pixel variance kept, training frames", f"{report.variance_kept:.1%}"),
        ("pixel variance kept, held-out frames", "-" if seen is None else f"{seen:.1%}"),
        ("noise floor per pixel (rms)", f"{video.residual_variance**0.5:.4f}"),
        ("frames: training, held out", f"{report.training_frames}, {sum(report.held_out_frames)}"),
    ]
    for label, value in rows:
        print(f"{label:<40} {value}")
    if seen is not None and report.variance_kept - seen > _LOST:
        print(
            "warning: the modes hold far less of frames that they were not found from: take fewer, or more clips"
        )
    if not report.scores:
        return
    print(f"\n{'held-out log-density':<22} {'nats/frame':>11}   {'fitted video gains':>20}")
    for law in report.scores:
        line = f"{law:<22} {report.nats_per_frame(law):>11.3f}"
        if law != "fitted":
            margin, error = report.margin(law)
            line += f"   {margin:>20.3f}" + ("" if error is None else f" ± {error:.3f}")
        print(line)
    if report.beaten:
        print(f"warning: on the held-out clips {report.beaten} does better than the fitted video")


def _gain(found: tuple[float, float | None] | None, unit: str) -> str:
    if found is None:
        return "not measured: too few or too short clips"
    gain, error = found
    return f"{gain:+.4f}" + ("" if error is None else f" ± {error:.4f}") + f" {unit}"
