"""The decomposition's plans and rows, against what the library and the reference tables say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from arvdm_theory.experiments.decomposition import run as decomposition
from arvdm_theory.experiments.decomposition.run import METHODS, PRESETS, TERMS, plan_of
from arvdm_theory.experiments.networks import Setting
from arvdm_theory.experiments.videos import VIDEOS


@pytest.mark.parametrize("video", ["reference", "two poses"])
@pytest.mark.parametrize("preset", PRESETS)
def test_coarser_grids_are_rows_of_the_one_that_is_trained_on(video: str, preset: str) -> None:
    """One network serves all step counts only if it was trained at the levels of each."""
    chosen = PRESETS[preset]
    for method in chosen.options["methods"]:
        fine = plan_of(video, method, chosen.reverse_steps)
        for steps in chosen.options["steps_a_frame"]:
            coarse = plan_of(video, method, steps)
            for grid, rows in ((coarse.ar_grid, fine.ar_grid), (coarse.init_grid, fine.init_grid)):
                every = (len(rows) - 1) // (len(grid) - 1)
                for row, same in zip(grid, rows[::every], strict=True):
                    assert row == pytest.approx(same, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_no_later_ar_step_shows_the_network_anything_new(method: str) -> None:
    plan, trained = plan_of("reference", method, 8), METHODS[method].trained

    def shown(k: int) -> list[tuple[int, float]]:
        return [(r.frame - plan.window_frames(k).start, r.level) for r in plan.references_at(k)]

    kinds = [shown(k) for k in range(1, trained + 1)]
    assert all(shown(k) == kinds[-1] for k in range(trained, trained + 5))
    assert trained == 1 or kinds[-1] != kinds[-2]


@pytest.mark.parametrize(
    ("method", "kl", "clip"),
    [("outpainting, 1 reference", 4.182668, 0.228281), ("outpainting, 4 references", 2.881588, 0.320901)],
)
def test_the_exact_score_has_the_reference_tables_numbers(method: str, kl: float, clip: float) -> None:
    """Two reference cases: six digits of KL(clean) and of the last clip's, and terms that sum to the path KL."""
    preset = PRESETS["cpu"]
    job = decomposition._job(preset, "reference", method)
    rows = decomposition._accounted(
        job.video, plan_of("reference", method, 20), 5, None, preset, Setting("cpu", Path())
    )
    found = {name: float(number) for name, number in rows}
    assert found["kl"] == pytest.approx(kl, abs=6e-7)
    assert found["last_clip_kl"] == pytest.approx(clip, abs=6e-7)
    assert sum(found[name] for name in TERMS) == pytest.approx(found["path_kl"], rel=1e-12)
    assert found["path_kl"] > found["kl"]


def test_videos_are_of_both_kinds() -> None:
    kinds = {type(VIDEOS[video]()).__name__ for video in decomposition._VIDEOS}
    assert "FiniteStateVideo" in kinds
    assert len(kinds) == 2
