"""Exact error analysis of auto-regressive video diffusion on videos whose law is known."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "assessment.run": ("assess",),
    "bounds.impossibility": ("check_lemma",),
    "bounds.saturation": ("closed_loop",),
    "choose.context_noise": ("context_noise", "noised_lags"),
    "choose.exports": ("export_schedule", "import_schedule"),
    "choose.memory": ("MemoryChoice", "frame_frontier", "nats_frontier"),
    "choose.schedules": ("hand_grids", "objective_value", "optimal_schedule"),
    "decomposition.decoding": ("decoded_ledger",),
    "decomposition.immse": ("memory_bottleneck_from_scores",),
    "decomposition.ledger": ("ledger", "ledger_terms", "memory_bottleneck"),
    "decomposition.recursion": ("rates",),
    "decomposition.result": ("Result",),
    "diffusion.prediction": ("NetworkScore",),
    "diffusion.sampler": ("generate",),
    "diffusion.scores": ("ExactScore", "GuidedScore", "PerturbedScore"),
    "information.estimators": ("estimate_divergence", "estimate_information", "independence_test"),
    "information.inequalities": ("prove",),
    "interfaces": ("ReferenceBatch", "Score", "VideoBatch"),
    "laws.chains": ("MarkovChain", "random_walk", "sticky_chain"),
    "laws.controlled": ("ControlledVideo",),
    "laws.emission": ("Codebook",),
    "laws.finite": ("FiniteStateVideo", "moving_sprite"),
    "laws.fitted": ("load_fitted",),
    "laws.fitting": ("fit_video",),
    "laws.gaussian": ("ArrayVideo", "GaussianVideo"),
    "laws.gridworld.video": ("GridVideo",),
    "laws.law": ("VideoLaw",),
    "laws.linear": ("ar1", "reference_video", "spectral_video", "state_space", "var"),
    "laws.long_memory": ("NeedleVideo", "fractional_gaussian_noise"),
    "laws.pixels": ("PixelVideo",),
    "number": ("Number",),
    "plan.file": ("load_plan",),
    "plan.methods": ("METHODS", "fifo", "method", "outpainting"),
    "plan.plan": ("Plan",),
    "plan.references": ("PlanError", "References"),
    "rollout.decay": ("measured_decay", "predicted_decay"),
    "rollout.measure": ("measured_clip_kl",),
    "rollout.predict": ("predicted_clip_kl",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Public names are loaded when they are asked for, so that importing the package costs nothing (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
