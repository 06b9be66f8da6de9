"""The experiment's pieces: the bottleneck from exact scores, and what ideal kernels pay for forgetting."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from oracle_score import OracleScore

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.memory import run as memory
from arvdm_theory.experiments.networks import Setting
from arvdm_theory.information.discrete import FiniteLaw, conditional_mutual_information
from arvdm_theory.rollout.decoded import decoded_law

SMOKE = memory.PRESETS["smoke"]


def _cell(video: str, references: int) -> dict[str, object]:
    return {"video": video, "references": references, "structure": "slots", "compression": "none", "budget": 0}


@pytest.mark.parametrize("references", [0, 1, 2])
def test_forgetting_costs_ideal_kernels_the_memory_bottlenecks(references: int) -> None:
    told, _ = memory._pair(SMOKE, _cell("reference", references))
    assert told.video.gaussian
    expected = ledger(told.video, told.plan, SMOKE.ar_steps, girsanov=False).totals["mb"]
    assert memory._ideal_excess(told, SMOKE.ar_steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("references", "past", "known"), [(0, "ab", ""), (1, "a", "b"), (2, "", "ab")])
def test_forgetting_costs_what_is_read_between_two_windows(references: int, past: str, known: str) -> None:
    told, _ = memory._pair(SMOKE, _cell("two poses", references))
    law = FiniteLaw(decoded_law(told.video, (2, 3, 4, 5), told.plan.floor).numpy(), list("abcd"))
    found = memory._ideal_excess(told, SMOKE.ar_steps)
    assert found == pytest.approx(
        conditional_mutual_information(law, list("cd"), list(past), list(known)), abs=1e-12
    )
    assert (found > 0.1) == (references == 0)


@pytest.mark.parametrize(("video", "references"), memory.FIXED)
def test_the_fixed_cases_have_at_least_three_tenths_of_a_nat(video: str, references: int) -> None:
    """Of the walker log 2 - H(0.08) = 0.41: its way, which one clean frame does not show."""
    preset = memory.PRESETS["cpu"]
    assert references in preset.options["lengths"][video]
    told, _ = memory._pair(preset, _cell(video, references))
    if told.video.gaussian:
        totals = ledger(told.video, told.plan, preset.ar_steps, girsanov=False)
        assert totals.column("MB")[-1] >= 0.3
    else:
        by_hand = math.log(2) + 0.92 * math.log(0.92) + 0.08 * math.log(0.08)
        # Frames stand at δ = 0.02, 3.5 standard deviations from the nearest misreading on either side: a frame in
        # some 2000 is misread, which costs at most the 2 bits of its entropy and change, below 0.01 nats.
        assert memory._ideal_excess(told, preset.ar_steps) == pytest.approx(by_hand, abs=0.01)


def test_both_networks_of_a_pair_are_trained_alike() -> None:
    for preset in memory.PRESETS.values():
        for cell in memory._cells(preset):
            told, whole = memory._pair(preset, cell)
            assert told.training == whole.training
            assert told.network.architecture == whole.network.architecture
            assert whole.plan.past_frames(preset.ar_steps) == ()


def test_exact_scores_reach_the_closed_form(tmp_path: Path) -> None:
    told, _ = memory._pair(SMOKE, _cell("needle", 2))
    assert told.video.gaussian
    frames = told.plan.total_frames(SMOKE.ar_steps)
    mean, covariance = told.video.mean(frames)[0].numpy(), told.video.covariance(frames)[0].numpy()
    oracle = OracleScore(covariance, mean, told.video.frame_dim)
    setting = Setting("smoke", tmp_path, device="cpu", progress=False)
    rows = {source: found for _, source, found in memory._bottleneck(told, SMOKE, setting, oracle, oracle)}
    assert rows["clocks"].value == pytest.approx(rows["closed form"].value, abs=1e-9)
    # Dense conditioning in place of the networks: one and the same estimate, but for the rounding of systems of
    # condition below 1e3, within its interval of the truth.
    assert rows["trained"].value == pytest.approx(rows["exact scores"].value, abs=1e-9)
    assert abs(rows["trained"].value - rows["closed form"].value) < 5 * rows["trained"].stderr
