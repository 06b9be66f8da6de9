"""The trajectory KL by brute force: one dense joint Gaussian under each law, no chain rule, no ledger.

The variables are those that the ledger sums over: Input_1 (for plans with w = Δ the first Δ clean frames), the
new frames of every AR step at T, every freshly noised reference, and every window frame at every level it is
moved to. The cost grows with the cube of their number; it is the check that the ledger closes, and its price.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_kernel import gaussian_steps, stage_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.gaussian_window import AffineMap
from arvdm_theory.laws.states import State, frame_indices
from arvdm_theory.noise import transition
from arvdm_theory.plan.plan import Plan

__all__ = ["trajectory_kl"]


def trajectory_kl(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    score: Any = None,
    step: str | ReverseStep = "exponential",
) -> Tensor:
    """KL of the whole trajectory, true law to sampler's, summed over modes, in nats.

    Raises:
        ValueError: if the score is not affine in (window, references), or a step adds no noise.
    """
    chosen, own, dim = reverse_step(step), as_score(score, video), video.frame_dim
    video.require(plan.total_frames(ar_steps))

    def affine(law: GaussianStage) -> AffineMap:
        found = law.affine_map(own)
        if found is None:
            raise ValueError("the trajectory KL in closed form needs a score affine in (window, references)")
        return found

    first = video.at(plan.stage(0))
    sampler = SamplerLaw.initial(plan, stage_kernel(first.window, affine(first), chosen), dim)
    start = plan.input_levels if plan.overlapping else (plan.floor,) * plan.window
    states = [State(frame, start[frame]) for frame in range(plan.init_frames)]
    q_mean, q_cov = sampler.mean, sampler.covariance
    at = {frame: frame for frame in range(plan.init_frames)}  # where each frame's newest state stands

    def append(new: list[State], source: list[int], gain: Tensor, bias: Tensor, noise: Tensor) -> list[int]:
        """Adds variables gain · (states at ``source``) + bias + N(0, noise) under Q; returns where they stand."""
        nonlocal q_mean, q_cov
        index = frame_indices(source, dim).to(q_mean.device)
        cross = gain @ q_cov[:, index]
        block = cross[:, :, index] @ gain.mT + noise
        q_mean = torch.cat([q_mean, (gain @ q_mean[:, index].unsqueeze(-1)).squeeze(-1) + bias], -1)
        top = torch.cat([q_cov, cross.mT], -1)
        q_cov = torch.cat([top, torch.cat([cross, (block + block.mT) / 2], -1)], -2)
        states.extend(new)
        return list(range(len(states) - len(new), len(states)))

    eye = torch.eye(dim, dtype=torch.float64, device=q_mean.device).expand(video.modes, dim, dim)
    zero = q_mean.new_zeros(video.modes, dim)
    for stage in (plan.stage(k) for k in range(1, ar_steps + 1)):
        law = video.at(stage)
        for frame in stage.frames[stage.kept :]:
            [at[frame]] = append([State(frame, plan.horizon)], [], zero.new_zeros(video.modes, dim, 0), zero, eye)
        shown = []
        for r in stage.references:
            where = at[r.frame]
            if r.level > plan.floor:
                levels = torch.tensor([r.level, plan.floor], dtype=torch.float64, device=q_mean.device)
                a, v = transition(levels[0], levels[1])
                state = State(r.frame, r.level, path=stage.ar_step, parting=plan.floor)
                [where] = append([state], [where], a * eye, zero, v * eye)
            shown.append(where)
        on_window, on_known, bias = law.window.raw(affine(law))
        steps = gaussian_steps(law.window, chosen)
        sampler_side, noise = steps.sampler, steps.noise
        if bool(sampler_side.silent.any()):
            raise ValueError(f"the {chosen.name} step moves a frame without noise: its trajectory KL is infinite")
        for m in range(stage.steps):
            moved = stage.moving(m)
            if not moved:
                continue
            rows = frame_indices(moved, dim).to(q_mean.device)
            score_part = sampler_side.mean_score[m].unsqueeze(-1)
            on_own = torch.diag_embed(sampler_side.mean_window[m]) + score_part * on_window[m]
            gain = torch.cat([on_own, score_part * on_known[m]], -1)[:, rows]
            new = append(
                [State(stage.frames[j], stage.grid[m + 1][j]) for j in moved],
                [at[frame] for frame in stage.frames] + shown,
                gain,
                (sampler_side.mean_score[m] * bias[m])[:, rows],
                noise[m][:, rows[:, None], rows],
            )
            at.update({stage.frames[j]: where for j, where in zip(moved, new, strict=True)})
    divergence = kl_divergence(*video.joint(states), q_mean, q_cov)
    return (video.multiplicity * divergence).sum()
