"""The sampler's kernel over a stage, against the regression of Output on Input under the dense law Q."""

import numpy as np
import pytest
import torch
from dense_reference import Step, conditional, dense_ledger
from reference_cases import MORE_PLANS, PLANS, random_video

from arvdm_theory import ArrayVideo, PerturbedScore
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.laws.gaussian_kernel import gaussian_steps, stage_kernel

EVERY_PLAN = {**PLANS, **MORE_PLANS}


@pytest.mark.parametrize("name", EVERY_PLAN)
@pytest.mark.parametrize("step", ["exponential", "ancestral", "ddim"])
def test_a_stages_kernel_is_what_the_sampler_regresses_to(name: str, step: Step) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(2), 2, 0)
    dense = dense_ledger(covariance, mean, 2, plan, 2, step, score_error=0.05)
    video = ArrayVideo(covariance, 2, mean)
    for k, ar in enumerate(dense.tour.steps, start=1):
        law = video.at(plan.stage(k)).window
        kernel = stage_kernel(law, PerturbedScore(0.05).affine(law), STEPS[step])
        kept = len(ar.inputs) - len(law.stage.references)
        entering = (*ar.inputs[:kept], *ar.new)
        gain, offset, noise = conditional(dense.q, ar.output, (*entering, *ar.inputs[kept:]))
        # Q's inputs have condition number κ < 1e5 here, and a regression loses κ 2^-53: 1e-11.
        found = torch.cat([kernel.window, kernel.known], -1)[0]
        np.testing.assert_allclose(found, gain, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(kernel.bias[0], offset, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(kernel.covariance[0], noise, rtol=1e-9, atol=1e-10)
    init = video.at(plan.stage(0)).window
    kernel = stage_kernel(init, PerturbedScore(0.05).affine(init), STEPS[step])
    if not (plan.overlapping and plan.initialisation == "renoise"):
        first = kernel.window @ kernel.window.mT + kernel.covariance
        np.testing.assert_allclose(first[0], dense.q.covariance(dense.tour.first), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(kernel.bias[0], dense.q.mean(dense.tour.first), rtol=1e-10, atol=1e-12)


def test_true_steps_are_the_conditionals_of_the_joint_law() -> None:
    plan = PLANS["frames that wait"]
    covariance, mean = random_video(plan.total_frames(2), 2, 1)
    dense = dense_ledger(covariance, mean, 2, plan, 2)
    video = ArrayVideo(covariance, 2, mean)
    for k, ar in enumerate(dense.tour.steps, start=1):
        law = video.at(plan.stage(k)).window
        steps = gaussian_steps(law, STEPS["exponential"])
        on_window, on_refs, bias = law.raw(law.score)
        for m, move in enumerate(ar.moves):
            rows = torch.tensor([j * 2 + i for j in range(3) for i in (0, 1)])
            still = [int(row) for row in rows if int(row) // 2 not in move.moving]
            rows = torch.tensor([int(row) for row in rows if int(row) // 2 in move.moving], dtype=torch.long)
            assert float(steps.sampler.moving[m, 0, still].sum()) == 0.0
            if len(rows) == 0:
                continue
            gain, offset, noise = conditional(dense.p, move.moved, (*move.before, *move.references))
            own, push = steps.true_window[m, 0], steps.true_score[m, 0]
            whole = torch.cat(
                [torch.diag(own) + push[:, None] * on_window[m, 0], push[:, None] * on_refs[m, 0]], -1
            )
            np.testing.assert_allclose(whole[rows], gain, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose((push * bias[m, 0])[rows], offset, rtol=1e-9, atol=1e-11)
            precision = steps.precision[m, 0][rows[:, None], rows]
            np.testing.assert_allclose(precision, np.linalg.inv(noise), rtol=1e-9, atol=1e-11)
