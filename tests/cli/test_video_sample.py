"""``arvdm video sample`` on folders that hold no run."""

from pathlib import Path

import pytest

from arvdm_theory.cli import main


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no run of a video network, no run.json, in this folder"),
        ("{", "not what a training run writes"),
        ('{"run": {"colour": "red"}}', "there is no checkpoint"),
    ],
)
def test_a_folder_without_a_run_is_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert main(["video", "sample", "--run", str(tmp_path)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plan", "rolling"], "are of long rollouts: add --rollout"),
        (["--rollout", "--context-noise", "much"], "LEVEL or LEVEL,LEVEL..., got 'much'"),
        (["--rollout", "--context-noise", "0.1,-1"], "finite and at least 0, got 0.1,-1"),
        (["--rollout", "--guidance", "nan"], "a finite number, got nan"),
    ],
)
def test_ways_to_sample_that_cannot_be_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["video", "sample", "--run", str(tmp_path), *options]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
