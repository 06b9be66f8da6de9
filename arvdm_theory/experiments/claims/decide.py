"""All claims, and their verdicts one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from arvdm_theory.experiments.claims import accumulation, memory, networks, schedulers, trade
from arvdm_theory.experiments.claims.claim import PAPER, Claim, Verdict

__all__ = ["CLAIMS", "run", "verdicts"]

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "decomposition",
        "KL(trajectory) = IE + Σ (NIE + DE + SEE + CROSS + MB), with the cross term kept.",
        PAPER,
        memory.decomposition,
    ),
    Claim(
        "impossibility",
        "No sampler whose only link to the past is R_k has a KL(clean) below Σ MB_k.",
        PAPER,
        memory.impossibility,
    ),
    Claim(
        "accumulation",
        "The KL of the K-th clip grows like K times the error of a step.",
        PAPER,
        accumulation.k_fold,
    ),
    Claim(
        "irreducible", "Error accumulation cannot be reduced.", "the field, as reported", accumulation.irreducible
    ),
    Claim("more-frames", "MB_k does not rise when references are added.", PAPER, memory.more_frames),
    Claim(
        "blind-metrics",
        "A sampler can be right on every single clip and forget: clip metrics do not see MB.",
        PAPER,
        memory.blind_metrics,
    ),
    Claim(
        "trade", "A plan with less memory bottleneck has more error accumulation.", PAPER, trade.trade_in_memory
    ),
    Claim(
        "correlation",
        "Memory bottleneck and error accumulation are correlated over plans.",
        PAPER,
        trade.correlation,
    ),
    Claim(
        "free-noise",
        "Noising the references stops drift at no cost.",
        "practice, as reported",
        trade.noise_is_free,
    ),
    Claim(
        "uniform-noise",
        "One noise level for all references is as good as any profile over lags.",
        "practice, as reported",
        trade.uniform_noise,
    ),
    Claim(
        "klub",
        "The grid of least Girsanov bound (KLUB) is the grid of least KL.",
        "Align Your Steps, arXiv 2404.14507; not read, as reported",
        schedulers.klub,
    ),
    Claim(
        "per-step-sums",
        "The sum of the per-step errors NIE + Σ (DE + SEE + CROSS) ranks level grids by their KL(clean).",
        "practice, as reported",
        schedulers.per_step_sums,
    ),
    Claim(
        "per-step-sums-erring",
        "Once the score errs, the sum of the per-step errors ranks level grids by their KL(clean).",
        PAPER,
        schedulers.erring_sums,
    ),
    Claim(
        "per-step-sums-networks",
        "The sum of a trained network's per-step errors ranks level grids by the KL(clean) of its rollouts.",
        PAPER + "; at cpu size: experiments/results/scheduler-ranks",
        schedulers.network_sums,
    ),
    Claim(
        "equal-angles",
        "Equal angles of arctan(σ/√λ) are the optimal schedule.",
        "arXiv 2601.13602; not read, as reported",
        schedulers.equal_angles,
    ),
    Claim(
        "clean-context",
        "A video denoised with context at the noise level of the frame itself is as good as one with clean "
        "context.",
        "HiAR, arXiv 2603.08703; its abstract and its sampler were read",
        accumulation.clean_context,
    ),
    Claim(
        "condition-decay",
        "The effect of an error in the condition decays exponentially over AR steps.",
        "arXiv 2602.07022; not read, as reported",
        accumulation.conditions_decay,
    ),
    Claim(
        "horizon",
        "The KL of the joint law does not depend on the horizon.",
        "arXiv 2605.12316; not read, as reported",
        accumulation.joint_horizon,
    ),
    Claim(
        "memories-retrieve",
        "A network that is shown remembered frames shows again what only they hold.",
        PAPER + "; networks on first-person video: experiments/results/video",
        networks.memories_retrieve,
    ),
    Claim(
        "compression-pays",
        "A compressed memory costs at most half of its time or memory and loses under five points of retrieval.",
        PAPER + "; networks on first-person video: experiments/results/video-compression",
        networks.compression_pays,
    ),
    Claim(
        "forgetting-degrades",
        "Networks that forget more degrade more along a rollout.",
        PAPER + "; networks on first-person video: experiments/results/video",
        networks.forgetting_degrades,
    ),
)
"""All claims, in the order of the page."""


def run(chosen: Sequence[str] = (), progress: bool = True) -> list[Verdict]:
    """Decides the claims of these ids, or all.

    Raises:
        ValueError: for an id that there is not.
    """
    known = {claim.id: claim for claim in CLAIMS}
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise ValueError(f"a claim is one of {', '.join(known)}, got {wrong[0]!r}")
    return list(verdicts([known[name] for name in chosen] or CLAIMS, progress))


def verdicts(claims: Sequence[Claim], progress: bool) -> Iterator[Verdict]:
    """The verdicts one after the other."""
    for claim in tqdm(claims, "claims", disable=not progress or None, leave=False):
        verdict, numbers = claim.decide()
        yield Verdict(claim.id, claim.statement, claim.source, verdict, numbers, f"arvdm claims {claim.id}")
