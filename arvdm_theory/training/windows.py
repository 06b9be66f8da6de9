r"""The windows of a plan as training batches: what a network sees at a reverse step, and what it should say.

A batch is one stage of the plan (the initialisation, or AR step k) and a reverse step m of each video's own:

    W_j = α(t_j) X_j + σ(t_j) ε_j at t_j = τ_j^m,    R = the plan's references, noised to their levels,

and the loss is Σ_j w_j ‖x̂_j(W, R) - X_j‖², whose minimum over all functions is E[X | W, R]. References are drawn
straight at their levels: a plan's references are never frames of the window, and only one state of each is seen,
so that noising them by way of the floor gives the same law.

Weightings:

- ``network``: the squared error of the network's own output F, averaged over frames and entries. Of unit scale at
  every level.
- ``x0``: the squared error of x̂ in units of the data, averaged likewise.
- ``see``: what the ledger counts. With c_s and v the step's coefficients, s = (α x̂ - W)/σ², the score estimation
  error of reverse step m is

      SEE_m = ½ Σ_j (c_s²/v) E‖s_θ,j - s*_j‖² = ½ Σ_j (c_s²/v)(α²/σ⁴) E‖x̂_j - E[X_j | W, R]‖²,

  and E‖x̂ - X‖² is more by the network-independent E Var(X | W, R). Stages are weighted by what share of the
  batches they get, so the expected loss is (Σ SEE of all stages drawn + a constant)/``entries``.

Sources: Vincent 2011 (denoising score matching); arXiv 2503.10704, section 4 (the score estimation error); Chen
et al. 2024, Diffusion Forcing (a level of its own for every frame); Song et al. 2025, history guidance.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch, VideoSource
from arvdm_theory.noise import alpha, noised, sigma2
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["HISTORY_LEVEL", "LevelChoice", "TrainingBatch", "Weighting", "WindowSampler", "step_generator"]

HISTORY_LEVEL = 1.0
"""The highest level that references are noised to where their levels are drawn."""

# Shares of the batches without references, and with noised ones.
_WITHOUT, _NOISED = 0.1, 0.5

LevelChoice = Literal["plan", "continuous", "independent", "history"]
Weighting = Literal["network", "see", "x0"]


def step_generator(seed: int, step: int) -> Generator:
    """The CPU generator of one step of one run: no state has to be kept to draw a step's batch again.

    PyTorch's CPU generator is seeded by 32 bits. No two steps of a run share them, as ``a + step·b`` with b odd
    takes every value once; a and b come from a digest of the seed, so that two runs do not walk in step.
    """
    digest = hashlib.sha256(f"arvdm training windows {seed}".encode()).digest()
    first, stride = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
    return Generator().manual_seed((first + step * (stride | 1)) % 2**32)


@dataclass(frozen=True)
class TrainingBatch:
    """One batch of windows.

    Attributes:
        window: W, (batch, w, d).
        levels: t, float64 (float32 on MPS), (batch, w).
        references: R.
        clean: X, (batch, w, d).
        weight: of each frame's squared error, (batch, w).
    """

    window: Tensor
    levels: Tensor
    references: ReferenceBatch
    clean: Tensor
    weight: Tensor

    def loss(self, denoised: Tensor) -> Tensor:
        """Σ_j w_j ‖x̂_j - X_j‖², the mean over the batch; a scalar."""
        error = (denoised - self.clean).square().sum(-1)
        return (self.weight.to(error) * error).sum(-1).mean()

    def share(self, rank: int, ranks: int) -> TrainingBatch:
        """The part of the batch that falls to one of several processes: equal parts, in order."""
        size = len(self.window) // ranks
        rows = slice(rank * size, (rank + 1) * size)
        return self._mapped(lambda values: values[rows])

    def to(self, device: torch.device) -> TrainingBatch:
        """The batch on a device; MPS gets float32 where there is float64."""

        def move(values: Tensor) -> Tensor:
            narrow = device.type == "mps" and values.dtype == torch.float64
            return values.to(device, torch.float32 if narrow else values.dtype)

        batch = self._mapped(move)
        return dataclasses.replace(
            batch, references=dataclasses.replace(batch.references, levels=move(batch.references.levels))
        )

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        """``change`` applied to every tensor that has a row a video."""
        window, levels, clean, weight = (
            change(part) for part in (self.window, self.levels, self.clean, self.weight)
        )
        return TrainingBatch(window, levels, self.references.mapped(change), clean, weight)


class WindowSampler:
    """Draws training batches for a plan.

    Args:
        plan: the plan.
        ar_steps: K: AR steps ``first_ar_step``..K are drawn alike.
        source: the videos.
        levels: ``plan`` (row m < M of the plan's grid, m uniform, one a video), ``continuous`` (uniform between
            two adjacent rows, at the same fraction for all frames), ``independent`` (for every frame a row, a
            column and a fraction of its own) or ``history`` (the same, and of half the batches every reference is
            noised to a level of its own, up to :data:`HISTORY_LEVEL`; of a tenth there is none, as history
            guidance asks for).
        init_share: probability of the initialisation stage; left out, 1/(number of AR steps drawn + 1).
        weighting: ``network``, ``see`` or ``x0``, as the module says.
        precision: levels → (dF/dx̂)² for ``network``: a denoiser's ``output_precision``.
        step: the reverse step whose SEE ``see`` follows.
        dtype: of frames and noise; levels are float64 always.
        first_ar_step: the first one that is drawn; later than 1 where given frames replace those before it.

    Attributes:
        stages: the initialisation stage, then AR steps 1..K.
        shares: of the batches that each stage gets, (K + 1,).
        entries: how many entries are denoised in all moving frames of all reverse steps of the stages drawn: the
            expected loss of ``see`` times it is in nats.

    Raises:
        ValueError: if K < 1, the first AR step is none of 1..K, a share is none, ``network`` comes without a
            precision, or ``see`` with other levels than the plan's or with a reverse step that has no positive
            scalar noise variance.
    """

    def __init__(
        self,
        plan: Plan,
        ar_steps: int,
        source: VideoSource,
        levels: LevelChoice = "plan",
        init_share: float | None = None,
        weighting: Weighting = "network",
        precision: Callable[[Tensor], Tensor] | None = None,
        step: str = "exponential",
        dtype: torch.dtype = torch.float32,
        first_ar_step: int = 1,
    ) -> None:
        for what, value, known in (("levels", levels, LevelChoice), ("weighting", weighting, Weighting)):
            if value not in get_args(known):
                raise ValueError(f"{what} is one of {', '.join(get_args(known))}, got {value!r}")
        if ar_steps < 1:
            raise ValueError(f"at least one AR step is needed, got {ar_steps}")
        if not 1 <= first_ar_step <= ar_steps:
            raise ValueError(f"the first AR step drawn is one of 1..{ar_steps}, got {first_ar_step}")
        share = 1 / (ar_steps - first_ar_step + 2) if init_share is None else init_share
        if not 0 <= share < 1:
            raise ValueError(f"the share of the initialisation stage must lie in [0, 1), got {init_share}")
        if weighting == "network" and precision is None:
            raise ValueError("the weighting 'network' needs the denoiser's output_precision")
        if weighting == "see" and levels != "plan":
            raise ValueError(f"the weighting 'see' is one of the plan's own levels, not of {levels!r} ones")
        self.plan, self.ar_steps, self.source = plan, ar_steps, source
        self.levels, self.weighting, self.dtype = levels, weighting, dtype
        self._precision = precision
        self.stages = tuple(plan.stages(ar_steps))
        late = (1 - share) / (ar_steps - first_ar_step + 1)
        self.shares = torch.tensor(
            [share, *(late if k >= first_ar_step else 0.0 for k in range(1, ar_steps + 1))], dtype=torch.float64
        )
        drawn = [stage for stage, part in zip(self.stages, self.shares, strict=True) if part > 0]
        entry = sum(int((stage.levels[:-1] > stage.levels[1:]).sum()) for stage in drawn)
        frame_dim = int(torch.tensor(source.frame_shape).prod())
        self.entries = entry * frame_dim
        self._per_frame = 1.0 / frame_dim
        self._see = [_see_weights(stage, step) if weighting == "see" else None for stage in self.stages]

    def draw(self, batch: int, seed: int, step: int) -> TrainingBatch:
        """The batch of one step: a function of ``batch``, ``seed`` and ``step`` alone."""
        generator = step_generator(seed, step)
        number = int(torch.multinomial(self.shares, 1, generator=generator))
        stage = self.stages[number]
        video = self.source.draw(batch, stage.frames.stop, generator)
        levels, row = self._levels(stage, batch, generator)
        return self.noised(number, video, levels, self._weights(number, levels, row), generator)

    def noised(
        self, number: int, video: VideoBatch, levels: Tensor, weight: Tensor, generator: Generator
    ) -> TrainingBatch:
        """The batch of stage ``number`` for given videos, levels and weights (batch, w)."""
        stage = self.stages[number]
        frames = video.frames.to(self.dtype)
        clean = frames[:, list(stage.frames)]
        at, none = self._reference_levels(stage, generator)
        references = ReferenceBatch.shown(
            self._noise(frames[:, list(stage.reference_frames)], at, generator), at, stage.reference_frames,
            tuple(stage.frames), None if video.actions is None else video.actions.to(self.dtype),
        )  # fmt: skip
        if none:
            references = references.without()
        return TrainingBatch(self._noise(clean, levels, generator), levels, references, clean, weight)

    def _reference_levels(self, stage: Stage, generator: Generator) -> tuple[Tensor, bool]:
        """The levels (r,) that a batch's references stand at, and whether it goes without them."""
        planned = stage.reference_levels
        if self.levels != "history":
            return planned, False
        kind = float(torch.rand((), generator=generator))
        if kind < _WITHOUT:
            return planned, True
        if kind < _WITHOUT + _NOISED:
            # Low levels more often: what is shown at high ones tells little.
            return HISTORY_LEVEL * torch.rand(planned.shape, dtype=planned.dtype, generator=generator) ** 2, False
        return planned, False

    def _noise(self, clean: Tensor, levels: Tensor, generator: Generator) -> Tensor:
        """Clean frames (batch, n, d) taken to ``levels``, (n,) or (batch, n)."""
        if not bool((levels > 0).any()):
            return clean
        return noised(clean, levels, noise=torch.randn(clean.shape, dtype=self.dtype, generator=generator))

    def _levels(self, stage: Stage, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Levels (batch, w), and the rows of the grid (batch,) that they were drawn from."""
        grid, w = stage.levels, stage.window
        if self.levels in ("independent", "history"):
            row = torch.randint(stage.steps, (batch, w), generator=generator)
            column = torch.randint(w, (batch, w), generator=generator)
            fraction = torch.rand((batch, w), dtype=torch.float64, generator=generator)
            high, low = grid[row, column], grid[row + 1, column]
            return high + fraction * (low - high), row[:, 0]
        row = torch.randint(stage.steps, (batch,), generator=generator)
        if self.levels == "plan":
            return grid[row], row
        fraction = torch.rand((batch, 1), dtype=torch.float64, generator=generator)
        return grid[row] + fraction * (grid[row + 1] - grid[row]), row

    def _weights(self, number: int, levels: Tensor, row: Tensor) -> Tensor:
        """Of each frame's squared error; 0 for one that stands at level 0, where nothing is to be denoised."""
        see = self._see[number]
        if see is not None:
            stage = self.stages[number]
            return see[row] * (stage.steps / self.shares[number] / self.entries)
        noisy = levels > 0
        weight = torch.full_like(levels, self._per_frame / levels.shape[1])
        if self.weighting == "network":
            assert self._precision is not None
            weight = weight * self._precision(torch.where(noisy, levels, torch.ones_like(levels)))
        return torch.where(noisy, weight, torch.zeros_like(weight))


def _see_weights(stage: Stage, step: str) -> Tensor:
    """½ (c_s²/v)(α²/σ⁴) at rows m < M, (M, w); 0 where a frame does not move."""
    rule = reverse_step(step)
    level, target = stage.levels[:-1], stage.levels[1:]
    moves = level > target
    # Frames that stand still get a harmless step, so that nothing divides by zero.
    level, target = torch.where(moves, level, 1.0), torch.where(moves, target, 0.5)
    coefficients = rule.coefficients(level, target)
    variance = coefficients.variance
    if variance is None or not bool((variance > 0).all()):
        raise ValueError(
            "the weighting 'see' needs a reverse step whose noise has a positive scalar variance on every row, "
            f"which {rule.name!r} has not on this plan: take 'exponential' or 'euler'"
        )
    weight = 0.5 * coefficients.score**2 / variance * (alpha(level) / sigma2(level)) ** 2
    return torch.where(moves, weight, 0.0)
