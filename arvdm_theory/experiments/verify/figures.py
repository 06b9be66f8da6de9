"""The figures of the bound-checking experiment, each from one tidy table."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from arvdm_theory.experiments.verify.finite_figures import FIGURES as FINITE_FIGURES
from arvdm_theory.report.style import TERM_COLOURS, Figures, legend_below, shared_legend, stack

__all__ = ["FIGURES"]


def _wide(table: pd.DataFrame, index: str | list[str]) -> pd.DataFrame:
    return table.pivot_table(index=index, columns="quantity", values="value", sort=False)


_GOT = {"ie": "ie", "nie_ar": "ar_step_nie", "de": "ar_step_de", "see": "ar_step_see", "mb": "mb"}


def decomposition(table: pd.DataFrame) -> Figure:
    """Stacked terms of the KL that a user gets, a bar a method: errors of whole AR steps, not of reverse steps.

    The reference video, 12 clean frames of each method, T = 6, score error 0.05; all numbers are exact.
    """
    wide = _wide(table, "method")
    figure, axis = plt.subplots(figsize=(9, 4.8))
    x = np.arange(len(wide))
    tops = stack(axis, x, {term: wide[column] for term, column in _GOT.items()}, 0.62)
    axis.hlines(wide["ar_step_kl"], x - 0.22, x + 0.22, color="k", linewidth=1.8, label="KL(AR-step), the sum")
    axis.plot(x, wide["kl"], "kD", markersize=6, markerfacecolor="white", label="KL(clean frames)")
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set_xticks(x, wide.index)
    axis.set_ylabel("nats, 12 frames")
    axis.set_title("What makes up the KL that one gets: six methods on one video")
    axis.set_xlabel("E_k of AR steps as NIE, DE and SEE, switched on in this order")
    axis.legend(loc="upper right", ncols=2)
    axis.set_ylim(top=1.42 * tops.max())
    axis.grid(axis="x", visible=False)
    return figure


_BOUNDS = {
    "floor": ("Σ I(output; past | clean references): no sampler beats it", "<"),
    "lower_bound": ("IE + Σ MB: no sampler beats it behind this first input", "v"),
    "kl": ("KL(clean frames)", "D"),
    "ar_step_kl": ("KL(AR-step)", "*"),
    "trajectory_kl": ("KL(trajectory) = ledger", "o"),
    "girsanov": ("Girsanov form", "s"),
    "closed": ("closed bound", "^"),
}


def bounds(table: pd.DataFrame) -> Figure:
    """Every bound of the KL on a log axis, a row a method: what each inequality loses; why a mark is missing.

    The reference video, 12 clean frames of each method, T = 6, score error 0.05; all numbers are exact.
    """
    wide = _wide(table, "method")
    shown = {name: look for name, look in _BOUNDS.items() if name in wide}
    figure, axis = plt.subplots(figsize=(9.6, 5.4))
    y = np.arange(len(wide))[::-1]
    axis.hlines(y, wide["kl"], wide["closed"], color="0.8", zorder=1)
    for colour, (name, (label, marker)) in zip(sns.color_palette("colorblind"), shown.items(), strict=False):
        axis.scatter(wide[name], y, marker=marker, s=52, color=colour, label=label, zorder=2)
    axis.set_xscale("log")
    axis.set_yticks(y, [_one_line(str(name)) for name in wide.index])
    axis.set_xlabel("nats (log scale)")
    axis.set_title("Most is lost between AR steps and reverse steps, before any constant is thrown away")
    note = " ".join(_missing(table, shown))
    legend_below(figure, *axis.get_legend_handles_labels(), 2, note, handletextpad=0.2)
    return figure


def _one_line(method: str) -> str:
    return method.replace("\n", ", ")


def _missing(table: pd.DataFrame, shown: Mapping[str, object]) -> list[str]:
    """For every reason a line: which methods lack which marks by it."""
    lost = table[table.quantity.isin(list(shown)) & ~np.isfinite(table.value)]
    missing = []
    for reason, rows in lost.groupby("note", sort=False):
        marks = " and ".join(_BOUNDS[name][0].split(":")[0] for name in rows.quantity.unique())
        methods = "; ".join(map(_one_line, rows.method.unique()))
        missing.append(f"No mark of {marks} for {methods}: {reason}.")
    return missing


def step_count(table: pd.DataFrame) -> Figure:
    """DE against the number of reverse steps with fitted slopes.

    Outpainting, w = 2, last 2, K = 3, T = 6, exact score.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axis, (floor, part) in zip(axes, table.groupby("floor"), strict=True):
        for colour, (step, rows) in zip(sns.color_palette("colorblind"), part.groupby("step"), strict=False):
            m, de = rows.reverse_steps.to_numpy(float), rows.value.to_numpy(float)
            late = (m >= np.median(m)) | (len(m) < 4)  # two points are a line; with few, all of them count
            slope, level = np.polyfit(np.log(m[late]), np.log(de[late]), 1)
            axis.loglog(m, de, "o", color=colour, label=f"{step}: slope {slope:.2f}")
            axis.loglog(m, np.exp(level) * m**slope, "-", color=colour, alpha=0.6)
        title = "down to level 0" if floor == 0 else f"stopped at δ = {floor:g}"
        axis.set_title(f"uniform grid {title}")
        axis.set_xlabel("reverse steps M")
        axis.legend(title="fit over the larger half of M")
    axes[0].set_ylabel("Σ DE (nats)")
    figure.suptitle("Discretisation error falls like 1/M")
    return figure


def noise_initialisation(table: pd.DataFrame) -> Figure:
    """NIE against the horizon, with the closed bound.

    Outpainting, w = 2, last 2, K = 3.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    bounds: dict[tuple[float, ...], list[str]] = {}
    for colour, (video, rows) in zip(sns.color_palette("colorblind"), table.groupby("video"), strict=False):
        exact = rows[rows.quantity == "exact"]
        axis.semilogy(exact.horizon, exact.value, "o-", color=colour, markersize=4, label=str(video))
        bound = rows[rows.quantity == "closed bound"].sort_values("horizon")
        bounds.setdefault(tuple(bound.value.round(12)), []).append(str(video))
    # The bound sees second moments alone: videos may share one.
    for shade, (values, videos) in zip(("0.25", "0.55", "0.75"), bounds.items(), strict=False):
        at = sorted(table.horizon.unique())[: len(values)]
        axis.semilogy(at, values, "--", color=shade, label=f"closed bound of {' and '.join(videos)}")
    axis.set_xlabel("horizon T")
    axis.set_ylabel("Σ NIE (nats)")
    axis.set_title("Noise initialisation error decays exponentially in T")
    axis.legend()
    return figure


def score_error(table: pd.DataFrame) -> Figure:
    """SEE against e², and what CROSS and the clean KL make of it, over e.

    The reference video; outpainting (w = 2, M = 20) and FIFO (w = 4, M = 10), last 2, K = 4, T = 6.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    palette = sns.color_palette("colorblind")
    for colour, (method, rows) in zip(palette, table.groupby("method"), strict=False):
        wide = rows.pivot_table(index="score_error", columns="quantity", values="value")
        e2 = wide.index.to_numpy() ** 2
        slope = np.polyfit(np.log(e2), np.log(wide.see), 1)[0]
        axes[0].loglog(e2, wide.see, "o-", color=colour, label=f"{method}: slope {slope:.3f}")
        axes[1].semilogx(wide.index, wide.cross / wide.index, "s--", color=colour, label=f"{method}: Σ CROSS / e")
        axes[1].semilogx(wide.index, (wide.kl - wide.kl_exact_score) / wide.index, "o-", color=colour,
                         label=f"{method}: change of KL(clean) / e")  # fmt: skip
    axes[0].set(xlabel="e²  (score s* - e W)", ylabel="Σ SEE (nats)", title="SEE is quadratic in the score error")
    axes[1].set(xlabel="e", ylabel="nats / e", title="CROSS is linear in e; KL(clean) falls at first")
    axes[1].axhline(0, color="0.6", linewidth=0.8)
    axes[0].legend()
    shared_legend(figure, axes[1], 2)
    return figure


_CURVES = {
    "CLIP_BOUND": ("K-fold bound: IE + Σ (NIE + path terms)", "--"),
    "AR_STEP_BOUND": ("IE + Σ E_k", "-."),
    "ACCUMULATION_BOUND": ("saturating bound", ":"),
}


def accumulation(table: pd.DataFrame) -> Figure:
    """Clip KL of AR(1) videos against AR steps with its three bounds; a cross where one parts from it by 2x.

    Outpainting, w = 2, last 1, M = 20, T = 6.
    """
    videos = table.groupby("correlation")
    figure, axes = plt.subplots(1, len(videos), figsize=(4 * len(videos), 4.6), sharey=True, squeeze=False)
    palette = sns.color_palette("colorblind")
    for axis, (phi, rows) in zip(axes[0], videos, strict=True):
        wide = rows.pivot_table(index="k", columns="term", values="value")
        axis.plot(wide.index, wide.CLIP_KL, "k", linewidth=2.2, alpha=0.6, label="KL of the clip")
        for colour, (term, (label, line)) in zip(palette, _CURVES.items(), strict=False):
            axis.plot(wide.index, wide[term], line, color=colour, linewidth=1.8, label=label)
            apart = wide.index[wide[term] > 2 * wide.CLIP_KL][:1]
            axis.plot(apart, wide[term][apart], "x", color=colour, markersize=8, markeredgewidth=2)
        late = wide.CLIP_KL.iloc[2 * len(wide) // 3 :]
        grown = float(late.iloc[-1] / late.iloc[0] - 1)
        still = "has stopped growing" if abs(grown) < 1e-3 else f"still grows: {grown:.1%} in the last third"
        axis.set(xlabel="AR step k", yscale="log", title=f"AR(1), φ = {phi:g}\nKL {still}")
    axes[0, 0].set_ylabel("nats")
    axes[0, 0].plot([], [], "x", color="0.3", label="above twice the KL from here on")
    shared_legend(figure, axes[0, 0], 3)
    return figure


def scheduler_sums(table: pd.DataFrame) -> Figure:
    """Per-step sum against KL(clean) beside Σ E_k against KL(clean): a point a grid, a colour a setting.

    The reference video, K = 8, T = 6, exact score.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), sharey=True)
    panels = (("per_step", "sum of per-step errors"), ("ar_step", "Σ E_k, errors of whole AR steps"))
    ranks: dict[str, list[str]] = {}
    for axis, (name, label) in zip(axes, panels, strict=True):
        settings = table.groupby(["family", "reverse_steps", "references"], sort=False)
        for colour, (setting, rows) in zip(sns.color_palette("colorblind"), settings, strict=False):
            wide = rows.pivot_table(index=["spacing", "power"], columns="quantity", values="value")
            rank = float(wide[name].corr(wide["kl"], method="spearman"))
            family, steps, references = setting
            what, marker = ("windows of FIFO", "s") if family == "FIFO" else ("grids of a window", "o")
            axis.plot(wide[name], wide["kl"], marker, color=colour, markersize=6, alpha=0.8,
                      label=f"{what}, M = {steps}, last {references}")  # fmt: skip
            ranks.setdefault(f"{what}, M = {steps}, last {references}", []).append(f"{rank:.2f}")
        axis.set(xlabel=f"{label} (nats)", xscale="log", yscale="log")
    axes[0].set(ylabel="KL of all clean frames (nats)", title="Exact score: the per-step sum does not rank grids")
    axes[1].set_title("The errors of whole AR steps do")
    handles, labels = axes[0].get_legend_handles_labels()
    told = [f"{label}: {' and '.join(ranks[label])}" for label in labels]
    legend_below(figure, handles, told, 2, "Spearman's rank correlation with the KL, left and right:")
    return figure


def memory(table: pd.DataFrame) -> Figure:
    """Σ MB and the clip KL against the number of references.

    Outpainting, w = 2, M = 10, K = 6, T = 6, exact score. A Σ MB below 1e-12, rounding, is not shown.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 4))
    for colour, (video, rows) in zip(sns.color_palette("colorblind"), table.groupby("video"), strict=False):
        wide = rows.pivot_table(index="references", columns="quantity", values="value")
        # Below 1e-12 a conditional information is rounding error.
        shown = wide.mb.where(wide.mb > 1e-12)
        none = f" (0 from m = {shown.index[shown.isna()][0]} on)" if shown.isna().any() else ""
        axes[0].semilogy(wide.index, shown, "o-", color=colour, markersize=4, label=f"{video}{none}")
        axes[1].plot(wide.index, wide.clip_kl, "o-", color=colour, markersize=4, label=str(video))
    axes[0].set(
        xlabel="references m (last m frames)", ylabel="Σ MB (nats)", title="Memory bottleneck falls with memory"
    )
    axes[1].set(xlabel="references m (last m frames)", ylabel="KL of the last clip (nats)",
                title="… but the clip's error does not")  # fmt: skip
    shared_legend(figure, axes[0], 3)
    return figure


def rates_of_memory(table: pd.DataFrame) -> Figure:
    """KL, memory bottleneck and errors of AR steps in nats a frame at the infinite horizon: a panel a plan."""
    plans = table.groupby("plan", sort=False)
    figure, axes = plt.subplots(1, len(plans), figsize=(10.4, 4.8), sharey=True, squeeze=False)
    looks = {"kl": ("KL", "o-"), "ar_step": ("E, errors of AR steps", "s:"), "mb": ("MB, bottleneck", "^--")}
    refused: dict[str, None] = {}
    for axis, (plan, part) in zip(axes[0], plans, strict=True):
        videos = part.groupby("video", sort=False)
        for colour, (video, rows) in zip(sns.color_palette("colorblind"), videos, strict=False):
            if not np.isfinite(rows.value).all():
                refused[str(video)] = None
                continue
            wide = rows.pivot_table(index="references", columns="quantity", values="value")
            for name, (_, look) in looks.items():
                shown = wide[name].where(wide[name] > 1e-8)  # what is left of 0 is rounding
                axis.semilogy(wide.index, shown, look, color=colour, markersize=4, linewidth=1.4,
                              label=str(video) if name == "kl" else None)  # fmt: skip
        axis.set(xlabel="references m (last m frames)", title=str(plan))
    for label, look in looks.values():
        axes[0, 0].plot([], [], look, color="0.3", markersize=4, label=label)
    axes[0, 0].set_ylabel("nats a frame, K → ∞")
    none = f"\n(no rate, so no curve: {', '.join(refused)}; the table's notes say why)" if refused else ""
    figure.suptitle(f"What a further frame costs in the end, against memory{none}")
    shared_legend(figure, axes[0, 0], 4)
    return figure


def context_noise(table: pd.DataFrame) -> Figure:
    """The context-noise sweep: drift against memory bottleneck, an exact Pareto front, and the price in KL.

    A scalar video of covariance 0.95^|i-j|; outpainting, w = 2, the last 3 noised to ρ, M = 40, K = 12, T = 8.
    """
    wide = _wide(table, "level")
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2))
    level = wide.index.to_numpy()
    colour = np.log10(np.maximum(level, level[level > 0].min() / 2))
    axes[0].plot(wide.mb_last, wide.drift, color="0.75", zorder=1)
    axes[0].scatter(wide.mb_last, wide.drift, c=colour, cmap="viridis", s=34, zorder=2)
    for target in (0.0, 0.02, 0.1, 0.8):
        i = int(np.abs(level - target).argmin())
        axes[0].annotate(f"ρ = {level[i]:.2g}", (wide.mb_last.iloc[i], wide.drift.iloc[i]),
                         textcoords="offset points", xytext=(8, 5), fontsize=9)  # fmt: skip
    axes[0].margins(y=0.1)
    axes[0].axhline(0, color="0.6", linewidth=0.8)
    axes[0].set(xlabel="memory bottleneck of AR step 12 (nats)", ylabel="drift: growth of clip KL (nats)",
                title="Noise augmentation trades drift for memory")  # fmt: skip
    axes[1].plot(level, wide.kl, "o-", markersize=4, label="KL of all clean frames", color=TERM_COLOURS["mb"])
    axes[1].plot(level, wide.clip_last, "s-", markersize=4, label="KL of the last clip", color=TERM_COLOURS["de"])
    axes[1].set_xscale("symlog", linthresh=0.01)
    axes[1].set(xlabel="context noise level ρ", ylabel="nats", yscale="log",
                title="… which a short clip cannot see")  # fmt: skip
    axes[1].legend()
    return figure


def impossibility(table: pd.DataFrame) -> Figure:
    """What every kernel pays against the memory bottleneck: nothing falls below the diagonal.

    Random laws of past, input and output, finite and Gaussian, each with one random kernel.
    """
    figure, axis = plt.subplots(figsize=(5.6, 5.2))
    for colour, (law, rows) in zip(sns.color_palette("colorblind"), table.groupby("law"), strict=False):
        finite = rows[np.isfinite(rows.cost)]
        axis.scatter(finite.memory_bottleneck, finite.cost, s=12, alpha=0.6, color=colour, label=f"{law} laws")
    ends = [float(table.memory_bottleneck.min()), float(table.memory_bottleneck.max())]
    axis.plot(ends, ends, color="k", linewidth=1, label="cost = MB, the minimising kernel")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="I(Out; Past | In), memory bottleneck (nats)",
        ylabel="cost of a random kernel (nats)",
        title="No kernel pays less than the memory bottleneck",
    )
    axis.legend(loc="lower right")
    return figure


FIGURES: Figures = {
    "decomposition": ("methods", decomposition),
    "ladder": ("methods", bounds),
    "step_count": ("steps", step_count),
    "noise_initialisation": ("horizon", noise_initialisation),
    "score_error": ("score_error", score_error),
    "accumulation": ("accumulation", accumulation),
    "memory": ("memory", memory),
    "rates": ("rates", rates_of_memory),
    "dial": ("dial", context_noise),
    "impossibility": ("lemma", impossibility),
    "schedulers": ("schedulers", scheduler_sums),
    **FINITE_FIGURES,
}
"""Every figure's name with the table it is drawn from."""
