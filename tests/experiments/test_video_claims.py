"""Forgetting against degradation over networks: each condition by itself, and at equal one-step error."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from arvdm_theory.experiments.video.run import _claims


def networks(count: int, seed: int, **condition: str | int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    first = rng.normal(20, 2, count)
    table = pd.DataFrame({
        "rate": rng.uniform(0.1, 1, count), "nats": rng.normal(10, 3, count), "slope": -rng.uniform(0, 0.2, count),
        "psnr_first": first, "end": first - rng.uniform(1, 9, count),
    })  # fmt: skip
    usual = {"data": "dmlab", "preset": "cpu", "plan": "outpainting", "told": "poses", "worlds": 1}
    return table.assign(**usual | condition)


def test_conditions_are_ranked_apart() -> None:
    """Two conditions of opposite order would cancel, if they were mixed."""
    one, other = networks(12, 0), networks(12, 1, told="actions")
    one["end"] = one["psnr_first"] - 10 * (1 - one["rate"])
    other["end"] = other["psnr_first"] - 10 * other["rate"]
    found = _claims(pd.concat([one, other], ignore_index=True), 0)
    lost = found[(found["forgetting"] == "1 - rate") & (found["degradation"] == "dB lost")].set_index("told")
    assert lost["spearman"].to_dict() == {"poses": 1, "actions": -1}
    assert lost["networks"].tolist() == [12, 12]
    by = found.set_index(["told", "forgetting", "degradation"])
    slope = by.loc["poses", "- nats", "- slope"]
    assert slope["spearman"] == pytest.approx(spearmanr(-one["nats"], -one["slope"]).statistic)
    assert slope["low"] < slope["spearman"] < slope["high"]


def test_what_both_owe_to_the_first_frame_is_taken_out() -> None:
    """Bad networks remember less and have less to lose: correlated, but not at equal quality."""
    table = networks(400, 2)
    rng = np.random.default_rng(3)
    quality = (table["psnr_first"] - 20) / 2
    table["rate"] = 0.5 + 0.1 * quality + 0.1 * rng.normal(size=400)
    table["end"] = table["psnr_first"] - 5 - quality - rng.normal(size=400)
    found = _claims(table.drop(columns="nats"), 0).set_index(["forgetting", "degradation"])
    row = found.loc["1 - rate", "dB lost"]
    assert row["high"] < -0.3
    assert row["partial_low"] < 0.05 < row["partial_high"] + 0.1
    assert abs(row["partial"]) < 0.15


def test_few_networks_make_no_claim() -> None:
    assert _claims(networks(3, 4), 0).empty
    four = _claims(networks(4, 5), 0)
    assert len(four) == 4
    assert four["partial"].isna().all()
