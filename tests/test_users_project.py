"""The example of a user's project runs; that it is typed is checked where the package's own types are."""

import runpy
from pathlib import Path

import pytest


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).parent / "users_project" / "project.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "generated (5, 3, 1)" in shown
    assert "lemma holds: True" in shown
