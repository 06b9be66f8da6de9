"""Quality of networks on first-person video against the number of steps, a curve a grid."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator

from arvdm_theory.experiments.schedules.figures import COLOURS
from arvdm_theory.experiments.schedules.run import GRIDS
from arvdm_theory.experiments.video_schedules.run import OURS, PROFILES, summary
from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "noise", "schedules"]

_NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM", "frechet": "Fréchet distance"}


def schedules(table: pd.DataFrame) -> Figure:
    """A row a stand-in, a column a measure: PSNR and SSIM of queries, Fréchet distance; 95 % intervals."""
    kinds = list(table.data.unique())
    figure, axes = plt.subplots(len(kinds), 3, figsize=(10.5, 3.2 * len(kinds)), squeeze=False)
    found = summary(table, ["data", "reverse_steps", "grid"])
    steps = sorted(table.reverse_steps.unique())
    for line, kind in zip(axes, kinds, strict=True):
        for panel, (quantity, name) in zip(line, _NAMES.items(), strict=True):
            own = found[(found.data == kind) & (found.quantity == quantity)]
            for i, (grid, label) in enumerate(GRIDS.items()):
                rows = own[own.grid == grid]
                at = rows.reverse_steps * (1 + 0.02 * (i - 2.5))
                panel.errorbar(at, rows.value, rows.value_half, fmt="o-", ms=3, capsize=2, color=COLOURS[grid],
                               label=label)  # fmt: skip
            if quantity == "frechet":
                rows = own[own.grid == "true clips"]
                panel.plot(rows.reverse_steps, rows.value, "k:", label="other true clips")
                panel.set_yscale("log")
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            panel.set(ylabel=name, title=kind if len(kinds) > 1 else "", xlabel="reverse steps M", xscale="log")
            panel.set_xticks(steps, [str(m) for m in steps])
            panel.minorticks_off()
    shared_legend(figure, axes[0, 2], 4)
    means = found[found.quantity == "psnr"].pivot(index=["data", "reverse_steps"], columns="grid", values="value")
    gained = means[OURS] - means["uniform"]
    figure.suptitle(
        f"PSNR on grids of best KL(clean) minus uniform: {gained.min():+.2f} to {gained.max():+.2f} dB"
    )
    return figure


def noise(table: pd.DataFrame) -> Figure:
    """A panel a measure, a point a noise profile: means over worlds with 95 % intervals."""
    found = summary(table, ["data", "profile"])
    names = {"clean": "none", "all 0.1": "0.1", "kl": "by lag"}
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.2))
    for panel, (quantity, name) in zip(panels, _NAMES.items(), strict=True):
        own = found[found.quantity == quantity].set_index("profile").loc[list(PROFILES)]
        panel.errorbar(range(len(PROFILES)), own.value, own.value_half, fmt="o", color="#0072b2", capsize=3)
        panel.set(ylabel=name, xlabel="reference noise", xlim=(-0.5, len(PROFILES) - 0.5))
        panel.set_xticks(range(len(PROFILES)), [names[each] for each in PROFILES])
    psnr = found[found.quantity == "psnr"].groupby("profile").value.mean()
    figure.suptitle(
        f"Noise of best KL(clean), by lag, against clean references: {psnr[OURS] - psnr['clean']:+.2f} dB"
    )
    return figure


FIGURES: Figures = {
    "video-schedules": ("video-schedules", schedules),
    "video-noise": ("video-schedules-noise", noise),
}
