"""Verdicts that may be "can't tell": their error bound, their thresholds, and what leaving one out counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvdm_theory.video.verdict import LEVEL, UNDECIDED, Calibration, Rule, leave_one_out, paper_clips, paper_rule

scores = st.lists(st.floats(-5, 5), min_size=1, max_size=6)


def test_a_class_is_ruled_out_as_often_as_the_level_says() -> None:
    """Of continuous exchangeable scores exactly floor(level (n + 1))/(n + 1) of the time; to 5 standard errors."""
    rng = np.random.default_rng(0)
    draws, level = 4000, 0.25
    for n in (3, 6, 9):
        ruled_out = {"success": 0, "fail": 0}
        for _ in range(draws):
            wins, losses = rng.normal(1.0, 1, n + 1), rng.normal(-1.0, 1, n + 1)
            calibration = Calibration(tuple(wins[1:]), tuple(losses[1:]))
            ruled_out["success"] += calibration.p_values(float(wins[0]))[0] <= level
            ruled_out["fail"] += calibration.p_values(float(losses[0]))[1] <= level
        expected = math.floor(level * (n + 1)) / (n + 1)
        for count in ruled_out.values():
            assert abs(count / draws - expected) <= 5 * math.sqrt(expected * (1 - expected) / draws)


def test_wrong_verdicts_by_enumeration_stay_below_the_level() -> None:
    """Every way to leave one out of every split of all ranks: no class is judged wrongly more than is allowed."""
    for wins in itertools.combinations(range(7), 4):
        losses = tuple(set(range(7)) - set(wins))
        for own, other, wrong in ((wins, losses, "fail"), (losses, wins, "success")):
            said = []
            for clip in own:
                rest = tuple(a for a in own if a != clip)
                pair = (rest, other) if wrong == "fail" else (other, rest)
                said.append(Calibration(*pair).verdict(clip, 0.3))
            assert sum(verdict == wrong for verdict in said) <= math.floor(0.3 * len(own))


@given(scores, scores, st.floats(0.05, 0.6))
def test_verdicts_rise_with_the_score_and_turn_at_the_thresholds(wins: list, losses: list, level: float) -> None:
    calibration = Calibration(tuple(wins), tuple(losses))
    order = {"fail": 0, UNDECIDED: 1, "success": 2}
    grid = np.setdiff1d(np.linspace(-6, 6, 97), [*wins, *losses])  # at a score itself either side may hold
    said = [order[calibration.verdict(float(at), level)] for at in grid]
    assert said == sorted(said)
    below, above = Rule({"views": calibration, "psnr": calibration}, level, "these").thresholds("views")
    assert [at for at, each in zip(grid, said, strict=True) if each == 0] == [at for at in grid if at < below]
    assert [at for at, each in zip(grid, said, strict=True) if each == 2] == [at for at in grid if at > above]


def test_too_few_clips_say_nothing_and_neither_does_no_score() -> None:
    few = Calibration((1.0,) * 6, (0.0,) * 6)
    assert {few.verdict(at) for at in (-9.0, 0.5, 9.0)} == {UNDECIDED}  # 1/7 is above 1/8
    assert Calibration((1.0,) * 7, (0.0,) * 7).verdict(9.0) == "success"
    assert Calibration((1.0,) * 7, (0.0,) * 7).verdict(float("nan")) == UNDECIDED
    # Between the classes both are ruled out.
    assert Calibration((1.0,) * 7, (0.0,) * 7).verdict(0.5) == UNDECIDED
    with pytest.raises(ValueError, match="no clip is judged 'fail'"):
        Rule.of(paper_clips().query("authors == 'success'"), "these")
    with pytest.raises(ValueError, match="between 0 and 1, got 0"):
        paper_rule(0.0)


def test_the_shipped_rule() -> None:
    """Above the best failure and below the worst success, each of eight and twelve."""
    clips, rule = paper_clips(), paper_rule()
    assert (len(clips), rule.level) == (20, LEVEL)
    for name in ("views", "psnr"):
        fails, wins = (clips[clips.authors == verdict][name] for verdict in ("fail", "success"))
        assert rule.thresholds(name) == (wins.min(), fails.max())
        assert f"success above {fails.max():.1f} and fail below {wins.min():.1f}" in rule.words


def test_leaving_one_out_by_hand() -> None:
    table = pd.DataFrame({
        "file": list("abcdefgh"), "group": ["x"] * 4 + ["y"] * 4, "authors": ["success"] * 4 + ["fail"] * 4,
        "views": [5.0, 6.0, 7.0, 1.0, 0.0, -1.0, -2.0, 4.5], "psnr": [20.0] * 8,
    })  # fmt: skip
    found = leave_one_out(table, [0.25]).set_index(["score", "calibrated_on", "group"])
    # Level 1/4: above all other failures, and not below all other successes.
    #   5, 6, 7 are above 4.5; of 1 three successes are above it, so that it is no success, and 4.5 above it, so
    #   that it may be a failure: wrong. 0, -1, -2 are below 1. 4.5 is above 0 and has 1 below it: wrong.
    everything = found.loc["rule", "all", "all"]
    assert (everything.decided, everything.wrong, everything.always_wrong) == (8, 2, 4)
    assert everything.error == 0.25
    # Always "success" is wrong on e, f, g and h; the rule on d and h: 3 against 1, p = 2 (1 + 4)/16.
    assert everything.p == pytest.approx(10 / 16)
    assert found.loc["rule", "all", "x"].wrong == found.loc["rule", "all", "y"].wrong == 1
    # All PSNRs are alike: nothing can be told apart.
    assert found.loc["psnr", "all", "all"].decided == 0
    # In a group of one class alone nothing rules out the other.
    assert found.loc["rule", "own group", "all"].decided < 8
