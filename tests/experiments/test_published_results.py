"""What is published stands: numbers of READMEs are in tables beside them, and tables come from a clean commit.

A number of a README is met by a value of a table that rounds to it at the digits that are printed (of
``*-findings.csv`` alone where there is one, as among thousands of raw rows any number is found by chance), by a
value or word of a provenance's config, or by the README's own list of quantities that are no results:

    <!-- no results: 95 %, 16 x 16 -->
    <!-- no results, but seeds: 1101 -->

Code, links' targets and names with digits (I3D) do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from arvdm_theory.experiments.findings import count, exact, measured, ratio, write_findings
from arvdm_theory.files import read_json
from arvdm_theory.provenance import uncommitted

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
READMES = sorted(RESULTS.rglob("README.md"))


Array = NDArray[np.float64]

_NUMBER = re.compile(
    r"(?:(?<=[\s(|])-)?(?<![\w.^/])"  # a minus where one can be, and no name, path or power before it
    r"(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)?(?:\.(?=\d))?\d*(?:e-?\d+)?(?![\w])(?:\s?%)?"
)
_LIST = re.compile(r"<!-- no results(?:, but [a-z ]+)?:(.*?)-->", re.DOTALL)
# Whole numbers below this are met exactly only: rounding would find them anywhere.
_COUNTS = 10


def _printed(text: str) -> list[str]:
    """The numbers of a text as they stand there."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->|\$[^$]*\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"(\d) to (\d[\d.]*\s?%)", r"\1 % to \2", text)  # 5 to 7 % are percentages both
    found = (match.group().strip() for match in _NUMBER.finditer(text))
    return [word for word in found if re.search(r"\d", word)]


def _unsourced(folder: Path) -> list[str]:
    """The numbers of a folder's README that none of its tables has."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    allowed = {word for told in _LIST.findall(text) for word in _printed(told.replace("`", ""))}
    values = _sources(folder)
    return [word for word in _printed(text) if word not in allowed and not _met(word, values)]


def _met(word: str, values: Array) -> bool:
    """Whether a value rounds to a number as printed; prose may say of a negative one that it falls by so much."""
    percent = word.endswith("%")
    digits = word.rstrip("% ").replace(",", "").replace(" ", "")
    mantissa, _, power = digits.partition("e")
    number = float(digits)
    unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    near = values * 100 if percent else values
    if number >= 0:
        near = np.abs(near)
    if unit == 1 and abs(number) < _COUNTS and not percent:
        return bool((near == number).any())
    return bool((np.abs(near - number) <= 0.5 * unit * (1 + 1e-9)).any())


def _sources(folder: Path) -> Array:
    """Every number that a README may print."""
    tables = sorted(folder.glob("*-findings.csv")) or sorted(folder.rglob("*.csv"))
    found: list[float] = []
    for path in tables:
        table = pd.read_csv(path)
        for name in table:
            column = table[name]
            if column.dtype.kind in "ifb":
                found += column.astype(float).tolist()
            else:
                found += (number for word in column.dropna().unique() for number in _within(str(word)))
    for path in sorted(folder.rglob("*.provenance.json")):
        told = read_json(path)
        found += _numbers(told.get("config"))
        found += _numbers(told.get("seed"))
    values = np.array(found, dtype=np.float64)
    return np.unique(values[np.isfinite(values)])


def _numbers(told: Any) -> Iterator[float]:
    if isinstance(told, dict):
        for key, each in told.items():
            yield from _within(str(key))
            yield from _numbers(each)
    elif isinstance(told, list):
        for each in told:
            yield from _numbers(each)
    elif isinstance(told, str):
        yield from _within(told)
    elif isinstance(told, (int, float)):
        yield float(told)


def _within(words: str) -> Iterator[float]:
    return (float(number) for number in re.findall(r"\d+(?:\.\d+)?", words))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_number_of_a_readme_is_in_a_table_beside_it(readme: Path) -> None:
    assert _unsourced(readme.parent) == []


def test_every_folder_says_what_was_found() -> None:
    folders = {path.name for path in RESULTS.iterdir() if path.is_dir()}
    assert folders == {path.parent.name for path in READMES}


def _doctored(word: str) -> list[str]:
    """A number with its last digit changed."""
    digits = word.rstrip("% ").partition("e")[0]
    last = max(i for i, letter in enumerate(digits) if letter.isdigit())
    return [word[:last] + str((int(word[last]) + by) % 10) + word[last + 1 :] for by in (3, 5, 7)]


@pytest.mark.parametrize("readme", [path for path in READMES if list(path.parent.glob("*-findings.csv"))],
                         ids=lambda path: path.parent.name)  # fmt: skip
def test_numbers_that_are_of_other_tables_are_found_out(readme: Path) -> None:
    """Of numbers of two digits and more a fifth at least is noticed if its last digit is another one.

    Short numbers are met by chance where findings are many; that none of a README's is noticed when its tables are
    made anew is out of the question.
    """
    values = _sources(readme.parent)
    words = [word for word in _printed(readme.read_text()) if sum(map(str.isdigit, word)) >= 2]
    noticed = [not _met(changed, values) for word in words for changed in _doctored(word)]
    assert len(noticed) > 20
    assert np.mean(noticed) > 0.2


def test_the_check_of_a_readme_fails_where_it_should(tmp_path: Path) -> None:
    pd.DataFrame({"value": [0.1234, 25.04, 3.0, 4096.0], "name": ["level 0.3", "a", "b", "c"]}).to_csv(
        tmp_path / "x.csv"
    )
    readme = tmp_path / "README.md"
    readme.write_text(
        "0.123, 12.3 %, 25.0, 0.12, 4,096 and 0.3; `9.99`, [1.5](http://8.88) <!-- no results: 95 %, 1.5 -->95 %"
    )
    assert _unsourced(tmp_path) == []
    readme.write_text("0.124, 12.2 %, 25.1, 4,097, 5, .31, 1.2e-3, -0.123 and I3D")
    assert _unsourced(tmp_path) == ["0.124", "12.2 %", "25.1", "4,097", "5", ".31", "1.2e-3", "-0.123"]
    # With findings, raw rows no longer count.
    pd.DataFrame({"finding": ["a"], "value": [7.25]}).to_csv(tmp_path / "x-findings.csv")
    readme.write_text("7.25 and 0.123")
    assert _unsourced(tmp_path) == ["0.123"]


def test_no_table_is_of_a_tree_that_no_commit_describes() -> None:
    paths = sorted(RESULTS.rglob("*.provenance.json"))
    assert paths
    dirty = {
        path.relative_to(RESULTS).parts[0]
        for path in paths
        if not isinstance(commit := read_json(path).get("commit"), str) or uncommitted(commit)
    }
    assert not dirty


@pytest.mark.parametrize("name", [path.parent.name for path in RESULTS.glob("*/*-findings.csv")])
def test_findings_are_those_of_the_tables_beside_them(name: str, tmp_path: Path) -> None:
    for path in (RESULTS / name).glob("*"):
        if path.is_file() and "-findings" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    written = write_findings(name, tmp_path)
    assert written is not None
    pd.testing.assert_frame_equal(pd.read_csv(written), pd.read_csv(RESULTS / name / written.name), rtol=1e-9)


def test_intervals_of_findings() -> None:
    assert measured("a", 1.0, 0.5)[1:4] == pytest.approx((1.0, 0.02002, 1.97998), abs=1e-5)
    assert np.isnan(exact("a", 1.0).low)
    # The variance of the logarithm of a ratio is the sum of the squared relative errors.
    found = ratio("a", (6.0, 0.6), (3.0, 0.3))
    assert (found.value, np.log(found.high / 2)) == pytest.approx((2.0, 1.959964 * np.hypot(0.1, 0.1)))
    assert found.low * found.high == pytest.approx(4.0)
    # Clopper and Pearson: nothing in ten is (0.025)^(1/10) away from certain.
    none = count("a", 0, 10)
    assert (none.value, none.low, none.high, none.of) == pytest.approx((0, 0, 1 - 0.025**0.1, 10))
