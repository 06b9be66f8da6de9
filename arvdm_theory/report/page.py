"""Reports: one self-contained HTML page and the same as JSON, whatever command writes them.

A page asks no network for anything: figures are inside it, fonts are the reader's own, and there is no script. It
follows the reader's choice of light or dark, is read on a phone, and prints.
"""

from __future__ import annotations

import base64
import html
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.files import atomic_path, write_json
from arvdm_theory.number import Number

__all__ = ["Picture", "Report", "Section", "command_line", "read_numbers", "write_report"]


@dataclass(frozen=True)
class Picture:
    """A figure with what it shows.

    Attributes:
        figure: to be drawn into the page, or the path of a PNG.
        caption: what was measured, and what is to be seen.
        name: for the JSON.
    """

    figure: Figure | Path
    caption: str
    name: str


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the answer, as a short statement.
        words: paragraphs.
        table: cells are texts, whole numbers, floats, or :class:`~arvdm_theory.number.Number`, shown with its
            error.
        caption: of the table.
        pictures: figures.
        command: the command that makes these numbers.
        warnings: what speaks against them.
        listing: what a command printed, line by line.
    """

    title: str
    words: Sequence[str] = ()
    table: pd.DataFrame | None = None
    caption: str = ""
    pictures: Sequence[Picture] = ()
    command: str = ""
    warnings: Sequence[str] = ()
    listing: str = ""


@dataclass(frozen=True)
class Report:
    """What is written.

    Attributes:
        title: of the page.
        summary: in plain words, most important first.
        sections: in order.
        made: the provenance of all numbers (:func:`arvdm_theory.provenance.provenance`).
        facts: further numbers for the JSON alone.
    """

    title: str
    summary: Sequence[str]
    sections: Sequence[Section]
    made: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


def command_line(words: Sequence[str | Path]) -> str:
    """A command as a shell would take it."""
    return shlex.join(str(word) for word in words)


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Writes ``report.html`` and ``report.json`` into a folder, each atomically; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "report.html", folder / "report.json"
    with atomic_path(page) as temporary:
        temporary.write_text(to_html(report), encoding="utf-8")
    write_json(data, to_json(report))
    return page, data


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain values: a number is {value, stderr, ci_low, ci_high, method}."""
    return {
        "title": report.title,
        "summary": list(report.summary),
        "sections": [
            {
                "title": section.title,
                "words": list(section.words),
                "warnings": list(section.warnings),
                "command": section.command,
                "listing": section.listing,
                "table": _rows(section.table),
                "caption": section.caption,
                "pictures": [{"name": each.name, "caption": each.caption} for each in section.pictures],
            }
            for section in report.sections
        ],
        "facts": read_numbers(dict(report.facts)),
        "provenance": dict(report.made),
    }


def read_numbers(value: Any) -> Any:
    """Plain values of numbers, also inside lists and mappings."""
    if isinstance(value, Number):
        low, high = value.ends()
        return {
            "value": float(value), "stderr": float(value.stderr), "ci_low": float(low), "ci_high": float(high),
            "method": value.method,
        }  # fmt: skip
    if isinstance(value, Mapping):
        return {str(key): read_numbers(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [read_numbers(each) for each in value]
    return value.item() if hasattr(value, "item") and not isinstance(value, str) else value


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    if table is None:
        return None
    return [{str(key): read_numbers(value) for key, value in row.items()} for row in table.to_dict("records")]


def to_html(report: Report) -> str:
    """The page."""
    parts = [
        f"<h1>{_text(report.title)}</h1>",
        '<section class="summary" aria-label="Summary"><h2>In short</h2><ul>',
    ]
    parts += [f"<li>{_text(line)}</li>" for line in report.summary]
    parts.append("</ul></section>")
    for section in report.sections:
        parts.append(f"<section><h2>{_text(section.title)}</h2>")
        parts += [f"<p>{_text(words)}</p>" for words in section.words]
        parts += [f'<p class="warning">{_text(words)}</p>' for words in section.warnings]
        if section.listing:
            parts.append(f'<div class="wide"><pre>{_text(section.listing)}</pre></div>')
        parts += [_picture(each) for each in section.pictures]
        if section.table is not None:
            parts.append(_table(section.table, section.caption))
        if section.command:
            parts.append(f'<p class="command">Made by <code>{_text(section.command)}</code></p>')
        parts.append("</section>")
    parts.append(f"<footer>{_provenance(report.made)}</footer>")
    title = _text(report.title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )


def _text(words: object) -> str:
    return html.escape(str(words), quote=True)


def _number(value: Any) -> tuple[str, bool]:
    """A cell as text, and whether it is a number."""
    if isinstance(value, Number):
        own, error = float(value), float(value.stderr)
        if not math.isfinite(own):
            return "-", True
        if error == 0 or not math.isfinite(error):
            return f"{own:.4g}", True
        digits = max(0, 1 - math.floor(math.log10(error)))
        return (f"{own:.{digits}f} ± {error:.{digits}f}" if digits < 7 else f"{own:.3g} ± {error:.1g}"), True
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-", True
    if isinstance(value, float):
        return f"{value:.4g}", True
    return str(value), isinstance(value, int) and not isinstance(value, bool)


def _table(table: pd.DataFrame, caption: str) -> str:
    cells = [[_number(value) for value in row] for row in table.itertuples(index=False)]
    numeric = [bool(cells) and all(row[i][1] for row in cells) for i in range(len(table.columns))]

    def tag(kind: str, i: int, words: str) -> str:
        look = ' class="number"' if numeric[i] else ""
        return f"<{kind}{look}>{_text(words)}</{kind}>"

    head = "".join(tag("th", i, str(name)) for i, name in enumerate(table.columns))
    body = "".join(
        "<tr>" + "".join(tag("td", i, cell[0]) for i, cell in enumerate(row)) + "</tr>" for row in cells
    )
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(picture: Picture) -> str:
    if isinstance(picture.figure, Path):
        data, kind = picture.figure.read_bytes(), "png"
    else:
        held = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": picture.name, "svg.fonttype": "path"}):
            picture.figure.savefig(held, format="svg", metadata={"Date": None}, transparent=True)
        plt.close(picture.figure)
        data, kind = held.getvalue(), "svg+xml"
    source = base64.b64encode(data).decode("ascii")
    caption = _text(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/{kind};base64,{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _provenance(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in (made.get("versions") or {}).items() if value)
    lines = [
        f"Commit {made.get('commit') or 'unknown'}; seed {made.get('seed')}; {versions}; {made.get('device')}.",
        "Numbers without an error are exact for the model that their section names; ± is one standard error.",
    ]
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


_STYLE = """
:root{--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d0d7de;--mark:#0b5cad;--warn:#8a4600;
--warn-card:#fff4e5}
@media
(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--paper:#0d1117;--card:#161b22;--line:#30363d;
--mark:#79b8ff;--warn:#ffb86b;--warn-card:#2b2113}figure img{filter:invert(1) hue-rotate(180deg);
mix-blend-mode:screen}}
*{box-sizing:border-box} body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55
system-ui,-apple-system,"Segoe UI",Roboto, "Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
main{max-width:60rem;margin:0 auto;padding:1.25rem}
h1{font-size:1.7rem;line-height:1.25;margin:.4em 0 .8em}
h2{font-size:1.2rem;line-height:1.3;margin:0 0 .5em}
section{margin:2rem 0}
.summary{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--mark);border-radius:8px;
padding:1rem 1.25rem}
.summary ul{margin:0;padding-left:1.2em}
.summary li{margin:.35em 0}
.warning{background:var(--warn-card);color:var(--warn);border-radius:6px;padding:.5rem .75rem}
.command{color:var(--soft);font-size:.85rem}
code{font:.95em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--card);padding:.1em .3em;
border-radius:4px}
pre{font:.85rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0;overflow-wrap:normal}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;color:var(--soft);padding-bottom:.4rem}
th,td{border-bottom:1px solid var(--line);padding:.35rem .8rem .35rem 0;text-align:left;vertical-align:top}
th{font-weight:600}
.number{text-align:right;white-space:nowrap}
th.number{white-space:normal}
figure{margin:1rem 0;overflow-x:auto}
figure img{display:block;width:100%;max-width:48rem;min-width:32rem;height:auto;margin:0 auto}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.4rem}
footer{border-top:1px solid var(--line);color:var(--soft);font-size:.85rem;margin-top:2.5rem}
@media print{:root{--ink:#000;--soft:#333;--paper:#fff;--card:#fff;--line:#999;--mark:#000;--warn:#000;
--warn-card:#fff}figure img{filter:none;mix-blend-mode:normal;min-width:0}figure{overflow:visible}
body{font-size:10.5pt}main{max-width:none;padding:0}
section,figure,tr{break-inside:avoid}.wide{overflow:visible}pre{white-space:pre-wrap}}
"""
