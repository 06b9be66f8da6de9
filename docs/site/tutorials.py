"""Runs the tutorials: every block of Python and of shell of a page, in order, in a folder of its own.

A block of ``text`` behind one is what it prints. ``--write`` puts it there, and the pictures that the page shows
into ``figures/``; without it, what is printed must be what the page says, numbers to a part in a thousand.

Usage: python docs/site/tutorials.py [--write] [PAGE.md ...]
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))

_BLOCK = re.compile(
    r"^```(?P<kind>python|sh)\n(?P<body>.*?)^```\n(?:\n```text\n(?P<told>.*?)^```\n)?", re.M | re.S
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def run(page: Path, write: bool = False) -> list[str]:
    """What a page says that is not so: nothing, where all is well."""
    text, wrong, names = page.read_text(encoding="utf-8"), [], {"__name__": "__main__"}
    with _place() as place:

        def block(found: re.Match[str]) -> str:
            printed = _python(found["body"], names) if found["kind"] == "python" else _shell(found["body"])
            told = found["told"] or ""
            if not write and not _agree(told, printed):
                wrong.append(f"{page.name}: the page says\n{told}and this is printed\n{printed}")
            shown = f"\n```text\n{printed}```\n" if printed else ""
            return f"```{found['kind']}\n{found['body']}```\n{shown}"

        done = _BLOCK.sub(block, text)
        for picture in re.findall(r"\]\(figures/([\w.-]+)\)", text):
            if not (place / picture).exists():
                wrong.append(f"{page.name}: nothing draws {picture}")
            elif write:
                shutil.copyfile(place / picture, page.parent / "figures" / picture)
    if write:
        page.write_text(done, encoding="utf-8")
    return wrong


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        before = Path.cwd()
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def _python(code: str, names: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(code, "tutorial", "exec"), names)
    return shown.getvalue()


def _shell(code: str) -> str:
    """What the commands print; ``arvdm`` is the checkout's."""
    arvdm = f'arvdm() {{ "{sys.executable}" -m arvdm_theory "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", arvdm + code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{code}\n{done.stderr}")
    return done.stdout


def _agree(told: str, printed: str) -> bool:
    if _NUMBER.sub("0", told).split() != _NUMBER.sub("0", printed).split():
        return False
    pairs = zip(_NUMBER.findall(told), _NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-9) for a, b in pairs)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    chosen = [Path(word).resolve() for word in sys.argv[1:] if not word.startswith("-")] or PAGES
    problems = [line for page in chosen for line in run(page, "--write" in sys.argv)]
    print("\n".join(problems) or f"{len(chosen)} tutorials run and print what they say")
    sys.exit(bool(problems))
