"""What is claimed of auto-regressive video diffusion, and what is so: a verdict a claim, with its numbers.

A verdict is on the formal statement that is printed, in the regime that is stated (Gaussian laws, exact or erring
score; closed forms, but for claims on networks); it does not say what an author meant. A source that was not read
is named as such, and its claim is given as reported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
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
from arvdm_theory.experiments.networks import Network, Setting
from arvdm_theory.experiments.scheduler_ranks.run import KINDS, PRESETS, correlations, exact_sums, trained_sums
from arvdm_theory.experiments.scheduler_ranks.run import SUMS as NETWORK_SUMS
from arvdm_theory.experiments.verify.schedulers import GRIDS, SUMS, sums
from arvdm_theory.laws.gaussian import GaussianVideo, separable_video
from arvdm_theory.laws.linear import ar1, exponential_video, reference_video
from arvdm_theory.noise import clock_from_sigma, time_grid
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.tables import read_table

__all__ = ["CLAIMS", "Claim", "Verdict", "page", "run", "verdicts"]

PAPER = "arXiv 2503.10704 (both versions; as reported in the project's theory page)"
Numbers = dict[str, Any]

_RANKS = 0.6  # a rank correlation from which on a sum is said to rank
_FEW_GRIDS = ("uniform", "geometric", "karras:7", "tangent:1", "flow:3", "flow:8")


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


def _erring_sums() -> tuple[str, Numbers]:
    """Ten grids at M = 20, last 4, reference video, 8 AR steps: three affine errors of every size, in closed
    form."""
    numbers: Numbers = {}
    preset, found = PRESETS["cpu"], {}
    for kind, size in (("window", 0.4), ("window", 0.8), ("noise", 0.1), ("noise", 0.4), ("noise", 0.8)):
        rows = exact_sums(preset, {"kind": kind, "size": size, "reverse_steps": 20})
        part = pd.DataFrame(rows, columns=["grid", "quantity", "value", "stderr"]).assign(network=0)
        own = correlations(part, 2).set_index(["sum", "target"])
        share = float(own.see_share.iloc[0])
        found[kind, size] = own.spearman["per_step", "kl"], own.spearman["ar_step", "kl"], share
        what = f"{KINDS[kind]}, e = {size}, SEE is {share:.0%} of DE + SEE"
        numbers[f"{what}: sum of per-step errors, Σ E_k"] = found[kind, size][:2]
    right = [key for key, (per_step, _, _) in found.items() if per_step > _RANKS]
    always = min(ar_step for _, ar_step, _ in found.values()) > _RANKS
    if right and len(right) < len(found) and always:
        least = min(found[key][2] for key in right)
        return (
            f"holds only for errors of the predicted noise (e W/σ) that are {least:.0%} or more of the sum, of "
            "those tried; Σ E_k ranks the grids for every error"
        ), numbers
    return ("confirmed" if len(right) == len(found) else "false"), numbers


def _network_sums() -> tuple[str, Numbers]:
    """The reference video, one network of endless data, one trained too long on 16 videos: six grids, M = 40."""
    cpu = PRESETS["cpu"]
    preset = replace(
        cpu, network=Network(options={"width": 32, "depth": 2}), rollouts=800, samples=400, ar_steps=3,
        options={**cpu.options, "videos": {"reference": 2}, "grids": _FEW_GRIDS},
    )  # fmt: skip
    numbers, found = {}, []
    with TemporaryDirectory() as folder:
        for training in ("100 updates", "1000 updates on 16 videos"):
            cell = {"video": "reference", "training": training, "network": 0, "reverse_steps": 40}
            setting = Setting("cpu", Path(folder), device="cpu", progress=False)
            rows = [(*row[:2], float(row[2])) for row in trained_sums(preset, cell, setting)]
            part = pd.DataFrame(rows, columns=["grid", "quantity", "value"]).assign(network=0)
            own = correlations(part, 2).set_index(["sum", "target"])
            share = float(own.see_share.iloc[0])
            found.append((share, own.spearman["per_step", "kl"], own.spearman["ar_step", "kl"]))
            for name in ("per_step", "ar_step", "response"):
                what = f"{training}, SEE is {share:.0%} of DE + SEE: {NETWORK_SUMS[name]}"
                numbers[f"Spearman with KL(clean), {what}"] = own.spearman[name, "kl"]
    (few, wrong, of_steps), (many, right, of_steps_too) = found
    if few < 0.5 < many and wrong < 0.5 < right and min(of_steps, of_steps_too) > 0.5:
        return (
            "holds only where score estimation dominates, as in a network trained too long on few videos; the "
            "(moment-matched) errors of whole AR steps rank in both regimes"
        ), numbers
    return ("confirmed" if min(wrong, right) > _RANKS else "false in a regime of those tried"), numbers


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


def _clean_context() -> tuple[str, Numbers]:
    numbers: Numbers = {}
    video, found = ar1(0.8), {}
    for steps in (10, 20, 40):
        plans = {"clean": Plan((6.0,), 1, 6.0, steps, steps, references=References.last(1)),
                 "same level": same_level_plan(steps)}  # fmt: skip
        for name, plan in plans.items():
            clips = _kl(video, plan, 30, memory=False).column("CLIP_KL")
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


_RESULTS = Path(__file__).parents[2] / "experiments" / "results"
_VIDEO = _RESULTS / "video" / "video-findings.csv"
_COMPRESSION = _RESULTS / "video-compression" / "video-compression-findings.csv"
_NO_TABLE = "not decided here: the tables of experiments/results are in a checkout of the project alone"


def _of_networks(beginning: str, place: Path | None = None) -> pd.DataFrame:
    """Published findings of networks on first-person video whose names begin so, by the rest of the name."""
    table = read_table(place or _VIDEO).set_index("finding")
    table = table[table.index.str.startswith(beginning)]
    return table.set_index(table.index.str.removeprefix(beginning))


def _memories_retrieve() -> tuple[str, Numbers]:
    """Networks whose interval lies above that of the best copy without a map, and of the nearest by reckoning."""
    if not _VIDEO.exists():
        return _NO_TABLE, {}
    numbers: Numbers = {}
    found = {}
    for copy in ("best without a map", "nearest by dead reckoning"):
        table = _of_networks(f"memories above {copy}: ")
        found[copy] = int(table["value"].sum()), int(table["of"].sum())
        numbers |= {f"above {copy}: {name}": f"{row.value:.0f} of {row.of:.0f}" for name, row in table.iterrows()}
    (mapless, of), (reckoned, _) = found.values()
    verdict = "confirmed" if mapless == of else "mostly so" if mapless > of / 2 else "false"
    return (
        f"{verdict} on stand-ins: {mapless} of {of} networks with a memory retrieve more than any copy that knows "
        "no map. Of the remembered frame that is nearest by dead reckoning, a lookup without a network, "
        f"{reckoned} of {of} retrieve more"
    ), numbers


def _compression_pays() -> tuple[str, Numbers]:
    if not _COMPRESSION.exists():
        return _NO_TABLE, {}
    beside = {
        name: _of_networks(f"{name}: ", _COMPRESSION)["value"]
        for name in (
            "rate lost by compression", "processor's time beside uncompressed", "peak memory beside uncompressed"
        )
    }  # fmt: skip
    table = pd.DataFrame(beside)
    lost, time, memory = (table[name] for name in beside)
    cheap = (time <= 0.5) | (memory <= 0.5)
    pays = cheap & (lost < 0.05)
    numbers: Numbers = {f"rate lost, time, memory: {name}": list(row) for name, *row in table.itertuples()}
    least = "" if not cheap.any() or pays.any() else f", the least of which loses {lost[cheap].min():.2f}"
    return (
        f"so of {pays.sum() or 'none'} of {len(pays)} compressed networks on a stand-in, trained for as many "
        f"updates as their uncompressed twins or more; {cheap.sum()} save half of the time or memory{least}"
    ), numbers


_DEGRADATION = {
    "": ("rank correlation: 1 - rate and dB lost", "rank correlation: 1 - rate and - slope",
         "rank correlation: 1 - rate and drift"),
    "at equal quality": (
        "the same at equal first frames: 1 - rate and dB lost",
        "the same at equal first frames: 1 - rate and - slope",
        "rank correlation at equal quality on true frames: 1 - rate and drift",
    ),
}  # fmt: skip


def _forgetting_degrades() -> tuple[str, Numbers]:
    """Of the condition with most networks, by three measures of degradation."""
    if not _VIDEO.exists():
        return _NO_TABLE, {}
    numbers: Numbers = {}
    said = []
    for held, names in _DEGRADATION.items():
        found = pd.concat([_of_networks(f"{name}: ").nlargest(1, "of").assign(name=name) for name in names])
        numbers |= {
            f"{row['name']}, {row['of']:.0f} networks": [row["value"], row["low"], row["high"]]
            for _, row in found.iterrows()
        }
        more, less = (found["low"] > 0).any(), (found["high"] < 0).any()
        word = "more by one measure and less by another" if more and less else "more" if more else "less"
        said.append(
            f"{held + ' ' if held else ''}{word if more or less else 'neither more nor less, as far as told'}"
        )
    return f"of networks on stand-ins, those that forget more degrade {said[0]}; {said[1]}", numbers


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
        "per-step-sums-erring",
        "Once the score errs, the sum of the per-step errors ranks level grids by their KL(clean).",
        PAPER,
        _erring_sums,
    ),
    Claim(
        "per-step-sums-networks",
        "The sum of a trained network's per-step errors ranks level grids by the KL(clean) of its rollouts.",
        PAPER + "; at cpu size: experiments/results/scheduler-ranks",
        _network_sums,
    ),
    Claim(
        "equal-angles",
        "Equal angles of arctan(σ/√λ) are the optimal schedule.",
        "arXiv 2601.13602; not read, as reported",
        _equal_angles,
    ),
    Claim(
        "clean-context",
        "A video denoised with context at the noise level of the frame itself is as good as one with clean "
        "context.",
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
    Claim(
        "memories-retrieve",
        "A network that is shown remembered frames shows again what only they hold.",
        PAPER + "; networks on first-person video: experiments/results/video",
        _memories_retrieve,
    ),
    Claim(
        "compression-pays",
        "A compressed memory costs at most half of its time or memory and loses under five points of retrieval.",
        PAPER + "; networks on first-person video: experiments/results/video-compression",
        _compression_pays,
    ),
    Claim(
        "forgetting-degrades",
        "Networks that forget more degrade more along a rollout.",
        PAPER + "; networks on first-person video: experiments/results/video",
        _forgetting_degrades,
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
        "of exact Gaussian laws, or of networks on stand-ins where it says so; it does not say what an author "
        "meant. Numbers",
        "are nats unless named otherwise.",
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
