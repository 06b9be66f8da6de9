"""Runs resume where they stopped, and tables come back bit for bit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import arvdm_theory.provenance as provenance_module
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.provenance import provenance, source_digest
from arvdm_theory.report.style import publish
from arvdm_theory.tables import read_table, write_table

CELLS = [{"n": n} for n in range(4)]


def rows(cell: Cell) -> pd.DataFrame:
    return pd.DataFrame({"value": np.random.default_rng(cell["n"]).normal(size=3)})


def test_an_interrupted_run_resumes_and_equals_one_never_interrupted(tmp_path: Path) -> None:
    done: list[int] = []

    def stops_at_two(cell: Cell) -> pd.DataFrame:
        if cell["n"] == 2:
            raise KeyboardInterrupt
        done.append(cell["n"])
        return rows(cell)

    with pytest.raises(KeyboardInterrupt):
        run_cells("t", CELLS, stops_at_two, tmp_path / "a", progress=False)
    assert not (tmp_path / "a" / "t.csv").exists()

    def rest(cell: Cell) -> pd.DataFrame:
        done.append(cell["n"])
        return rows(cell)

    resumed = run_cells("t", CELLS, rest, tmp_path / "a", progress=False)
    whole = run_cells("t", CELLS, rows, tmp_path / "b", progress=False)
    assert done == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert (tmp_path / "a" / "t.csv").read_bytes() == (tmp_path / "b" / "t.csv").read_bytes()


def test_another_seed_or_config_is_another_cell(tmp_path: Path) -> None:
    run_cells("t", CELLS[:1], rows, tmp_path, seed=0, progress=False)
    seen: list[Cell] = []

    def note(cell: Cell) -> pd.DataFrame:
        seen.append(cell)
        return rows(cell)

    run_cells("t", CELLS[:1], note, tmp_path, seed=0, progress=False)
    run_cells("t", CELLS[:1], note, tmp_path, seed=1, progress=False)
    run_cells("t", [{"n": 0, "m": 1}], note, tmp_path, seed=0, progress=False)
    assert seen == [{"n": 0}, {"n": 0, "m": 1}]


def test_a_number_of_numpys_is_the_same_cell(tmp_path: Path) -> None:
    """Older releases of pandas hand them out where newer ones have Python's own."""
    plain = run_cells("t", CELLS[2:3], rows, tmp_path, progress=False)

    def never(cell: Cell) -> pd.DataFrame:
        raise AssertionError

    again = run_cells("t", [{"n": np.int64(2)}], never, tmp_path, progress=False)
    pd.testing.assert_frame_equal(again, plain, check_exact=True)
    with pytest.raises(TypeError, match="a cell's config holds plain values, got set"):
        run_cells("t", [{"n": {2}}], rows, tmp_path, progress=False)


def test_tables_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=2000) * 10.0 ** rng.integers(-300, 300, 2000)})
    write_table(table, tmp_path / "t.csv")
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv").x, table.x)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="is not a table that a run wrote"):
        read_table(path)


def test_provenance_says_what_made_a_result(tmp_path: Path) -> None:
    run_cells("t", CELLS[:2], rows, tmp_path, seed=7, progress=False)
    kept = json.loads((tmp_path / "t.provenance.json").read_text())
    assert kept["seed"] == 7
    assert kept["config"] == {"cells": CELLS[:2]}
    assert kept["versions"].keys() >= {"python", "torch", "numpy", "arvdm-theory"}
    assert kept == json.loads(json.dumps(provenance({"cells": CELLS[:2]}, 7)))


def damage(how: str, path: Path) -> None:
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    other = next(place for place in path.parent.iterdir() if place != path)
    {
        "a value changed": lambda: path.write_bytes(content.replace(b"1,", b"2,", 1)),
        "a row dropped": lambda: path.write_bytes(b"".join(lines[:-1])),
        "cut in half": lambda: path.write_bytes(content[: len(content) // 2]),
        "emptied": lambda: path.write_bytes(b""),
        "without its line": lambda: path.write_bytes(b"".join(lines[1:])),
        "another cell's": lambda: path.write_bytes(other.read_bytes()),
        "no text": lambda: path.write_bytes(b"\xff\xfe" * 9),
    }[how]()
    assert path.read_bytes() != content


@pytest.mark.parametrize(
    "how",
    [
        "a value changed",
        "a row dropped",
        "cut in half",
        "emptied",
        "without its line",
        "another cell's",
        "no text",
    ],
)
def test_a_damaged_cell_is_computed_again_and_told_of(how: str, tmp_path: Path) -> None:
    whole = run_cells("t", CELLS, rows, tmp_path, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    victim = next(path for path in (tmp_path / "cells").iterdir() if b"1," in path.read_bytes())
    damage(how, victim)
    seen: list[Cell] = []

    def note(cell: Cell) -> pd.DataFrame:
        seen.append(cell)
        return rows(cell)

    with pytest.warns(UserWarning, match=rf"{victim.name} is damaged or was changed .* computed again"):
        again = run_cells("t", CELLS, note, tmp_path, progress=False)
    assert len(seen) == 1
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path: Path) -> None:
    run_cells("t", CELLS, rows, tmp_path, progress=False)
    victim = next((tmp_path / "cells").iterdir())
    victim.unlink()
    half = victim.with_name(f".{victim.stem}-abcd1234.csv")
    half.write_text("half")
    (victim.parent / f".{victim.name}.lock").touch()
    (tmp_path / ".t-wxyz5678.csv").write_text("half")
    run_cells("t", CELLS, rows, tmp_path, progress=False)
    assert not list(tmp_path.rglob(".*"))
    assert victim.exists()


def test_a_cells_source_is_what_its_module_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the package: what is imported counts, directly, at one remove or by name; nothing else does."""
    package = tmp_path / "arvdm_theory"
    (package / "sub").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "sub/__init__.py": "",
        "a.py": '"""Says."""\nfrom arvdm_theory.b import x\nimport importlib\nfrom typing import TYPE_CHECKING\n'
        'if TYPE_CHECKING:\n    from arvdm_theory.types_only import T\nm = f"arvdm_theory.sub.{x}"\n',
        "b.py": "import arvdm_theory.c as c\nx = c.y\n",
        "c.py": "y = 1\n",
        "types_only.py": "T = int\n",
        "sub/dynamic.py": "z = 1\n",
        "other.py": "w = 1\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.setattr(provenance_module, "_PACKAGE", package)

    def digest() -> str:
        provenance_module._code.cache_clear()
        source_digest.cache_clear()
        return source_digest("arvdm_theory.a")

    first = digest()
    for name in ("other.py", "types_only.py"):
        (package / name).write_text(files[name].replace("1", "2").replace("int", "str"))
        assert digest() == first, name
    (package / "a.py").write_text(files["a.py"].replace("Says", "Tells") + "# a remark\n")
    assert digest() == first
    for name in ("c.py", "sub/dynamic.py"):
        (package / name).write_text(files[name].replace("1", "2"))
        assert digest() != first, name
        (package / name).write_text(files[name])
    provenance_module._code.cache_clear()
    source_digest.cache_clear()


def test_what_was_computed_from_an_uncommitted_tree_is_not_published(tmp_path: Path) -> None:
    """Nothing is copied, not even the tables whose provenance is in order."""
    for name, commit in (("one", "a" * 40), ("two", f"{'b' * 40}-dirty")):
        (tmp_path / f"{name}.csv").write_text("value\n1\n")
        (tmp_path / f"{name}.provenance.json").write_text(json.dumps({"commit": commit}))
    target = tmp_path / "published"
    with pytest.raises(
        ValueError, match=r"two\.provenance\.json: computed from a source tree that was changed since"
    ):
        publish(sorted(tmp_path.glob("*.*")), target)
    assert not target.exists()
    publish(sorted(tmp_path.glob("one.*")), target)
    assert sorted(path.name for path in target.iterdir()) == ["one.csv", "one.provenance.json"]
