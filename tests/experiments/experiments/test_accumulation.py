"""Losses of linear denoisers, the closed form of their clip KL, and the lines that growth is read off."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from arvdm_theory.bounds.accumulation import why_no_clip_bound
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.accumulation import run as accumulation
from arvdm_theory.experiments.accumulation.run import PRESETS, linear_losses
from arvdm_theory.experiments.networks import Job
from arvdm_theory.experiments.videos import Video
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.plan.references import References
from arvdm_theory.rollout.predict import predicted_clip_kl
from arvdm_theory.training.windows import WindowSampler

PLAN = "FIFO, 2 references"


def few_videos() -> tuple[Job[Video], Denoiser]:
    """A linear denoiser fitted to so few videos that it is far from the optimum."""
    smoke = PRESETS["smoke"]
    preset = dataclasses.replace(smoke, reverse_steps=9, options={**smoke.options, "pairs": 40})
    job = accumulation._job(preset, "reference", PLAN, accumulation._LINEAR)
    return job, accumulation._fitted(preset, job, seed=3)


def test_losses_are_what_true_windows_say() -> None:
    """Closed form against averages over 40 000 noised true videos: within five standard errors, row by row."""
    job, denoiser = few_videos()
    assert job.video.gaussian
    stages = job.training.ar_steps
    best, excess = linear_losses(job.video, job.plan, stages, denoiser.as_score())
    assert float((excess / best).min()) > 0.05
    sampler = WindowSampler(job.plan, stages, job.video, weighting="x0", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    video = job.video.draw(40_000, job.frames, generator)
    found, error = [], []
    for number, stage in enumerate(sampler.stages):
        for row in range(stage.steps):
            levels = stage.levels[row].expand(len(video.frames), -1)
            shown = VideoBatch(video.frames[:, : stage.frames.stop])
            batch = sampler.noised(number, shown, levels, torch.ones_like(levels), generator)
            with torch.no_grad():
                said = denoiser(batch.window, batch.levels, batch.references)
            loss = (said - batch.clean).square().mean((-2, -1))
            found.append(float(loss.mean()))
            error.append(float(loss.std()) / math.sqrt(len(loss)))
    expected = (best + excess).numpy()
    assert len(found) == len(expected)
    assert (np.abs(np.array(found) - expected) < 5 * np.array(error)).all()
    # An excess left out, or counted twice, would be seen.
    assert (5 * np.array(error) < excess.numpy()).all()


def test_losses_refuse_a_network_that_is_not_affine() -> None:
    job, denoiser = few_videos()
    assert job.video.gaussian
    score = denoiser.as_score()
    with pytest.raises(ValueError, match="affine"):
        linear_losses(job.video, job.plan, 1, lambda w, t, r: torch.tanh(score(w, t, r)))


def test_the_prediction_of_a_linear_denoiser_is_its_closed_form() -> None:
    """Linear response of an affine network has no residual: the propagated kernels are the ledger's own."""
    job, denoiser = few_videos()
    assert job.video.gaussian
    score = denoiser.as_score()
    known = ledger(job.video, job.plan, 3, score=score, girsanov=False, memory=False)
    predicted = predicted_clip_kl(job.video, job.plan, 3, score, bound=False, samples=300, groups=4)
    # Rounding of the regression's normal equations, over as many reverse steps.
    assert predicted.column("CLIP_KL", "linear") == pytest.approx(known.column("CLIP_KL"), rel=1e-7)


def test_both_plans_allow_the_bound_and_are_trained_as_far_as_they_change() -> None:
    for name, build in accumulation._PLANS.items():
        plan, trained = build(9), accumulation._TRAINED[name]
        assert why_no_clip_bound(plan, 8) is None
        assert plan.references == References.last(2)
        assert len(plan.references_at(trained)) == 2
        assert trained == 1 or len(plan.references_at(trained - 1)) < 2


def test_slopes_are_those_of_straight_lines_until_the_prediction_flattens() -> None:
    rows = []
    for repeat, tilt in enumerate((0.1, 0.3)):
        for k in range(1, 9):
            rows.append((repeat, k, "linear", min(k, 5) * 0.2, 0.0))
            rows.append((repeat, k, "measured", 1 + tilt * k, 0.0))
    table = pd.DataFrame(rows, columns=["repeat", "ar_step", "curve", "value", "stderr"])
    found = accumulation._slopes(table).set_index("curve")
    # 0.9 of the growth from 0.2 to 1 is reached at step 5.
    assert (found.until == 5).all()
    assert found.slope["linear"] == pytest.approx(0.2)
    assert found.stderr["linear"] == pytest.approx(0.0, abs=1e-12)
    assert found.slope["measured"] == pytest.approx(0.2)
    assert found.stderr["measured"] == pytest.approx(0.1)


def test_a_curve_that_does_not_grow_is_read_to_its_end() -> None:
    assert accumulation._flat_from(np.array([1.0, 0.9, 0.9, 0.8])) == 4
    assert accumulation._flat_from(np.array([1.0, 2.0, 2.0, 2.0])) == 3


def test_pooled_errors_are_those_of_the_mean() -> None:
    """Two repeats with standard errors 3 and 4: their mean has 5/2."""
    rows = [(0, 1, "measured", 1.0, 3.0), (1, 1, "measured", 2.0, 4.0)]
    table = pd.DataFrame(rows, columns=["repeat", "ar_step", "curve", "value", "stderr"])
    pooled = accumulation._pooled(table)
    assert pooled.value.tolist() == [1.5]
    assert pooled.stderr.tolist() == [2.5]
