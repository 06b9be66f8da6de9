"""MB_k beyond the frames in reach: what older frames say of the output, through the state at the edge alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arvdm_theory.decomposition.recursion.pattern import Local, Pattern
from arvdm_theory.information.gaussian import cholesky, condition, whiten
from arvdm_theory.laws.gaussian_sampler import clean_law
from arvdm_theory.laws.states import noisy_covariance
from arvdm_theory.noise import alpha

__all__ = ["older_information", "older_informations"]

# Below this an information is taken from a series: -log(1 - x) from x has its digits there.
_SMALL = 1e-4


def _prior(pattern: Pattern, local: Local, clean: bool) -> Tensor:
    """S = Cov(z | the first frames as they are shown, or as they came out)."""
    if not pattern.first:
        return local.state
    n, f, s = pattern.first * pattern.video.frame_dim, pattern.first, pattern.form.states
    floor = pattern.plan.floor
    shown = [floor if clean else max(r.level, floor) for r in pattern.stage.references if r.frame < f]
    level = torch.tensor(shown, dtype=torch.float64, device=local.state.device)
    _, seen = clean_law(local.video.joint_moments(f), pattern.video.frame_dim, 0, range(f), level)
    cross = local.cross * alpha(level).repeat_interleave(pattern.video.frame_dim)
    joint = torch.cat([torch.cat([local.state, cross], -1), torch.cat([cross.mT, seen], -1)], -2)
    return condition(joint, range(s), range(s, s + n))[1]


def _posteriors(pattern: Pattern, count: int) -> Tensor:
    """P of AR step ``begin``, ``begin`` + 1, ..., (n, modes, s, s), n ≤ ``count``: then the last one stays."""
    form = pattern.form.at_level(pattern.plan.floor)
    before = form.block(pattern.plan.stride).riccati().sequence(form.filtered(pattern.edge), count)
    return form.predicted(before)


def older_information(pattern: Pattern, local: Local, clean: bool, posterior: Tensor) -> Tensor:
    """I(Output; older frames | Input, frames in reach), (n, modes).

    Args:
        pattern: the plan on the video.
        local: the law of what the stage sees.
        clean: whether the first frames are known as they came out, or as they are shown.
        posterior: P of n AR steps, (n, modes, s, s).
    """
    stage, d, prior = pattern.stage, pattern.video.frame_dim, _prior(pattern, local, clean)
    levels = stage.levels.to(prior.device)
    floor = levels.new_full((pattern.last,), stage.floor)
    out = list(stage.output)
    frame = [pattern.last + j for j in out] + [*range(pattern.last + stage.kept)]
    level = torch.cat([levels[-1, out], floor, levels[0, : stage.kept]])
    number = torch.tensor(frame, dtype=torch.long, device=prior.device)
    index = (number[:, None] * d + torch.arange(d, device=prior.device)).flatten()
    on, noise = pattern.maps
    joint = (on @ prior @ on.mT + noise)[:, index[:, None], index]
    joint = noisy_covariance(joint, level, torch.minimum(level[:, None], level), number[:, None] == number)
    see = alpha(level).repeat_interleave(d)[:, None] * on[:, index]
    n, size = len(out) * d, len(frame) * d
    gain, left = condition(joint, range(n), range(n, size))
    told = whiten(cholesky(joint[:, n:, n:], "covariance of the input and the frames in reach"), see[:, n:])
    aim = whiten(cholesky(left, "covariance of the output"), see[:, :n] - gain @ see[:, n:])
    learnt = prior - posterior
    eye = torch.eye(len(learnt[0, 0])).to(learnt)
    weight = torch.linalg.solve(eye - learnt @ (told.mT @ told), learnt)
    return -0.5 * _log_det_less(aim.mT @ aim @ weight)


def older_informations(pattern: Pattern, locals_: Sequence[Local], count: int, clean: bool) -> Tensor:
    """The same for AR step ``begin``, ..., (n, modes), n ≤ ``count``: then the last one stays."""
    edges, most = _posteriors(pattern, count), len(locals_)
    parts = []
    for i, local in enumerate(locals_):
        own = edges[i : i + 1] if i < len(edges) else edges[-1:]
        if i == most - 1:
            own = edges[min(i, len(edges) - 1) :]
        parts.append(older_information(pattern, local, clean, own))
    return torch.cat(parts)


def _log_det_less(matrix: Tensor) -> Tensor:
    """log det(I - E) for a product E of two covariances, also where it is tiny."""
    squared = matrix @ matrix
    cubed = squared @ matrix

    def trace(of: Tensor) -> Tensor:
        return torch.diagonal(of, dim1=-2, dim2=-1).sum(-1)

    near = -(trace(matrix) + trace(squared) / 2 + trace(cubed) / 3 + trace(squared @ squared) / 4)
    small = trace(matrix.detach()).abs() < _SMALL
    eye = torch.eye(matrix.shape[-1]).to(matrix)
    far = torch.linalg.slogdet(eye - torch.where(small[..., None, None], torch.zeros_like(matrix), matrix))[1]
    return torch.where(small, near, far)
