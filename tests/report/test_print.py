"""Figures fit for print: how wide, how large the text, which fonts, what captions say; measured in the files."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

import arvdm_theory
from arvdm_theory.cli import main
from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.report.style import TERM_COLOURS, compose, style
from arvdm_theory.tables import read_table

RESULTS = Path(arvdm_theory.__file__).parents[1] / "experiments" / "results"
FIGURES = Path(arvdm_theory.__file__).parents[1] / "figures"
# Of several panels, with notes, with pictures, with long names of rows.
SHOWN = [("verify", "ladder"), ("verify", "score_error"), ("accumulation", "accumulation-slopes"),
         ("video", "video-film-strips"), ("estimators", "estimator_tasks")]  # fmt: skip


def sizes(pdf: bytes) -> set[float]:
    """Sizes of all text of a PDF, in points."""
    found = set()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        found |= {round(float(size), 2) for size in re.findall(rb"/F[\w-]+ ([\d.]+) Tf", content)}
    return found


@pytest.mark.parametrize(("kind", "width", "least"), [("paper", 5.5, 8.0), ("talk", 10.0, 14.0)])
def test_a_pdf_has_its_width_its_sizes_and_truetype(tmp_path: Path, kind: str, width: float, least: float) -> None:
    words = ["figures", str(RESULTS / "verify"), "--format", "pdf", "--style", kind, "--out", str(tmp_path),
             "--only", "ladder"]  # fmt: skip
    assert main(words if kind == "talk" else [*words, "--width", "5.5"]) == 0
    pdf = (tmp_path / "ladder.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", pdf)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * width, abs=0.1)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    # Exponents of ticks are 0.7 times as large: nothing else is smaller.
    assert sizes(pdf) <= {least, round(0.7 * least, 2), 1.125 * least}, sizes(pdf)
    assert least in sizes(pdf)
    assert "Measured: " in (tmp_path / "ladder.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("experiment", "name"), SHOWN)
def test_text_has_its_size_and_nothing_is_cut_off(experiment: str, name: str) -> None:
    table, draw = EXPERIMENTS[experiment].figures[name]
    with style("paper"):
        figure = draw(read_table(RESULTS / experiment / f"{table}.csv"))
        compose(figure)
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            assert 8.0 <= text.get_fontsize() <= 9.0
        page = figure.bbox
        for panel in figure.get_axes():
            for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
                box = text.get_window_extent()
                if text.get_text() and text.get_visible() and panel.axison:
                    assert box.x0 >= page.x0 - 1, text
                    assert box.x1 <= page.x1 + 1, text
                    assert box.y1 <= page.y1 + 1, text
        for legend in figure.legends:
            assert legend.get_window_extent().width <= page.width + 1
        plt.close(figure)


def test_every_published_figure_has_a_caption_that_says_what_was_measured() -> None:
    drawn = sorted(FIGURES.glob("*/*.png"))
    assert len(drawn) > 30
    for path in drawn:
        caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        shown, measured = caption.split("\n\nMeasured: ")
        assert len(shown) > 40, path
        assert "Table: " in measured
        assert path.stem in EXPERIMENTS[path.parent.name].figures, f"{path}: no experiment draws it any more"


def test_colours_of_terms_stand_out_from_white() -> None:
    """Contrast as the WCAG define it; 2 is little, and enough for an area with an outline."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, colour in TERM_COLOURS.items():
        assert 1.05 / (luminance(colour) + 0.05) > 2, name
    assert 1.05 / (luminance(TERM_COLOURS["cross"]) + 0.05) > 7


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify = str(RESULTS / "verify")
    for words, said in (
        (["figures", str(tmp_path)], "none of the tables"),
        (["figures", str(tmp_path / "nowhere")], "no folder of a run"),
        (["figures", verify, "--width", "0.5", "--out", str(tmp_path)], "2 to 40 inches"),
        (["figures", verify, "--only", "nothing", "--out", str(tmp_path)], "no figure nothing"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
