"""Runs resume where they stopped, and tables come back bit for bit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.provenance import provenance
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
