"""What of the site is made from the library itself, at build time: no page repeats what the code knows.

- Pages that are generated: methods (the catalogue, with staircases), gallery (every experiment's figures),
  commands (every parser's help), API (every public name), contributing, and the results' own pages.
- Formulas between dollars become MathML, which browsers draw with their own fonts: no script, no request.
- Links of the Markdown files to tables and figures of the repository become links to copies of them.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import inspect
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("COLUMNS", "92")  # of commands' help
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from latex2mathml.converter import convert  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

_MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
_FOLDERS = {"../figures/": "figures/", "../experiments/results/": "results/"}


# -- MkDocs calls these -----------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Pages that mkdocs.yml does not name take their place in how-to, by their own titles."""
    named = set(re.findall(r"[\w/-]+\.md", str(config["nav"]))) | {"index.md"}
    how_to = next(part["How to"] for part in config["nav"] if "How to" in part)
    for path in sorted((ROOT / "docs").glob("*.md")):
        if path.name not in named:
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").strip()
            how_to.insert(1, {title: path.name})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, and the repository's figures and tables."""
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    for folder, pattern, place in (("figures", "*/*.png", "figures"), ("experiments/results", "**/*", "results")):
        for path in sorted((ROOT / folder).glob(pattern)):
            if path.is_file() and path.suffix in (".png", ".csv", ".md", ".json"):
                target = f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
                if path.suffix == ".md":
                    files.append(File.generated(config, target, content=path.read_text(encoding="utf-8")))
                else:
                    files.append(File.generated(config, target, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ lead to the copies."""
    up = "../" * page.file.src_uri.count("/")
    for there, here in _FOLDERS.items():
        markdown = markdown.replace(f"]({up}{there}", f"]({up}{here}")
    return markdown.replace("](../CONTRIBUTING.md", "](contributing.md")


def on_page_content(content: str, **_: Any) -> str:
    """Formulas become MathML."""
    return _MATH.sub(_math, content)


def _math(found: re.Match[str]) -> str:
    block = found[2] == "["
    formula = convert(html.unescape(found[3]).strip(), display="block" if block else "inline")
    return formula if block else f'<span class="formula">{formula}</span>'


# -- the generated pages ----------------------------------------------------------------------------------


def methods() -> str:
    """The catalogue: every method's verdict, requirement checks and staircase."""
    from arvdm_theory.plan.drawing import describe_references
    from arvdm_theory.plan.methods import METHODS, REQUIREMENTS

    lines = [
        "# Methods", "",
        "Published methods as plans, made from the catalogue (`arvdm plans`). A staircase shows the levels, on "
        "the unit OU clock, at which the frames of a window enter an AR step (upper, orange) and leave it "
        "(lower, blue): left is the oldest frame.", "",
        "| method | arXiv | verdict | source |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| [{entry.title}](#{entry.key}) | {entry.arxiv or '-'} | {entry.verdict} | "
        f"{'read' if entry.checked else 'not checked'} |"
        for entry in METHODS
    ]
    for entry in METHODS:
        lines += [
            "",
            f"## {entry.title} {{ #{entry.key} }}",
            "",
            f"*{entry.citation}.* **{entry.verdict}**: {entry.note}",
            "",
        ]
        broken = entry.broken()
        if broken is not None:
            lines += [f"Breaks *{broken[0]}*: {broken[1]}", "", f"Source: {entry.source}"]
            continue
        plan = entry.build()
        lines += [
            f"w = {plan.window}, Δ = {plan.stride}, M = {plan.reverse_steps}, T = {plan.horizon:.4g}, "
            f"δ = {plan.floor:.3g}; references: {describe_references(plan.references)}. "
            f"{', '.join(REQUIREMENTS)}: met.", "", _staircase(plan), "", f"Source: {entry.source}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _staircase(plan: Any) -> str:
    """Input and output levels of a window as inline SVG, which takes the page's own colours."""
    width, height, left, top = 360.0, 150.0, 34.0, 10.0
    column, scale = (width - left - 8) / plan.window, (height - top - 26) / max(plan.horizon, 1e-9)

    def line(levels: Any, colour: str) -> str:
        points = []
        for frame, level in enumerate(levels):
            y = height - 24 - float(level) * scale
            points += [f"{left + frame * column:.1f},{y:.1f}", f"{left + (frame + 1) * column:.1f},{y:.1f}"]
        return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'

    zero, full = height - 24, height - 24 - plan.horizon * scale
    return (
        f'<svg class="staircase" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="levels of {html.escape(str(plan.name))}">'
        f'<line x1="{left}" y1="{zero:.1f}" x2="{width - 8:.0f}" y2="{zero:.1f}" stroke="currentColor" '
        f'opacity=".4"/>'
        f'<text x="{left - 4}" y="{zero + 4:.1f}" text-anchor="end">0</text>'
        f'<text x="{left - 4}" y="{full + 4:.1f}" text-anchor="end">{plan.horizon:.3g}</text>'
        f'<text x="{left}" y="{height - 6:.0f}">frame 1</text>'
        f'<text x="{width - 8:.0f}" y="{height - 6:.0f}" text-anchor="end">frame {plan.window}</text>'
        + line(plan.input_levels, "#d95f02") + line(plan.output_levels, "#1f77b4") + "</svg>"
    )  # fmt: skip


def gallery() -> str:
    """Every figure that an experiment draws, with its caption and the code that draws it."""
    from arvdm_theory.experiments import EXPERIMENTS

    lines = [
        "# Gallery", "",
        "Every published figure with what was measured and the code that draws it from its table. "
        "`arvdm figures RUN --format pdf --width 5.5 --style paper` draws those of a run for print.",
    ]  # fmt: skip
    for name, each in EXPERIMENTS.items():
        drawn = [(figure, *rest) for figure, rest in each.figures.items() if _drawn(name, figure).exists()]
        if not drawn:
            continue
        lines += ["", f"## {name}", "", f"{each.shows[0].upper()}{each.shows[1:]}. `{_runs(name, each)}`"]
        for figure, table, draw in drawn:
            # What is shown, then what was measured.
            caption = html.escape(_drawn(name, figure).with_suffix(".txt").read_text(encoding="utf-8").strip())
            source = inspect.getsource(inspect.unwrap(getattr(draw, "func", draw)))
            lines += [
                "", f"### {figure} {{ #{name}-{figure} }}", "", '<figure markdown="span">',
                f"[![{html.escape(figure)}](figures/{name}/{figure}.png)](figures/{name}/{figure}.png)",
                f"<figcaption>{caption.replace(chr(10) * 2, '<br>')}</figcaption>", "</figure>", "",
                f'??? note "the code that draws it from {table}.csv"', "", "    ```python",
                *(f"    {line}" for line in source.splitlines()), "    ```",
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _runs(name: str, experiment: Any) -> str:
    return f"{experiment.runs} {name}" if experiment.command == "experiment" else str(experiment.runs)


def _drawn(experiment: str, figure: str) -> Path:
    return ROOT / "figures" / experiment / f"{figure}.png"


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    from arvdm_theory import cli
    from arvdm_theory.cli.video import SUBCOMMANDS

    names = [name for name in cli.COMMANDS if name != "video"] + [f"video {name}" for name in SUBCOMMANDS]
    lines = ["# Commands", "", "As `arvdm --help` and `arvdm COMMAND --help` show them.", "", "```text",
             _help([]), "```"]  # fmt: skip
    for name in names:
        lines += ["", f"## arvdm {name}", "", "```text", _help(name.split()), "```"]
    return "\n".join(lines) + "\n"


def _help(words: list[str]) -> str:
    from arvdm_theory.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return shown.getvalue().rstrip()


def api() -> str:
    """Every public name, by the room it lives in."""
    import arvdm_theory

    rooms: dict[str, list[str]] = {}
    for name, module in arvdm_theory._HOME.items():
        rooms.setdefault(module.split(".")[0], []).append(f"arvdm_theory.{module}.{name}")
    lines = [
        "# API",
        "",
        "The public names of `arvdm_theory`, each loaded when it is asked for. Values are in nats.",
    ]
    for room, names in rooms.items():
        about = (importlib.import_module(f"arvdm_theory.{room}").__doc__ or "").strip().split("\n\n")[0]
        lines += ["", f"## {room}", "", about]
        for name in names:
            lines += ["", f"::: {name}"]
    testing = importlib.import_module("arvdm_theory.testing")
    lines += ["", "## testing", "", (testing.__doc__ or "").strip().split("\n\n")[0]]
    lines += [line for name in testing.__all__ for line in ("", f"::: arvdm_theory.testing.{name}")]
    return "\n".join(lines) + "\n"


def contributing() -> str:
    """The repository's CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](tests/users_project/project.py)", "](tutorials/student.md)")


PAGES = {
    "methods.md": methods, "gallery.md": gallery, "commands.md": commands, "api.md": api,
    "contributing.md": contributing,
}  # fmt: skip
