"""The words about the package agree with each other."""

import re
import tomllib
from pathlib import Path

import arvdm_theory

ROOT = Path(arvdm_theory.__file__).parents[1]


def test_one_version() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited is not None
    assert {told["version"], cited[1]} == {arvdm_theory.__version__}
    assert f"## {arvdm_theory.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert told["license"] == "MIT"
    assert told["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_what_contributors_are_told_of_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:arvdm_theory|tests|experiments|figures|\.ci)/[\w./-]*)`", text))
    assert len(named) > 5
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing
