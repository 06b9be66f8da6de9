"""What is published stands: numbers of READMEs are in tables beside them, and tables come from a clean commit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from readme_numbers import noticed, unsourced

from arvdm_theory.experiments.findings import count, exact, measured, ratio, write_findings
from arvdm_theory.files import read_json
from arvdm_theory.provenance import uncommitted

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
READMES = sorted(RESULTS.rglob("README.md"))
# Whose paragraphs do not name what their numbers are of; any number of their tables counts there.
UNNAMED = {"estimators", "video"}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_number_of_a_readme_is_in_a_table_beside_it(readme: Path) -> None:
    assert unsourced(readme.parent, named=readme.parent.name not in UNNAMED) == []


def test_every_folder_says_what_was_found() -> None:
    folders = {path.name for path in RESULTS.iterdir() if path.is_dir()}
    assert folders == {path.parent.name for path in READMES}


def test_another_last_digit_is_found_out() -> None:
    """Of all numbers of READMEs with another last digit four fifths are noticed, of each at least two."""
    found = {path.parent.name: noticed(path.parent) for path in READMES if path.parent.name not in UNNAMED}
    assert np.mean([each for every in found.values() for each in every]) > 0.8
    assert {name: share for name, every in found.items() if (share := np.mean(every)) < 0.4} == {}


def test_the_check_of_a_readme_fails_where_it_should(tmp_path: Path) -> None:
    def wrong(text: str) -> list[str]:
        (tmp_path / "README.md").write_text(text)
        return [word for numbers in unsourced(tmp_path) for word in numbers]

    table = pd.DataFrame({"value": [0.1234, 25.04, 3.0, 4096.0], "name": ["level 0.3", "a", "b", "c"]})
    table.assign(name="").to_csv(tmp_path / "x.csv")
    assert (
        wrong("0.123, 12.3 %, 25.0, 0.12 and 4,096; `9.99`, [1.5](http://8.88) <!-- no results: 95 %, 1.5 -->95 %")
        == []
    )
    changed = ["0.124", "12.2 %", "25.1", "4,097", "5", ".31", "1.2e-3", "-0.123"]
    assert wrong(", ".join(changed) + " and I3D") == changed


def test_a_number_is_met_by_a_row_that_its_paragraph_names(tmp_path: Path) -> None:
    def wrong(text: str) -> list[tuple[str, ...]]:
        (tmp_path / "README.md").write_text(text)
        return unsourced(tmp_path)

    names = ["drift: ring, trained", "drift: torus, trained", "rate: ring", "networks that drift: ring"]
    findings = pd.DataFrame(
        {"finding": names, "value": [0.25, 0.75, 0.5, 3], "low": [0.1, 0.7, 0.2, 0.1],
         "high": [0.4, 0.8, 0.8, 0.9], "of": [None, None, None, 8]}
    )  # fmt: skip
    findings.to_csv(tmp_path / "x-findings.csv", index=False)
    pd.DataFrame({"kind": ["drift on the ring"], "value": [7.25]}).to_csv(tmp_path / "raw.csv")
    assert wrong("Drift on the ring, trained, is 0.25 (0.10 to 0.40), of 3 of 8 networks that drift.") == []
    assert wrong("Drift on the ring, trained, is 0.25 ± 0.15.") == []
    # Another row's number, another row's interval, out of another number, a raw row's, a bound alone.
    assert wrong("On the torus the drift, trained, is 0.5.") == [("0.5",)]
    assert wrong("Drift on the ring, trained, is 0.25 (0.20 to 0.80).") == [("0.25", "0.20", "0.80")]
    assert wrong("Of networks that drift on the ring there are 3 of 9.") == [("3", "9")]
    assert wrong("Drift on the ring is 7.25.") == [("7.25",)]
    assert wrong("The drift of the ring, trained, is 0.1.") == [("0.1",)]
    # Tables name rows by their heads and labels, paragraphs otherwise by a comment.
    assert wrong("| drift, trained | ring | torus |\n|---|---|---|\n| drift | 0.25 | 0.75 |") == []
    assert wrong("| drift, trained | ring | torus |\n|---|---|---|\n| drift | 0.75 | 0.75 |") == [("0.75",)]
    assert wrong("That is 0.75. <!-- of: drift: torus, trained -->") == []
    assert wrong("That is 0.75.") == [("0.75",)]


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
