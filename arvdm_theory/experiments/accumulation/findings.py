"""How well the growth of clip KL is predicted without a rollout, beside what knows nothing of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count, exact, ratio

__all__ = ["findings"]

_KEYS = ["video", "plan", "denoiser"]
# Standard errors from which on two values are said to differ.
_APART = 3.0


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Ratios of the last AR step, AR steps that are missed, and errors of three ways to predict."""
    table = tables["accumulation"]
    missed: dict[str, list[bool]] = {"linear": [], "nonlinear": []}
    broken: list[bool] = []
    logs: dict[str, list[float]] = {}
    for (video, plan, denoiser), part in table.groupby(_KEYS, sort=False):
        value = part.pivot_table(index="ar_step", columns="curve", values="value")
        error = part.pivot_table(index="ar_step", columns="curve", values="stderr")
        pair = [(float(value[name].iloc[-1]), float(error[name].iloc[-1])) for name in ("linear", "measured")]
        yield ratio(f"predicted / measured, last AR step: {video}, {plan}, {denoiser}", *pair)
        away = (value.linear - value.measured).abs() > _APART * np.hypot(error.linear, error.measured)
        missed[str(denoiser)] += away.tolist()
        real = "decoded" if "decoded" in value else "measured"
        broken += (value[real] - value.bound > _APART * np.hypot(error[real], error.bound)).tolist()
        yield exact(
            f"bound / measured, last AR step: {video}, {plan}, {denoiser}", (value.bound / value.measured).iloc[-1]
        )
        if "exact score" in value:
            for how, said in (
                ("linear response", value.linear.iloc[-1]),
                ("the exact score's curve", value["exact score"].iloc[-1]),
                ("no growth", value.linear.iloc[0]),
            ):
                logs.setdefault(f"{how}, {denoiser}", []).append(float(np.log(said / value.measured.iloc[-1])))
    for denoiser, steps in missed.items():
        yield count(f"AR steps predicted further than 3 standard errors off, {denoiser}", sum(steps), len(steps))
    yield count("AR steps above the bound by 3 standard errors", sum(broken), len(broken))
    for how, errors in logs.items():
        yield exact(
            f"log(predicted / measured), root mean square, last AR step, Gaussian videos: {how}",
            np.sqrt(np.mean(np.square(errors))),
        )
    slopes = tables["accumulation-slopes"].set_index([*_KEYS, "curve"])
    grown = slopes.xs("linear", level="curve").join(slopes.xs("measured", level="curve").add_suffix(" measured"))
    off = (grown.slope - grown["slope measured"]).abs() <= 2 * np.hypot(grown.stderr, grown["stderr measured"])
    for denoiser in missed:
        own = off.xs(denoiser, level="denoiser")
        yield count(f"growth predicted within 2 standard errors, {denoiser}", int(own.sum()), len(own))
    for fit, own in tables["linear"].groupby("fit"):
        yield exact(f"excess loss / optimum's, largest: {fit}", own.share.max())
