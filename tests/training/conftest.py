"""A short training run, in this process and as a program of its own."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).with_name("small_run.py")


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """``small.run(folder, ..)`` trains here, and ``small.command(folder, ..)`` is how another process does."""
    names = runpy.run_path(str(SCRIPT))

    def command(folder: Path, *settings: str) -> list[str]:
        return [sys.executable, str(SCRIPT), str(folder), *settings]

    return SimpleNamespace(
        **{k: names[k] for k in ("run", "config", "PLAN", "NETWORK")}, command=command, script=SCRIPT
    )
