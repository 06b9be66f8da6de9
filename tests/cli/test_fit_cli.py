"""``arvdm fit`` from files to files, and what it says when it cannot."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from arvdm_theory.cli import main
from arvdm_theory.data.clips import Region, read_clip
from arvdm_theory.laws.fitted import load_fitted
from arvdm_theory.laws.fitting import fit_video


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    """Four clips of 24 frames, 8 x 16 pixels: two pictures side by side."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(4):
        walk = 128 + 12 * rng.normal(size=(24, 8, 16, 3)).cumsum(0)
        names.append(str(tmp_path / f"clip{i}.npz"))
        np.savez(names[-1], video=np.clip(walk, 0, 255).astype(np.uint8))
    return names


def test_a_fit_and_its_report(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "video.npz", tmp_path / "report.json"
    code = main(["fit", *clips, "--left-half", "--modes", "3", "--out", str(out), "--json", str(report)])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    video = load_fitted(out)
    expected, scores = fit_video([read_clip(clip, left_half=True) for clip in clips], modes=3)
    np.testing.assert_array_equal(video.gamma, expected.gamma)
    np.testing.assert_array_equal(video.basis, expected.basis)
    assert video.source == {
        "clips": clips, "region": None, "left_half": True, "size": None, "grey": False, "held_out": 0.25
    }  # fmt: skip
    content = json.loads(report.read_text())
    assert content["model"]["modes"] == 3
    assert (content["model"]["order"], content["model"]["memory_frames"]) == (video.head, video.order)
    gain, error = scores.memory() or (0.0, None)
    assert content["long_memory_gains"] == {"nats_per_frame": gain, "standard_error": error}
    assert f"{gain:+.4f} ± {error:.4f} nats/frame" in shown.out
    assert content["variance_kept"] == scores.variance_kept
    for law in ("fitted", "independent frames", "static video", "AR(1) per mode", "VAR(1)"):
        assert content["held_out"][law]["nats_per_frame"] == scores.nats_per_frame(law)
        assert f"{law:<22} {scores.nats_per_frame(law):>11.3f}" in shown.out
    assert f"{scores.variance_kept:.1%}" in shown.out
    assert str(out) in shown.out


def test_options_reach_the_fit(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "video.npz"
    options = ["--region", "2,0,6,8", "--size", "4x3", "--grey", "--modes", "2", "--order", "2", "--held-out", "0"]
    assert main(["fit", *clips, *options, "--out", str(out)]) == 0
    video = load_fitted(out)
    pixels = [read_clip(clip, region=Region(2, 0, 6, 8), grey=True, size=(4, 3)) for clip in clips]
    expected, _ = fit_video(pixels, modes=2, order=2, held_out=0)
    np.testing.assert_array_equal(video.gamma, expected.gamma)
    assert video.basis.shape == (2, 4, 3, 1)
    assert (video.head, video.order) == (2, 23)
    assert "held-out log-density" not in capsys.readouterr().out
    assert main(["fit", *clips, *options, "--memory", "short", "--out", str(out)]) == 0
    video = load_fitted(out)
    expected, _ = fit_video(pixels, modes=2, order=2, held_out=0, memory=False)
    np.testing.assert_array_equal(video.gamma, expected.gamma)
    assert (video.head, video.order, len(video.tail)) == (2, 2, 0)
    assert "it ends at the order" in capsys.readouterr().out


def test_a_folder_gives_its_clips(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no clip")
    out = tmp_path / "out"
    out.mkdir()
    common = ["--left-half", "--modes", "2", "--order", "1"]
    assert main(["fit", str(tmp_path), *common, "--out", str(out / "a.fitted")]) == 0
    assert main(["fit", *clips, *common, "--out", str(out / "b.fitted")]) == 0
    assert (out / "a.fitted").read_bytes() == (out / "b.fitted").read_bytes()
    capsys.readouterr()
    assert main(["fit", str(out), "--out", str(tmp_path / "c.npz")]) == 2
    assert "a folder without clips" in capsys.readouterr().err


def test_side_by_side_pictures_are_pointed_out_once(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", *clips, "--modes", "2", "--order", "1", "--out", str(tmp_path / "video.npz")]
    assert main(arguments) == 0
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "clip0.npz is twice as wide as high" in warning
    assert "--left-half" in warning
    for choice in (["--left-half"], ["--region", "0,0,16,8"]):
        assert main([*arguments, *choice]) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--region", "0,0,99,8"], "clip0.npz: the region"),
        (["--region", "zero"], "x,y,w,h"),
        (["--region", "0,0,8,8", "--left-half"], "not both"),
        (["--size", "9x9"], "cannot be averaged"),
        (["--size", "big"], "HxW"),
        (["--order", "-1"], "--order"),
        (["--order", "50"], "order must be from 1 to 23"),
        (["--modes", "0"], "modes"),
        (["--modes", "5000"], "modes"),
        (["--held-out", "1"], "held out"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    before = set(tmp_path.iterdir())
    out = ["--out", str(tmp_path / "video.npz"), "--json", str(tmp_path / "report.json")]
    assert main(["fit", *clips, *options, *out]) == 2
    shown = capsys.readouterr()
    line = shown.err.splitlines()[-1]
    assert line.startswith("arvdm fit: ")
    assert words in line
    assert shown.out == ""
    assert set(tmp_path.iterdir()) == before


def test_bad_clips_are_named(clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.mp4"
    with av.open(str(cut), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for picture in np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    cut.write_bytes(cut.read_bytes()[:-2000])
    (tmp_path / "empty.mp4").write_bytes(b"")
    np.save(tmp_path / "wide.npy", np.zeros((4, 8, 20, 3), np.uint8))
    out = tmp_path / "video.npz"
    for name, words in (
        ("cut.mp4", "truncated"),
        ("empty.mp4", "not a readable video"),
        ("nowhere.mp4", "no such file"),
        ("wide.npy", "has pictures of shape (8, 20, 3)"),
    ):
        assert main(["fit", *clips, str(tmp_path / name), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert name in error
        assert words in error
        assert not out.exists()


def test_nothing_of_value_is_overwritten(
    clips: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(clips[1]).read_bytes()
    arguments = ["fit", *clips, "--left-half", "--modes", "2"]
    for options, words in (
        (["--out", clips[1]], "would overwrite"),
        (["--out", "x.npz", "--json", "x.npz"], "would overwrite"),
        (["--out", str(tmp_path)], "Is a directory"),
        (["--out", str(tmp_path / "no" / "video.npz")], "does not exist"),
    ):
        assert main([*arguments, *options]) == 2
        assert words in capsys.readouterr().err
    assert Path(clips[1]).read_bytes() == before


def test_a_clip_that_is_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own name, through a link, or as a copy in another format: what is fitted may not be held out."""
    clip = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    first, copy, link = tmp_path / "a.npy", tmp_path / "b.npz", tmp_path / "c.npy"
    np.save(first, clip)
    np.savez(copy, video=clip)
    link.symlink_to(first)
    for again in (first, copy, link):
        assert main(["fit", str(first), str(again), "--out", str(tmp_path / "out.npz")]) == 2
        assert f"{again} shows the same as {first}: give each clip once" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
