"""The linear denoiser by exact least squares: no loop, no learning rate, and an excess loss known in advance.

At row m of a stage the network is x̂ = μ + s F, affine in its p regressors (W, R, 1). Fitted on n videos of a
Gaussian law, with noise drawn once for each, its expected loss in every entry is

    E(x̂ - X)² = mmse · (n + 1)(n - 2) / (n (n - p - 1)),    n > p + 1,

mmse being that of the exact conditional mean: about p/n of it is excess.

Source: Stein 1960; Breiman and Freedman 1983 (the prediction error of least squares at a random Gaussian design).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import LinearBackbone
from arvdm_theory.training.config import TrainingError
from arvdm_theory.training.windows import TrainingBatch, WindowSampler, step_generator

__all__ = ["fit_linear"]


@torch.no_grad()
def fit_linear(
    denoiser: Denoiser, sampler: WindowSampler, videos: int, seed: int = 0, resamples: int = 1
) -> Denoiser:
    """Fits every table of a linear denoiser, all reverse steps of all stages, in float64; in place.

    Stages that share a table are fitted on the first of them, so that a table's rows come from different videos.
    The ``videos`` of a stage are the same for all its reverse steps; their noise is not.

    Args:
        denoiser: with a linear backbone and prediction ``x0``.
        sampler: the plan, its AR steps and the videos; in float64. Its weights and shares play no part, as the
            optimum of every row is the same for all of them.
        videos: n.
        seed: of videos and noise.
        resamples: how often each video is noised anew. With 1 the n rows are independent and the excess loss is
            the one above; with more of them the noise is averaged out and the error of n videos alone is left.

    Returns:
        the denoiser.

    Raises:
        TrainingError: if the denoiser is no such one, the sampler is not in float64, or there are fewer rows than
            regressors.
    """
    backbone = denoiser.backbone
    if not isinstance(backbone, LinearBackbone) or denoiser.config.prediction != "x0":
        raise TrainingError(
            "least squares fits a linear denoiser with prediction 'x0', got "
            f"{denoiser.config.architecture!r} with {denoiser.config.prediction!r}"
        )
    if sampler.dtype != torch.float64:
        raise TrainingError(f"least squares needs a sampler in float64, got {sampler.dtype}")
    if videos < 1 or resamples < 1:
        raise TrainingError(f"at least one video and one noising are needed, got {videos} and {resamples}")
    fitted: set[int] = set()
    for number, stage in enumerate(sampler.stages):
        generator = step_generator(seed, number)
        table = _table(denoiser, backbone, sampler, number, generator)
        if table in fitted:
            continue
        fitted.add(table)
        drawn = sampler.source.draw(videos, stage.frames.stop, generator)
        video = VideoBatch(drawn.frames.repeat(resamples, 1, 1))
        for row in range(stage.steps):
            batch = _batch(sampler, number, row, video, generator)
            coefficients = _solve(denoiser, backbone, batch)
            backbone.tables[table][row] = coefficients.to(backbone.tables[table])
    return denoiser


def _batch(
    sampler: WindowSampler, number: int, row: int, video: VideoBatch, generator: Generator
) -> TrainingBatch:
    levels = sampler.stages[number].levels[row].expand(len(video.frames), -1)
    return sampler.noised(number, video, levels, torch.ones_like(levels), generator)


def _table(
    denoiser: Denoiser, backbone: LinearBackbone, sampler: WindowSampler, number: int, generator: Generator
) -> int:
    """Which of the backbone's tables a stage of the sampler reads."""
    frames = sampler.stages[number].frames.stop
    empty = VideoBatch(torch.zeros(1, frames, denoiser.config.frame_dim, dtype=torch.float64))
    batch = _batch(sampler, number, 0, empty, generator).to(denoiser.device)
    return backbone.place(batch.levels, batch.references)[0]


def _solve(denoiser: Denoiser, backbone: LinearBackbone, batch: TrainingBatch) -> Tensor:
    """The coefficients (w·d, p) of one row of a table."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        window, _, references = arguments
        seen.append(backbone.inputs(window, references).cpu())

    # The regressors are what the backbone itself is shown, behind the denoiser's preconditioning.
    hook = backbone.register_forward_pre_hook(keep)
    try:
        moved = batch.to(denoiser.device)
        denoiser(moved.window, moved.levels, moved.references)
    finally:
        hook.remove()
    inputs = seen[0]
    rows, regressors = inputs.shape
    if rows < regressors:
        raise TrainingError(f"{regressors} regressors need as many rows (videos · resamples), got {rows}")
    target = (batch.clean.flatten(1) - denoiser.config.data_mean) / denoiser.config.data_scale
    # Not by "gelsy": PyTorch hands it the order of the columns unset, and the last digits are those of chance.
    solution: Tensor = torch.linalg.lstsq(inputs, target, driver="gelsd").solution
    return solution.mT
