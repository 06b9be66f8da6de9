"""The trajectory KL by brute force: one dense joint Gaussian under each law, no chain rule, no ledger.

The variables are those that the ledger sums over: Input_1 (for plans with w = Δ the first Δ clean frames), the
new frames of every AR step at T, every freshly noised reference, and every window frame at every level it is
moved to. The cost grows with the cube of their number; it is the check that the ledger closes, and its price.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arvdm_theory.diffusion.kernel import gaussian_steps, noise_covariance, stage_kernel
from arvdm_theory.diffusion.rollout import SamplerLaw
from arvdm_theory.diffusion.scores import AffineScore, stage_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.diffusion.window import AffineMap, WindowLaw, ar_window, init_window
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.states import State, frame_indices
from arvdm_theory.noise import transition
from arvdm_theory.plan.plan import Plan

__all__ = ["trajectory_kl"]


def trajectory_kl(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    score: Score | AffineScore | None = None,
    step: str | ReverseStep = "exponential",
) -> Tensor:
    """KL of the whole trajectory, true law to sampler's, summed over modes, in nats.

    Raises:
        ValueError: if the score is not affine in (window, references), or a step adds no noise.
    """
    chosen = reverse_step(step)
    frames, dim = plan.total_frames(ar_steps), video.frame_dim
    video.require(frames)
    mean, covariance = video.mean(frames), video.covariance(frames)

    def affine(law: WindowLaw) -> AffineMap:
        own = stage_score(score, law)
        if not isinstance(own, AffineMap):
            raise ValueError("the trajectory KL in closed form needs a score affine in (window, references)")
        return own

    law = init_window(mean, covariance, dim, plan)
    sampler = SamplerLaw.initial(plan, stage_kernel(law, affine(law), chosen), dim)
    start = plan.input_levels if plan.overlapping else (plan.floor,) * plan.window
    states = [State(frame, start[frame]) for frame in range(plan.init_frames)]
    q_mean, q_cov = sampler.mean, sampler.covariance
    at = {frame: frame for frame in range(plan.init_frames)}  # where each frame's newest state stands

    def append(new: list[State], source: list[int], gain: Tensor, bias: Tensor, noise: Tensor) -> list[int]:
        """Adds variables gain · (states at ``source``) + bias + N(0, noise) under Q; returns where they stand."""
        nonlocal q_mean, q_cov
        index = frame_indices(source, dim).to(mean.device)
        cross = gain @ q_cov[:, index]
        block = cross[:, :, index] @ gain.mT + noise
        q_mean = torch.cat([q_mean, (gain @ q_mean[:, index].unsqueeze(-1)).squeeze(-1) + bias], -1)
        top = torch.cat([q_cov, cross.mT], -1)
        q_cov = torch.cat([top, torch.cat([cross, (block + block.mT) / 2], -1)], -2)
        states.extend(new)
        return list(range(len(states) - len(new), len(states)))

    eye = torch.eye(dim, dtype=torch.float64, device=mean.device).expand(video.modes, dim, dim)
    zero = mean.new_zeros(video.modes, dim)
    for k in range(1, ar_steps + 1):
        law = ar_window(mean, covariance, dim, plan, k)
        window = list(plan.window_frames(k))
        for frame in window[plan.window - plan.stride :]:
            [at[frame]] = append([State(frame, plan.horizon)], [], zero.new_zeros(video.modes, dim, 0), zero, eye)
        shown = []
        for r in plan.references_at(k):
            where = at[r.frame]
            if r.level > plan.floor:
                a, v = transition(*torch.tensor([r.level, plan.floor], dtype=torch.float64, device=mean.device))
                [where] = append(
                    [State(r.frame, r.level, path=k, parting=plan.floor)], [where], a * eye, zero, v * eye
                )
            shown.append(where)
        on_window, on_refs, bias = law.raw(affine(law))
        steps = gaussian_steps(law, chosen)
        if steps.variance is not None and bool(((steps.variance == 0) & (steps.moving > 0)).any()):
            raise ValueError(f"the {chosen.name} step moves a frame without noise: its trajectory KL is infinite")
        noise = noise_covariance(steps).expand_as(steps.precision)
        for m in range(law.steps):
            high, low = plan.ar_grid[m], plan.ar_grid[m + 1]
            moved = [j for j in range(plan.window) if high[j] > low[j]]
            if not moved:
                continue
            rows = frame_indices(moved, dim).to(mean.device)
            score_part = steps.mean_score[m].unsqueeze(-1)
            own = torch.diag_embed(steps.mean_window[m]) + score_part * on_window[m]
            gain = torch.cat([own, score_part * on_refs[m]], -1)[:, rows]
            new = append(
                [State(window[j], low[j]) for j in moved],
                [at[frame] for frame in window] + shown,
                gain,
                (steps.mean_score[m] * bias[m])[:, rows],
                noise[m][:, rows[:, None], rows],
            )
            at.update({window[j]: where for j, where in zip(moved, new, strict=True)})
    divergence = kl_divergence(*video.joint(states), q_mean, q_cov)
    return (video.multiplicity * divergence).sum()
