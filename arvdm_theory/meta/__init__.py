"""Meta-ARVDM plans and the published methods stated as plans."""

from arvdm_theory.meta.plan import (
    NoReferences,
    Pick,
    Plan,
    PlanError,
    Reference,
    References,
    causal_mask,
    parts_mask,
)

__all__ = [
    "NoReferences",
    "Pick",
    "Plan",
    "PlanError",
    "Reference",
    "References",
    "causal_mask",
    "parts_mask",
]
