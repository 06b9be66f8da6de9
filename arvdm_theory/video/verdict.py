"""Whether a generated clip retrieved what was seen: "success", "fail" or "can't tell", calibrated on judged clips.

A clip has a score, the larger the better. Among calibration clips that someone judged, with scores A of successes
and B of failures, it is as odd for a success, or for a failure, as

    p_success(s) = (1 + #{a in A: a <= s}) / (1 + |A|),    p_fail(s) = (1 + #{b in B: b >= s}) / (1 + |B|),

and a class is ruled out if its p is at most the level. The verdict is the class that is left; where both are, or
neither, it is "can't tell". If the clip is exchangeable with the calibration clips of its own class (same videos,
models and judges), its class is ruled out with at most that probability, whatever the scores' distribution:
class-conditional conformal classification (Vovk, Gammerman and Shafer 2005, section 4.5; Sadinle, Lei and
Wasserman 2019, doi:10.1080/01621459.2017.1395341). That bounds the share of clips of a class that are judged
wrongly, not the share of wrong ones among the judged. With fewer than 1/level - 1 clips of a class nothing rules
it out.

The score is by how many dB the worst predicted frame is nearer to the truth than to every frame that was given and
differs (``views``); where some predicted frame has no such frame to be compared with, the mean PSNR (``psnr``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from arvdm_theory.tables import read_table
from arvdm_theory.video.intervals import cluster_rate

__all__ = ["LEVEL", "MEASURES", "UNDECIDED", "Calibration", "Rule", "leave_one_out", "paper_rule"]

LEVEL = 0.125
"""Share of the clips of a class that may be judged wrongly: the least that eight failures, one left out, allow."""

MEASURES = ("views", "psnr")
UNDECIDED = "can't tell"
_SUCCESS, _FAIL = "success", "fail"
_COLUMNS = ["file", "authors", *MEASURES]


@dataclass(frozen=True)
class Calibration:
    """Scores of clips that were judged.

    Attributes:
        successes: A.
        failures: B.

    Example:
        >>> judged = Calibration((1.0, 4.0, 5.0, 6.0), (-3.0, -2.0, 0.0, 2.0))
        >>> [judged.verdict(score, level=0.2) for score in (3.0, 1.5, -1.0)]
        ['success', "can't tell", 'fail']
    """

    successes: tuple[float, ...]
    failures: tuple[float, ...]

    def p_values(self, score: float) -> tuple[float, float]:
        """p_success and p_fail of a score."""
        lower = sum(other <= score for other in self.successes)
        higher = sum(other >= score for other in self.failures)
        return (1 + lower) / (1 + len(self.successes)), (1 + higher) / (1 + len(self.failures))

    def verdict(self, score: float, level: float = LEVEL) -> str:
        """ "success", "fail" or "can't tell"; a score of NaN can't."""
        if math.isnan(score):
            return UNDECIDED
        success, fail = (p > level for p in self.p_values(score))
        return UNDECIDED if success == fail else _SUCCESS if success else _FAIL


@dataclass(frozen=True)
class Rule:
    """Calibrations by measure, and the level.

    Attributes:
        by: of every one of :data:`MEASURES`.
        level: see the module.
        judged: what it was calibrated on, in words.
    """

    by: dict[str, Calibration]
    level: float
    judged: str

    @staticmethod
    def of(table: pd.DataFrame, judged: str, level: float = LEVEL) -> Rule:
        """From scored clips.

        Args:
            table: columns file, authors ("success" or "fail"; others are left out), views and psnr.
            judged: what the clips are, in words.
            level: between 0 and 1.

        Raises:
            ValueError: if columns or clips of a class are missing, or the level is no probability.
        """
        if not 0 < level < 1:
            raise ValueError(f"the level of wrong verdicts lies between 0 and 1, got {level:g}")
        missing = [name for name in _COLUMNS if name not in table]
        if missing:
            raise ValueError(f"{judged}: judged clips have columns {', '.join(_COLUMNS)}; missing: {missing[0]}")
        for name in (_SUCCESS, _FAIL):
            if not (table.authors == name).any():
                raise ValueError(f"{judged}: no clip is judged {name!r}")
        return Rule({name: _calibration(table, name) for name in MEASURES}, level, judged)

    def verdict(self, views: float, psnr: float) -> tuple[str, str]:
        """The verdict and the measure that decides: ``views``, or ``psnr`` where that is NaN."""
        measure, score = ("psnr", psnr) if math.isnan(views) else ("views", views)
        return self.by[measure].verdict(score, self.level), measure

    @property
    def words(self) -> str:
        """What is decided how, for reports."""
        parts = []
        units = (
            "dB nearer to the truth, in the worst frame, than to any differing given frame",
            "dB of mean PSNR, where some frame has none to compare with",
        )
        for name, unit in zip(MEASURES, units, strict=True):
            below, above = self.thresholds(name)
            parts.append(f"success above {above:.1f} and fail below {below:.1f} {unit}")
        return (
            f"{'; '.join(parts)}; between them it can't tell. Calibrated on {self.judged}, so that of clips like "
            f"those at most {self.level:.1%} of successes, and of failures, are judged wrongly"
        )

    def thresholds(self, measure: str) -> tuple[float, float]:
        """The score below which a clip fails and above which it succeeds; -inf and inf where it is never so."""
        scores = self.by[measure]
        both = sorted({*scores.successes, *scores.failures})
        between = [both[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(both)), both[-1] + 1] if both else []
        said = [scores.verdict(score, self.level) for score in between]
        # Verdicts rise with the score: failures first, successes last.
        fails, wins = said.count(_FAIL), said.count(_SUCCESS)
        return both[fails - 1] if fails else -math.inf, both[len(both) - wins] if wins else math.inf


def _calibration(table: pd.DataFrame, measure: str) -> Calibration:
    successes, failures = (
        tuple(sorted(table[table.authors == name][measure].dropna().astype(float))) for name in (_SUCCESS, _FAIL)
    )
    return Calibration(successes, failures)


@cache
def paper_clips() -> pd.DataFrame:
    """Scores of the twenty clips of the paper's project page: file, group, authors, views, psnr."""
    return read_table(Path(__file__).with_name("paper_clips.csv"))


def paper_rule(level: float = LEVEL) -> Rule:
    """Calibrated on the clips of the paper's project page, DMLab and Minecraft together."""
    table = paper_clips()
    return Rule.of(table, f"{len(table)} clips of the paper's project page", level)


def leave_one_out(table: pd.DataFrame, levels: Iterable[float] = (LEVEL,)) -> pd.DataFrame:
    """How often the rule says anything, and how often that is wrong: each clip judged by all others.

    Args:
        table: as of :meth:`Rule.of`, with a column ``group``.
        levels: one or more.

    Returns:
        a row a (score, calibrated_on, level, group): the score is the ``rule``'s or ``psnr`` alone, and it is
        calibrated on ``all`` other clips or on those of the ``own group``. Columns clips, decided, coverage,
        wrong, error (of the decided, with Clopper and Pearson's 95 % interval), always_wrong and always_error (of
        saying "success" to all clips), always_wrong_decided (of the same clips), and p, the sign test's of both
        being wrong equally often on the decided clips.
    """
    judged = table[table.authors.isin([_SUCCESS, _FAIL])]
    rows = []
    for (score, on), level in itertools.product(itertools.product(("rule", "psnr"), ("all", "own group")), levels):
        said = [_held_out(judged, place, score, on, level) for place in range(len(judged))]
        for group in ("all", *judged.group.unique()):
            inside = np.ones(len(judged), dtype=bool) if group == "all" else (judged.group == group).to_numpy()
            pairs = [(a, b) for a, b, here in zip(said, judged.authors, inside, strict=True) if here]
            rows.append((score, on, level, group, *_counted(pairs)))
    names = ["score", "calibrated_on", "level", "group", "clips", "decided", "coverage", "wrong", "error",
             "error_low", "error_high", "always_wrong", "always_error", "always_wrong_decided", "p"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _held_out(judged: pd.DataFrame, place: int, score: str, on: str, level: float) -> str:
    clip, others = judged.iloc[place], judged.drop(index=judged.index[place])
    if on == "own group":
        others = others[others.group == clip.group]
    rule = Rule({name: _calibration(others, name) for name in MEASURES}, level, "the others")
    return rule.verdict(float(clip.views) if score == "rule" else math.nan, float(clip.psnr))[0]


def _counted(pairs: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    decided = [(said, true) for said, true in pairs if said != UNDECIDED]
    wrong = [said != true for said, true in decided]
    always = [true != _SUCCESS for _, true in decided]
    all_wrong = sum(true != _SUCCESS for _, true in pairs)
    error = cluster_rate(wrong, range(len(wrong)))
    only = sum(a and not b for a, b in zip(always, wrong, strict=True))
    other = sum(b and not a for a, b in zip(always, wrong, strict=True))
    p = float(binomtest(only, only + other).pvalue) if only + other else math.nan
    return (
        len(pairs), len(decided), len(decided) / len(pairs), sum(wrong), error.value, error.ci_low, error.ci_high,
        all_wrong, all_wrong / len(pairs), sum(always), p,
    )  # fmt: skip
