"""What the pages of the published estimates say is what their tables hold, and these hold together."""

import re
from pathlib import Path

import arvdm_theory
from arvdm_theory.experiments.estimators.hard_run import hard_summary
from arvdm_theory.experiments.estimators.run import comparison
from arvdm_theory.experiments.independence.nulls import NULLS
from arvdm_theory.files import read_json
from arvdm_theory.tables import read_table

RESULTS = Path(arvdm_theory.__file__).parents[1] / "experiments" / "results"


def page(folder: str) -> str:
    return " ".join((RESULTS / folder / "README.md").read_text(encoding="utf-8").split())


def test_the_page_of_the_hard_tasks() -> None:
    table = read_table(RESULTS / "estimators" / "hard.csv")
    tasks = read_table(RESULTS / "estimators" / "hard_summary.csv").set_index("task")
    again = hard_summary(table).set_index("task")
    for column in ("coverage", "refused", "width", "law_aware"):
        assert (again[column] - tasks[column]).abs().max() < 1e-9
    whole, text = tasks.loc["together"], page("estimators")
    seeds = int(tasks.estimates.drop("together").max())
    assert f"{seeds} seeds a task: {whole.coverage:.1%} of all".replace("%", " %") in text
    assert f"{whole.refused:.1%} of the estimates".replace("%", " %") in text
    assert f"{whole.law_aware:.1f} times as wide as that of one who knows the law" in text
    single = tasks.drop("together")
    assert ("No task is below 90 %" in text) == bool((single.below >= 1e-3).all())
    losses = comparison(read_table(RESULTS / "estimators" / "estimators.csv"))
    assert f"Of {len(losses)} tasks {losses.beyond_error.sum()} are lost" in text
    costs = read_table(RESULTS / "estimators" / "cost.csv").default_over_fastest_package
    assert f"{costs.min():.1f} to {costs.max():.0f} times the fastest package's" in text


def test_the_page_of_the_independence_test() -> None:
    table = read_table(RESULTS / "independence" / "independence_nulls.csv").set_index("null")
    text, single = page("independence"), table.drop("all together")
    assert list(single.index) == list(NULLS)
    whole = table.loc["all together"]
    counts = ["draws", "refused", "rejections"]
    assert (whole[counts] == single[counts].sum()).all()
    said = f"{whole.rate:.1%} of the rest rejected ({100 * whole.low:.1f} to {whole.high:.1%})"
    assert f"Of {whole.draws:.0f} draws {whole.refused:.0f} are refused, and {said}".replace("%", " %") in text
    for name, row in single[(single.rate > 0.08) | (single.refused > 0)].iterrows():
        assert f"`{name}` ({row.rate:.1%}".replace("%", " %") in text or f"`{name}` ({row.refused:.0f})" in text


def test_tables_come_from_commits() -> None:
    for folder in ("estimators", "independence"):
        for path in (RESULTS / folder).glob("*.provenance.json"):
            assert re.fullmatch("[0-9a-f]{40}", read_json(path)["commit"]), path
