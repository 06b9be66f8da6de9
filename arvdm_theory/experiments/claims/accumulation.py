"""Claims on errors over AR steps, in closed form."""

from __future__ import annotations

import math

from arvdm_theory.bounds.saturation import closed_loop
from arvdm_theory.decomposition.recursion import rates
from arvdm_theory.experiments.claims.claim import Numbers, kl, total
from arvdm_theory.laws.linear import ar1, reference_video
from arvdm_theory.noise import time_grid
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["clean_context", "conditions_decay", "irreducible", "joint_horizon", "k_fold", "same_level_plan"]


def k_fold() -> tuple[str, Numbers]:
    """Clip KL beside its bounds where the loop contracts, and where it hardly does."""
    plan = outpainting(2, References.last(1))
    rows: Numbers = {}
    for phi in (0.8, 0.99):
        result = kl(ar1(phi), plan, 24)
        loop = closed_loop(ar1(phi), plan, 24, last_only=True)
        rows[f"AR(1) {phi}: KL of clip 1, 12, 24"] = [result.column("CLIP_KL")[k] for k in (0, 11, 23)]
        rows[f"AR(1) {phi}: the K-fold bound at 24"] = result.column("CLIP_BOUND")[-1]
        rows[f"AR(1) {phi}: the saturating bound at 24"] = loop.bounds[-1]
        rows[f"AR(1) {phi}: contraction per AR step"] = loop.contraction
    clips = rows["AR(1) 0.8: KL of clip 1, 12, 24"]
    flat = abs(clips[2] - clips[1]) < 1e-3 * clips[2]
    return (
        "holds only as a bound: where the closed loop contracts, clip KL saturates and K-fold growth is the "
        "bound's"
        if flat
        else "confirmed"
    ), rows


def irreducible() -> tuple[str, Numbers]:
    """The last clip's KL as reverse steps are added."""
    video, found = reference_video(), {}
    loop = closed_loop(ar1(0.8), outpainting(2, References.last(1)), 12, last_only=True)
    rows = {"AR(1) 0.8: contraction per AR step": loop.contraction}
    for steps in (10, 40, 160):
        result = kl(video, outpainting(2, References.last(1), steps, steps), 6)
        found[f"last clip's KL, M = {steps}"] = result.column("CLIP_KL")[-1]
    values = list(found.values())
    falls = loop.contraction < 1 and values[0] > 3 * values[1] > 9 * values[2]
    rows |= found
    return (
        "false: errors that the loop contracts do not pile up, and of an exact score they fall with the step"
        if falls
        else "confirmed"
    ), rows


def conditions_decay() -> tuple[str, Numbers]:
    """Contraction per AR step with references that leave, and that stay."""
    numbers: Numbers = {}
    for name, references in (
        ("last 1", References.last(1)),
        ("first 1 + last 1", References.first(1) + References.last(1)),
    ):
        loop = closed_loop(ar1(0.8), outpainting(2, references), 8, last_only=True)
        numbers[f"contraction per AR step, {name}"] = loop.contraction
        numbers[f"half-life in AR steps, {name}"] = loop.half_life if math.isfinite(loop.half_life) else None
    last, first = (numbers[f"contraction per AR step, {name}"] for name in ("last 1", "first 1 + last 1"))
    holds = last < 1 <= first + 1e-9
    return ("holds only where the closed loop contracts: not for references that never leave" if holds
            else "confirmed exactly"), numbers  # fmt: skip


def joint_horizon() -> tuple[str, Numbers]:
    """KL(clean) of FIFO over AR steps, and its rate."""
    plan, steps = fifo(4, References.last(3)), (8, 16, 32, 64)
    video = ar1(0.8)
    values = [total(kl(video, plan, k), "kl") for k in steps]
    limit = float(rates(video, plan).kl)
    last = (values[-1] - values[-2]) / (steps[-1] - steps[-2])
    return (
        "false: the KL of all clean frames grows without end, at a rate of nats a frame that has a limit"
        if limit > 0 and abs(last - limit) < 1e-3 * limit
        else "confirmed"
    ), {
        "AR(1) 0.8, FIFO w = 4, last 3: AR steps": list(steps), "KL(clean)": values,
        "its growth a frame at the end": last, "its rate at the infinite horizon": limit,
    }  # fmt: skip


def same_level_plan(steps: int) -> Plan:
    """Frames denoised one behind the other, each told the frame before it *at the level that it moves to*.

    The window holds a frame a reverse step: frame j moves from τ^m to τ^{m+1} while the one before it stands at
    τ^{m+1}, and sees itself and that one alone; the frame that comes out is told the last clean one.
    """
    levels = time_grid(6.0, 0.0, steps)
    mask = [[j in (i, i - 1) or (i == 0 and j == steps) for j in range(steps + 1)] for i in range(steps)]
    return Plan(
        tuple(reversed(levels[:-1])), 1, 6.0, 1, steps, references=References.last(1),
        visible=(tuple(map(tuple, mask)),),
    )  # fmt: skip


def clean_context() -> tuple[str, Numbers]:
    """Rates and frames with clean context, and with context at the frame's own level."""
    numbers: Numbers = {}
    video, found = ar1(0.8), {}
    for steps in (10, 20, 40):
        plans = {"clean": Plan((6.0,), 1, 6.0, steps, steps, references=References.last(1)),
                 "same level": same_level_plan(steps)}  # fmt: skip
        for name, plan in plans.items():
            clips = kl(video, plan, 30, memory=False).column("CLIP_KL")
            found[name, steps] = float(rates(video, plan).kl), clips[-1]
        numbers[f"M = {steps}: nats a frame, clean context and at the same level"] = (
            found["clean", steps][0], found["same level", steps][0],
        )  # fmt: skip
        numbers[f"M = {steps}: KL of frame 30, clean context and at the same level"] = (
            found["clean", steps][1], found["same level", steps][1],
        )  # fmt: skip
    vanishes = found["clean", 40][0] < 0.1 * found["clean", 10][0]
    stays = found["same level", 40][0] > 0.5 * found["same level", 10][0]
    looks_better = found["same level", 20][1] < found["clean", 20][1]
    return (
        "false of the video: what context at the frame's own level costs does not vanish with more reverse steps, "
        "as that of clean context does" + ("; true of single frames at few steps, which is all they show"
                                           if looks_better else "")
        if vanishes and stays else "confirmed"
    ), numbers  # fmt: skip
