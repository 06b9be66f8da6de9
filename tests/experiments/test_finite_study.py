"""The finite-state study: its moments against enumeration, its checks, and its figure from its own table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from arvdm_theory.experiments.verify.cases import SIZES
from arvdm_theory.experiments.verify.checks import Check
from arvdm_theory.experiments.verify.finite import finite_checks, moment_matched, multimodal
from arvdm_theory.experiments.verify.finite_figures import FIGURES
from arvdm_theory.experiments.videos import FINITE_VIDEOS, walker
from arvdm_theory.report.style import save, style
from arvdm_theory.tables import read_table


def test_the_moment_matched_video_has_the_moments_of_sampled_ones() -> None:
    video, frames, videos = walker(), 3, 20000
    gaussian = moment_matched(video, frames)
    drawn = video.draw(videos, frames, torch.Generator().manual_seed(0)).frames.flatten(1)
    mean, covariance = gaussian.mean(frames)[0], gaussian.covariance(frames)[0]
    # Frames lie on the unit circle: a product of two entries has a variance of at most 1.
    assert float((drawn.mean(0) - mean).abs().max()) < 5 / videos**0.5
    assert float((drawn.mT @ drawn / videos - torch.outer(mean, mean) - covariance).abs().max()) < 5 / videos**0.5


def test_the_walker_takes_one_step_a_frame_and_rarely_turns() -> None:
    states = walker().chain.sample(2000, 6, torch.Generator().manual_seed(0))
    ways = (states.diff(dim=1) % 6).numpy()
    assert set(np.unique(ways)) == {1, 5}
    # 8000 pairs of steps, turns of probability 0.08: a standard deviation of 0.003.
    assert np.mean(ways[:, 1:] != ways[:, :-1]) == pytest.approx(0.08, abs=4 * 0.0031)


def test_all_checks_hold_and_have_the_columns_of_the_bound_checks(tmp_path: Path) -> None:
    table = finite_checks(SIZES["smoke"], tmp_path, progress=False)
    assert table.passed.all(), table[~table.passed]
    columns = [*Check._fields, "kind", "video", "plan", "step", "score_error", "slack", "passed"]
    assert set(columns) <= set(table.columns)
    assert set(table.video) == set(FINITE_VIDEOS)
    assert table.term.nunique() == 7
    # A sampled check's slack is the gap itself, whatever error is allowed it.
    gap = np.where(table.relation == "=", -(table.bound - table.value).abs(), table.bound - table.value)
    assert np.allclose(table.slack, gap, rtol=0, atol=1e-12)
    # Not all of them are trivial: most bottlenecks are positive beyond doubt.
    bottlenecks = table[table.term == "0 ≤ Σ MB"]
    assert (bottlenecks.bound > 3 * bottlenecks.stderr).sum() >= len(bottlenecks) / 2
    assert read_table(tmp_path / "finite_checks.csv").shape == table.shape


def test_the_figure_is_drawn_from_the_saved_table(tmp_path: Path) -> None:
    table = multimodal(replace(SIZES["smoke"], reverse_steps=2), tmp_path, False)
    wide = table[table.method != "frames"].pivot_table(index=["method", "law"], columns="quantity", values="value")
    parts = wide[["nie_ar", "de", "see", "cross", "mb"]].sum(axis=1)
    total = wide.total.dropna()
    assert len(total) == 5
    assert np.allclose(parts[total.index], total, rtol=1e-12)
    source, draw = FIGURES["multimodal"]
    with style():
        figure = draw(read_table(tmp_path / f"{source}.csv"))
        assert isinstance(figure, Figure)
        save(figure, tmp_path / "multimodal.png")
    assert (tmp_path / "multimodal.png").stat().st_size > 20000
