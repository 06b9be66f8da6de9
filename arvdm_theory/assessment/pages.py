"""The report of an assessment: sections and figures from what was found, nothing computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.assessment.parts import number_of
from arvdm_theory.laws.fitted import FittedVideo
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.report.ledger import clip_curves, ledger_steps
from arvdm_theory.report.page import Picture, Report, Section
from arvdm_theory.report.style import style

__all__ = ["report_of"]


def report_of(
    found: Mapping[str, Any],
    video: FittedVideo,
    plan: Plan,
    ar_steps: int,
    *,
    made: Mapping[str, Any],
    command: str,
    skipped: Sequence[str],
    clips: Sequence[Any],
    network: bool,
    step: str,
    ledger_step: str,
) -> Report:
    """The report of what was found; see :func:`arvdm_theory.assessment.run.assess`."""
    changes = _changes(found, plan, ar_steps)
    sections = [
        _what_to_change(changes),
        _clips(found["fit"], video, plan, clips),
        _memory(found.get("memory"), plan, ar_steps),
        _plan(found["plan"], plan, ar_steps, ledger_step),
        _network(found, ar_steps, step, ledger_step) if network else None,
        _decay(found.get("decay"), found["plan"], network),
        _quality(found.get("quality")),
        _schedule(found.get("schedule"), plan),
        _context_noise(found.get("context_noise"), ar_steps),
        Section("What was left out", list(skipped)) if skipped else None,
    ]
    kept = [
        Section(each.title, each.words, each.table, each.caption, each.pictures, command, each.warnings)
        for each in sections
        if each is not None
    ]
    frames = sum(len(clip) for clip in clips)
    facts = {**found, "plan_file": plan.to_dict(), "changes": changes, "skipped": list(skipped)}
    title = f"Assessment of {len(clips)} clip{'s' if len(clips) > 1 else ''}, {frames} frames"
    return Report(title, _summary(found, plan, ar_steps, network, changes, video), kept, made, facts)


# -- in short ---------------------------------------------------------------------------------------------


def _said(number: Number | None) -> str:
    if number is None:
        return "an unknown number of"
    error = float(number.stderr)
    if not math.isfinite(error) or error == 0:
        return f"{float(number):.3g}"
    return f"{float(number):.3g} ± {error:.1g}"


def _summary(
    found: Mapping[str, Any], plan: Plan, ar_steps: int, network: bool, changes: Sequence[Mapping[str, Any]],
    video: FittedVideo,
) -> list[str]:  # fmt: skip
    totals = found["plan"]["totals"]
    lines = []
    if (memory := found.get("memory")) is not None:
        own = number_of(memory["own"])
        lines.append(
            f"Forgetting: an AR step of this plan is not told {_said(own)} nats that older frames hold about the "
            "next ones (the memory bottleneck). No network of the plan gets them back; seeing other frames does."
        )
    clip = [row["value"] for row in found["plan"]["rows"] if row["term"] == "CLIP_KL"]
    if clip:
        grows = "grows" if clip[-1] > clip[0] else "falls"
        lines.append(
            f"Drift that any network faces: with a perfect score the KL of a clip {grows} from {clip[0]:.3g} to "
            f"{clip[-1]:.3g} nats over {ar_steps} AR steps, by discretisation and forgetting alone."
        )
    if network and (decay := found.get("decay")) is not None:
        rows = [row for row in decay["rows"] if row["form"].endswith("linear")]
        first, last = rows[0], rows[-1]
        lines.append(
            f"Drift of this network, predicted from true frames: from {first['value']:.3g} ± "
            f"{first['stderr']:.1g} to {last['value']:.3g} ± {last['stderr']:.1g} nats a clip. It is exact for "
            "an affine network, an estimate without a bound on its error for any other."
        )
    if network and (quality := found.get("quality")) is not None:
        answers = [row for row in quality["rows"] if row["form"] == "predicted" and row["value"] is not None]
        if answers and "predicted" not in quality["notes"]:
            last = answers[-1]
            lines.append(
                f"Quality: the PSNR of a continued video is predicted to fall by {last['value']:.2g} dB "
                f"({last['ci_low']:.2g} to {last['ci_high']:.2g}) by AR step {last['ar_step']}."
            )
        else:
            reason = quality["notes"].get("predicted", "there is nothing to predict")
            lines.append(f"Quality: how far the PSNR of a continued video falls cannot be said here: {reason}.")
    kl = number_of(totals.get("kl"))
    if (schedule := found.get("schedule")) is not None:
        lines.append(
            f"Schedule: the KL of all clean frames is {schedule['start']:.3g} nats with the plan's levels and "
            f"{schedule['value']:.3g} with the best ones found for the same number of steps."
        )
    elif kl is not None:
        lines.append(f"With a perfect score the KL of all clean frames is {_said(kl)} nats.")
    lines.append(
        f"Change first: {changes[0]['what']}" if changes else "Nothing tried here is worth changing first."
    )
    share = video.variance_kept
    lines.append(
        f"All of it is about the second-order structure of the clips in {video.frame_dim} modes, which hold "
        f"{share:.0%} of "
        "the pixels' variance; what is not Gaussian is not seen."
    )
    return lines


def _changes(found: Mapping[str, Any], plan: Plan, ar_steps: int) -> list[dict[str, Any]]:
    """What could be changed, by the nats an AR step that it would save."""
    options: list[dict[str, Any]] = []
    if (schedule := found.get("schedule")) is not None:
        gain = (schedule["start"] - schedule["value"]) / ar_steps
        options.append({"what": "the noise levels of the reverse steps, to those of the best schedule below",
                        "gain": gain, "stderr": 0.0, "how": "arvdm schedule"})  # fmt: skip
    if (memory := found.get("memory")) is not None:
        own = number_of(memory["own"])
        for row in memory["curve"]:
            value = number_of(row["mb"])
            most = plan.references.most
            if own is None or value is None or (most is not None and row["references"] <= most):
                continue
            options.append({"what": f"the references, to the last {row['references']} frames",
                            "gain": float(own) - float(value),
                            "stderr": math.hypot(_finite(own.stderr), _finite(value.stderr)),
                            "how": "arvdm memory"})  # fmt: skip
    errors, exact = found.get("ar_step_errors"), [r for r in found["plan"]["rows"] if r["term"] == "AR_STEP"]
    if errors is not None and exact:
        last = number_of(errors["rows"][-1]["error"])
        if last is not None:
            options.append({"what": "the network itself, whose score errs",
                            "gain": float(last) - exact[-1]["value"], "stderr": float(last.stderr),
                            "how": "more training"})  # fmt: skip
    better = [option for option in options if option["gain"] > 2 * option["stderr"] and option["gain"] > 1e-3]
    return sorted(better, key=lambda option: -option["gain"])


def _finite(value: Any) -> float:
    own = float(value)
    return own if math.isfinite(own) else 0.0


# -- sections ------------------------------------------------------------------------------------------------


def _what_to_change(changes: Sequence[Mapping[str, Any]]) -> Section:
    if not changes:
        return Section("What to change first: nothing that was tried", [
            "No change that was tried saves more than its own error."])  # fmt: skip
    table = pd.DataFrame(
        [
            {
                "change": option["what"],
                "saves, nats an AR step": _with_error(option["gain"], option["stderr"]),
                "by": option["how"],
            }
            for option in changes
        ]
    )
    return Section(
        f"What to change first: {changes[0]['what']}",
        ["Each alone, all else left as it is; savings do not add up. Those of schedules are of the whole KL over "
         "the AR steps, those of references of the memory bottleneck of the last one, that of the network of its "
         "AR-step error."],
        table, "by what it saves",
    )  # fmt: skip


def _with_error(value: float, stderr: float) -> Any:
    return Number.stated(value, stderr, value, value, method="", n=0) if stderr > 0 else value


def _clips(fit: Mapping[str, Any], video: FittedVideo, plan: Plan, clips: Sequence[Any]) -> Section:
    held = fit.get("held_out") or {}
    rows = [
        {
            "law": law,
            "nats a frame on held-out frames": float(scores["nats_per_frame"]),
            "the fitted video gains": _with_error(
                float(scores["fitted_beats_it_by"]), scores["standard_error"] or 0.0
            ),
        }
        for law, scores in held.items()
    ]
    warnings = [text for text in [video.caveat(plan)] if text]
    kept = fit.get("variance_kept_held_out")
    held_out = f", {kept:.1%} of those held out" if kept is not None else ""
    goes_on = f", whose memory goes on to lag {video.order}" if len(video.tail) else ""
    return Section(
        f"The clips as a Gaussian video of {video.frame_dim} modes",
        [
            f"{len(clips)} clips of {clips[0].shape[1]} x {clips[0].shape[2]} pixels; an autoregression of order "
            f"{video.head}{goes_on}. The modes hold {video.variance_kept:.1%} of the variance of the frames that "
            f"were fitted{held_out}. Levels of the plan are those of pictures in [-1, 1]."
        ],
        pd.DataFrame(rows) if rows else None,
        "log-density of frames that were not fitted" if rows else "",
        warnings=warnings,
    )


def _memory(memory: Mapping[str, Any] | None, plan: Plan, ar_steps: int) -> Section | None:
    if memory is None:
        return None
    curve = [(row["references"], number_of(row["mb"])) for row in memory["curve"]]
    table = pd.DataFrame([{"last frames seen": r, "memory bottleneck, nats": value} for r, value in curve])
    own = number_of(memory["own"])
    words = [
        f"MB = I(Output; Past | Input) of AR step {ar_steps}: what all older frames hold about the next ones "
        f"beyond what the step sees. The plan's own references leave {_said(own)} nats.",
        f"± is a jackknife over {memory['groups']} groups of clips, each left out of the fit in turn."
        if memory["groups"] else "Three clips or more are needed for an error: leave-out fits make it.",
    ]  # fmt: skip
    pictures = [Picture(_memory_figure(curve, memory["compression"]),
                        f"Left: the memory bottleneck of AR step {ar_steps} against how many last frames are "
                        "seen. Right: what is left of it with so many nats of memory of the past, at best.",
                        "memory")]  # fmt: skip
    least = min((float(value) for _, value in curve if value is not None), default=math.nan)
    title = f"Forgetting: {_said(own)} nats an AR step, at best {least:.3g} of those tried"
    return Section(title, words, table, "the bottleneck against references", pictures)


def _plan(exact: Mapping[str, Any], plan: Plan, ar_steps: int, step: str) -> Section:
    totals = exact["totals"]
    names = {
        "nie_ar": "noise initialisation (NIE)", "de": "discretisation (DE)", "see": "score estimation (SEE)",
        "mb": "memory bottleneck (MB)", "ar_step_kl": "KL at the ends of AR steps: IE + Σ (E_k + MB_k)",
        "kl": "KL of all clean frames", "floor": "what no sampler of the plan beats",
    }  # fmt: skip
    table = pd.DataFrame(
        [
            {"term": text, "nats": number_of(totals[name])}
            for name, text in names.items()
            if totals.get(name) is not None
        ]
    )
    bound = [row["value"] for row in exact["rows"] if row["term"] == "ACCUMULATION_BOUND"]
    clip = [row["value"] for row in exact["rows"] if row["term"] == "CLIP_KL"]
    words = [f"The ledger of {ar_steps} AR steps with the exact score and {step} steps: what is left when the "
             "network is perfect."]  # fmt: skip
    if bound and clip:
        words.append(f"The KL of the last clip is {clip[-1]:.3g}; the saturating bound on it is {bound[-1]:.3g}.")
    words += [f"{name}: {text}" for name, text in exact["notes"].items() if name in ("accumulation_bound",)]
    rows = pd.DataFrame(exact["rows"])
    with style():
        figure = ledger_steps(rows)
    caption = "The ledger's terms by AR step, exact for the fitted video and a perfect score."
    return Section(
        "What any network of this plan faces", words, table, "exact", [Picture(figure, caption, "ledger")]
    )


def _network(found: Mapping[str, Any], ar_steps: int, step: str, ledger_step: str) -> Section | None:
    own, errors, check = found.get("network"), found.get("ar_step_errors"), found.get("check")
    rows = []
    if own is not None:
        for name, text in {"see": "score estimation (SEE)", "cross": "cross term"}.items():
            if own["totals"].get(name) is not None:
                rows.append(
                    {
                        "number": f"{text}, all AR steps, {ledger_step} steps",
                        "nats": number_of(own["totals"][name]),
                    }
                )
    exact = {r["ar_step"]: r["value"] for r in found["plan"]["rows"] if r["term"] == "AR_STEP"}
    for row in [] if errors is None else errors["rows"]:
        k = int(row["ar_step"])
        name = "IE, the initialisation" if k == 0 else f"E_{k}, AR step {k} from true inputs"
        beside = f" (a perfect score: {exact[k]:.3g})" if k in exact and step == ledger_step else ""
        rows.append({"number": f"{name}, {step} steps{beside}", "nats": number_of(row["error"])})
    if not rows:
        return None
    words = [
        "Averages over true frames: nothing is fed back. SEE and CROSS are of all pixels, E_k of the modes; E_k "
        "is moment-matched: exact for an affine network, an estimate for any other."
    ]
    if check is not None:
        words.append(
            f"As a network that predicts {check['kind']!r} its loss on true frames is {check['ratio']:.3g} times "
            "that of a constant output, in the mean over levels."
        )
        if worse := [row["level"] for row in check["rows"] if row["worse"]]:
            words.append(f"It is worse than a constant at the levels {', '.join(f'{x:.3g}' for x in worse)}.")
    see = number_of(own["totals"]["see"]) if own is not None else None
    return Section(
        f"The network: a score error of {_said(see)} nats (SEE)", words, pd.DataFrame(rows), "of the network"
    )


def _decay(decay: Mapping[str, Any] | None, exact: Mapping[str, Any], network: bool) -> Section | None:
    rows = pd.DataFrame(exact["rows"] if decay is None else decay["rows"])
    rows = rows[rows.term == "CLIP_KL"] if "term" in rows else rows
    if len(rows) == 0 or (decay is None and network):
        return None
    table = pd.DataFrame([
        {"AR step": int(row["ar_step"]), "form": str(row["form"]),
         "KL of its clip, nats": _with_error(float(row["value"]), _finite(row["stderr"]))}
        for row in rows.to_dict("records")
    ])  # fmt: skip
    words = (
        ["Of the network, from true frames alone: its output is regressed on what it is shown, and the fit is "
         "propagated; with the residual as noise (linear_residual) and without (linear). Far apart, they say "
         "that the estimate is not to be relied on."]
        if network else ["Of a perfect score: exact."]
    )  # fmt: skip
    if decay is not None:
        words += [f"{name}: {text}" for name, text in decay["notes"].items()]
    title = "Drift of the network, predicted" if network else "Drift that any network faces"
    with style():
        figure = clip_curves(rows)
    return Section(
        title, words, table, "", [Picture(figure, "KL of the clip that each AR step puts out.", "decay")]
    )


def _quality(quality: Mapping[str, Any] | None) -> Section | None:
    if quality is None:
        return None
    rows = [row for row in quality["rows"] if row["form"] == "predicted" and row["value"] is not None]
    reason = quality["notes"].get("predicted")
    words = [
        "By how much the PSNR of a continued video falls, in dB, against its first AR step: from one AR step on "
        "true inputs and one on once-generated inputs. The interval reaches over four models of an AR step and "
        "their errors; it was chosen on networks of known videos, and no theorem makes it cover."
    ]
    if reason or not rows:
        return Section("Decay of quality: no answer", words, warnings=[reason or "there is no AR step to predict"])
    table = pd.DataFrame(
        [
            {"AR step": int(row["ar_step"]), "decay, dB": float(row["value"]), "from": float(row["ci_low"]),
             "to": float(row["ci_high"])}
            for row in rows
        ]
    )  # fmt: skip
    last = rows[-1]
    reach = f"{last['ci_low']:.2g} to {last['ci_high']:.2g}"
    title = f"Decay of quality: {last['value']:.2g} dB by AR step {last['ar_step']} ({reach})"
    caption = "Predicted decay of PSNR; shaded: the interval; thin: the four models."
    pictures = [Picture(_quality_figure(quality["rows"]), caption, "quality")]
    return Section(title, words, table, "predicted, with its interval", pictures)


def _schedule(schedule: Mapping[str, Any] | None, plan: Plan) -> Section | None:
    if schedule is None:
        return None
    values = {"the plan's own": schedule["start"], "found here": schedule["value"], **schedule["baselines"]}
    ranked = sorted((value, name) for name, value in values.items() if value is not None and math.isfinite(value))
    table = pd.DataFrame(
        [{"levels": name, "KL of all clean frames, nats": float(value)} for value, name in ranked]
    )
    floor = schedule.get("floor")
    words = [f"For {plan.reverse_steps} reverse steps an AR step, of the fitted video and a perfect score."]
    if floor is not None:
        words.append(f"No levels get below {floor:.4g}: that is forgetting.")
    figure = _schedule_figure(plan, schedule["ar_levels"])
    title = f"The best levels have a KL of {schedule['value']:.3g}, the plan's own {schedule['start']:.3g}"
    caption = "Levels of an AR step's first and last frame: the plan's and those found."
    return Section(title, words, table, "exact", [Picture(figure, caption, "schedule")])


def _context_noise(noise: Mapping[str, Any] | None, ar_steps: int) -> Section | None:
    if noise is None:
        return None
    table = pd.DataFrame(
        [
            {
                "noise of references (level)": float(row["level"]), "KL": row["kl"], "first clip": row["first"],
                "last clip": row["last"], "drift": row["last"] - row["first"], f"MB of step {ar_steps}": row["mb"],
            }
            for row in noise["rows"]
        ]
    )  # fmt: skip
    best = min(noise["rows"], key=lambda row: row["kl"])
    title = f"Noise on the references: KL is least at level {best['level']:g}"
    return Section(
        title,
        ["One level for all references, a perfect score; `arvdm context-noise` tries one a lag."],
        table,
        "exact",
    )


# -- figures ---------------------------------------------------------------------------------------------------


def _memory_figure(
    curve: Sequence[tuple[int, Number | None]], compression: Sequence[Mapping[str, float]]
) -> Figure:
    with style():
        figure, axes = plt.subplots(
            1, 2 if compression else 1, figsize=(8.0 if compression else 4.6, 3.0), squeeze=False
        )
        left = axes[0, 0]
        shown = [(r, float(value), _finite(value.stderr)) for r, value in curve if value is not None]
        left.errorbar(
            [r for r, *_ in shown],
            [v for _, v, _ in shown],
            [e for *_, e in shown],
            fmt="o-",
            capsize=3,
            color="#d55e00",
        )
        left.set(xlabel="last frames seen", ylabel="memory bottleneck, nats", title="More frames seen")
        left.set_ylim(bottom=0)
        if compression:
            right = axes[0, 1]
            right.plot(
                [row["nats"] for row in compression], [row["mb"] for row in compression], "o-", color="#0072b2"
            )
            right.set(
                xlabel="nats of memory beside them", ylabel="what is left, nats", title="A compressed memory"
            )
            right.set_ylim(bottom=0)
    return figure


def _quality_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    table = pd.DataFrame(rows)
    with style():
        figure, panel = plt.subplots(figsize=(6.0, 3.0))
        for form, part in table.groupby("form", sort=False):
            if form == "predicted":
                panel.fill_between(part.ar_step, part.ci_low.astype(float), part.ci_high.astype(float), alpha=0.2)
                panel.plot(part.ar_step, part.value, "o-", ms=4, label="predicted")
            else:
                panel.plot(part.ar_step, part.value, lw=0.8, label=str(form))
        panel.set(xlabel="AR step", ylabel="decay, dB")
        panel.legend()
    return figure


def _schedule_figure(plan: Plan, levels: Sequence[Sequence[float]]) -> Figure:
    with style():
        figure, panel = plt.subplots(figsize=(6.0, 3.0))
        for name, grid, look in (("the plan's own", plan.ar_grid, "--"), ("found here", levels, "-")):
            rows = np.array(grid, dtype=np.float64)
            for i, j in enumerate(sorted({0, rows.shape[1] - 1})):
                label = name if i == 0 else None
                panel.plot(
                    rows[:, j], look, marker="o", ms=3, label=label, color="#7f7f7f" if look == "--" else "#0072b2"
                )
        panel.set(xlabel="reverse step", ylabel="level (OU)")
        panel.legend()
    return figure
