"""The memory bottleneck MB_k and the noise initialisation of an AR step, in closed form.

    MB_k = I(Output_k; Past_k | Input_k),
    NIE_AR,k = E KL(P(X^T_new | Input_k) ‖ N(0, I)),

Input_k being the w - Δ noisy window frames at t^I and the references R_k, Output_k the window at t^O, and
Past_k the clean frames that are out and not in R_k (all of them that are out, where references are noised).

Source: arXiv 2503.10704, Theorem 1 (NIE) and Theorem 2 (MB, the lower bound).
"""

from __future__ import annotations

import torch
from torch import Tensor

from arvdm_theory.diffusion.window import WindowLaw
from arvdm_theory.information.gaussian import conditional_mutual_information, kl_divergence
from arvdm_theory.laws.gaussian import frame_indices, noisy_covariance
from arvdm_theory.plan.plan import Plan

__all__ = ["memory_bottleneck", "noise_initialisation"]


def memory_bottleneck(
    clean_covariance: Tensor,
    dim: int,
    plan: Plan,
    ar_step: int,
    grid: Tensor | None = None,
    noised: bool = True,
) -> Tensor:
    """MB_k of AR step k = ``ar_step``, (modes,), in nats.

    An older window frame that does not move in this step is part of Input_k already and is no output; a new one
    is an output even where it stays at T.

    Args:
        clean_covariance: of all clean frames from the first on, (modes, N·d, N·d).
        dim: d.
        plan: the plan.
        ar_step: k, from 1.
        grid: levels (M + 1, w) in place of the plan's.
        noised: with False, the condition is the references *before* they are noised, and Past_k what is left:
            the form under which the lower bound on the clean KL holds for plans with w = Δ.
    """
    device = clean_covariance.device
    if grid is None:
        grid = torch.tensor(plan.ar_grid, dtype=torch.float64, device=device)
    window, references = plan.window_frames(ar_step), plan.references_at(ar_step)
    past: tuple[int, ...] = plan.past_frames(ar_step)
    if not noised:
        known = {r.frame for r in references}
        past = tuple(frame for frame in past if frame not in known)
    kept = range(plan.window - plan.stride) if plan.overlapping else range(0)
    falls = (grid[-1] < grid[0]).tolist()
    out = [j for j in range(plan.window) if falls[j] or j not in kept]
    floor = torch.tensor(plan.floor, dtype=torch.float64, device=device)

    frames: list[int] = []
    levels: list[Tensor] = []
    for j in out:
        frames.append(window[j])
        levels.append(grid[-1, j])
    for frame in past:
        frames.append(frame)
        levels.append(floor)
    given = len(frames)
    for j in kept:
        frames.append(window[j])
        levels.append(grid[0, j])
    for r in references:
        frames.append(r.frame)
        levels.append(torch.full_like(floor, max(r.level, plan.floor)) if noised else floor)

    number = torch.tensor(frames, device=device)
    level = torch.stack(levels)
    # A freshly noised reference shares the noise of its frame up to the floor. Only past frames can be a reference
    # too, and they stand there: as on one path, two states part at the lower of their levels.
    ancestor = torch.minimum(level[:, None], level)
    index = frame_indices(frames, dim).to(device)
    clean = clean_covariance[:, index[:, None], index]
    joint = noisy_covariance(clean, level, ancestor, number[:, None] == number)
    n_out = len(out) * dim
    return conditional_mutual_information(
        joint, range(n_out), range(n_out, given * dim), range(given * dim, len(frames) * dim)
    )


def noise_initialisation(law: WindowLaw, plan: Plan) -> Tensor:
    """NIE_AR,k of an AR step whose window law is ``law``, (modes,), in nats.

    With [L, G, b] the root of W^0 on (old window, new window, references, 1), the Cholesky factor's lower right
    block squares to Cov(new | Input_k), and the remaining columns of the new rows give E ‖E[new | Input_k]‖².
    """
    size = law.mean.shape[-1]
    old = size - plan.stride * law.dim
    root = law.root(law.identity)[0, :, old:]
    own = root[..., old:size]
    mean_square = (root[..., :old] ** 2).sum((-2, -1)) + (root[..., size:] ** 2).sum((-2, -1))
    zero = torch.zeros_like(own[..., 0])
    eye = torch.eye(size - old, dtype=own.dtype, device=own.device)
    return kl_divergence(zero, own @ own.mT, zero, eye.expand_as(own)) + mean_square / 2
