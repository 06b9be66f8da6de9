"""Meta-ARVDM plans and the published methods stated as plans."""

from arvdm_theory.plan.methods import METHODS, Method, fifo, method, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import (
    NoReferences,
    Pick,
    PlanError,
    Reference,
    References,
    causal_mask,
    parts_mask,
)

__all__ = [
    "METHODS",
    "Method",
    "NoReferences",
    "Pick",
    "Plan",
    "PlanError",
    "Reference",
    "References",
    "causal_mask",
    "fifo",
    "method",
    "outpainting",
    "parts_mask",
]
