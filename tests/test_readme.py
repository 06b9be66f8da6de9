"""The README's Python snippets run as they stand, each alone, in a fresh interpreter and another folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import arvdm_theory

ROOT = Path(arvdm_theory.__file__).parents[1]
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```\s*$", re.M | re.S)
BLOCKS = [
    "\n".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines())
    for match in FENCE.finditer((ROOT / "README.md").read_text(encoding="utf-8"))
    if match["kind"] in ("python", "py", "python3")
]


def test_there_are_snippets() -> None:
    assert BLOCKS
    # Blocks of another spelling of the name would be passed over in silence.
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```\s*py", text, re.M | re.I)) == len(BLOCKS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_snippet_runs_alone(number: int, tmp_path: Path) -> None:
    """From a file, as a user would paste it: processes that it starts can import it."""
    script = tmp_path / "snippet.py"
    script.write_text(BLOCKS[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], capture_output=True, text=True,
        check=False, cwd=tmp_path, timeout=600,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, f"snippet {number + 1} of README.md:\n{BLOCKS[number]}\n{done.stderr}"
    # A snippet that shows nothing shows a reader nothing.
    assert done.stdout.strip(), f"snippet {number + 1} of README.md prints nothing"
