"""Experiments: what the theory says, checked, and what trained networks do beside it.

An experiment is a folder. ``run.py`` computes its tables, written cell by cell, and has its words, ``headline``;
``figures.py`` has ``FIGURES``, each drawn from one table alone. Of one that trains networks on videos whose law is
known (the command ``experiment``), ``run.py`` has ``PRESETS`` by name, ``networks(preset)``, the networks that one
trains, and ``run(setting)``, which returns its tables by name; ``findings.py``, where there is one, has what can
be said of them (:mod:`arvdm_theory.experiments.findings`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["EXPERIMENTS", "TRAINED", "Experiment", "drawn_from", "experiment"]


@dataclass(frozen=True)
class Experiment:
    """What is known of an experiment before any of it is imported.

    Attributes:
        folder: its folder in this package.
        shows: what, in a line.
        presets: names of what can be run of it, the keys of the dictionary ``named`` of its module ``part``.
        command: of ``arvdm``, or the script in ``experiments/``, that runs it.
        named: see there.
        part: see there.
    """

    folder: str
    shows: str
    presets: tuple[str, ...] = ("smoke", "cpu", "gpu")
    command: str = "experiment"
    named: str = "PRESETS"
    part: str = "run"

    @property
    def runs(self) -> str:
        """The command that runs it; ``arvdm experiment`` needs its name behind."""
        return f"{'python experiments/' if self.command.endswith('.py') else 'arvdm '}{self.command}"

    def module(self, part: str) -> ModuleType:
        """One of its modules, as ``run`` or ``figures``."""
        return importlib.import_module(f"{__name__}.{self.folder}.{part}")

    @property
    def concludes(self) -> bool:
        """Whether it has a module ``findings``."""
        return importlib.util.find_spec(f"{__name__}.{self.folder}.findings") is not None

    @property
    def figures(self) -> Mapping[str, Any]:
        """Its figures by name, those of tables: see :data:`arvdm_theory.report.style.Figures`."""
        figures: Mapping[str, Any] = getattr(self.module("figures"), "FIGURES", {})
        return figures


EXPERIMENTS: dict[str, Experiment] = {
    "decomposition": Experiment(
        "decomposition", "the measured error terms stacked beside the measured KL, per method and step count"
    ),
    "accumulation": Experiment(
        "accumulation", "clip KL over AR steps: predicted without a rollout, against measured"
    ),
    "see-laws": Experiment(
        "see_laws", "score estimation error against training-set size, training steps and width"
    ),
    "memory": Experiment(
        "memory", "memory bottleneck: closed form, I-MMSE of two networks, excess KL of the rollout without memory"
    ),
    "pareto": Experiment(
        "pareto", "memory bottleneck against error accumulation, over methods, memories and training budgets"
    ),
    "blind-metrics": Experiment(
        "blind_metrics",
        "the Fréchet distance of short clips does not see the memory bottleneck: which length does?",
    ),
    "needle": Experiment("needle", "a trained model's retrieval rate against the best possible one"),
    "noise-dial": Experiment(
        "context_noise",
        "noise-augmented references trade drift for memory: trained networks beside the exact curve",
    ),
    "decay": Experiment(
        "decay", "how fast continued videos decay: predicted from two AR steps, with an interval, against measured"
    ),
    "scheduler-ranks": Experiment(
        "scheduler_ranks",
        "which sum of errors ranks schedulers, as the score errs more: exact scores and trained networks",
    ),
    "schedules": Experiment(
        "schedules", "grids and noise profiles that are best for a fitted Gaussian, with trained networks"
    ),
    "verify": Experiment(
        "verify", "every bound on a grid of videos and plans", ("smoke", "default", "full"), "verify", "SIZES"
    ),
    "retrieval": Experiment(
        "retrieval", "memory bottleneck and best retrieval rate of a needle in a haystack", (), "needle"
    ),
    "estimators": Experiment(
        "estimators", "estimators of information, and three other packages, on samples whose information is known",
        ("smoke", "small", "full", "report"), "estimator_benchmark.py", "SIZES",
    ),
    "independence": Experiment(
        "independence", "how often the conditional independence test rejects", ("smoke", "small", "full"),
        "independence.py", "SIZES",
    ),
    "video": Experiment(
        "video", "networks with a memory on first-person video: retrieval, decay, information, and their trade",
        ("structures", "length", "compression", "plans", "unet", "between", "actions", "walking", "minecraft",
         "slip", "claims", "slip-walk", "doom", "far", "farthest", "long"),
        "video sweep", "SUITES", "suites",
    ),
    "video-compression": Experiment(
        "video_compression", "what a compressed memory retrieves on first-person video, and what it costs", (),
        "video_compression.py",
    ),
    "video-cost": Experiment(
        "video_cost", "time and peak memory of a generated frame against the number of remembered frames", (),
        "video_cost.py",
    ),
    "video-schedules": Experiment(
        "video_schedules",
        "grids and noise profiles that are best for a fitted Gaussian, with networks on first-person video",
        ("smoke", "cpu", "gpu"), "video_schedules.py", "SIZES",
    ),
    "drift-by-plan": Experiment(
        "drift_by_plan", "what rollouts of video networks lose by drift: outpainting, pyramid, rolling window, "
        "FIFO, noised context, history guidance", ("smoke", "one", "cpu"), "drift_by_plan.py", "SIZES",
    ),
    "savings": Experiment(
        "savings", "network evaluations that the best grids save at equal KL(clean), on six videos",
        ("smoke", "full"), "savings.py", "SIZES",
    ),
}  # fmt: skip
"""All of them, by the names that the command line has for them."""

TRAINED = [name for name, each in EXPERIMENTS.items() if each.command == "experiment"]
"""The names of those that ``arvdm experiment`` runs."""


def experiment(name: str) -> Experiment:
    """The experiment of a name that ``arvdm experiment`` runs.

    Raises:
        ValueError: if there is none; the message says what runs it if it is another command's.
    """
    if name in TRAINED:
        return EXPERIMENTS[name]
    other = f" ({EXPERIMENTS[name].command} runs that)" if name in EXPERIMENTS else ""
    raise ValueError(f"an experiment is one of {', '.join(TRAINED)} or all, got {name!r}{other}")


def drawn_from(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """The experiment whose tables lie in a folder, and its figures that can be drawn from them.

    That of which most figures can be drawn: two experiments may call one of their tables the same.

    Raises:
        ValueError: if no experiment's tables lie there.
    """
    found = {
        name: {figure: each for figure, each in one.figures.items() if (folder / f"{each[0]}.csv").is_file()}
        for name, one in EXPERIMENTS.items()
    }
    name = max(found, key=lambda name: len(found[name]))
    if not found[name]:
        raise ValueError(f"{folder} holds none of the tables that figures are drawn from")
    return name, found[name]
