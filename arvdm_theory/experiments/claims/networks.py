"""Claims on networks on first-person video, by the published table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from arvdm_theory.experiments.claims.claim import Numbers
from arvdm_theory.tables import read_table

__all__ = ["compression_pays", "forgetting_degrades", "memories_retrieve"]

_RESULTS = Path(__file__).parents[3] / "experiments" / "results"
_VIDEO = _RESULTS / "video" / "video-findings.csv"
_COMPRESSION = _RESULTS / "video-compression" / "video-compression-findings.csv"
_NO_TABLE = "not decided here: the tables of experiments/results are in a checkout of the project alone"


def _of_networks(beginning: str, place: Path | None = None) -> pd.DataFrame:
    """Published findings of networks on first-person video whose names begin so, by the rest of the name."""
    table = read_table(place or _VIDEO).set_index("finding")
    table = table[table.index.str.startswith(beginning)]
    return table.set_index(table.index.str.removeprefix(beginning))


def memories_retrieve() -> tuple[str, Numbers]:
    """Networks whose interval lies above that of the best copy without a map, and of the nearest by reckoning."""
    if not _VIDEO.exists():
        return _NO_TABLE, {}
    numbers: Numbers = {}
    found = {}
    for copy in ("best without a map", "nearest by dead reckoning"):
        table = _of_networks(f"memories above {copy}: ")
        found[copy] = int(table["value"].sum()), int(table["of"].sum())
        numbers |= {f"above {copy}: {name}": f"{row.value:.0f} of {row.of:.0f}" for name, row in table.iterrows()}
    (mapless, of), (reckoned, _) = found.values()
    verdict = "confirmed" if mapless == of else "mostly so" if mapless > of / 2 else "false"
    return (
        f"{verdict} on stand-ins: {mapless} of {of} networks with a memory retrieve more than any copy that knows "
        "no map. Of the remembered frame that is nearest by dead reckoning, a lookup without a network, "
        f"{reckoned} of {of} retrieve more"
    ), numbers


def compression_pays() -> tuple[str, Numbers]:
    """Rate lost, time and memory of compressed networks beside uncompressed ones."""
    if not _COMPRESSION.exists():
        return _NO_TABLE, {}
    beside = {
        name: _of_networks(f"{name}: ", _COMPRESSION)["value"]
        for name in (
            "rate lost by compression", "processor's time beside uncompressed", "peak memory beside uncompressed"
        )
    }  # fmt: skip
    table = pd.DataFrame(beside)
    lost, time, memory = (table[name] for name in beside)
    cheap = (time <= 0.5) | (memory <= 0.5)
    pays = cheap & (lost < 0.05)
    numbers: Numbers = {f"rate lost, time, memory: {name}": list(row) for name, *row in table.itertuples()}
    least = "" if not cheap.any() or pays.any() else f", the least of which loses {lost[cheap].min():.2f}"
    return (
        f"so of {pays.sum() or 'none'} of {len(pays)} compressed networks on a stand-in, trained for as many "
        f"updates as their uncompressed twins; {cheap.sum()} save half of the time or memory{least}"
    ), numbers


_DEGRADATION = {
    "": ("rank correlation: 1 - rate and dB lost", "rank correlation: 1 - rate and - slope",
         "rank correlation: 1 - rate and drift"),
    "at equal quality": (
        "the same at equal first frames: 1 - rate and dB lost",
        "the same at equal first frames: 1 - rate and - slope",
        "rank correlation at equal quality on true frames: 1 - rate and drift",
    ),
}  # fmt: skip


def forgetting_degrades() -> tuple[str, Numbers]:
    """Of the condition with most networks, by three measures of degradation."""
    if not _VIDEO.exists():
        return _NO_TABLE, {}
    numbers: Numbers = {}
    said = []
    for held, names in _DEGRADATION.items():
        found = pd.concat([_of_networks(f"{name}: ").nlargest(1, "of").assign(name=name) for name in names])
        numbers |= {
            f"{row['name']}, {row['of']:.0f} networks": [row["value"], row["low"], row["high"]]
            for _, row in found.iterrows()
        }
        more, less = (found["low"] > 0).any(), (found["high"] < 0).any()
        word = "more by one measure and less by another" if more and less else "more" if more else "less"
        said.append(
            f"{held + ' ' if held else ''}{word if more or less else 'neither more nor less, as far as told'}"
        )
    return f"of networks on stand-ins, those that forget more degrade {said[0]}; {said[1]}", numbers
