"""The linear denoiser: one affine map for every place of a plan's grid; it holds a Gaussian video's optimum.

For a Gaussian video E[X | W, R] is affine in (W, R), with other coefficients at every reverse step and for every
set of references. The network is the table of them,

    F(W, R) = A_m W + B_m R + c_m        at row m of the grid,

so least squares fits it exactly, and its excess loss follows the textbook law of ordinary least squares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.plan.plan import Plan

__all__ = ["LinearBackbone", "linear_config"]

# Two levels are the same place of the grid if they differ by less: far below any grid's spacing, far above the
# rounding of float32.
_SAME_LEVEL = 1e-4


def linear_config(
    plan: Plan, ar_steps: int, frame_shape: tuple[int, ...], data_mean: float = 0.0, data_scale: float = 1.0,
    absolute: bool = False,
) -> DenoiserConfig:  # fmt: skip
    """The config of a linear denoiser for the first ``ar_steps`` AR steps of a plan.

    Args:
        plan: the plan, whose levels and references the table follows.
        ar_steps: K.
        frame_shape: of the video.
        data_mean: μ.
        data_scale: s.
        absolute: a table of its own for every AR step, as videos need that are not stationary; else AR steps
            whose references stand at the same distances share one.
    """
    init = {"window": plan.init_frames, "references": [], "start": 0, "levels": [list(r) for r in plan.init_grid]}
    stages = [init]
    for k in range(1, ar_steps + 1):
        start = plan.window_frames(k).start
        stage = {
            "window": plan.window,
            "references": [[r.frame - start, max(r.level, plan.floor)] for r in plan.references_at(k)],
            "start": start if absolute else None,
            "levels": [list(row) for row in plan.ar_grid],
        }
        if stage not in stages:
            stages.append(stage)
    for stage in stages:
        stage["levels"] = stage["levels"][:-1]  # type: ignore[index]
    return DenoiserConfig(
        "linear",
        frame_shape,
        plan.window,
        references=max(len(plan.references_at(k)) for k in range(1, ar_steps + 1)),
        prediction="x0",
        data_mean=data_mean,
        data_scale=data_scale,
        options={"stages": stages},
    )


class LinearBackbone(nn.Module):
    """F = A_m W + B_m R + c_m, in float64, for the stages that the config's ``stages`` list.

    A stage is the number of window frames, the references' distances and levels, the window's start (None: any)
    and the rows of levels that the network may be asked about. It starts at F = 0, the mean.

    Raises:
        ModelError: when asked about levels or references that no stage has.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        if set(config.options) != {"stages"} or config.action_dim:
            raise ModelError("a linear network has the option 'stages' (see linear_config) and no actions")
        self.config = config
        self.stages = list(config.options["stages"])
        d = config.frame_dim
        self.tables = nn.ParameterList()
        for stage in self.stages:
            rows, out = len(stage["levels"]), stage["window"] * d
            size = out + len(stage["references"]) * d + 1
            self.tables.append(nn.Parameter(torch.zeros(rows, out, size, dtype=torch.float64)))

    def place(self, levels: Tensor, references: ReferenceBatch) -> tuple[int, Tensor]:
        """The stage, and the row of its table for each window of ``levels`` (batch, w)."""
        start = references.window_frames[0]
        at = [
            [frame - start, level]
            for frame, level in zip(references.frames, references.levels.tolist(), strict=True)
        ]
        reasons = []
        for number, stage in enumerate(self.stages):
            if stage["window"] != levels.shape[1] or not _alike(stage["references"], at):
                continue
            if stage["start"] not in (None, start):
                continue
            grid = torch.tensor(stage["levels"], dtype=torch.float64, device=levels.device)
            gap = (levels.to(torch.float64)[:, None] - grid).abs().amax(-1)
            miss, row = gap.min(1)
            if float(miss.max()) <= _SAME_LEVEL:
                return number, row
            reasons.append(float(miss.max()))
        if reasons:
            raise ModelError(
                f"the linear network knows only its plan's levels; these are {min(reasons):.3g} away from them"
            )
        raise ModelError(
            f"the linear network has no table for {levels.shape[1]} window frames from frame {start} with "
            f"references (distance, level) {at}"
        )

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """F, of the window's shape; see :data:`arvdm_theory.networks.denoiser.ARCHITECTURES`."""
        number, row = self.place(levels, references)
        inputs = self.inputs(window, references)
        table = self.tables[number]
        if bool((row == row[0]).all()):
            output = inputs @ table[row[0]].mT
        else:
            output = torch.einsum("boi,bi->bo", table[row], inputs)
        return torch.reshape(output, window.shape)

    @staticmethod
    def inputs(window: Tensor, references: ReferenceBatch) -> Tensor:
        """The regressors (W, R, 1), (batch, p)."""
        return torch.cat([window.flatten(1), references.values.flatten(1), torch.ones_like(window[:, :1, 0])], -1)


def _alike(stage: Sequence[Sequence[float]], at: Sequence[Sequence[float]]) -> bool:
    return len(stage) == len(at) and all(
        a[0] == b[0] and abs(a[1] - b[1]) <= _SAME_LEVEL for a, b in zip(stage, at, strict=True)
    )
