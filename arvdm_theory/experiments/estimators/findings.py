"""What the default estimator errs by, whether its intervals cover, and what it costs, beside other packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact
from arvdm_theory.video.intervals import cluster_rate

__all__ = ["findings"]

# A task is below 90 % beyond chance if so little coverage has a smaller probability than this.
_CHANCE = 1e-3


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Of the smooth tasks errors, costs and coverage; of the hard ones coverage, widths, refusals and warnings."""
    errors, costs = tables["comparison"], tables["cost"].set_index("task")
    yield count("tasks that the default loses to the best package by more than chance explains",
                int(errors.beyond_error.sum()), len(errors))  # fmt: skip
    yield count("tasks on which its median error is the larger", int(errors.loss.sum()), len(errors))
    for row in errors.itertuples():
        yield exact(f"median error of the default: {row.task}", row.default_error)
        yield exact(f"median error of {row.peer}, the best package: {row.task}", row.peer_error)
    ratio = costs.default_over_fastest_package
    for said, value in (("least", ratio.min()), ("median", ratio.median()), ("largest", ratio.max())):
        yield exact(f"CPU seconds of the default over the fastest package's, {said}", value)
    for task, value in ratio.items():
        yield exact(f"CPU seconds of the default over the fastest package's: {task}", value)
    table = tables["summary"]
    for row in table[table.method == "calibrated"].itertuples():
        yield exact(f"share of the information that is missed in the mean: {row.task}, n {row.n}",
                    -row.bias / row.truth)  # fmt: skip
    for row in tables["coverage_summary"].itertuples():
        said = f"coverage, {row.method}: {row.task}, n {row.n}"
        yield Finding(said, row.coverage, row.low, row.high, row.replicates)
    yield from _hard(tables["hard"], tables["hard_summary"])


def _hard(table: Any, tasks: Any) -> Iterator[Finding]:
    given = table[table.method != "refused"]
    covered = (given.ci_low <= given.truth) & (given.truth <= given.ci_high)
    for said, own in (("all", given.job.notna()), ("information", given.job == "information"),
                      ("divergences", given.job == "divergence")):  # fmt: skip
        found = cluster_rate(covered[own].tolist(), given.task[own].tolist())
        yield Finding(
            f"coverage of hard tasks: {said}", covered[own].mean(), found.ci_low, found.ci_high, own.sum()
        )
    yield exact("share of hard estimates that are refused", (table.method == "refused").mean())
    missed = given[~covered]
    yield count("intervals that miss the truth without a warning", int((missed.warnings == 0).sum()), len(given))
    single = tasks[tasks.job != "all"]
    yield count(
        "hard tasks covered less than 90 % beyond chance", int((single.below < _CHANCE).sum()), len(single)
    )
    null = single.truth.abs() < 1e-9
    for said, own in (("all", single), ("nothing to find", single[null]), ("something to find", single[~null])):
        yield exact(f"width over that of one who knows the law, median task: {said}", own.law_aware.median())
    for row in single.dropna(subset=["coverage"]).itertuples():
        yield exact(f"coverage: {row.task}", row.coverage)
        yield exact(f"median value: {row.task}", row.value)
        yield exact(f"truth: {row.task}", row.truth)
        yield exact(f"median width: {row.task}", row.width)
        yield exact(f"share with a warning: {row.task}", row.warned)
