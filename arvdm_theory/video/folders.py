"""Scores of whole folders: side-by-side clips, or generated clips paired with true ones by file name.

A clip that cannot be scored is skipped with its reason, and counted; a folder of which nothing can be scored is an
error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError, read_frames, to_unit
from arvdm_theory.video.features import VideoFeatures
from arvdm_theory.video.frechet import FrechetEstimate, feature_distance
from arvdm_theory.video.metrics import MetricError, Quality, quality
from arvdm_theory.video.side_by_side import (
    BORDER,
    Onset,
    SideBySideScore,
    agreed_onset,
    find_onset,
    halves,
    score_side_by_side,
)
from arvdm_theory.video.verdict import Rule, paper_rule

__all__ = ["Evaluation", "clips_of", "evaluate_pairs", "evaluate_side_by_side", "scored_clips"]

Array = NDArray[np.float64]
FloatScale = Literal["unit", "symmetric"]
Perceptual = Callable[[NDArray[Any], NDArray[Any]], Array]

_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif", ".npz", ".npy"})
_VERDICT = re.compile(r"(?P<group>[^_]+)_(?P<verdict>success|fail)_")


@dataclass
class Evaluation:
    """What a folder of clips scores.

    Attributes:
        rows: one a scored clip, in order of their names.
        skipped: (file, reason) of every clip that is not scored.
        curves: every scored clip's measures frame by frame.
        first_frame: of every scored clip, the frame at which its curves begin.
        fvd: Fréchet distance of video features; None where no network was given, or no clip is long enough.
        without_features: (file, reason) of every scored clip that the Fréchet distance leaves out.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    curves: dict[str, Quality] = field(default_factory=dict)
    first_frame: dict[str, int] = field(default_factory=dict)
    fvd: FrechetEstimate | None = None
    without_features: list[tuple[str, str]] = field(default_factory=list)


def clips_of(folder: str | Path) -> dict[str, Path]:
    """The clips of a folder by name without ending, in order.

    Raises:
        ValueError: if there is no such folder, it holds no clip, or two clips of one name.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ValueError(f"{place}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            if path.stem in found:
                raise ValueError(f"{place}: {found[path.stem].name} and {path.name} have one name")
            found[path.stem] = path
    if not found:
        raise ValueError(f"{place}: no clips in this folder (of {', '.join(sorted(_SUFFIXES))})")
    return found


def evaluate_side_by_side(
    folder: str | Path,
    *,
    rule: Rule | None = None,
    first: int | None = None,
    crop: int = BORDER,
    lpips: Perceptual | None = None,
    features: VideoFeatures | None = None,
) -> Evaluation:
    """Scores every side-by-side clip of a folder (:mod:`arvdm_theory.video.side_by_side`).

    A clip without a border of its own takes the first predicted frame on which the folder's clips of the same
    shape agree; failing that, where its halves part; failing that, it is skipped.

    Args:
        folder: with the clips.
        rule: that verdicts are made by; None for that of the paper's clips.
        first: first predicted frame of every clip, where it is known.
        crop: pixels cut off each side.
        lpips: perceptual distance.
        features: network of the Fréchet distance.

    Raises:
        ValueError: if the folder holds no clip, or none that can be scored.
        FeatureError: if a network fails.
    """
    paths = clips_of(folder)
    result = Evaluation()
    sets: tuple[list[Array], list[Array]] = ([], [])

    def add(path: Path, left: Array, right: Array, onset: Onset) -> None:
        try:
            score = score_side_by_side(left, right, onset, crop, lpips)
        except MetricError as error:
            result.skipped.append((path.name, str(error)))
            return
        result.rows.append(_side_by_side_row(path.name, left, score))
        result.curves[path.name], result.first_frame[path.name] = score.quality, onset.frame
        inside = slice(crop, left.shape[1] - crop)
        shown = [half[onset.frame :, inside, inside] for half in (left, right)]
        _look(features, path.name, shown, sets, result)

    borders: dict[tuple[int, ...], list[Onset]] = {}
    waiting: list[tuple[Path, Onset | None]] = []
    for path in paths.values():
        try:
            left, right = halves(read_frames(path))
        except (ClipError, MetricError) as error:
            result.skipped.append((path.name, _reason(path, error)))
            continue
        onset = Onset(first, "given") if first is not None else find_onset(left, right)
        if onset is None or onset.source == "difference":
            waiting.append((path, onset))
            continue
        borders.setdefault(left.shape, []).append(onset)
        add(path, left, right, onset)
    for path, found in waiting:
        left, right = halves(read_frames(path))
        onset = agreed_onset(borders.get(left.shape, [])) or found
        if onset is None:
            reason = "no border shows where prediction begins; --first-predicted-frame says it"
            result.skipped.append((path.name, reason))
        else:
            add(path, left, right, onset)
    result.rows.sort(key=lambda row: str(row["file"]))
    judging = paper_rule() if rule is None else rule
    for row, (_, clip) in zip(result.rows, scored_clips(result.rows).iterrows(), strict=True):
        row["verdict"], row["verdict_by"] = judging.verdict(float(clip.views), float(clip.psnr))
    result.skipped.sort()
    return _finished(result, Path(folder), len(paths), sets, features)


def evaluate_pairs(
    truth: str | Path,
    generated: str | Path,
    *,
    first: int = 0,
    crop: int = 0,
    lpips: Perceptual | None = None,
    features: VideoFeatures | None = None,
    floats: FloatScale | None = None,
) -> Evaluation:
    """Scores generated clips against the true ones of the same name (``a.mp4`` may be paired with ``a.npy``).

    Args:
        truth: folder with the true clips.
        generated: folder with the generated ones.
        first: first frame that is scored.
        crop: pixels cut off each side.
        lpips: perceptual distance.
        features: network of the Fréchet distance.
        floats: the scale of floating-point clips, ``unit`` for [0, 1] or ``symmetric`` for [-1, 1]; None takes it
            for [-1, 1] where a clip has values below 0, and skips one that has none, which may be on either.

    Raises:
        ValueError: if a folder holds no clip, or no pair can be scored.
        FeatureError: if a network fails.
    """
    if first < 0 or crop < 0:
        raise ValueError(f"the first frame and the pixels cut off are at least 0, got {first}, {crop}")
    true_clips, own_clips = clips_of(truth), clips_of(generated)
    result = Evaluation()
    sets: tuple[list[Array], list[Array]] = ([], [])
    names = sorted({*true_clips, *own_clips})
    for name in names:
        path = own_clips.get(name) or true_clips[name]
        if name not in own_clips or name not in true_clips:
            lacking = generated if name not in own_clips else truth
            result.skipped.append((path.name, f"missing pair: no clip {name} in {lacking}"))
            continue
        try:
            left, right = (_scored_part(clips[name], first, crop, floats) for clips in (true_clips, own_clips))
            scores = quality(left, right, lpips)
        except (ClipError, MetricError) as error:
            result.skipped.append((path.name, _reason(path, error)))
            continue
        result.rows.append({
            "file": path.name, "truth": true_clips[name].name, **scores.means(), "first_frame": first,
            "frames": len(scores.psnr), "identical_frames": scores.identical_frames,
        })  # fmt: skip
        result.curves[path.name], result.first_frame[path.name] = scores, first
        _look(features, path.name, [left, right], sets, result)
    return _finished(result, Path(generated), len(names), sets, features)


def scored_clips(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What verdicts are made of (:mod:`arvdm_theory.video.verdict`), a row a side-by-side clip.

    Returns:
        columns file; group and authors, from names like ``GROUP_success_*`` and ``GROUP_fail_*``, else empty;
        views, NaN where some predicted frame has no differing view to be compared with; psnr.
    """
    made = []
    for row in rows:
        named = _VERDICT.match(row["file"])
        views = row["worst_margin_db"] if row["fewest_differing_views"] else float("nan")
        made.append((row["file"], named and named["group"], row["authors_verdict"], views, row["psnr"]))
    return pd.DataFrame(made, columns=["file", "group", "authors", "views", "psnr"])


def _finished(
    result: Evaluation,
    folder: Path,
    clips: int,
    sets: tuple[list[Array], list[Array]],
    features: VideoFeatures | None,
) -> Evaluation:
    if not result.rows:
        name, reason = result.skipped[0]
        raise ValueError(f"{folder}: none of {clips} clips can be scored; {name}: {reason}")
    if sets[0]:
        result.fvd = feature_distance(np.concatenate(sets[0]), np.concatenate(sets[1]))
    return result


def _look(
    features: VideoFeatures | None,
    name: str,
    pair: Sequence[NDArray[Any]],
    sets: tuple[list[Array], list[Array]],
    result: Evaluation,
) -> None:
    """Adds a pair's features; one that is too short is left out of the Fréchet distance alone."""
    if features is None:
        return
    if len(pair[0]) < features.frames:
        reason = f"{len(pair[0])} frames, the feature network looks at {features.frames}"
        result.without_features.append((name, reason))
        return
    for kept, clip in zip(sets, pair, strict=True):
        kept.append(features([clip]))


def _scored_part(path: Path, first: int, crop: int, floats: FloatScale | None) -> Array:
    frames = read_frames(path)
    height, width = frames.shape[1:3]
    if first >= len(frames) or 2 * crop >= min(height, width):
        raise ClipError(
            f"{path}: nothing is left of {len(frames)} frames of {width}x{height} from frame {first} on, "
            f"{crop} pixels cut off each side"
        )
    if frames.dtype != np.uint8:
        frames = _symmetric(path, frames, floats)
    try:
        return to_unit(frames[first:, crop : height - crop, crop : width - crop])
    except ClipError as error:
        raise ClipError(f"{path}: {error}") from error


def _symmetric(path: Path, frames: NDArray[Any], floats: FloatScale | None) -> NDArray[Any]:
    """Floating-point pixels on [-1, 1]: on half the scale, a PSNR would be 6 dB too good."""
    low, high = float(frames.min()), float(frames.max())
    if floats == "unit":
        if low < 0 or high > 1:
            raise ClipError(f"{path}: pixels on [0, 1] were announced, got {low:g} to {high:g}")
        return 2 * frames - 1
    if floats is None and low >= 0 and high <= 1:
        raise ClipError(
            f"{path}: its floating-point pixels, {low:g} to {high:g}, may be on [0, 1] or on [-1, 1]: say which "
            "with --floats unit or --floats symmetric"
        )
    return frames


def _reason(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _side_by_side_row(name: str, left: Array, score: SideBySideScore) -> dict[str, Any]:
    found = _VERDICT.match(name)
    return {
        "file": name,
        **score.quality.means(),
        "first_predicted_frame": score.onset.frame,
        "first_predicted_frame_from": score.onset.source,
        "border_contrast": score.onset.contrast,
        "border_agreeing_frames": score.onset.agreeing,
        "nearest_share": score.nearest_share,
        "worst_margin_db": score.worst_margin_db,
        "fewest_differing_views": score.fewest_views,
        "authors_verdict": None if found is None else found["verdict"],
        "copy_last": score.copy_last.means(),
        "copy_nearest": score.copy_nearest.means(),
        "frames": len(left),
        "predicted_frames": len(score.quality.psnr),
        "identical_frames": score.quality.identical_frames,
    }
