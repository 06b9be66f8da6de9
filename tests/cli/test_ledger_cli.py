"""``arvdm ledger``: the JSON that others script against, and every way to hand it nonsense."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_cases import CASES, PRINTED, SIX_DIGITS, ar1, table_video

from arvdm_theory import ArrayVideo, PerturbedScore, References, fifo, fit_video, ledger, outpainting
from arvdm_theory import ar1 as known_ar1
from arvdm_theory.cli import main
from arvdm_theory.decomposition.recursion import rates

TOTALS = {
    "kl", "trajectory_kl", "girsanov", "ie", "nie_init", "path_init", "path_kl", "closed", "lower_bound", "floor",
    "ar_step_kl",
}  # fmt: skip
LISTS = {
    "nie_ar": "NIE_AR",
    "de_ar": "DE",
    "see_ar": "SEE",
    "cross_ar": "CROSS",
    "mb": "MB",
    "clip_kl": "CLIP_KL",
    "clip_bound": "CLIP_BOUND",
    "ar_step_error": "AR_STEP",
    "clip_w2": "CLIP_W2",
    "accumulation_bound": "ACCUMULATION_BOUND",
}


def save(folder: Path, array: Any, name: str = "covariance.npy") -> str:
    np.save(folder / name, array)
    return str(folder / name)


def run(folder: Path, covariance: Any, *options: str, dim: int = 1) -> dict[str, Any]:
    out = folder / "result.json"
    words = [
        "ledger",
        "--covariance",
        save(folder, covariance),
        "--frame-dim",
        str(dim),
        "--json",
        str(out),
        *options,
    ]
    assert main(words) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    assert {path.name for path in folder.iterdir()} == {"covariance.npy", "result.json"}
    return content


# -- what it writes -----------------------------------------------------------------------------------


def test_the_json_holds_the_librarys_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--window 3 --references 2 --reference-level 0.2 --ar-steps 3 --reverse-steps 7 --init-steps 9 "
        "--horizon 5 --step euler --score-error -0.1 --girsanov-points 9"
    )
    found = run(tmp_path, table_video(12), *options.split(), dim=2)
    plan = outpainting(3, References.last(2, 0.2), reverse_steps=7, init_steps=9, horizon=5.0)
    expected = ledger(
        ArrayVideo(table_video(12), 2), plan, 3, score=PerturbedScore(-0.1), step="euler", accumulation=True
    )
    assert found.keys() == TOTALS | LISTS.keys() | {"notes"}
    for key in TOTALS:
        assert found[key] == expected.totals[key], key  # to the last bit: JSON keeps float64
    for key, term in LISTS.items():
        assert found[key] == expected.column(term), key
        assert len(found[key]) == 3
    assert found["notes"] == {}
    shown = capsys.readouterr()
    assert shown.err == ""
    for key in ("kl", "trajectory_kl", "path_kl", "girsanov", "closed"):
        assert f"{expected.totals[key]:.6f}" in shown.out


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference_cases(name: str, tmp_path: Path) -> None:
    plan, steps = CASES[name]
    references = plan.references.picks[0].count if plan.references.picks else 0
    found = run(
        tmp_path, table_video(plan.total_frames(steps)),
        "--method", plan.name, "--window", str(plan.window), "--references", str(references),
        "--ar-steps", str(steps), "--reverse-steps", str(plan.reverse_steps), dim=2,
    )  # fmt: skip
    clean, trajectory, _, ie, nie, de, mb, clip = PRINTED[name]
    assert found["kl"] == pytest.approx(clean, rel=0, abs=SIX_DIGITS)
    assert found["trajectory_kl"] == pytest.approx(trajectory, rel=0, abs=SIX_DIGITS)
    assert found["ie"] == pytest.approx(ie, rel=0, abs=SIX_DIGITS)
    for key, printed in (("nie_ar", nie), ("de_ar", de), ("mb", mb)):
        assert math.fsum(found[key]) == pytest.approx(printed, rel=0, abs=SIX_DIGITS)
    assert found["clip_kl"][-1] == pytest.approx(clip, rel=0, abs=SIX_DIGITS)


def test_what_is_not_defined_is_null_with_a_reason(tmp_path: Path) -> None:
    found = run(tmp_path, ar1(12, 0.8), "--ar-steps", "2", "--step", "ddim")
    null = {key for key, value in found.items() if value is None}
    assert null == {
        "trajectory_kl", "girsanov", "path_init", "path_kl", "closed", "de_ar", "see_ar", "cross_ar", "clip_bound"
    }  # fmt: skip
    assert all(found["notes"][key] for key in null)
    assert isinstance(found["kl"], float)
    assert all(isinstance(value, float) for value in found["clip_kl"])
    rolling = run(tmp_path, ar1(12, 0.8), "--method", "fifo", "--window", "3", "--ar-steps", "2")
    assert {key for key, value in rolling.items() if value is None} == {"lower_bound", "floor"}
    assert rolling["notes"].keys() == {"lower_bound", "floor"}
    refused = run(tmp_path, ar1(12, 0.8), "--references", "3", "--reference-level", "0.3", "--ar-steps", "3")
    assert refused["clip_bound"] is None
    assert "AR step 2 noises frame" in refused["notes"]["clip_bound"]
    assert len(refused["clip_kl"]) == 3
    lean = run(tmp_path, ar1(12, 0.8), "--ar-steps", "2", "--girsanov-points", "0")
    assert lean["girsanov"] is lean["closed"] is None
    assert lean["notes"] == {"girsanov": "left out on request", "closed": "left out on request"}


def test_defaults_are_those_of_the_help(tmp_path: Path) -> None:
    found = run(tmp_path, ar1(12, 0.8))
    plan = outpainting(2, References.last(1), reverse_steps=20, init_steps=20, horizon=6.0)
    expected = ledger(ArrayVideo(ar1(12, 0.8), 1), plan, 5)
    assert found["trajectory_kl"] == expected.totals["trajectory_kl"]
    assert found["girsanov"] == expected.totals["girsanov"]
    assert found["see_ar"] == found["cross_ar"] == [0.0] * 5


def test_frames_beyond_the_plan_are_ignored(tmp_path: Path) -> None:
    need = fifo(3).total_frames(2)
    options = ("--method", "fifo", "--window", "3", "--ar-steps", "2")
    exact = run(tmp_path, ar1(need, 0.9), *options)
    assert run(tmp_path, ar1(need + 5, 0.9), *options) == exact


def test_the_report_is_printed_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ledger", "--covariance", save(tmp_path, ar1(8, 0.5)), "--frame-dim", "1", "--ar-steps", "2"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for word in ("NIE_AR", "DE", "MB", "CLIP_KL", "CLIP_BOUND", "KL of the trajectory", "closed bound", "in nats"):
        assert word in shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["covariance.npy"]
    assert main([*words, "--step", "ancestral"]) == 0
    assert "not defined: Girsanov's theorem does not cover the ancestral step" in capsys.readouterr().out


def test_as_a_program(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; from arvdm_theory.cli import main; sys.exit(main())", "ledger"]
    out = tmp_path / "result.json"
    words = ["--covariance", save(tmp_path, ar1(6, 0.5)), "--frame-dim", "1", "--json", str(out), "--ar-steps"]
    done = subprocess.run([*program, *words, "2"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trajectory" in done.stdout
    assert json.loads(out.read_text())["kl"] > 0


def test_a_failed_run_leaves_an_earlier_result_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, ar1(6, 0.5), "--ar-steps", "2")
    before = (tmp_path / "result.json").read_bytes()
    words = ["--covariance", str(tmp_path / "covariance.npy"), "--frame-dim", "1", "--ar-steps", "9"]
    capsys.readouterr()
    refused(tmp_path, capsys, words, "20 frames are needed")
    assert (tmp_path / "result.json").read_bytes() == before


# -- the sampler that nothing is said of, and what the KL is made of --------------------------------------


def test_the_optimal_grid_is_no_worse_than_those_chosen_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--ar-steps", "2", "--reverse-steps", "4")
    hand = {spacing: run(tmp_path, ar1(12, 0.99), *short, "--spacing", spacing)["kl"]
            for spacing in ("uniform", "karras:7", "cosine", "flow:1", "tangent:1")}  # fmt: skip
    assert "--spacing optimal takes" in capsys.readouterr().out
    found = run(tmp_path, ar1(12, 0.99), *short, "--spacing", "optimal")
    assert found["kl"] < min(hand.values())
    assert f"uniform steps have {hand['uniform']:.4g}" in found["notes"]["levels"]
    text = capsys.readouterr().out
    assert found["notes"]["levels"] in text
    assert "--spacing optimal takes" not in text


def test_a_fitted_video_is_given_the_optimal_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    video, _ = fit_video([0.05 * rng.normal(size=(24, 4, 6, 3)).cumsum(0) for _ in range(4)], modes=2)
    video.save(tmp_path / "video.npz")
    out = tmp_path / "result.json"
    words = ["ledger", "--video", str(tmp_path / "video.npz"), "--ar-steps", "2", "--json", str(out)]
    found = {}
    for options in ((), ("--spacing", "optimal"), ("--reverse-steps", "20"), ("--step", "exponential")):
        assert main([*words, *options]) == 0
        found[options] = json.loads(out.read_text())
    own, asked, uniform, stepped = found.values()
    assert own == asked
    assert own["kl"] < uniform["kl"] == stepped["kl"]
    assert "levels" in own["notes"]
    assert "levels" not in uniform["notes"]


@pytest.mark.parametrize("options", ["--reverse-steps 6 --score-error 0.1", "--step ancestral", "--method fifo"])
def test_the_parts_that_are_printed_add_up(
    options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, ar1(14, 0.9), "--ar-steps", "3", *options.split())
    text = capsys.readouterr().out.split("switched on in this order")[1]
    parts = {name: float(re.search(rf"^  {name}: .*? (-?\d+\.\d+) ", text, re.M)[1])  # type: ignore[index]
             for name in ("MB", "IE", "NIE", "DE", "SEE")}  # fmt: skip
    assert sum(parts.values()) == pytest.approx(found["ar_step_kl"], abs=3e-6)
    assert parts["MB"] == pytest.approx(sum(found["mb"]), abs=1e-6)
    assert (parts["SEE"] != 0) == ("score-error" in options)
    if "ancestral" in options:
        assert parts["DE"] == 0


# -- what it refuses ----------------------------------------------------------------------------------

GOOD = ar1(8, 0.5)
NEGATIVE = np.diag([1.0] * 7 + [-0.25])
SKEWED = GOOD + np.triu(np.full((8, 8), 0.01), 1)

BAD_ARRAYS: dict[str, tuple[Any, str]] = {
    "not square": (GOOD[:6], r"square matrix, got shape \(6, 8\)"),
    "not a matrix": (np.ones(8), r"square matrix, got shape \(8,\)"),
    "empty": (np.zeros((0, 0)), r"square matrix, got shape \(0, 0\)"),
    "not symmetric": (SKEWED, r"not symmetric: entries differ by up to 1\.000e-02"),
    "not positive definite": (NEGATIVE, r"smallest eigenvalue is -2\.500e-01"),
    "singular": (np.ones((8, 8)), r"not positive definite: its smallest eigenvalue"),
    "NaN": (np.where(np.eye(8, dtype=bool), np.nan, GOOD), r"NaN or infinite"),
    "infinite": (np.where(np.eye(8, dtype=bool), np.inf, GOOD), r"NaN or infinite"),
    "complex": (GOOD + 0j, r"real numbers, got complex128"),
    "words": (np.array([["a", "b"], ["c", "d"]]), r"numbers are expected"),
    "booleans": (np.eye(8, dtype=bool), r"real numbers, got bool"),
    "too short": (GOOD[:5, :5], r"6 frames are needed, but the video .* has 5"),
}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    """Exit code 2, one line on stderr that says what is wrong, nothing on stdout and no file left behind."""
    before = {path.name for path in folder.iterdir()}
    try:
        code: object = main(["ledger", "--json", str(folder / "result.json"), *words])
    except SystemExit as stop:  # argparse stops by itself
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1, shown.err
    assert "Traceback" not in shown.err
    assert shown.err.startswith("arvdm ledger: ")
    assert re.search(message, shown.err), shown.err
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_refuses_arrays_that_are_no_covariance(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array, message = BAD_ARRAYS[name]
    words = ["--covariance", save(tmp_path, array), "--frame-dim", "1", "--ar-steps", "2"]
    refused(tmp_path, capsys, words, message)


def write_text(path: Path) -> None:
    path.write_text("1.0 0.5\n0.5 1.0\n")


def write_pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def write_archive(path: Path) -> None:
    with path.open("wb") as handle:
        np.savez(handle, covariance=GOOD)


def write_cut(path: Path) -> None:
    np.save(path, GOOD)
    path.write_bytes(path.read_bytes()[:-100])


def write_huge_header(path: Path) -> None:
    np.save(path, GOOD)
    path.write_bytes(path.read_bytes().replace(b"(8, 8)", b"(8" + b"0" * 9 + b", 8)"))


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a text file": (write_text, "not a .npy file, as numpy.save writes one"),
    "a pickle": (
        write_pickle,
        "holds Python objects, a pickle, which is never opened",
    ),
    "an archive": (write_archive, "is an archive of arrays; one .npy array is expected"),
    "an empty file": (Path.touch, "not a .npy file, .* it is an empty file"),
    "a broken archive": (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "is an archive of arrays"),
    "a truncated file": (
        write_cut,
        r"is cut short: .* \(8, 8\), 512 bytes, and 412 are there",
    ),
    "a header that lies": (
        write_huge_header,
        r"is cut short: its header says float64 of shape \(8000000000, 8\)",
    ),
    "a folder": (Path.mkdir, "Is a directory"),
    "nothing": (lambda path: None, "No such file or directory"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_refuses_files_that_hold_no_array(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, message = BAD_FILES[name]
    path = tmp_path / "covariance.npy"
    write(path)
    refused(tmp_path, capsys, ["--covariance", str(path), "--frame-dim", "1"], message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--frame-dim 3", "frame dimension 3 does not divide the covariance's 8 rows"),
        ("--frame-dim 0", "frame dimension 0 does not divide"),
        ("--frame-dim -2", "frame dimension -2 does not divide"),
        ("", "--covariance needs --frame-dim"),
        ("--frame-dim 1 --ar-steps -2", "--ar-steps must be at least 1, got -2"),
        ("--frame-dim 1 --ar-steps 0", "--ar-steps must be at least 1, got 0"),
        ("--frame-dim 1 --reverse-steps 0", "--reverse-steps must be at least 1, got 0"),
        ("--frame-dim 1 --init-steps -1", "--init-steps must be at least 1, got -1"),
        ("--frame-dim 1 --window 0", "--window must be at least 1, got 0"),
        ("--frame-dim 1 --references -1", "must not be negative"),
        ("--frame-dim 1 --girsanov-points -1", "must not be negative"),
        ("--frame-dim 1 --score-error inf", "--score-error must be finite, got inf"),
        ("--frame-dim 1 --score-error nan", "--score-error must be finite, got nan"),
        ("--frame-dim 1 --score-error 1e9", "covariance of Q"),
        ("--frame-dim 1 --horizon -1", "0-T boundary"),
        ("--frame-dim 1 --horizon nan", "boundary|finite"),
        ("--frame-dim 1 --reference-level -0.1", "level must be finite and not negative, got -0.1"),
        ("--frame-dim 1 --reference-level nan", "level must be finite and not negative, got nan"),
        ("--frame-dim 1 --step midpoint", "a reverse step is one of"),
        ("--frame-dim one", "a whole number is needed, got 'one'"),
        ("--frame-dim 1 --video fitted.npz", "not allowed with"),
    ],
)
def test_refuses_options_by_name(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--covariance", save(tmp_path, GOOD), "--ar-steps", "2", *options.split()]
    refused(tmp_path, capsys, words, message)


def test_refuses_a_result_in_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--covariance", save(tmp_path, GOOD), "--frame-dim", "1", "--ar-steps", "2"]
    refused(
        tmp_path, capsys, [*words, "--json", str(tmp_path / "missing" / "out.json")], "missing .* does not exist"
    )
    (tmp_path / "taken").mkdir()
    refused(tmp_path, capsys, [*words, "--json", str(tmp_path / "taken")], "taken|directory")
    assert list((tmp_path / "taken").iterdir()) == []


def test_needs_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        tmp_path,
        capsys,
        ["--frame-dim", "1"],
        "one of the arguments --covariance --video --spectrum --known is required",
    )
    refused(tmp_path, capsys, ["--video", str(tmp_path / "none.npz")], "none.npz")


def test_a_fitted_video_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    clips = [0.05 * rng.normal(size=(24, 4, 6, 3)).cumsum(0) for _ in range(4)]
    video, _ = fit_video(clips, modes=2, order=1, memory=False)
    video.save(tmp_path / "video.npz")
    out = tmp_path / "result.json"
    words = ["ledger", "--video", str(tmp_path / "video.npz"), "--ar-steps", "2", "--references", "2",
             "--reverse-steps", "20"]  # fmt: skip
    assert main([*words, "--json", str(out)]) == 0
    expected = ledger(video, outpainting(2, References.last(2)), 2)
    found = json.loads(out.read_text())
    for key in TOTALS:
        assert found[key] == pytest.approx(expected.totals[key], rel=1e-12), key
    assert found["notes"]["video"] == expected.notes["video"]
    assert f"note: {expected.notes['video']}" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["exponential", "ddim"])
def test_the_figure_is_drawn(tmp_path: Path, step: str) -> None:
    words = ["ledger", "--covariance", save(tmp_path, ar1(8, 0.5)), "--frame-dim", "1", "--ar-steps", "2"]
    assert main([*words, "--step", step, "--figure", str(tmp_path / "ledger.png")]) == 0
    assert (tmp_path / "ledger.png").read_bytes().startswith(b"\x89PNG")


# -- rates --------------------------------------------------------------------------------------------

FIFO = ("--method", "fifo", "--window", "4", "--references", "2", "--reverse-steps", "10")


def test_rates_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    assert main(["ledger", "--known", "ar1:0.9", *FIFO, "--rates", "--json", str(out)]) == 0
    expected = rates(known_ar1(0.9), fifo(4, References.last(2), 10))
    found = json.loads(out.read_text())
    assert TOTALS | LISTS.keys() | {"notes", "rates"} == found.keys()
    assert found["rates"] == {name: value and pytest.approx(value) for name, value in expected.to_dict().items()}
    printed = capsys.readouterr().out
    assert "in nats a frame" in printed
    assert f"{float(expected.kl):.6g}" in printed
    assert f"{float(expected.ar_step):.6g}" in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--known", "reference"), "learnt|learns it like 1/k"),
        (("--known", "ar1:0.9", "--plan", "causvid"), "'every' and 'all' refer to ever more frames"),
        (("--known", "ar1:1.5"), r"--known ar1:1.5: a stationary auto-regression"),
        (("--known", "pixels:x"), "--known pixels:x"),
        (("--known", "snow"), r"--known is ar1:φ, reference or pixels:N"),
    ],
)
def test_rates_that_do_not_exist_are_one_line_and_nothing_is_written(
    options: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert main(["ledger", *options, "--rates", "--json", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search(reason, error)
    assert error.count("\n") == 1
    assert not out.exists()


def test_an_array_has_no_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ledger", "--covariance", save(tmp_path, np.eye(12)), "--frame-dim", "1", "--rates"]
    assert main(words) == 2
    assert "not known to be a linear state space" in capsys.readouterr().err
