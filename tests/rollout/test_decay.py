"""Decay predicted from two AR steps: exact for affine networks, refused for those that bend or run away."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from arvdm_theory import (
    Codebook,
    ExactScore,
    FiniteStateVideo,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    Result,
    ar1,
    generate,
    outpainting,
    reference_video,
    sticky_chain,
)
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.experiments.decay.run import _wilson, summary
from arvdm_theory.noise import sigma2
from arvdm_theory.rollout.decay import MODELS, measured_decay, predicted_decay

ONE = Plan((3.0,), 1, 3.0, 6, 6, references=References.last(1))
PHI, LAST = 0.9, 8


def curve(result: Result, form: str, column: str = "value") -> np.ndarray:
    rows = result.table[result.table.form == form].sort_values("ar_step")
    return rows[column].to_numpy(dtype=float)


def closed_form(score: PerturbedScore) -> np.ndarray:
    """Scalar AR(1) beside Y_k = A Y_{k-1} + b + noise of variance q from Y_0 = X_0: E X_k Y_k = (φA)^k."""
    kernel = ar1(PHI).at(ONE.stage(1)).kernel(score, STEPS["exponential"])
    assert kernel is not None
    gain, offset = float(kernel.known), float(kernel.bias)
    noise = float(kernel.covariance) + float(kernel.window) ** 2  # the new frame enters as N(0, 1)
    both, mean, second, mse = 1.0, 0.0, 1.0, []
    for _ in range(LAST):
        second = gain**2 * second + 2 * gain * offset * mean + offset**2 + noise
        both, mean = PHI * gain * both, gain * mean + offset
        mse.append(1 + second - 2 * both)
    return 10 * np.log10(np.array(mse) / mse[0])


@pytest.mark.parametrize("score", [PerturbedScore(0.0), PerturbedScore(0.3, bias=0.4), PerturbedScore(-0.05)])
def test_of_an_affine_network_both_regressions_are_the_closed_form(score: PerturbedScore) -> None:
    """Within 4 standard errors at every AR step, and the interval holds the truth at each."""
    expected = closed_form(score)
    found = predicted_decay(ar1(PHI), ONE, LAST, score, prompt=1, samples=2000, seed=3)
    assert found.notes == {}
    error = curve(found, "predicted", "stderr")[1:]
    for name in MODELS[:2]:
        assert (np.abs(curve(found, name) - expected)[1:] < 4 * error).all(), name
    assert (curve(found, "predicted", "ci_low") <= expected).all()
    assert (expected <= curve(found, "predicted", "ci_high")).all()
    assert abs(found.totals["bend"] or 0.0) < 0.02
    # Narrow enough to say something.
    assert (curve(found, "predicted", "ci_high") - curve(found, "predicted", "ci_low")).max() < 3.5


def test_it_holds_what_rollouts_show_in_a_pipelined_plan_of_a_finite_state_video() -> None:
    """No affine map: two poses, the exact score, a window that keeps noisy frames."""
    plan = Plan((2.0, 4.0), 1, 4.0, 4, 8, references=References.last(2), floor=0.05)
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    score, prompt, last = ExactScore(video), 3, 9
    found = predicted_decay(video, plan, last, score, prompt=prompt, samples=1000)
    truth = video.draw(1000, plan.total_frames(last), torch.Generator().manual_seed(5)).frames
    made = generate(score, plan, last, 1000, prompt=truth[:, :prompt], seed=6)
    measured = measured_decay(truth, made, plan, last, prompt=prompt)
    assert found.notes == {}
    rows = found.table[found.table.form == "predicted"]
    assert (rows.ci_low.to_numpy() <= measured.table.value.to_numpy() + 1e-12).all()
    assert (measured.table.value.to_numpy() <= rows.ci_high.to_numpy() + 1e-12).all()


def test_a_rollout_that_runs_away_is_refused() -> None:
    """Y_k = A Y_{k-1} with A > 1: nothing recorded says what happens out there."""
    base = ExactScore(ar1(PHI))

    def louder(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return base(window, levels, references) + 1.2 * references.values

    found = predicted_decay(ar1(PHI), ONE, LAST, louder, prompt=1, samples=500)
    assert "leaves what was seen" in found.notes["predicted"]
    told = found.to_dict()
    assert told["predicted"] is None  # never NaN in JSON
    assert told["true inputs"] == curve(found, "true inputs").tolist()
    assert found.plot().axes[0].get_ylabel() == "dB"
    assert np.isnan(curve(found, "predicted")).all()
    assert np.isnan(curve(found, "predicted", "ci_low")).all()
    assert np.isfinite(curve(found, "true inputs")).all()  # the models' own curves stay to be looked at
    assert (found.totals["reach"] or 0.0) > 4


def test_a_network_that_bends_on_its_own_output_is_refused() -> None:
    """Right on true frames, it turns round what lies beyond them, and its own first output lies there."""
    base = ExactScore(ar1(PHI))

    def turning(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        value = references.values
        seen = torch.where(value.abs() > 3.0, -value, value)
        pushed = ReferenceBatch(seen, references.levels, references.frames, references.window_frames)
        return base(window, levels, pushed) + 3.0

    found = predicted_decay(ar1(PHI), ONE, LAST, turning, prompt=1, samples=1000)
    assert "not linear enough on its own output" in found.notes["predicted"]
    assert (found.totals["bend"] or 0.0) > 0.1


def test_a_data_set_and_a_few_components_will_do() -> None:
    """Eight pixels that show two numbers: two components see all there is, and what lies outside stays outside."""
    plan = outpainting(2, References.last(2), 16, 4)
    law = reference_video()
    last, prompt = 6, 2
    truth = law.sample(800, plan.total_frames(last), torch.Generator().manual_seed(0))[:, 0]
    lift = torch.linalg.qr(torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    exact = ExactScore(law)

    def pixels(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        inside = ReferenceBatch(
            references.values @ lift, references.levels, references.frames, references.window_frames
        )
        outside = window - window @ lift @ lift.T  # nothing but noise
        return exact(window @ lift, levels, inside) @ lift.T - outside / sigma2(levels)[:, None]

    options = {"prompt": prompt, "samples": 800, "seed": 2}
    small = predicted_decay(truth, plan, last, exact, **options)
    large = predicted_decay(truth @ lift.T, plan, last, pixels, components=2, **options)
    assert small.notes == large.notes == {}
    room = 4 * np.hypot(curve(small, "predicted", "stderr"), curve(large, "predicted", "stderr"))[1:]
    # Pixels outside hold the last step's noise alone, the same at every AR step: the decay in dB is a bit smaller.
    gap = curve(small, "once-generated inputs")[1:] - curve(large, "once-generated inputs")[1:]
    assert (np.abs(gap) < room + 0.6).all()


def test_a_measured_decay_is_that_of_the_mean_squared_error() -> None:
    plan = outpainting(2, References.last(1), 2, 2)
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(4000, 8, 3, dtype=torch.float64)
    made = torch.randn(truth.shape, dtype=torch.float64, generator=rng)
    made[:, 6:] *= 2.0
    found = measured_decay(truth, made, plan, 3, prompt=2)
    assert found.table.ar_step.tolist() == [1, 2, 3]
    assert found.table.value.iloc[0] == 0
    # A mean of 24 000 squares has the relative error √(2/24000); a ratio √2 of it; 10/ln 10 dB a unit.
    error = 10 / np.log(10) * np.sqrt(4 / 24_000)
    assert np.abs(found.table.value.to_numpy()[1:] - [0.0, 20 * np.log10(2)]).max() < 4 * error
    assert found.table.stderr.to_numpy()[1:] == pytest.approx([error, error], rel=0.9)


def test_refusals_name_what_is_wrong() -> None:
    video, plan = ar1(PHI), outpainting(2, References.last(3), 2, 2)
    with pytest.raises(ValueError, match="the last one to predict is at least 4, got 3"):
        predicted_decay(video, plan, 3, None, prompt=4)
    with pytest.raises(ValueError, match="have 2 to 3 references: give a longer prompt"):
        predicted_decay(video, plan, 6, None, prompt=2)
    with pytest.raises(ValueError, match="regressing on 3 numbers needs 12 videos or more, got 8"):
        predicted_decay(video, plan, 6, None, prompt=4, samples=8)
    with pytest.raises(ValueError, match=r"shape \(n, 14 frames or more, d\), got \(5, 4, 1\)"):
        predicted_decay(torch.zeros(5, 4, 1), plan, 6, lambda w, t, r: -w, prompt=4)
    with pytest.raises(ValueError, match="have 1 to 1 components, got 2"):
        predicted_decay(video, plan, 6, None, prompt=4, samples=50, components=2)
    with pytest.raises(ValueError, match="10 frames of as many true as generated videos"):
        measured_decay(torch.zeros(5, 10, 1), torch.zeros(4, 10, 1), plan, 4, prompt=4)


def test_the_summary_counts_networks_that_are_answered_and_covered() -> None:
    rows = [
        {"ahead": 3, "measured": 1.0, "low": 0.5, "high": 1.5, "true inputs": 1.1},
        {"ahead": 3, "measured": 3.0, "low": 1.0, "high": 2.0, "true inputs": 1.4},
        {"ahead": 3, "measured": 5.0, "low": float("nan"), "high": float("nan"), "true inputs": 9.0},
        {"ahead": 1, "measured": 0.0, "low": 7.0, "high": 8.0, "true inputs": 7.5},
    ]
    found = summary(pd.DataFrame(rows)).iloc[0]
    assert found.networks == 3
    assert found.answered == pytest.approx(2 / 3)
    assert found.covered == 0.5
    assert (found.width, found.span) == (1.0, 4.0)
    assert found.error == pytest.approx(np.sqrt((0.0 + 1.5**2) / 2))
    assert found.error_true_inputs_refused == 4.0
    ends = binomtest(34, 40).proportion_ci(0.95, "wilson")
    assert _wilson(34, 40) == pytest.approx((ends.low, ends.high), abs=1e-6)
