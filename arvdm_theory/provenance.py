"""What a result must carry to be trusted: its config and seed, and the versions, commit and device behind it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["provenance", "versions"]


@cache
def versions() -> dict[str, str | None]:
    """Of Python, this library and what its numbers depend on; None for what is not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("arvdm-theory", "torch", "numpy", "scipy", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def _commit() -> str | None:
    """The commit of the source tree, marked ``-dirty`` if it was changed since; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # The package may lie, installed, inside another project's checkout.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", str(here))
    return f"{commit}-dirty" if commit and changed else commit


def provenance(config: Mapping[str, Any], seed: int, device: str = "cpu") -> dict[str, Any]:
    """What a result must carry.

    Args:
        config: all that was asked for, as JSON values.
        seed: of every draw.
        device: the kind of device that computed it.
    """
    return {
        "config": dict(config),
        "seed": seed,
        "versions": versions(),
        "commit": _commit(),
        "device": f"{platform.machine()} {device}",
    }
