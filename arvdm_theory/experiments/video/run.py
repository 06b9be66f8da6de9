"""Networks with a memory on first-person video, set side by side: retrieval, decay, information, and their trade.

A network is trained once and its checkpoints are kept. Each of three tables then has a cell a network, computed or
read again: what it retrieves (``video``), how a long rollout decays and was predicted to (``video-rollouts``), and
what its memory tells in nats beside a network without one (``video-information``). The rest is derived from them:
``video-summary``, a row a network, and ``video-agreement``, the rank correlation of predicted and measured decay.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.video_cost.run import network_cost
from arvdm_theory.files import write_json
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.provenance import provenance
from arvdm_theory.tables import read_table, write_table
from arvdm_theory.training.checkpoint import load_denoiser
from arvdm_theory.training.devices import resolve_device
from arvdm_theory.video.decay import DecayError, decay_slope, partial_rank_correlation, rank_agreement
from arvdm_theory.video.information import information_of_runs
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.metrics import decibel, psnr
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.rollouts import ON_TRUE_FRAMES, PROXIES, roll_out_folder
from arvdm_theory.video.runs import VideoRun, train_run
from arvdm_theory.video.samples import Samples, sample_folder, summarise

__all__ = ["decode_picture", "film_table", "headline", "network_name", "sweep"]

_WINDOWS_SHOWN = 3
_ROLLOUTS_SHOWN = 1
# Of a call that is timed, and how often.
_VIDEOS_TIMED, _TIMES = 16, 9
# Frames at the end of a rollout.
_LAST = 8
# Networks are compared with one another on the same videos alone, made by one plan and told the same: other
# pictures decay for other reasons, and what a FIFO window hands on is not predicted at all.
_CONDITION = ["data", "preset", "plan", "told", "worlds"]
_AGREEMENT = (
    *_CONDITION, "proxy", "measure", "spearman", "low", "high", "pvalue", "networks", "exact",
)  # fmt: skip
_CLAIM = (
    *_CONDITION, "forgetting", "degradation", "networks", "spearman", "low", "high", "pvalue", "partial",
    "partial_low", "partial_high",
)  # fmt: skip
# Fields that decide where and for how long a network is made, not which it is.
_FREE = ("device",)


def sweep(
    runs: Sequence[VideoRun],
    folder: Path,
    progress: bool = True,
    rollouts: Collection[VideoRun] | None = None,
    nats: bool = True,
) -> dict[str, pd.DataFrame]:
    """Trains, samples and scores every run that is not finished yet.

    Args:
        runs: networks.
        folder: for everything; the tables are ``NAME.csv`` in it.
        progress: whether to show progress bars.
        rollouts: those of the runs that are in the tables of long rollouts and of information too; None for all.
        nats: whether there is a table of information.

    Returns:
        by name. ``video``: a row a network, source and place ``ahead`` of the last given frame (0: all places),
        with the network's fields, ``updates``, the ``seconds`` of training and the number of ``weights``.
        ``video-film`` and ``video-rollout-film``: the pictures of a few windows, see :func:`film_table`. And the
        other tables of this module.

    Raises:
        ValueError: if two runs are the same, or data or networks cannot be had.
    """
    by_name = {network_name(run): run for run in runs}
    if len(by_name) < len(runs):
        raise ValueError("a sweep trains each network once, but two of its runs are the same")
    work = _Work(by_name, folder, progress)
    for part in ("films", "rollouts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    cells = [{"network": name, **_columns(run)} for name, run in by_name.items()]
    seed = min(run.seed for run in runs)
    tables = {"video": run_cells("video", cells, work.retrieval, folder, seed, progress)}
    tables["video-film"] = _films(by_name, runs, folder, "films", "video-film")
    tables["video-network-cost"] = run_cells("video-network-cost", cells, work.cost, folder, seed, progress)
    rolled = runs if rollouts is None else [run for run in runs if run in rollouts]
    if rolled:
        longer = [cell for cell in cells if by_name[cell["network"]] in rolled]
        tables["video-rollouts"] = run_cells("video-rollouts", longer, work.rollouts, folder, seed, progress)
        tables["video-rollout-film"] = _films(by_name, rolled, folder, "rollouts", "video-rollout-film")
        told = [cell for cell in longer if work.twin(by_name[cell["network"]]) is not None]
        if told and nats:
            tables["video-information"] = run_cells(
                "video-information", told, work.information, folder, seed, progress
            )
        tables |= _derived(tables, folder, seed)
    return tables


class _Work:
    """What a cell of each table takes, with the networks at hand."""

    def __init__(self, runs: Mapping[str, VideoRun], folder: Path, progress: bool) -> None:
        self.runs, self.folder, self.progress = runs, folder, progress

    def place(self, run: VideoRun) -> Path:
        return self.folder / "networks" / network_name(run)

    def twin(self, run: VideoRun) -> VideoRun | None:
        """The network without memory that is trained on the same windows, if it is one of the runs."""
        if run.memory == "none":
            return None
        frames = run.windows.laid_out
        other = replace(run, memory="none", compress=1, compression="spatial", memory_frames=frames)
        return self.runs.get(network_name(other))

    def network(self, run: VideoRun) -> Denoiser:
        if not (self.place(run) / "run.json").exists():
            train_run(run, self.place(run), self.folder / "data", self.progress)
        return load_denoiser(self.place(run) / "training")

    def retrieval(self, cell: Cell) -> pd.DataFrame:
        run = self.runs[cell["network"]]
        trained = train_run(run, self.place(run), self.folder / "data", self.progress)
        samples, scores = sample_folder(run, self.place(run), progress=self.progress)
        write_table(film_table({run.memory: samples}), self.folder / "films" / f"{cell['network']}.csv")
        parts = [(0, scores), *((int(ahead), part) for ahead, part in scores.groupby("ahead"))]  # type: ignore[arg-type]
        rows = pd.concat([summarise(part).assign(ahead=ahead) for ahead, part in parts], ignore_index=True)
        last = trained.history.iloc[-1]
        rows["updates"], rows["seconds"] = int(last["step"]), float(last["seconds"])
        rows["weights"] = sum(weight.numel() for weight in trained.denoiser.parameters())
        return rows

    def rollouts(self, cell: Cell) -> pd.DataFrame:
        run = self.runs[cell["network"]]
        self.network(run)
        samples, table = roll_out_folder(run, self.place(run), progress=self.progress)
        shown = film_table({run.memory: samples}, _ROLLOUTS_SHOWN)
        write_table(shown, self.folder / "rollouts" / f"{cell['network']}.csv")
        made = slice(samples.given, None)
        slope = decay_slope(
            psnr(samples.truth[:, made], samples.generated[:, made]),
            [window.episode for window in samples.windows],
        )
        own = table["source"] == SOURCES[0]
        for name, value in interval_columns("slope", slope).items():
            table.loc[own, name] = value
        return table

    def cost(self, cell: Cell) -> pd.DataFrame:
        """Beside a network without memory, and of a compressed one beside its uncompressed twin."""
        run, rows = self.runs[cell["network"]], []
        whole = replace(run, compress=1, compression="spatial")
        bases = {"no memory": replace(whole, memory="none", memory_frames=run.windows.laid_out)}
        if run.compress > 1:
            bases["uncompressed"] = whole
        for beside, base in bases.items():
            device = resolve_device(run.device)  # type: ignore[arg-type]
            found = network_cost(run, base, _VIDEOS_TIMED, _TIMES, device)
            del found["architecture"]  # the cell's own column
            rows.append({"beside": beside, **found})
        return pd.DataFrame(rows)

    def information(self, cell: Cell) -> pd.DataFrame:
        run, store = self.runs[cell["network"]], self.folder / "data"
        twin = self.twin(run)
        assert twin is not None  # cells without one are not asked for
        found = information_of_runs(
            run, self.network(run), twin, self.network(twin), store, clips=run.settings.windows,
            progress=self.progress,
        )  # fmt: skip
        row = {**interval_columns("nats", found.per_frame), "stop": found.stop, "clips": found.window.n}
        return pd.DataFrame([row])


def _derived(tables: Mapping[str, pd.DataFrame], folder: Path, seed: int) -> dict[str, pd.DataFrame]:
    """The tables that follow from the others."""
    summary = _summary(tables)
    write_table(summary, folder / "video-summary.csv")
    rows = []
    for condition, group in summary[summary["slope"].notna()].groupby(_CONDITION, sort=False):
        for proxy in PROXIES:
            for measure in ("slope", "end"):
                try:
                    found = rank_agreement(group[f"{measure}_{proxy}"], group[measure], seed=seed)
                except DecayError:
                    continue  # too few networks to rank, or a proxy that has no such measure
                rho = found.correlation
                values = (rho.value, rho.ci_low, rho.ci_high, found.pvalue, rho.n, found.exact)
                rows.append((*condition, proxy, measure, *values))
    agreement = pd.DataFrame(rows, columns=list(_AGREEMENT))
    write_table(agreement, folder / "video-agreement.csv")
    claims = _claims(summary, seed)
    write_table(claims, folder / "video-claims.csv")
    for name in ("video-summary", "video-agreement", "video-claims"):
        write_json(folder / f"{name}.provenance.json", provenance({"from": sorted(tables)}, seed))
    return {"video-summary": summary, "video-agreement": agreement, "video-claims": claims}


def _claims(summary: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Do networks that forget less degrade more? A row a condition, measure of forgetting and of degradation.

    ``spearman`` (95 % interval ``low``, ``high``; permutation ``pvalue``) is the rank correlation of the two over
    networks, positive if those that forget more degrade more; ``partial`` (``partial_low``, ``partial_high``) the
    same at equal PSNR of the first generated frame: a network that is bad has less to lose.
    """
    lost = summary["psnr_first"] - summary["end"]
    forgotten = {"1 - rate": 1 - summary["rate"]} | ({"- nats": -summary["nats"]} if "nats" in summary else {})
    rows = []
    for condition, group in summary[summary["slope"].notna()].groupby(_CONDITION, sort=False):
        named = dict(zip(_CONDITION, condition, strict=True))
        for forgetting, values in forgotten.items():
            for degradation, fall in {"dB lost": lost, "- slope": -summary["slope"]}.items():
                one, other, first = (
                    column.loc[group.index].to_numpy() for column in (values, fall, summary["psnr_first"])
                )
                try:
                    found = rank_agreement(one, other, seed=seed)
                except DecayError:
                    continue  # too few networks to rank, or one that has no such measure
                whole = found.correlation
                row = {**named, "forgetting": forgetting, "degradation": degradation, "networks": whole.n}
                row |= {
                    "spearman": whole.value,
                    "low": whole.ci_low,
                    "high": whole.ci_high,
                    "pvalue": found.pvalue,
                }
                try:
                    alone = partial_rank_correlation(one, other, first)
                    row |= {"partial": alone.value, "partial_low": alone.ci_low, "partial_high": alone.ci_high}
                except DecayError:
                    row |= dict.fromkeys(("partial", "partial_low", "partial_high"), math.nan)
                rows.append(row)
    return pd.DataFrame(rows, columns=list(_CLAIM))


def _summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a network: retrieval, quality, cost, decay and information.

    ``cpu_ratio``, ``call_ratio`` and ``peak_ratio`` are beside no memory, ``cpu_whole``, ``call_whole`` and
    ``peak_whole`` beside the uncompressed twin. ``front_rate`` and ``front_nats`` say whether no other network of
    the same condition is better on both that axis and the slope; ``front_price``, whether none retrieves as much
    for less of the processor's time.
    """
    own = tables["video"].query("source == @SOURCES[0] and ahead == 0", local_dict={"SOURCES": SOURCES})
    rolled = tables["video-rollouts"].groupby("network", sort=False)
    decay = pd.DataFrame([_decay(part) for _, part in rolled])
    summary = own.drop(columns=["source", "ahead"]).merge(decay, on="network", how="left")
    cost = tables["video-network-cost"].set_index("network")
    alone, whole = (cost[cost["beside"] == beside] for beside in ("no memory", "uncompressed"))
    columns = ["seconds_frame", "cpu_ratio", "call_ratio", "peak_mib", "peak_ratio"]
    summary = summary.merge(alone[columns], on="network", how="left")
    named = {"cpu_ratio": "cpu_whole", "call_ratio": "call_whole", "peak_ratio": "peak_whole"}
    summary = summary.merge(whole[list(named)].rename(columns=named), on="network", how="left")
    if "video-information" in tables:
        columns = ["network", "nats", "nats_low", "nats_high"]
        summary = summary.merge(tables["video-information"][columns], on="network", how="left")
        # A network without memory adds nothing to itself.
        summary.loc[summary["memory"] == "none", ["nats", "nats_low", "nats_high"]] = 0.0
    slope, cheap = summary["slope"], -summary["cpu_ratio"]
    for name, (axis, other) in {
        "front_rate": ("rate", slope), "front_nats": ("nats", slope), "front_price": ("rate", cheap)
    }.items():  # fmt: skip
        if axis in summary:
            summary[name] = False
            for _, group in summary.groupby(_CONDITION, sort=False):
                summary.loc[group.index, name] = _front(group[axis], other[group.index])
    return summary


def _decay(table: pd.DataFrame) -> dict[str, Any]:
    """Of a network's rollout: slopes in dB a frame; ``end``, the PSNR of the mean error of the last frames.

    ``begin_true`` and ``end_true`` are that of the first and of the last as many where all references are true.
    """
    rolled, true = table[table["source"] == SOURCES[0]], table[table["source"] == ON_TRUE_FRAMES]
    row = {name: rolled[name].iloc[0] for name in ("network", "slope", "slope_low", "slope_high")}
    row |= {"begin_true": _together(true["psnr"][:_LAST]), "end_true": _together(true["psnr"][-_LAST:])}
    curves = {"": rolled["psnr"], **{f"_{proxy}": rolled[f"predicted_{proxy}"] for proxy in PROXIES}}
    for name, curve in curves.items():
        row[f"end{name}"] = _together(curve[-_LAST:])
        # What is constant has no slope but that of the frames of one window.
        if name and name != "_constant":
            row[f"slope{name}"] = decay_slope(curve.to_numpy()[None]).value
    row["slope_constant"] = math.nan
    return {**row, "psnr_first": rolled["psnr"].iloc[0]}


def _together(curve: pd.Series[float]) -> float:
    """The PSNR of the mean squared error of some frames, from the PSNR of each."""
    return float(decibel((4 * 10 ** (-curve.to_numpy() / 10)).mean()))


def _front(gain: pd.Series[float], other: pd.Series[float]) -> NDArray[np.bool_]:
    """Which points no other one is at least as good as on both axes and better on one; more is better on both."""
    points = np.stack([gain, other], 1)
    front: NDArray[np.bool_] = pareto_front(-points) & np.isfinite(points).all(1)
    return front


def _films(
    by_name: Mapping[str, VideoRun], runs: Sequence[VideoRun], folder: Path, part: str, name: str
) -> pd.DataFrame:
    """The pictures of the first run's twins: networks that differ from it in nothing but their memory."""
    others = {name: value for name, value in _fields(runs[0]).items() if name != "memory"}
    alike = [key for key, run in by_name.items() if others.items() <= _fields(run).items()]
    shown = [folder / part / f"{key}.csv" for key in alike]
    film = pd.concat([read_table(path) for path in shown if path.exists()], ignore_index=True)
    film = film.drop_duplicates(["window", "source", "frame"], ignore_index=True)
    write_table(film, folder / f"{name}.csv")
    return film


def _fields(run: VideoRun) -> dict[str, Any]:
    fields = {name: value for name, value in run.to_json().items() if name not in _FREE}
    # Without memory, what twins with one remember.
    fields["memory_frames"] = run.windows.memory or run.windows.laid_out
    return fields


def _columns(run: VideoRun) -> dict[str, Any]:
    """A run's fields as tables show them: what it has, in place of what the preset was left to say."""
    architecture, _ = run.backbone
    chosen, told = run.settings, {"architecture": architecture, "memory_frames": run.windows.memory}
    return {**_fields(run), **told, "size": chosen.size, "steps": chosen.training.steps}


def network_name(run: VideoRun) -> str:
    """The folder of a run's network: another one for every other network."""
    digest = hashlib.sha256(json.dumps(_fields(run), sort_keys=True).encode()).hexdigest()[:8]
    return f"{run.data}-{run.preset}-{run.memory}-{run.seed}-{digest}"


def film_table(samples: Mapping[str, Samples], windows: int = _WINDOWS_SHOWN) -> pd.DataFrame:
    """Some windows as rows: window, source, frame, role, needle, shape, pixels.

    ``source`` is ``truth`` or a key of ``samples``;
    ``role`` is ``given``, ``query`` or ``generated`` (one that shows nothing known); ``needle`` is the frame that
    shows what a query asks for, else -1; ``pixels`` are the bytes of the picture in base64, of ``shape`` HxWxC.
    """
    rows = []
    first = next(iter(samples.values()))
    for number in range(min(windows, len(first.windows))):
        seen = {asked: shown for shown, asked in first.windows[number].queries}
        clips = {"truth": first.truth[number]} | {key: part.generated[number] for key, part in samples.items()}
        for source, clip in clips.items():
            for frame, picture in enumerate(clip):
                role = "given" if frame < first.given else "query" if frame in seen else "generated"
                rows.append({
                    "window": first.names[number], "source": source, "frame": frame, "role": role,
                    "needle": seen.get(frame, -1), "shape": "x".join(map(str, picture.shape)),
                    "pixels": base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode("ascii"),
                })  # fmt: skip
    return pd.DataFrame(rows)


def decode_picture(pixels: str, shape: str) -> NDArray[np.uint8]:
    """A picture of :func:`film_table`."""
    flat = np.frombuffer(base64.b64decode(pixels), dtype=np.uint8)
    return flat.reshape([int(side) for side in shape.split("x")])


def headline(tables: Mapping[str, pd.DataFrame]) -> str:
    """Every network's retrieval and quality, with its decay and nats where there are any, and the references."""
    table = tables["video"][tables["video"]["ahead"] == 0]
    first = table["network"] == table["network"].iloc[0]
    shown = table[(table["source"] == SOURCES[0]) | first]
    if "video-summary" in tables:
        more = tables["video-summary"].assign(source=SOURCES[0])
        names = [name for name in ("end", "slope", "nats") if name in more]
        shown = shown.merge(more[["network", "source", *names]], on=["network", "source"], how="left")
    # What is the same for all networks need not be said.
    told = [name for name in _columns(VideoRun()) if shown[name].nunique(dropna=False) > 1]
    columns = [*told, "source", "rate", "rate_low", "rate_high", "chance", "psnr", "ssim", "end", "slope", "nats"]
    text: str = shown[[name for name in [*columns, "updates", "seconds"] if name in shown]].to_string(
        index=False, float_format="{:.3f}".format, na_rep="-"
    )
    return text
