"""What the pages say is so: tutorials print what is printed on them, and commands are ones that there are."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

import arvdm_theory
from arvdm_theory.cli import COMMANDS, _parser

ROOT = Path(arvdm_theory.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
TOOL = runpy.run_path(str(DOCS / "site" / "tutorials.py"))


@pytest.mark.parametrize("page", TOOL["PAGES"], ids=lambda page: page.stem)
def test_a_tutorial_prints_what_its_page_says(page: Path) -> None:
    assert TOOL["run"](page) == []


def snippets() -> dict[str, list[str]]:
    """Blocks of Python of the pages that are no tutorials, a page's in order; the README has a test of its own."""
    found = {
        page.stem: re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        for page in sorted(DOCS.glob("*.md"))
    }
    return {page: blocks for page, blocks in found.items() if blocks and page != "clusters"}  # it needs a cluster


@pytest.mark.parametrize("page", snippets())
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(snippets()[page]):
        exec(compile(code, f"{page} {number}", "exec"), names)


def test_what_differs_is_told() -> None:
    assert TOOL["_agree"]("KL 1.2341\n", "KL 1.2342\n")
    assert not TOOL["_agree"]("KL 1.23\n", "KL 1.24\n")
    assert not TOOL["_agree"]("KL 1.23\n", "MB 1.23\n")


def commands() -> list[str]:
    """Command lines of the pages' shell blocks, continued lines joined."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                found += re.findall(r"(?:^|&& |bin/|srun )(arvdm [^#|&>]*)", line)
    return found


def test_commands_of_the_pages_are_understood() -> None:
    lines = commands()
    assert len(lines) > 20
    for line in lines:
        words = shlex.split(line.replace("$SLURM_CPUS_PER_TASK", "2"))[1:]
        command = next((word for word in words if word in COMMANDS), None)
        assert command is not None, line
        _parser(command).parse_args(words)


def test_commands_in_running_text_exist() -> None:
    for page in PAGES:
        for line in re.findall(r"`arvdm ([a-z][a-z-]*)", page.read_text(encoding="utf-8")):
            assert line in {*COMMANDS, "figures"}, (page, line)
