"""Experiments with trained networks: what a trained Meta-ARVDM model does, beside what theory says it must.

A folder an experiment, of which ``run.py`` has ``PRESETS`` (by name: smoke, cpu, gpu), ``networks(preset, ...)`` (the networks
that it trains) and ``run(setting)``, which writes its tables and returns them by name. The figures that belong to
them are drawn by ``figures.py`` beside it, from the tables alone.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

__all__ = ["EXPERIMENTS", "PRESET_NAMES", "experiment"]

EXPERIMENTS: dict[str, str] = {
    "decomposition": "the measured error terms stacked beside the measured KL, per method and step count",
    "accumulation": "clip KL over AR steps: predicted without a rollout, against measured",
    "see-laws": "score estimation error against training-set size, training steps and width",
    "memory": "memory bottleneck: closed form, I-MMSE of two networks, excess KL of the rollout without memory",
    "pareto": "memory bottleneck against error accumulation, over methods, memories and training budgets",
    "blind-metrics": "the Fréchet distance of short clips does not see the memory bottleneck: which length does?",
    "needle": "a trained model's retrieval rate against the best possible one",
    "noise-dial": "noise-augmented references trade drift for memory: trained networks beside the exact curve",
}
"""Names and what each shows."""

# Where a folder is not called as the experiment is at the command line.
_FOLDERS = {"noise-dial": "context_noise"}

PRESET_NAMES = ("smoke", "cpu", "gpu")


def experiment(name: str, part: Literal["run", "figures"] = "run") -> ModuleType:
    """The module of an experiment that runs it, or that draws its figures.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"an experiment is one of {', '.join(EXPERIMENTS)}, got {name!r}")
    return importlib.import_module(f"{__name__}.{_FOLDERS.get(name, name).replace('-', '_')}.{part}")
