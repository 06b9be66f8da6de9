"""K-fold accumulation: when the KL of a short clip is bounded by the sum of errors without the bottleneck.

If Input_{k+1} is a function of (Input_k, Output_k) and independent noise for every k, then for the clip that AR
step K puts out (and for all of Output_K)

    KL(X_clip ‖ Y_clip) ≤ IE + Σ_{k ≤ K} [NIE_AR,k + Σ_m path terms]      (no memory bottleneck).

*Proof.* By induction KL(Input_K) ≤ IE + Σ_{k<K} [...]: the chain rule on (Input_k, Output_k) adds the k-th
bracket, and Input_{k+1} is obtained from the pair by one and the same kernel under both laws (data processing).
The chain rule once more, and marginalising, give the clip. ∎ Source: arXiv 2503.10704, Theorem 1.
"""

from __future__ import annotations

from arvdm_theory.plan.plan import Plan

__all__ = ["ClipBoundError", "require_clip_bound"]


class ClipBoundError(ValueError):
    """A plan breaks the condition of the K-fold bound on clip KL."""


def require_clip_bound(plan: Plan, ar_steps: int) -> None:
    """Raises unless every Input_{k+1}, k < K = ``ar_steps``, is made of (Input_k, Output_k) and fresh noise.

    A reference kept as it came out must be a clean frame of Output_k or such a reference of step k; one that is
    noised afresh must be a clean frame of Output_k, because noising it again needs the frame itself.

    Raises:
        ClipBoundError: naming the AR step and the reference.
    """
    for k in range(1, ar_steps):
        out = set(plan.window_frames(k)[: plan.stride])
        held = {r.frame for r in plan.references_at(k) if r.level <= plan.floor}
        for reference in plan.references_at(k + 1):
            if reference.frame in out:
                continue
            if reference.level > plan.floor:
                raise ClipBoundError(
                    f"the bound on clip KL does not hold: AR step {k + 1} noises frame {reference.frame + 1} "
                    f"afresh, which AR step {k} did not put out, so its input is no function of what step {k} "
                    "has in hand"
                )
            if reference.frame not in held:
                raise ClipBoundError(
                    f"the bound on clip KL does not hold: AR step {k + 1} refers to frame "
                    f"{reference.frame + 1}, which is neither a reference nor an output of AR step {k}"
                )
