"""Numbers of a README, held against rows of the tables beside it: by digits, by what stands with them, by words.

A number is met by a row of ``*-findings.csv`` (of all tables where there is none), or by the config of a
provenance, if

- a value of that row rounds to it at the digits that are printed,
- what is printed with it, its interval or the count that it is out of, is of the same row, and
- the paragraph names the row: half of the words and numbers of a finding's name (of a raw row, of its texts; of a
  config, of the key) stand in it, in the lead of its list, or in the table's head. Rare words count for more. Of
  numbers that stand together less is enough, and they may be of any table.

A paragraph whose own words do not name a row names it in a comment, ``<!-- of: fitted / law, 16 videos -->``. What
is no result is listed, for the whole file:

    <!-- no results: 95 %, 16 x 16 -->
    <!-- no results, but seeds: 1101 -->

Code, links' targets and names with digits (I3D) do not count.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arvdm_theory.files import read_json

_NUMBER = (
    r"(?:(?<=[\s(|*])-)?(?<![\w.^/])"  # a minus where one can be, and no name, path or power before it
    r"(?:(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:e-?\d+)?(?![\w])(?:\s?%)?"
)
_WORDS = r"(?:\s+[^\s\d()|.;:]+){0,4}?"
# What is printed together: a value with its interval, a count and what it is out of.
_TOGETHER = [
    re.compile(rf"({_NUMBER}){_WORDS}\s+\(({_NUMBER})\s+to\s+({_NUMBER})"),
    re.compile(rf"({_NUMBER}),\s+({_NUMBER})\s+to\s+({_NUMBER})"),
    re.compile(rf"({_NUMBER})\s+±\s+({_NUMBER})"),
    re.compile(rf"({_NUMBER})\s+of\s+(?:all\s+|the\s+|its\s+)?({_NUMBER})(?!\s+to)"),
]
_LIST = re.compile(r"<!-- no results(?:, but [a-z ]+)?:(.*?)-->", re.DOTALL)
_NAMED = re.compile(r"<!-- of:(.*?)-->", re.DOTALL)
# Whole numbers below this are met exactly only: rounding would find them anywhere.
_COUNTS = 10
# The share of a row's name that its paragraph has; of numbers that stand together less is enough.
_SHARE, _SHARE_TOGETHER = 0.5, 0.3
_COMMON = frozenset(
    re.findall(r"\w+", "the of and in on at by to is are it its for with a an as than that from no one all last")
)


@dataclass(frozen=True)
class Printed:
    """Numbers that stand together, and the words around them."""

    numbers: tuple[str, ...]
    words: frozenset[str]


def words_of(text: str) -> frozenset[str]:
    """Words by their beginnings, and numbers as numbers."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    letters = re.findall(r"[^\W\d_]+", text)
    return frozenset(word[:5] for word in letters if len(word) > 1 and word not in _COMMON) | {
        f"{float(n):g}" for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text)
    }


# -- what a README prints --------------------------------------------------------------------------------


def printed(text: str) -> Iterator[Printed]:
    """All numbers of a text but those that it lists as no results."""
    free = {word for told in _LIST.findall(text) for word in _numbers(told.replace("`", ""))}
    text = re.sub(r"```.*?```|\]\([^)]*\)|<!-- no results.*?-->|\$[^$]*\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"(\d)\s+to\s+(\d[\d.]*\s?%)", r"\1 % to \2", text)  # 5 to 7 % are percentages both
    for piece, around in _pieces(text):
        named = " ".join(_NAMED.findall(piece))
        bare = re.sub(r"`[^`]*`|<!--.*?-->", " ", piece, flags=re.DOTALL)
        words, found = words_of(f"{re.sub(r'<!--.*?-->', ' ', piece, flags=re.DOTALL)} {around} {named}"), []
        for pattern in _TOGETHER:
            for match in pattern.finditer(bare):
                if not any(a < match.end() and match.start() < b for a, b, _ in found):
                    found.append((match.start(), match.end(), match.groups()))
        for match in re.finditer(_NUMBER, bare):
            if not any(a <= match.start() < b for a, b, _ in found):
                found.append((match.start(), match.end(), (match.group(),)))
        for _, _, numbers in sorted(found):
            kept = tuple(word.strip() for word in numbers if word.strip() not in free)
            if kept:
                yield Printed(kept, words)


def _numbers(text: str) -> list[str]:
    return [match.group().strip() for match in re.finditer(_NUMBER, text)]


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Paragraphs, items of lists and cells of tables, with what is said around them: heads, leads, labels."""
    head = lead = ""
    for paragraph in re.split(r"\n\s*\n", text):
        part = paragraph.strip()
        if part.startswith("#"):
            head, lead = part, ""
            yield part, ""
        elif part.startswith("|"):
            rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in part.splitlines()]
            label = ""
            for cell in rows[0]:
                yield cell, f"{lead} {head}"
            for row in rows[2:]:
                label = row[0] or label
                for column, cell in zip(rows[0], row, strict=True):
                    yield cell, f"{label} {row[1]} {column} {rows[0][0]} {lead} {head}"
        else:
            for item in re.split(r"\n(?=- )", part):
                yield item, f"{lead if item.startswith('- ') else ''} {head}"
            if not part.startswith("- "):
                lead = part


# -- what tables hold ------------------------------------------------------------------------------------


class Rows:
    """Every number that a README may print, with the words of its row."""

    def __init__(self, folder: Path) -> None:
        self._words: list[frozenset[str]] = []
        self._kinds: list[str] = []  # a number alone is met by "any", one of several by "bounds" and "raw", too
        values: list[float] = []
        rows: list[int] = []

        def add(kind: str, words: frozenset[str], numbers: list[float]) -> None:
            values.extend(numbers)
            rows.extend([len(self._words)] * len(numbers))
            self._words.append(words)
            self._kinds.append(kind)

        findings = set(folder.glob("*-findings.csv"))
        for path in sorted(folder.rglob("*.csv")):
            table = pd.read_csv(path)
            numeric = [name for name in table if table[name].dtype.kind in "ifb"]
            texts = table.drop(columns=numeric).fillna("").astype(str).agg(" ".join, axis=1)
            bounded = {"low", "high"} <= set(numeric)
            if bounded:
                table["half"] = (table.high - table.low) / 2
            bounds = ["low", "high", "half"] if bounded else []
            beside = table[bounds].astype(float).to_numpy().tolist()
            values_of = table[[name for name in numeric if name not in bounds]].astype(float).to_numpy().tolist()
            own = not findings or path in findings
            for text, numbers, limits in zip(texts, values_of, beside, strict=True):
                words, within = words_of(text), [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
                add("any" if own else "raw", words, [*numbers, *within])
                if bounded:
                    add("bounds" if own else "raw", words, [*numbers, *limits, *within])
        for path in sorted(folder.rglob("*.provenance.json")):
            told = read_json(path)
            for key, number in _settings({"config": told.get("config"), "seed": told.get("seed")}):
                add("any", words_of(key), [number])
        told_of = [words for words, kind in zip(self._words, self._kinds, strict=True) if kind == "any"]
        often = Counter(word for words in told_of for word in words)
        self._weight = {word: math.log(len(told_of) / times) for word, times in often.items()}
        held = np.array(values, dtype=np.float64)
        finite = np.isfinite(held)
        self._values, self._rows = held[finite], np.array(rows)[finite]

    def meet(self, found: Printed, named: bool = True) -> bool:
        """Whether one row has these numbers, and its paragraph names it; or else whether there is each number."""
        rows = [self._having(number) for number in found.numbers]
        if not named:
            return all(any(self._kinds[i] != "raw" for i in own) for own in rows)
        if len(rows) == 1:
            return any(self._kinds[i] == "any" and self._share(i, found.words) >= _SHARE for i in rows[0])
        return any(self._share(i, found.words) >= _SHARE_TOGETHER for i in set.intersection(*rows))

    def _share(self, row: int, words: frozenset[str]) -> float:
        """The share of a row's name that stands among words; what every row has weighs nothing."""
        name = self._words[row]
        weight = {word: self._weight.get(word, 1.0) for word in name}
        whole = sum(weight.values())
        return sum(weight[word] for word in name & words) / whole if whole else 1.0

    def _having(self, word: str) -> set[int]:
        """Rows with a value that rounds to a number as printed; prose may say of a fall how much it is."""
        percent = word.endswith("%")
        digits = word.rstrip("% ").replace(",", "").replace(" ", "")
        mantissa, _, power = digits.partition("e")
        number = float(digits)
        unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
        near = self._values * 100 if percent else self._values
        if number >= 0:
            near = np.abs(near)
        if unit == 1 and abs(number) < _COUNTS and not percent:
            return set(self._rows[near == number].tolist())
        return set(self._rows[np.abs(near - number) <= 0.5 * unit * (1 + 1e-9)].tolist())


def _settings(told: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a config, each with its key; those of a text, too."""
    if isinstance(told, dict):
        for name, each in told.items():
            yield from _settings(each, str(name))
            yield from _settings(str(name), key)
    elif isinstance(told, list):
        for each in told:
            yield from _settings(each, key)
    elif isinstance(told, str):
        yield from ((f"{key} {told}", float(number)) for number in re.findall(r"\d+(?:\.\d+)?", told))
    elif isinstance(told, (int, float)):
        yield key, float(told)


def unsourced(folder: Path, named: bool = True) -> list[tuple[str, ...]]:
    """The numbers of a folder's README that no row of its tables has, each with what stands with it."""
    rows, text = Rows(folder), (folder / "README.md").read_text(encoding="utf-8")
    return [found.numbers for found in printed(text) if not rows.meet(found, named)]


def noticed(folder: Path) -> list[bool]:
    """For every number of a README, with three other last digits in turn, whether that is found out."""
    rows, text = Rows(folder), (folder / "README.md").read_text(encoding="utf-8")
    return [
        not rows.meet(Printed((*found.numbers[:i], changed, *found.numbers[i + 1 :]), found.words))
        for found in printed(text)
        for i, word in enumerate(found.numbers)
        for changed in _doctored(word)
    ]


def _doctored(word: str) -> list[str]:
    digits = word.rstrip("% ").partition("e")[0]
    last = max(i for i, letter in enumerate(digits) if letter.isdigit())
    return [word[:last] + str((int(word[last]) + by) % 10) + word[last + 1 :] for by in (3, 5, 7)]
