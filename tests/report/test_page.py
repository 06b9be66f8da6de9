"""Reports are one page that asks no network for anything, and the same numbers as JSON."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from arvdm_theory.number import Number
from arvdm_theory.report.page import Picture, Report, Section, command_line, to_html, write_report


def report() -> Report:
    figure, panel = plt.subplots()
    panel.plot([0, 1], [1, 2])
    samples = Number(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    table = pd.DataFrame(
        [
            {"what": "<b>a & b</b>", "value": samples, "n": 3},
            {"what": "exact", "value": Number.exact(0.25), "n": 4},
        ]
    )
    section = Section("Title <1>", ["words & more"], table, "of four", [Picture(figure, "a line", "line")],
                      "arvdm x --y 'a b'", ["beware"])  # fmt: skip
    return Report(
        "A report", ["first", "second"], [section, Section("Empty")], {"seed": 3, "commit": "abc"}, {"k": samples}
    )


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_page_is_whole_and_asks_for_nothing() -> None:
    page, parsed = to_html(report()), _Page()
    parsed.feed(page)
    assert parsed.open == []
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert len(parsed.sources) == 1
    style = re.search("<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme:dark" in style[1]
    assert "@media print" in style[1]
    words = " ".join(parsed.words)
    for said in ("Title <1>", "words & more", "<b>a & b</b>", "arvdm x --y 'a b'", "beware", "of four"):
        assert said in words
    assert to_html(report()) == page  # the same numbers make the same bytes


def test_numbers_are_shown_with_their_error_and_kept_whole(tmp_path: Path) -> None:
    page, data = write_report(report(), tmp_path / "made")
    stderr = np.std([1, 2, 3, 4], ddof=1) / 2
    assert f"2.50 ± {stderr:.2f}" in page.read_text(encoding="utf-8")
    assert ">0.25<" in page.read_text(encoding="utf-8")
    kept = json.loads(data.read_text())
    row = kept["sections"][0]["table"][0]
    assert row["value"]["value"] == 2.5
    assert row["value"]["stderr"] == stderr
    assert kept["facts"]["k"]["ci_low"] < 2.5 < kept["facts"]["k"]["ci_high"]
    assert kept["sections"][0]["command"] == "arvdm x --y 'a b'"
    assert kept["provenance"]["seed"] == 3


def test_a_command_line_is_what_a_shell_takes() -> None:
    assert command_line(["arvdm", "assess", Path("a b.mp4")]) == "arvdm assess 'a b.mp4'"
