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

__all__ = ["why_no_clip_bound"]


def why_no_clip_bound(plan: Plan, ar_steps: int) -> str | None:
    """None if every Input_{k+1}, k < K = ``ar_steps``, is made of (Input_k, Output_k) and fresh noise; else why
    not.

    Every reference of step k + 1, clean or noised afresh, must be a frame that step k has *clean*: a clean frame
    of Output_k or a clean reference of step k. From a noised version of a frame neither the frame nor another
    noised version of it can be made.
    """
    if plan.references.matched:
        return (
            "the bound on clip KL does not hold: a reverse step is shown its references at one level, and its AR "
            "step holds them at all of theirs"
        )
    # Once its references are filled a plan repeats itself: the first such pair of steps speaks for all.
    repeats = plan.repeats_from
    for k in range(1, ar_steps if repeats is None else min(ar_steps, repeats + 1)):
        out = set(plan.window_frames(k)[: plan.stride])
        before = plan.references_at(k)
        clean = out | {r.frame for r in before if r.level <= plan.floor}
        for reference in plan.references_at(k + 1):
            # A frame's own state is made with it, and handed on; so is a copy that was noised once.
            again = reference.noise != "fresh" and reference in before
            held = out if reference.noise == "own" else clean
            if reference.frame not in held and not again:
                does = "noises" if reference.level > plan.floor else "refers to"
                return (
                    f"the bound on clip KL does not hold: AR step {k + 1} {does} frame {reference.frame + 1}, "
                    f"which is neither a clean reference nor a clean output of AR step {k}, so its input is no "
                    f"function of what step {k} has in hand"
                )
    return None
