"""What is said of a sweep: each condition by itself, beside the references of its own queries."""

from typing import Any

import pandas as pd

from arvdm_theory.experiments.findings import Finding
from arvdm_theory.experiments.video.findings import _drift, findings

REFERENCES = {"copy of the last frame": 0.05, "mean of the memory": 0.1, "memory by time": 0.3,
              "nearest by dead reckoning": 0.7, "mean of the two nearest by dead reckoning": 0.3}  # fmt: skip
CONDITION = {"data": "dmlab", "preset": "cpu-slip", "worlds": 1, "plan": "outpainting", "told": "reckoned"}


def row(network: str, memory: str, rate: float, **fields: Any) -> dict[str, Any]:
    """Intervals are as wide as 0.1 to either side."""
    frames = 0 if memory == "none" else 8
    usual = {**CONDITION, "network": network, "memory": memory, "memory_frames": frames, "compress": 1}
    usual |= {"compression": "spatial", "steps": 400, "source": "generated", "ahead": 0, "queries": 200}
    for name, value in (("rate", rate), ("psnr", 20 * rate)):
        usual |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return usual | fields


def retrieved() -> pd.DataFrame:
    networks = {"a": ("none", 0.2), "b": ("concat", 0.45), "c": ("cross", 0.55), "d": ("cross", 0.95)}
    rows = []
    for name, (memory, rate) in networks.items():
        steps = {"steps": 100} if name == "d" else {}
        rows.append(row(name, memory, rate, **steps))
        rows += [row(name, memory, value, source=source, **steps) for source, value in REFERENCES.items()]
    rows.append(row("c", "cross", 0.06, source="generated with shuffled memory"))
    return pd.DataFrame(rows)


def summarised() -> pd.DataFrame:
    rolled = {"slope": -0.1, "slope_low": -0.2, "slope_high": 0.0, "psnr_first": 20.0, "end": 12.0}
    rows = [
        row("a", "none", 0.2, **rolled, begin_true=14.0, end_true=14.5),
        row("c", "cross", 0.8, **rolled, begin_true=18.0, end_true=17.25),
    ]
    return pd.DataFrame(rows)


def found() -> dict[str, Finding]:
    claims = pd.DataFrame([
        {**CONDITION, "forgetting": "1 - rate", "degradation": "dB lost", "networks": 40, "spearman": -0.5,
         "low": -0.7, "high": -0.2, "pvalue": 0.01, "partial": 0.1, "partial_low": -0.2, "partial_high": 0.4}
    ])  # fmt: skip
    agreement = pd.DataFrame([
        {**CONDITION, "proxy": "constant", "measure": "end", "spearman": 0.9, "low": 0.8, "high": 0.95,
         "networks": 40}
    ])  # fmt: skip
    tables = {"video": retrieved(), "video-summary": summarised(), "video-claims": claims}
    rows = list(findings(tables | {"video-agreement": agreement}))
    assert len({each.finding for each in rows}) == len(rows)
    return {each.finding: each for each in rows}


def test_memories_are_held_against_the_best_that_knows_no_map_and_against_dead_reckoning() -> None:
    told, label = found(), "dmlab, cpu-slip, worlds 1"
    assert told[f"best without a map (memory by time): {label}"].value == 0.3
    # Of the longest trained: cross attention's interval begins above 0.4, that of concatenation does not.
    above = told[f"memories above best without a map: {label}"]
    assert (above.value, above.of) == (1, 2)
    assert told[f"memories above nearest by dead reckoning: {label}"].value == 0
    assert told[f"memories above mean of the two nearest by dead reckoning: {label}"].value == 1
    assert told[f"memories below nearest by dead reckoning: {label}"].value == 1
    assert told[f"rate: {label}: nearest by dead reckoning"].value == 0.7
    assert told[f"largest rate with shuffled memory: {label}"].value == 0.06
    assert f"rate: {label}: cross, 8 frames, 100 updates" not in told


def test_changes_on_true_frames_are_apart_from_rollouts() -> None:
    told, label = found(), "dmlab, cpu-slip, worlds 1"
    assert told[f"largest change on true frames (dB): {label}"].value == 0.75
    assert told[f"last eight (dB): {label}: cross, 8 frames, 400 updates"].value == 12
    assert told[f"rank correlation: 1 - rate and dB lost: {label}"].of == 40
    assert told[f"the same at equal first frames: 1 - rate and dB lost: {label}"].value == 0.1


def test_drift_is_what_generated_references_cost() -> None:
    """Five networks: those that forget more drift less, though all lose the same from the first frame on."""
    rows = [
        row(str(i), "cross", 0.2 * i, slope=-0.1, slope_low=-0.2, slope_high=0.0, psnr_first=20.0, end=12.0,
            begin_true=14.0, end_true=12.0 + i)
        for i in range(1, 6)
    ]  # fmt: skip
    told = {each.finding: each for each in _drift(pd.DataFrame(rows))}
    label = "1 - rate and drift: dmlab, cpu-slip, worlds 1"
    assert told == {}  # drift and quality rank them alike: nothing is left to correlate
    rows[0]["end"], rows[4]["end_true"] = 11.5, 16.5
    rows[1]["end_true"], rows[1]["end"] = 12.5, 10.0
    told = {each.finding: each for each in _drift(pd.DataFrame(rows))}
    drift = [1.5, 2.5, 3.0, 4.0, 4.5]
    assert told["largest drift (dB): dmlab, cpu-slip, worlds 1"].value == max(drift)
    assert told[f"rank correlation: {label}"].value == -1
    assert told[f"rank correlation: {label}"].of == 5
