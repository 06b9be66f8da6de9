"""What ledger, prediction and measurement return: one tidy table with its totals, its errors and its notes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from arvdm_theory.number import Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result", "rows_table"]

_TOTALS = ("kl", "trajectory_kl", "girsanov", "ie", "nie_init", "path_init", "path_kl", "closed", "lower_bound",
           "floor", "ar_step_kl")  # fmt: skip
_SERIES = {
    "nie_ar": "NIE_AR", "de_ar": "DE", "see_ar": "SEE", "cross_ar": "CROSS", "mb": "MB", "clip_kl": "CLIP_KL",
    "clip_bound": "CLIP_BOUND", "ar_step_error": "AR_STEP", "clip_w2": "CLIP_W2",
    "accumulation_bound": "ACCUMULATION_BOUND",
}  # fmt: skip
_COLUMNS = ["stage", "ar_step", "term", "form", "value", "stderr", "ci_low", "ci_high"]


def rows_table(
    rows: list[tuple[str, int, str, str, Number]], series: Mapping[str, Number] | None = None
) -> pd.DataFrame:
    """The table of (stage, AR step, term, form, number) rows, and of terms that are given for all AR steps,
    (K,)."""
    tidy = [(*row[:4], float(row[4]), float(row[4].stderr), *map(float, row[4].ends())) for row in rows]
    table = pd.DataFrame(tidy, columns=_COLUMNS)
    parts = []
    for term, number in (series or {}).items():
        numbers = [torch.as_tensor(each).cpu() for each in (number.value, number.stderr, *number.ends())]
        form = "exact" if number.is_exact else "average"
        steps = range(1, len(numbers[0]) + 1)
        parts.append(pd.DataFrame(dict(zip(_COLUMNS, ("ar", steps, term, form, *numbers), strict=True))))
    if not parts:
        return table
    return pd.concat([table, pd.concat(parts).sort_values("ar_step", kind="stable")], ignore_index=True)


@dataclass(frozen=True)
class Result:
    """The account of one video, plan and sampler.

    Attributes:
        kind: ``ledger``, ``prediction`` or ``measurement``.
        table: a row per (stage, AR step, term, form): ``stage`` (``init`` or ``ar``), ``ar_step`` (0 for the
            initialisation), ``term``, ``form`` (how it was found), ``value`` in nats, ``stderr`` (0 where exact),
            and the 95 % interval ``ci_low`` to ``ci_high``. Rows of one term and form add up to the total of that
            name:

            - a ledger's terms are IE, NIE_AR, DE, SEE, CROSS and MB, which add up to the KL of the trajectory;
              NIE_INIT, DE_INIT, SEE_INIT and CROSS_INIT, which bound IE; AR_STEP, the error E_k of a whole AR
              step, and its attribution AR_STEP_NIE, AR_STEP_DE and AR_STEP_SEE where asked for; and per AR step
              CLIP_KL, CLIP_BOUND, ACCUMULATION_BOUND and CLIP_W2, which are no summands;
            - predictions and measurements have CLIP_KL rows, or DECAY rows in dB, a form each.
        totals: in nats, None where not defined; of a ledger

            - ``kl``: of all clean frames; ``ar_step_kl``: of the trajectory at the ends of AR steps, IE + Σ (E_k +
            MB_k);
              ``trajectory_kl``: of the whole, the sum of the ledger;
            - ``path_kl``: the same with IE replaced by its bound, the whole initialisation stage;
            - ``girsanov`` and ``closed``: upper bounds;
            - ``floor``: Σ I(Output_k; Past_k | clean references), which no sampler of the plan beats (w = Δ);
            - ``lower_bound``: IE + that sum, which holds behind this sampler's first input;
            - ``ie``, ``nie_init``, ``path_init``, ``nie_ar``, ``de``, ``see``, ``cross``, ``mb``: the terms.
        stderr: standard errors of those totals that are estimated.
        notes: why a total or a curve is not defined, and what else is to be said.
        terms: what the table was made of, as numbers; None for predictions and measurements.
    """

    kind: str
    table: pd.DataFrame
    totals: dict[str, float | None] = field(default_factory=dict)
    stderr: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    terms: Any = None

    def column(self, term: str, form: str | None = None) -> list[float]:
        """The values of one term over the AR steps, in order; empty if it is not defined."""
        rows = self.table[(self.table.stage == "ar") & (self.table.term == term)]
        if form is not None:
            rows = rows[rows.form == form]
        return [float(value) for value in rows.sort_values("ar_step").value]

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`to_json` writes: totals, one list a term (or form) over the AR steps, and notes on what is
        null."""
        content: dict[str, Any] = {}
        if self.kind != "ledger":
            for term, form in dict.fromkeys(zip(self.table.term, self.table.form, strict=True)):
                values = self.column(term, form)
                content[str(form)] = values if all(map(math.isfinite, values)) else None
            return content | {"notes": self.notes}
        content |= {name: self.totals[name] for name in _TOTALS}
        # Notes speak of a term under the name that its list has.
        renamed = {key.removesuffix("_ar"): key for key in _SERIES}
        notes = {renamed.get(name, name): reason for name, reason in self.notes.items()}
        for key, term in _SERIES.items():
            values = self.column(term)
            content[key] = values if values and all(map(math.isfinite, values)) else None
        return content | {"notes": notes}

    def to_json(self, indent: int | None = 1) -> str:
        """The account as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def plot(self) -> Figure:
        """The account as a figure: the terms of every AR step, or the curves of clip KL or decay."""
        from arvdm_theory.report.ledger import clip_curves, ledger_steps
        from arvdm_theory.report.style import style

        with style():
            return ledger_steps(self.table) if self.kind == "ledger" else clip_curves(self.table)

    def _repr_html_(self) -> str:
        """Totals, then the table with a column a term, for notebooks."""
        wide = self.table.pivot_table(
            index=["stage", "ar_step"], columns=["term", "form"], values="value", sort=False, dropna=False
        ).dropna(axis=1, how="all")
        totals = {name: value for name, value in self.totals.items() if value is not None}
        lines = [f"{name} {value:.6g}" + (f" ± {self.stderr[name]:.2g}" if self.stderr.get(name) else "")
                 for name, value in totals.items()]  # fmt: skip
        notes = "".join(f"<li>{name}: {text}</li>" for name, text in self.notes.items())
        table = wide.to_html(float_format="{:.6g}".format, na_rep="")
        return f"<p>in nats: {', '.join(lines)}</p>{table}" + (f"<ul>{notes}</ul>" if notes else "")
