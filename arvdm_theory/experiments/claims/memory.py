"""Claims on the decomposition and the memory bottleneck, in closed form."""

from __future__ import annotations

import itertools

from arvdm_theory.decomposition.ledger import memory_bottleneck
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.claims.claim import Numbers, kl, total
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.references import References

__all__ = ["blind_metrics", "decomposition", "impossibility", "more_frames"]


def decomposition() -> tuple[str, Numbers]:
    """KL(trajectory) is the sum of its terms, cross term and all."""
    gaps = {}
    for name, plan in (("outpainting", outpainting(2, References.last(1))), ("FIFO", fifo(4, References.last(3)))):
        for error in (0.0, 0.05):
            score = PerturbedScore(error)
            whole = total(kl(reference_video(), plan, 4, score=score), "trajectory_kl")
            dense = float(trajectory_kl(reference_video(), plan, 4, score))
            gaps[f"{name}, score error {error}: relative gap"] = abs(whole - dense) / dense
    confirmed = max(gaps.values()) < 1e-9
    return ("confirmed exactly" if confirmed else "false"), gaps


def impossibility() -> tuple[str, Numbers]:
    """No sampler of the plan beats Σ MB, and ideal kernels meet it."""
    video, plan, rows = reference_video(), outpainting(2, References.last(1)), {}
    for step in ("exponential", "ddpm-large", "ancestral"):
        result = kl(video, plan, 5, step=step)
        rows[f"KL(clean), {step}"] = total(result, "kl")
    floor = sum(float(memory_bottleneck(video, plan, k)) for k in range(1, 6))
    ideal = rows["KL(clean), ancestral"]
    confirmed = all(value >= floor - 1e-9 for value in rows.values())
    rows |= {
        "Σ MB, which no sampler of the plan beats": floor,
        "ideal kernels: KL(clean) - Σ MB": ideal - floor,
    }
    return ("confirmed exactly, for w = Δ with clean references" if confirmed else "false"), rows


def more_frames() -> tuple[str, Numbers]:
    """MB over clean references that are added one by one."""
    video = reference_video()
    counts = list(range(7))
    values = [float(memory_bottleneck(video, outpainting(2, References.last(m)), 6)) for m in counts]
    clips = [kl(video, outpainting(2, References.last(m)), 6).column("CLIP_KL")[-1] for m in counts]
    falls = all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    numbers = {"references": counts, "MB of AR step 6": values, "KL of its clip": clips}
    return ("confirmed exactly, for nested clean references (data processing)" if falls else "false"), numbers


def blind_metrics() -> tuple[str, Numbers]:
    """The KL of single clips of a sampler that forgets."""
    video, plan = reference_video(), outpainting(2, References.last(1), horizon=12.0)
    result = kl(video, plan, 6, step="ancestral")
    clip, whole = max(result.column("CLIP_KL")), total(result, "kl")
    numbers = {"largest KL of a single clip": clip, "KL of all clean frames": whole, "Σ MB": total(result, "mb")}
    return ("confirmed exactly, for metrics of single clips" if clip < 1e-3 * whole else "false"), numbers
