"""``arvdm video evaluate``: folders of clips in, quality and retrieval out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    import pandas as pd

    from arvdm_theory.video.folders import Evaluation
    from arvdm_theory.video.verdict import Rule

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm video evaluate --truth demo/truth --generated demo/generated",)


# Levels of wrong verdicts that are reported beside the one that is asked for.
_LEVELS = (0.15, 0.2, 0.25, 0.35)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "Networks are files of your own, nothing is downloaded. A PSNR of null in the JSON file, inf in the "
        "table, is that of frames that equal the truth. Skipped clips are listed with their reasons."
    )
    add = parser.add_argument
    add("--side-by-side", metavar="DIR", default=None,
        help="clips that show the truth on the left and the model's frames on the right, those it predicted with "
        "a border, as on the paper's project page")  # fmt: skip
    add("--calibrated-on", metavar="FILE", default=None,
        help="judged clips that verdicts on side-by-side clips are calibrated on, as --clips writes them "
        "(default: those of the paper's project page)")  # fmt: skip
    add("--error", type=float, metavar="P", default=None,
        help="share of successes, and of failures, that may be judged wrongly; the rest is 'can't tell' (default: "
        "1/8)")  # fmt: skip
    add("--truth", metavar="DIR", default=None, help="true clips (mp4, npz, npy), paired by file name with ...")
    add("--generated", metavar="DIR", default=None, help="... the generated ones")
    add("--first-predicted-frame", type=whole(), metavar="N", default=None,
        help="score from this frame on (default: side by side as measured, else 0)")  # fmt: skip
    add("--crop", type=whole(), metavar="PX", default=None,
        help="cut this many pixels off each side (default: side by side 6, the border; else 0)")  # fmt: skip
    add("--floats", choices=("unit", "symmetric"), default=None,
        help="scale of floating-point clips: [0, 1] or [-1, 1] (default: asked for if unclear)")  # fmt: skip
    add("--lpips", metavar="FILE", default=None,
        help="weights of LPIPS (.safetensors): adds the perceptual distance")  # fmt: skip
    add("--fvd", metavar="PATH", default=None,
        help="weights of an I3D (.safetensors), or folder with a VideoMAE: adds the Fréchet distance")  # fmt: skip
    add("--fvd-frames", type=whole(), metavar="F", default=16, help="frames that an I3D is shown at once")
    add("--trust-code", action="store_true",
        help="--lpips and --fvd may be TorchScript: a program, which can write any file")  # fmt: skip
    add("--json", metavar="FILE", default=None, help="write the scores here")
    add("--clips", metavar="FILE", default=None,
        help="write what verdicts on side-by-side clips are made of here, as CSV: file, group, authors (their "
        "verdict, if the name says it), views, psnr")  # fmt: skip
    add("--held-out", metavar="FILE", default=None,
        help="write how often verdicts are given, and wrong, each clip judged by all others, as CSV: of clips "
        "named GROUP_success_* and GROUP_fail_*")  # fmt: skip
    add("--table", metavar="FILE", default=None, help="write every frame's scores here, as CSV")


def run(args: argparse.Namespace) -> int:
    """Scores, writes the files, then prints the table."""
    from pathlib import Path

    from arvdm_theory.files import write_json
    from arvdm_theory.provenance import provenance
    from arvdm_theory.tables import write_table
    from arvdm_theory.video.features import load_lpips, load_video_features
    from arvdm_theory.video.folders import evaluate_pairs, evaluate_side_by_side, scored_clips
    from arvdm_theory.video.metrics import curve_table
    from arvdm_theory.video.side_by_side import BORDER
    from arvdm_theory.video.verdict import LEVEL, leave_one_out

    _check(args)
    rule = _rule(args) if args.side_by_side is not None else None
    lpips = None if args.lpips is None else load_lpips(args.lpips, args.trust_code)
    features = None if args.fvd is None else load_video_features(args.fvd, args.fvd_frames, args.trust_code)
    crop = args.crop if args.crop is not None else 0 if rule is None else BORDER
    if rule is not None:
        result = evaluate_side_by_side(
            args.side_by_side,
            rule=rule,
            first=args.first_predicted_frame,
            crop=crop,
            lpips=lpips,
            features=features,
        )
    else:
        result = evaluate_pairs(
            args.truth, args.generated, first=args.first_predicted_frame or 0, crop=crop, lpips=lpips,
            features=features, floats=args.floats,
        )  # fmt: skip
    held_out = None
    if rule is not None:
        clips = scored_clips(result.rows)
        if args.clips is not None:
            write_table(clips, Path(args.clips))
        if clips.authors.nunique() == 2:
            held_out = leave_one_out(clips, sorted({rule.level, LEVEL, *_LEVELS}))
            if args.held_out is not None:
                write_table(held_out, Path(args.held_out))
                write_json(
                    Path(args.held_out).with_suffix(".provenance.json"),
                    provenance({"clips": clips.file.tolist()}, 0),
                )
        elif args.held_out is not None:
            raise ValueError("--held-out asks for clips named GROUP_success_* and others named GROUP_fail_*")
    if args.json is not None:
        config = {
            name: getattr(args, name)
            for name in (
                "side_by_side",
                "calibrated_on",
                "error",
                "truth",
                "generated",
                "first_predicted_frame",
                "lpips",
                "fvd",
                "fvd_frames",
                "floats",
            )
        }
        report: dict[str, Any] = {
            "clips": result.rows,
            "skipped": [{"file": name, "reason": reason} for name, reason in result.skipped],
        }
        if rule is not None:
            report |= {"rule": rule.words}
            if held_out is not None:
                report["held_out"] = held_out.to_dict("records")
        if result.fvd is not None and features is not None:
            distance = result.fvd.distance
            report["fvd"] = {
                "value": distance.value, "samples_truth": result.fvd.samples_truth,
                "samples_generated": result.fvd.samples_generated, "dimension": result.fvd.dimension,
                "note": "".join(distance.warnings), "network": features.name, "frames": features.frames,
            }  # fmt: skip
        if features is not None:
            left_out = result.without_features
            report["without_features"] = [{"file": name, "reason": reason} for name, reason in left_out]
        write_json(args.json, {**report, "provenance": provenance({**config, "crop": crop}, seed=0)})
    if args.table is not None:
        write_table(curve_table(result.curves, result.first_frame), Path(args.table))
    _print(result, rule, held_out)
    return 0


def _rule(args: argparse.Namespace) -> Rule:
    """What verdicts are made by."""
    from arvdm_theory.tables import read_table
    from arvdm_theory.video.verdict import LEVEL, Rule, paper_rule

    level = LEVEL if args.error is None else args.error
    if args.calibrated_on is None:
        return paper_rule(level)
    return Rule.of(read_table(args.calibrated_on), args.calibrated_on, level)


def _check(args: argparse.Namespace) -> None:
    """Refuses, before any work, options that contradict and outputs that cannot be written."""
    from arvdm_theory.files import check_outputs
    from arvdm_theory.video.folders import clips_of

    pair = args.truth is not None and args.generated is not None
    any_of_pair = args.truth is not None or args.generated is not None
    if (args.side_by_side is not None) == any_of_pair or any_of_pair != pair:
        raise ValueError("give --side-by-side DIR, or both --truth DIR and --generated DIR")
    if args.first_predicted_frame is not None and args.first_predicted_frame < 0:
        raise ValueError(f"--first-predicted-frame is at least 0, got {args.first_predicted_frame}")
    for option in ("calibrated_on", "error", "clips", "held_out"):
        if args.side_by_side is None and getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is of side-by-side clips: give --side-by-side DIR")
    if args.crop is not None and args.crop < 0:
        raise ValueError(f"--crop is at least 0, got {args.crop}")
    inputs = [args.lpips, args.fvd, args.calibrated_on]
    for folder in (args.side_by_side, args.truth, args.generated):
        inputs += [] if folder is None else clips_of(folder).values()
    outputs = {"--json": args.json, "--table": args.table, "--clips": args.clips, "--held-out": args.held_out}
    check_outputs(outputs, inputs)


def _print(result: Evaluation, rule: Rule | None, held_out: pd.DataFrame | None) -> None:
    from pandas import DataFrame

    from arvdm_theory.cli.tables import show_table

    rows = DataFrame(result.rows)
    measures = [name for name in ("psnr", "ssim", "lpips") if name in rows]
    shown = rows[["file", *measures]].copy()
    if rule is not None:
        shown["from frame"] = [
            f"{row['first_predicted_frame']} ({row['first_predicted_frame_from']})" for row in result.rows
        ]
        shown["retrieved"], shown["by"] = rows["verdict"], rows["verdict_by"]
        shown["nearest"] = [f"{share:.0%}" if share == share else "-" for share in rows["nearest_share"]]
        shown["margin dB"] = rows["worst_margin_db"]
        for label, key in (("copy last", "copy_last"), ("copy nearest", "copy_nearest")):
            shown[label] = [f"{row[key]['psnr']:.1f} {row[key]['ssim']:.2f}" for row in result.rows]
        shown["authors"] = rows["authors_verdict"].fillna("-")
    else:
        shown["frames"] = rows["frames"]
    digits = {"psnr": "{:.2f}".format, "ssim": "{:.3f}".format, "lpips": "{:.3f}".format}
    formats = {name: digits[name] for name in measures}
    show_table(shown, "{:.1f}".format, formats)
    print(f"\nscored {len(rows)}, skipped {len(result.skipped)}")
    for name, reason in result.skipped:
        print(f"  skipped {name}: {reason}")
    if rule is not None:
        print(f"verdicts: {rule.words}.")
    if rule is not None and held_out is not None:
        own = held_out[
            (held_out.score == "rule") & (held_out.calibrated_on == "all") & (held_out.level == rule.level)
        ]
        for row in own.itertuples():
            print(
                f"each judged by the other clips, {row.group}: a verdict on {row.decided} of {row.clips} clips, "
                f"wrong on {row.wrong}{_interval(row.error_low, row.error_high)}; always 'success' is wrong on "  # type: ignore[arg-type]
                f"{row.always_wrong_decided} of the same, on {row.always_wrong} of all"
            )
    for name, reason in result.without_features:
        print(f"  {name} is left out of the Fréchet distance: {reason}")
    if result.fvd is not None:
        fvd, notes = result.fvd, "".join(f": {note}" for note in result.fvd.distance.warnings)
        print(
            f"Fréchet distance {fvd.distance.value:.4g} between {fvd.samples_truth} true and "
            f"{fvd.samples_generated} generated stretches, features of dimension {fvd.dimension}{notes}"
        )


def _interval(low: float, high: float) -> str:
    return "" if low != low else f" ({low:.0%} to {high:.0%})"
