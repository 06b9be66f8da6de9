"""What is claimed of auto-regressive video diffusion, and what is so: a verdict a claim, with its numbers.

A verdict is on the formal statement that is printed, in the regime that is stated (Gaussian laws, exact or erring
score, closed forms throughout); it does not say what an author meant. A source that was not read is named as such,
and its claim is given as reported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from arvdm_theory.bounds.saturation import closed_loop
from arvdm_theory.choose.schedules import objective_value, optimal_schedule
from arvdm_theory.decomposition.ledger import ledger, memory_bottleneck
from arvdm_theory.decomposition.recursion import rates
from arvdm_theory.decomposition.result import Result
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.verify.schedulers import GRIDS, SUMS, sums
from arvdm_theory.laws.gaussian import GaussianVideo, separable_video
from arvdm_theory.laws.linear import ar1, exponential_video, reference_video
from arvdm_theory.noise import clock_from_sigma
from arvdm_theory.plan.methods import fifo, method, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["CLAIMS", "Claim", "Verdict", "page", "run", "verdicts"]

PAPER = "arXiv 2503.10704 (both versions; as reported in the project's theory page)"
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A claim, and what decides it.

    Attributes:
        id: its name on the command line.
        statement: the formal statement that is tested, in this project's words.
        source: who claims it, and whether that was read.
        decide: computes the verdict and the numbers behind it.
    """

    id: str
    statement: str
    source: str
    decide: Callable[[], tuple[str, Numbers]]


@dataclass(frozen=True)
class Verdict:
    """What came out; see :class:`Claim`."""

    id: str
    statement: str
    source: str
    verdict: str
    numbers: Numbers
    command: str


def _kl(video: GaussianVideo, plan: Plan, ar_steps: int, **options: Any) -> Result:
    return ledger(video, plan, ar_steps, girsanov=False, **options)


def _total(result: Result, name: str) -> float:
    value = result.totals[name]
    if value is None:
        raise ValueError(f"{name} is not defined: {result.notes.get(name)}")
    return value


def _lags() -> GaussianVideo:
    """S_ij = 0.5·0.8^|i-j| + 0.4·cos(2π(i-j)/7) + 0.1·[i = j], scalar frames: a part forgotten, a part never."""

    def correlation(lags: torch.Tensor) -> torch.Tensor:
        return 0.5 * 0.8**lags + 0.4 * torch.cos(2 * math.pi * lags / 7) + 0.1 * (lags == 0).to(lags)

    return separable_video(correlation, name="forgets and returns")


def _noised(*levels: float) -> Plan:
    """w = Δ = 2, T = 8, M = 40, the references of lag 1, 2, .. noised afresh to ``levels``."""
    references = References()
    for lag in range(1, len(levels) + 1):
        references = references + References.last(lag, levels[lag - 1])
    return outpainting(2, references, 40, 40, 8.0)


def _decomposition() -> tuple[str, Numbers]:
    gaps = {}
    for name, plan in (("outpainting", outpainting(2, References.last(1))), ("FIFO", fifo(4, References.last(3)))):
        for error in (0.0, 0.05):
            score = PerturbedScore(error)
            whole = _total(_kl(reference_video(), plan, 4, score=score), "trajectory_kl")
            dense = float(trajectory_kl(reference_video(), plan, 4, score))
            gaps[f"{name}, score error {error}: relative gap"] = abs(whole - dense) / dense
    confirmed = max(gaps.values()) < 1e-9
    return ("confirmed exactly" if confirmed else "false"), gaps


def _impossibility() -> tuple[str, Numbers]:
    video, plan, rows = reference_video(), outpainting(2, References.last(1)), {}
    for step in ("exponential", "ddpm-large", "ancestral"):
        result = _kl(video, plan, 5, step=step)
        rows[f"KL(clean), {step}"] = _total(result, "kl")
    floor = sum(float(memory_bottleneck(video, plan, k)) for k in range(1, 6))
    ideal = rows["KL(clean), ancestral"]
    confirmed = all(value >= floor - 1e-9 for value in rows.values())
    rows |= {
        "Σ MB, which no sampler of the plan beats": floor,
        "ideal kernels: KL(clean) - Σ MB": ideal - floor,
    }
    return ("confirmed exactly, for w = Δ with clean references" if confirmed else "false"), rows


def _k_fold() -> tuple[str, Numbers]:
    plan = outpainting(2, References.last(1))
    rows: Numbers = {}
    for phi in (0.8, 0.99):
        result = _kl(ar1(phi), plan, 24)
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


def _irreducible() -> tuple[str, Numbers]:
    video, found = reference_video(), {}
    loop = closed_loop(ar1(0.8), outpainting(2, References.last(1)), 12, last_only=True)
    rows = {"AR(1) 0.8: contraction per AR step": loop.contraction}
    for steps in (10, 40, 160):
        result = _kl(video, outpainting(2, References.last(1), steps, steps), 6)
        found[f"last clip's KL, M = {steps}"] = result.column("CLIP_KL")[-1]
    values = list(found.values())
    falls = loop.contraction < 1 and values[0] > 3 * values[1] > 9 * values[2]
    rows |= found
    return (
        "false: errors that the loop contracts do not pile up, and of an exact score they fall with the step"
        if falls
        else "confirmed"
    ), rows


def _more_frames() -> tuple[str, Numbers]:
    video = reference_video()
    counts = list(range(7))
    values = [float(memory_bottleneck(video, outpainting(2, References.last(m)), 6)) for m in counts]
    clips = [_kl(video, outpainting(2, References.last(m)), 6).column("CLIP_KL")[-1] for m in counts]
    falls = all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    numbers = {"references": counts, "MB of AR step 6": values, "KL of its clip": clips}
    return ("confirmed exactly, for nested clean references (data processing)" if falls else "false"), numbers


def _blind() -> tuple[str, Numbers]:
    video, plan = reference_video(), outpainting(2, References.last(1), horizon=12.0)
    result = _kl(video, plan, 6, step="ancestral")
    clip, whole = max(result.column("CLIP_KL")), _total(result, "kl")
    numbers = {"largest KL of a single clip": clip, "KL of all clean frames": whole, "Σ MB": _total(result, "mb")}
    return ("confirmed exactly, for metrics of single clips" if clip < 1e-3 * whole else "false"), numbers


def _trade_in_memory() -> tuple[str, Numbers]:
    video, rows = reference_video(), []
    for m in (0, 1, 2, 3, 4, 6):
        result = _kl(video, outpainting(2, References.last(m)), 6)
        rows.append((m, result.column("MB")[-1], result.column("CLIP_KL")[-1]))
    best = [_kl(_lags(), _noised(*levels), 12) for levels in ((0.0, 0.3, 0.3, 0.3), (0.1, 0.1, 0.1, 0.1))]
    pair = [(r.column("MB")[-1], r.column("CLIP_KL")[-1], _total(r, "kl")) for r in best]
    beats = all(a < b for a, b in zip(*pair, strict=True))
    numbers = {
        "references, MB, last clip's KL": rows,
        "noise 0, .3, .3, .3: MB, last clip's KL, KL(clean)": pair[0],
        "noise .1 at every lag: the same": pair[1],
    }
    strict = all(b[2] > a[2] for a, b in itertools.pairwise(rows))
    along = "always" if strict else "as a tendency"
    return (
        f"holds {along} as clean references are added; false across plans, where one can have less of both"
        if beats
        else "confirmed"
    ), numbers


def _correlation() -> tuple[str, Numbers]:
    found = {}
    for name, plans in (
        ("over clean references 0 to 6", [outpainting(2, References.last(m)) for m in range(7)]),
        ("over the noise of three references", [_noised(*(rho,) * 3) for rho in (0.0, 0.02, 0.1, 0.3, 1.0)]),
        ("over reverse steps 5 to 40", [outpainting(2, References.last(1), m, m) for m in (5, 10, 20, 40)]),
    ):
        video = exponential_video() if "noise" in name else reference_video()
        results = [_kl(video, plan, 6) for plan in plans]
        pair = [[r.column(term)[-1] for r in results] for term in ("MB", "CLIP_KL")]
        constant = max(pair[0]) - min(pair[0]) < 1e-9
        found[f"Spearman, {name}"] = None if constant else float(spearmanr(pair[0], pair[1]).statistic)
    same = all(value is not None and value > 0.5 for value in found.values())
    return (
        "confirmed"
        if same
        else "holds only for some dials: whether there is a correlation, and its sign, is the dial's"
    ), found


def _noise_is_free() -> tuple[str, Numbers]:
    rows = []
    for rho in (0.0, 0.02, 0.1, 0.3, 1.0):
        result = _kl(exponential_video(), _noised(*(rho,) * 3), 12)
        clips = result.column("CLIP_KL")
        rows.append((rho, _total(result, "kl"), clips[0], clips[-1], result.column("MB")[-1]))
    costs = rows[-1][1] > 1.5 * rows[0][1]
    drift = rows[-1][3] - rows[-1][2] < 0.1 * (rows[0][3] - rows[0][2])
    return (
        "false: drift vanishes and the memory bottleneck takes its place" if costs and drift else "confirmed"
    ), {"noise, KL(clean), KL of clip 1, of clip 12, MB": rows}  # fmt: skip


def _uniform_noise() -> tuple[str, Numbers]:
    rows = []
    for levels in ((0.0,) * 4, (0.1,) * 4, (0.0, 0.3, 0.3, 0.3), (0.0, 0.1, 0.3, 1.0), (0.3, 0.0, 0.0, 0.0)):
        result = _kl(_lags(), _noised(*levels), 12)
        clips = result.column("CLIP_KL")
        rows.append((list(levels), _total(result, "kl"), clips[0], clips[-1], result.column("MB")[-1]))
    uniform, profile = rows[1], rows[2]
    beaten = profile[1] < uniform[1] and profile[3] < uniform[3] and profile[4] < uniform[4]
    return (
        "false: noise on the older lags alone beats one level for all in KL, last clip and MB" if beaten
        else "confirmed"
    ), {"noise of lag 1, 2, 3, 4; KL(clean); KL of clip 1; of clip 12; MB": rows}  # fmt: skip


def _klub() -> tuple[str, Numbers]:
    video, plan = reference_video(), outpainting(2, References.last(4), 6, 6)
    own = optimal_schedule(video, plan, 2, "kl", iterations=25)
    other = optimal_schedule(video, plan, 2, "girsanov", iterations=25)
    with torch.no_grad():
        other_kl = float(objective_value(video, other.plan, 2, "kl"))
        values = {
            "KL(clean), uniform grid": own.start,
            "KL(clean), grid of least KL(clean)": own.value,
            "KL(clean), grid of least Girsanov form": other_kl,
            "Girsanov form there": other.value,
            "its levels": [row[0] for row in other.plan.ar_grid],
            "levels of least KL(clean)": [row[0] for row in own.plan.ar_grid],
        }
    worse = other_kl > 1.05 * own.value
    return ("false with the exact score: the bound's best grid is not the KL's" if worse else "confirmed"), values


def _equal_angles() -> tuple[str, Numbers]:
    variance, steps = 0.37, 8
    angles = np.linspace(math.atan(20 / math.sqrt(variance)), math.atan(0.001 / math.sqrt(variance)), steps + 1)

    def kl(turns: np.ndarray) -> float:
        ratio = float(np.prod(np.cos(turns))) ** 2  # generated to true variance
        return 0.5 * (1 / ratio - 1 + math.log(ratio))

    equal = kl(np.diff(angles))
    rng = np.random.default_rng(0)
    others = []
    for _ in range(200):
        share = rng.dirichlet(np.full(steps, 30.0))
        others.append(kl((angles[-1] - angles[0]) * share))
    levels = [float(clock_from_sigma(math.sqrt(variance) * math.tan(angle))) for angle in angles]
    video = reference_video()
    plan = outpainting(2, References.last(4), 6, 6)
    with torch.no_grad():
        turned = np.tan(np.linspace(math.atan(math.sqrt(math.expm1(6.0))), 0.0, 7))
        grid = torch.tensor(np.log1p(turned**2), dtype=torch.float64)
        grid[0], grid[-1] = 6.0, 0.0
        both = grid[:, None].expand(-1, 2).contiguous()
        of_sde = float(objective_value(video, plan, 2, "kl", ar_grid=both, init_grid=both))
    best = optimal_schedule(video, plan, 2, "kl", iterations=25).value
    numbers = {
        "DDIM, one Gaussian of variance 0.37: KL at equal angles": equal,
        "least KL of 200 random schedules": min(others),
        "levels": levels,
        "exponential integrator, reference video: KL(clean) at equal angles": of_sde,
        "at the best grid": best,
    }
    holds = equal <= min(others) and of_sde > 1.05 * best
    return ("holds only for DDIM of one Gaussian from a true start; not for the SDE's integrators" if holds
            else "false"), numbers  # fmt: skip


def _conditions_decay() -> tuple[str, Numbers]:
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


def _joint_horizon() -> tuple[str, Numbers]:
    plan, steps = fifo(4, References.last(3)), (8, 16, 32, 64)
    video = ar1(0.8)
    values = [_total(_kl(video, plan, k), "kl") for k in steps]
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


def _per_step_sums() -> tuple[str, Numbers]:
    numbers: Numbers = {}
    for steps, references in ((6, 4), (20, 4)):
        setting = {"reverse_steps": steps, "references": references, "power": 0.0, "init_steps": steps}
        rows = [sums({"spacing": grid} | setting).set_index("quantity")["value"] for grid in GRIDS]
        for name in ("per_step", "ar_step"):
            ranks = spearmanr([row[name] for row in rows], [row["kl"] for row in rows]).statistic
            numbers[f"Spearman with KL(clean), M = {steps}, last {references}: {SUMS[name]}"] = float(ranks)
    small = min(value for name, value in numbers.items() if SUMS["per_step"] in name)
    return ("false with the exact score; the errors of whole AR steps do" if small < 0.5 else "confirmed"), numbers


def _clean_context() -> tuple[str, Numbers]:
    numbers: Numbers = {}
    matched = method("hiar").build(frames=2, memory=4)
    uniform = Plan((6.0, 6.0), 2, 6.0, 10, 10, references=matched.references)
    drift: dict[str, list[float]] = {}
    for name, plan, step in (
        ("ideal kernels, M = 10", uniform, "ancestral"),
        ("exact score, M = 10", uniform, "exponential"),
        ("exact score, HiAR's 4 levels and its step", matched, "renoise"),
    ):
        for context, references in (("clean", References.last(4)), ("matched", plan.references)):
            found = _kl(reference_video(), replace(plan, references=references), 12, step=step)
            clips = found.column("CLIP_KL")
            numbers[f"{name}, {context} context: KL(clean)"] = _total(found, "kl")
            numbers[f"{name}, {context} context: KL of clip 1, 12"] = [clips[0], clips[-1]]
            drift.setdefault(name, []).append(clips[-1] - clips[0])
    ideal = [numbers[f"ideal kernels, M = 10, {context} context: KL(clean)"] for context in ("clean", "matched")]
    if ideal[1] <= ideal[0]:
        return "confirmed", numbers
    less = "; ".join(name for name, (clean, noisy) in drift.items() if noisy < clean)
    return f"false: it costs KL, for ideal kernels too; clips drift less only with: {less or 'none'}", numbers


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "decomposition",
        "KL(trajectory) = IE + Σ (NIE + DE + SEE + CROSS + MB), with the cross term kept.",
        PAPER,
        _decomposition,
    ),
    Claim(
        "impossibility",
        "No sampler whose only link to the past is R_k has a KL(clean) below Σ MB_k.",
        PAPER,
        _impossibility,
    ),
    Claim("accumulation", "The KL of the K-th clip grows like K times the error of a step.", PAPER, _k_fold),
    Claim("irreducible", "Error accumulation cannot be reduced.", "the field, as reported", _irreducible),
    Claim("more-frames", "MB_k does not rise when references are added.", PAPER, _more_frames),
    Claim(
        "blind-metrics",
        "A sampler can be right on every single clip and forget: clip metrics do not see MB.",
        PAPER,
        _blind,
    ),
    Claim("trade", "A plan with less memory bottleneck has more error accumulation.", PAPER, _trade_in_memory),
    Claim(
        "correlation", "Memory bottleneck and error accumulation are correlated over plans.", PAPER, _correlation
    ),
    Claim("free-noise", "Noising the references stops drift at no cost.", "practice, as reported", _noise_is_free),
    Claim(
        "uniform-noise",
        "One noise level for all references is as good as any profile over lags.",
        "practice, as reported",
        _uniform_noise,
    ),
    Claim(
        "klub",
        "The grid of least Girsanov bound (KLUB) is the grid of least KL.",
        "Align Your Steps, arXiv 2404.14507; not read, as reported",
        _klub,
    ),
    Claim(
        "per-step-sums",
        "The sum of the per-step errors NIE + Σ (DE + SEE + CROSS) ranks level grids by their KL(clean).",
        "practice, as reported",
        _per_step_sums,
    ),
    Claim(
        "equal-angles",
        "Equal angles of arctan(σ/√λ) are the optimal schedule.",
        "arXiv 2601.13602; not read, as reported",
        _equal_angles,
    ),
    Claim(
        "clean-context",
        "Context at the level of each reverse step, in place of clean context, costs no KL(clean), and clips "
        "drift less.",
        "HiAR, arXiv 2603.08703; its abstract and its sampler were read",
        _clean_context,
    ),
    Claim(
        "condition-decay",
        "The effect of an error in the condition decays exponentially over AR steps.",
        "arXiv 2602.07022; not read, as reported",
        _conditions_decay,
    ),
    Claim(
        "horizon",
        "The KL of the joint law does not depend on the horizon.",
        "arXiv 2605.12316; not read, as reported",
        _joint_horizon,
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


def page(found: Sequence[Verdict]) -> str:
    """The verdicts as a page of the docs."""
    lines = [
        "# Claims",
        "",
        "Made by `arvdm claims --page docs/claims.md`. A verdict is on the formal statement that is printed, in "
        "the regime",
        "of exact Gaussian laws; it does not say what an author meant. Numbers are nats unless named otherwise.",
        "",
    ]
    for each in found:
        lines += [f"## {each.id}", "", f"**Statement.** {each.statement}", "", f"**Source.** {each.source}", ""]
        lines += [f"**Verdict.** {each.verdict}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in each.numbers.items()]
        lines += ["", f"`{each.command}`", ""]
    return "\n".join(lines)


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The verdicts as plain objects."""
    return [asdict(each) for each in found]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(f"({_shown(each)})" if isinstance(each, list | tuple) else _shown(each) for each in value)
    return "-" if value is None else str(value)
