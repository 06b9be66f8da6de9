"""Retrieval scores against a direct search, the chance level, and what the two references do."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.signal import convolve2d

from arvdm_theory.video.metrics import psnr, ssim
from arvdm_theory.video.retrieval import (
    DISTRACTORS,
    SOURCES,
    blur,
    eligible_distractors,
    margin,
    retrieval_summary,
    score_queries,
)

Array = NDArray[np.float64]


def _rooms(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)


def _walk(rooms: NDArray[np.uint8], path: list[int]) -> tuple[NDArray[np.uint8], Array]:
    return rooms[path], np.array([[room, room / 2] for room in path])


def test_the_blur_is_the_mean_of_two_by_two_pixels() -> None:
    frame = np.random.default_rng(0).uniform(-1, 1, (5, 7, 2))
    expected = np.stack([convolve2d(frame[..., c], np.full((2, 2), 0.25), "valid") for c in range(2)], -1)
    np.testing.assert_allclose(blur(frame), expected, rtol=0, atol=1e-15)


def test_the_margin_is_positive_exactly_for_the_nearest() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        truth, generated, *others = rng.uniform(-1, 1, (4, 3, 3, 1))
        errors = [((generated - frame) ** 2).sum() for frame in (truth, *others)]
        found = margin(truth, generated, np.array(others))
        assert (found > 0) == (errors[0] < min(errors[1:]))
        assert found == pytest.approx(10 * np.log10(min(errors[1:]) / errors[0]), abs=1e-9)
    assert margin(truth, truth, np.array(others)) == np.inf
    assert margin(truth, others[0], np.array(others)) == -np.inf
    assert margin(truth, truth, truth[None]) == 0
    assert np.isnan(margin(truth, generated, np.empty((0, 3, 3, 1))))


def test_eligible_are_other_poses_of_different_view_outside_the_short_context() -> None:
    rng = np.random.default_rng(2)
    rooms = rng.uniform(-1, 1, (12, 6, 6, 1))
    rooms[7] = rooms[3] + 0.01
    path = rng.integers(0, 12, 60)
    path[50] = 3
    blurred, poses = blur(rooms[path]), path[:, None].astype(float)
    for last, context in itertools.product((49, 45), (1, 6, 30)):
        found = eligible_distractors(blurred, poses, 50, last, context, 0.1)
        near = {path[50], *path[last - context + 1 : last + 1]}
        expected = {
            room for room in set(path) - near if np.sqrt(((blur(rooms[room]) - blurred[50]) ** 2).mean()) >= 0.1
        }
        assert {path[t] for t in found} == expected
        assert len(found) == len(expected)
        assert 7 not in expected


def test_scores_are_those_of_a_direct_search() -> None:
    truth, poses = _walk(_rooms(24), [*range(24), 4, 5, 9])
    queries, needles = [24, 25, 26], [4, 5, 9]
    rng = np.random.default_rng(3)
    mixed = np.stack([truth[4] // 2 + truth[10] // 2, truth[5], rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)])
    table = score_queries(
        truth, poses, queries, needles, mixed, context=3, last=[23] * 3, distractors=19, episode="walk"
    )
    assert table["source"].tolist() == list(SOURCES) * 3
    # Of 24 poses three are in the short context and one is the query: asking for all others leaves no choice.
    assert (table["eligible"] == 20).all()
    everything = score_queries(truth, poses, queries, needles, mixed, context=3, last=[23] * 3, distractors=20)
    pixels = truth / 127.5 - 1
    soft = blur(pixels)
    for i, query in enumerate(queries):
        others = [t for t in range(21) if t != needles[i]]
        for source, frame in zip(SOURCES, (mixed[i], truth[needles[i]], truth[23]), strict=True):
            row = everything[(everything["query"] == query) & (everything["source"] == source)].iloc[0]
            shown = blur(frame / 127.5 - 1)
            own = ((shown - soft[query]) ** 2).mean()
            other = min(((shown - soft[t]) ** 2).mean() for t in others)
            assert row["success"] == (own < other)
            assert row["psnr"] == psnr(truth[query], frame)
            assert row["ssim"] == ssim(truth[query], frame)
            assert row["needle"] == needles[i]
            assert row["complete"]
    memory = table[table["source"] == SOURCES[1]]
    assert memory["success"].all()
    assert np.isposinf(memory["psnr"]).all()


def test_the_draw_of_distractors_follows_the_seed() -> None:
    truth, poses = _walk(_rooms(60), [*range(60), 4])
    noise = _rooms(1, seed=9)
    margins = [
        score_queries(truth, poses, [60], [4], noise, context=2, distractors=2, seed=seed)["margin_db"][0]
        for seed in (0, 0, 1, 2)
    ]
    assert margins[0] == margins[1]
    assert len(set(margins)) == 3


def test_noise_succeeds_one_time_in_sixteen() -> None:
    rng = np.random.default_rng(4)
    draws = 2000
    frames = rng.normal(size=(draws, DISTRACTORS + 2, 3, 3, 1))
    hits = sum(margin(truth, own, np.array(others)) > 0 for truth, own, *others in frames)
    chance = 1 / (DISTRACTORS + 1)
    assert abs(hits / draws - chance) < 4 * np.sqrt(chance * (1 - chance) / draws)


def test_a_query_short_of_distractors_is_scored_but_left_out_of_the_rate() -> None:
    many = score_queries(
        *_walk(_rooms(30), [*range(30), 3, 4]), [30, 31], [3, 4], _rooms(2, 7), context=2, episode=0
    )
    few = score_queries(*_walk(_rooms(9), [*range(9), 3]), [9], [3], _rooms(9)[[3]], context=2, episode=1)
    assert many["complete"].all()
    assert (few[["eligible", "distractors"]] == 6).all(axis=None)
    assert not few["complete"].any()
    assert few["success"][0]
    summary = retrieval_summary(pd.concat([many, few])).set_index("source")
    assert (summary["queries"] == 2).all()
    assert (summary["left_out"] == 1).all()
    assert (summary["episodes"] == 1).all()
    assert summary.loc["generated", "rate"] == many["success"][::3].mean()
    assert (summary["chance"] == 1 / 16).all()
    alone = retrieval_summary(few)
    assert alone["rate"].isna().all()
    assert (alone["queries"] == 0).all()
    assert (alone["left_out"] == 1).all()


def test_the_summary_clusters_by_episode_and_shows_the_references() -> None:
    tables = []
    for episode in range(6):
        # 18 rooms, of which two are in the short context and one is the query: all the others are distractors.
        truth, poses = _walk(_rooms(18, seed=episode), [*range(18), 3, 4, 5])
        # Half the episodes are remembered; in the others the model shows another room.
        own = truth[18:] if episode % 2 else truth[[10] * 3]
        tables.append(score_queries(truth, poses, [18, 19, 20], [3, 4, 5], own, context=2, episode=episode))
    table = pd.concat(tables)
    assert table["complete"].all()
    summary = retrieval_summary(table).set_index("source")
    generated, memory, last = (summary.loc[source] for source in SOURCES)
    assert (generated["rate"], memory["rate"]) == (0.5, 1)
    assert last["rate"] == table[table["source"] == SOURCES[2]]["success"].mean() < 0.3
    # Episodes that stand or fall together: six trials, not eighteen.
    assert generated["rate_high"] - generated["rate_low"] > 0.75
    assert memory["rate_low"] == pytest.approx(0.025 ** (1 / 6))
    assert last["psnr_low"] < last["psnr"] < last["psnr_high"]
    assert last["ssim"] < 0.2
    own = table[table["source"] == "generated"]["ssim"]
    assert (own >= generated["ssim_median"]).sum() == (own <= generated["ssim_median"]).sum() == 9
    assert np.isposinf(memory["psnr"])
    assert (summary["queries"] == 18).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": [40]}, "within 21 frames"),
        ({"needles": [20]}, "needle 20"),
        ({"needles": [3, 4]}, "one number"),
        ({"poses": np.zeros((5, 2))}, "poses have shape (21, p)"),
        ({"generated": np.zeros((1, 8, 8, 3))}, "(8, 8, 3)"),
        ({"generated": np.full((1, 12, 12, 3), 2.0)}, "[-1, 1]"),
        ({"truth": np.zeros((4, 4))}, "an episode has shape"),
        ({"context": 0}, "short context"),
        ({"distractors": 0}, "distractor"),
        ({"last": [20]}, "last 20"),
    ],
)
def test_queries_that_do_not_fit_are_refused(change: dict, words: str) -> None:
    truth, poses = _walk(_rooms(20), [*range(20), 3])
    given = {
        "truth": truth,
        "poses": poses,
        "queries": [20],
        "needles": [3],
        "generated": truth[[3]],
        "context": 2,
    }
    with pytest.raises(ValueError, match=re.escape(words)):
        score_queries(**(given | change))
    with pytest.raises(ValueError, match="no queries"):
        retrieval_summary(pd.DataFrame())
