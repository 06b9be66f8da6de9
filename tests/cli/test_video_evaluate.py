"""``arvdm video evaluate`` from folders to files, and what it says when it cannot."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.cli import main
from arvdm_theory.cli.video import SUBCOMMANDS
from arvdm_theory.video.metrics import psnr, ssim


class Distance(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean((1, 2, 3))


class Features(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


def _video(seed: int, frames: int = 12, side: int = 32) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(frames, side, side, 3)).cumsum(1).cumsum(2)
    return np.uint8(255 * (walk - walk.min()) / np.ptp(walk))


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path]:
    """Three true clips, and generated ones of which one is missing, one too many and one of another size."""
    truth, generated = tmp_path / "truth", tmp_path / "generated"
    truth.mkdir()
    generated.mkdir()
    for name in ("a", "b", "c", "d"):
        clip = _video(ord(name))
        np.savez(truth / f"{name}.npz", video=clip)
        if name != "d":
            shown = np.where(np.arange(12)[:, None, None, None] < 4, clip, 255 - clip)
            np.save(generated / f"{name}.npy", shown[:, :, :30] if name == "c" else shown)
    np.save(generated / "e.npy", _video(0))
    return truth, generated


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Two side-by-side clips named as the paper's are, with a white border from frame 6 on, and one without."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for name, border in (("lab_success_1", 255), ("lab_fail_2", 255), ("other", None)):
        clip = _video(len(name))
        shown = clip.copy()
        if "fail" in name:
            shown[8:] = clip[2]
        if border is not None:
            ring = np.ones((32, 32), bool)
            ring[1:-1, 1:-1] = False
            shown[6:, ring] = border
        np.save(folder / f"{name}.npy", np.concatenate([clip, shown], 2)[:, :, : 64 if border else 60])
    return folder


def test_pairs_by_name_with_curves_and_skips(
    pairs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out.json", tmp_path / "frames.csv"
    arguments = ["video", "evaluate", "--truth", str(pairs[0]), "--generated", str(pairs[1])]
    code = main([*arguments, "--first-predicted-frame", "4", "--json", str(out), "--table", str(table)])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    report = json.loads(out.read_text())
    assert [row["file"] for row in report["clips"]] == ["a.npy", "b.npy"]
    clip = _video(ord("a"))[4:]
    assert report["clips"][0]["psnr"] == psnr(clip, 255 - clip).mean()
    assert report["clips"][0]["ssim"] == ssim(clip, 255 - clip).mean()
    assert report["clips"][0]["frames"] == 8
    reasons = {skip["file"]: skip["reason"] for skip in report["skipped"]}
    assert set(reasons) == {"c.npy", "d.npz", "e.npy"}
    assert "(8, 32, 30, 3)" in reasons["c.npy"]
    assert "missing pair" in reasons["d.npz"]
    assert str(pairs[0]) in reasons["e.npy"]
    assert "scored 2, skipped 3" in shown.out
    assert all(reason in shown.out for reason in reasons.values())
    curves = pd.read_csv(table)
    assert curves["frame"].tolist() == [*range(4, 12)] * 2
    np.testing.assert_allclose(curves["psnr"][:8], psnr(clip, 255 - clip), rtol=1e-12)
    assert report["provenance"]["config"]["first_predicted_frame"] == 4


def test_equal_frames_are_infinite_in_the_table_and_null_in_json(
    pairs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert (
        main(["video", "evaluate", "--truth", str(pairs[0]), "--generated", str(pairs[1]), "--json", str(out)])
        == 0
    )
    row = json.loads(out.read_text())["clips"][0]
    assert row["psnr"] is None
    assert row["identical_frames"] == 4
    assert " inf " in capsys.readouterr().out


def test_side_by_side_clips_and_the_authors_verdict(
    wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["video", "evaluate", "--side-by-side", str(wide), "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    report = json.loads(out.read_text())
    rows = {row["file"]: row for row in report["clips"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "lab_success_1.npy": "success",
        "lab_fail_2.npy": "fail",
    }
    assert {row["verdict_by"] for row in rows.values()} == {"views"}
    assert {row["first_predicted_frame"] for row in rows.values()} == {6}
    assert {row["first_predicted_frame_from"] for row in rows.values()} == {"border"}
    fail = rows["lab_fail_2.npy"]
    clip = _video(len("lab_fail_2"))[:, 6:-6, 6:-6]
    own = clip.copy()
    own[8:] = clip[2]
    np.testing.assert_allclose(fail["ssim"], ssim(clip[6:], own[6:]).mean(), rtol=1e-12)
    assert fail["identical_frames"] == 2
    assert report["skipped"][0]["file"] == "other.npy"
    assert "Calibrated on 20 clips of the paper's project page" in report["rule"]
    # One clip of a class, left out, leaves none to compare with: nothing is said of it.
    assert {row["decided"] for row in report["held_out"]} == {0}
    assert "each judged by the other clips, lab: a verdict on 0 of 2 clips, wrong on 0; always 'success'" in shown
    assert "6 (border)" in shown


def test_verdicts_are_calibrated_on_clips_of_one_s_own(
    wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frame that is copied wholly has an infinite lead; what is below all judged failures fails."""
    judged, clips, held_out = tmp_path / "judged.csv", tmp_path / "clips.csv", tmp_path / "held_out.csv"
    scores = [("success", 90.0 + i, 80.0) for i in range(9)] + [("fail", 70.0 + i, 60.0) for i in range(9)]
    table = pd.DataFrame(scores, columns=["authors", "views", "psnr"]).assign(file="x", group="x")
    table.to_csv(judged, index=False)
    words = ["video", "evaluate", "--side-by-side", str(wide), "--calibrated-on", str(judged)]
    assert main([*words, "--clips", str(clips), "--held-out", str(held_out), "--error", "0.2"]) == 0
    shown = capsys.readouterr().out
    # Of nine a level of 0.2 lets one be odder: what lies between the second ones of both ends is of neither class.
    assert "success above 91.0 and fail below 77.0" in shown
    assert f"Calibrated on {judged}, so that of clips like those at most 20.0% of successes" in shown
    made = pd.read_csv(clips)
    assert made.file.tolist() == ["lab_fail_2.npy", "lab_success_1.npy"]
    assert (made.group == "lab").all()
    assert made.authors.tolist() == ["fail", "success"]
    assert made.views.tolist() == [pytest.approx(made.views[0]), float("inf")]
    assert (shown.count(" fail views "), shown.count(" success views ")) == (1, 1)
    assert len(pd.read_csv(held_out)) > 0
    table.drop(columns="psnr").to_csv(judged, index=False)
    assert main(words) == 2
    assert "judged clips have columns file, authors, views, psnr; missing: psnr" in capsys.readouterr().err
    (wide / "lab_fail_2.npy").rename(wide / "mine.npy")
    assert main([*words[:4], "--held-out", str(held_out)]) == 2
    assert "GROUP_success_*" in capsys.readouterr().err


def test_networks_of_ones_own_add_their_measures(
    pairs: tuple[Path, Path], wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in (("lpips.pt", Distance()), ("video.pt", Features())):
        torch.jit.script(module).save(str(tmp_path / name))
    out = tmp_path / "out.json"
    networks = [
        "--lpips",
        str(tmp_path / "lpips.pt"),
        "--fvd",
        str(tmp_path / "video.pt"),
        "--fvd-frames",
        "4",
        "--trust-code",
    ]
    folders = ["--truth", str(pairs[0]), "--generated", str(pairs[1])]
    assert main(["video", "evaluate", *folders, *networks, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    clip = _video(ord("a"))
    # Single precision inside the network; the first 4 of 12 frames are the truth's own.
    expected = np.abs(2 * (clip[4:] / 127.5 - 1)).mean() * 8 / 12
    assert report["clips"][0]["lpips"] == pytest.approx(expected, rel=1e-5)
    assert report["fvd"]["samples_truth"] == report["fvd"]["samples_generated"] == 6
    assert report["fvd"]["dimension"] == 3
    assert report["fvd"]["network"] == "TorchScript video.pt"
    assert "Fréchet distance" in capsys.readouterr().out
    assert main(["video", "evaluate", "--side-by-side", str(wide), *networks, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["fvd"]["samples_truth"] == 2
    assert "cannot fill a covariance" in report["fvd"]["note"]
    assert "2 true and 2 generated stretches" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--side-by-side DIR, or both"),
        (["--truth", "TRUTH"], "--side-by-side DIR, or both"),
        (
            ["--truth", "TRUTH", "--generated", "GENERATED", "--side-by-side", "WIDE"],
            "--side-by-side DIR, or both",
        ),
        (["--side-by-side", "EMPTY"], "no clips"),
        (["--side-by-side", "NOWHERE"], "no such folder"),
        (["--side-by-side", "TRUTH"], "none of 4 clips can be scored"),
        (["--truth", "EMPTY", "--generated", "GENERATED"], "no clips"),
        (["--truth", "TRUTH", "--generated", "WIDE"], "none of 7 clips can be scored"),
        (["--side-by-side", "WIDE", "--first-predicted-frame", "-1"], "--first-predicted-frame"),
        (["--side-by-side", "WIDE", "--first-predicted-frame", "99"], "got frame 99"),
        (["--side-by-side", "WIDE", "--error", "1.5"], "lies between 0 and 1, got 1.5"),
        (["--side-by-side", "WIDE", "--calibrated-on", "NOWHERE"], "No such file"),
        (["--truth", "TRUTH", "--generated", "GENERATED", "--error", "0.2"], "--error is of side-by-side clips"),
        (["--truth", "TRUTH", "--generated", "GENERATED", "--held-out", "x"], "--held-out is of side-by-side"),
        (["--side-by-side", "WIDE", "--crop", "16"], "leaves nothing"),
        (["--side-by-side", "WIDE", "--crop", "-1"], "--crop"),
        (["--side-by-side", "WIDE", "--lpips", "NOWHERE"], "none is downloaded"),
        (["--side-by-side", "WIDE", "--fvd", "NOWHERE"], "none is downloaded"),
        (["--side-by-side", "WIDE", "--json", "NOWHERE/x.json"], "does not exist"),
        (["--side-by-side", "WIDE", "--table", "WIDE/other.npy"], "would overwrite"),
        (["--side-by-side", "WIDE", "--table", "x", "--json", "x"], "would overwrite"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    pairs: tuple[Path, Path], wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str],
    words: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    places = {"TRUTH": pairs[0], "GENERATED": pairs[1], "WIDE": wide, "EMPTY": tmp_path / "empty"}
    places["NOWHERE"] = tmp_path / "nowhere"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    filled = []
    for option in options:
        word, *rest = option.split("/")
        filled.append("/".join([str(places.get(word, word)), *rest]))
    assert main(["video", "evaluate", *filled]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("arvdm video: ")
    assert words in shown.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_help_lists_what_there_is_and_loads_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["video", "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in SUBCOMMANDS)
    assert main(["video"]) == 0
    assert capsys.readouterr().out == shown


def test_floats_of_which_the_scale_is_not_clear_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same pictures as bytes, on [-1, 1] and on [0, 1] score the same; on the wrong scale 6 dB too much."""
    truth, own = _video(1) / 255, _video(2) / 255
    out = tmp_path / "out.json"

    def scored(scale: str, *options: str) -> list[float]:
        for name, clip in (("truth", truth), ("generated", own)):
            (tmp_path / name).mkdir(exist_ok=True)
            stored = {"bytes": np.uint8(np.round(255 * clip)), "symmetric": 2 * clip - 1, "unit": clip}[scale]
            np.save(tmp_path / name / "a.npy", stored)
        words = [
            "--truth",
            str(tmp_path / "truth"),
            "--generated",
            str(tmp_path / "generated"),
            "--json",
            str(out),
        ]
        if main(["video", "evaluate", *words, *options]):
            return []
        return [row["psnr"] for row in json.loads(out.read_text())["clips"]]

    (right,) = scored("bytes")
    assert scored("symmetric") == pytest.approx([right], abs=1e-9)
    assert scored("symmetric", "--floats", "symmetric") == pytest.approx([right], abs=1e-9)
    assert scored("unit", "--floats", "unit") == pytest.approx([right], abs=1e-9)
    assert scored("unit", "--floats", "symmetric") == pytest.approx([right + 20 * np.log10(2)], abs=1e-9)
    capsys.readouterr()
    assert scored("unit") == []
    assert "say which with --floats unit or --floats symmetric" in capsys.readouterr().err
    assert scored("symmetric", "--floats", "unit") == []
    np.save(tmp_path / "generated" / "a.npy", np.uint8(np.round(255 * own)))
    np.save(tmp_path / "truth" / "a.npy", truth)
    words = ["--truth", str(tmp_path / "truth"), "--generated", str(tmp_path / "generated")]
    assert main(["video", "evaluate", *words]) == 2  # mixed with bytes


def test_one_short_clip_costs_its_own_features_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("truth", "generated"):
        (tmp_path / name).mkdir()
        for clip, frames in (("long", 12), ("short", 3)):
            np.save(tmp_path / name / f"{clip}.npy", _video(len(name) + len(clip), frames))
    torch.jit.script(Features()).save(str(tmp_path / "video.pt"))
    out = tmp_path / "out.json"
    words = ["--truth", str(tmp_path / "truth"), "--generated", str(tmp_path / "generated"), "--json", str(out)]
    assert main([
        "video", "evaluate", *words, "--fvd", str(tmp_path / "video.pt"), "--fvd-frames", "4", "--trust-code"
    ]) == 0  # fmt: skip
    report = json.loads(out.read_text())
    assert [row["file"] for row in report["clips"]] == ["long.npy", "short.npy"]
    assert report["fvd"]["samples_truth"] == 3
    (left_out,) = report["without_features"]
    assert left_out["file"] == "short.npy"
    assert "3 frames, the feature network looks at 4" in capsys.readouterr().out
