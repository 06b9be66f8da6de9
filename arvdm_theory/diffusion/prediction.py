"""What a network predicts, and how it becomes a denoised frame or a score.

With W = α X + σ ε at OU level t (α = e^{-t/2}, σ² = 1 - e^{-t}):

==========  ==========================  ==============================
prediction  the network's output        the denoised frame x̂
==========  ==========================  ==============================
x0          x̂                           x̂
epsilon     ε̂                           (W - σ ε̂)/α
v           α ε̂ - σ x̂                   α W - σ v̂
flow        ε̂ - x̂                       (W - σ û)/(α + σ)
score       s                           (W + σ² s)/α
==========  ==========================  ==============================

and s = (α x̂ - W)/σ² in every row (Tweedie).

Sources: Ho et al. 2020 (ε); Salimans and Ho 2022, section 4 (v); Lipman et al. 2023 (flow matching);
Efron 2011 (Tweedie's formula).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.adapters.networks import CachedCall, NetworkTime, model_call
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.noise import NoiseSchedule, alpha, sigma2

__all__ = ["Network", "NetworkScore", "Prediction", "denoised", "reference_rows", "score_of", "target"]

Prediction = Literal["x0", "epsilon", "v", "flow", "score"]

Network = Callable[[Tensor, Tensor, ReferenceBatch, Tensor | None], Tensor]
"""(window, levels, references, actions) → x0, ε, v, flow or score: a network of one's own."""


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """float32, or ``dtype`` where that is finer: bfloat16 cannot tell level 500 from 501."""
    return torch.promote_types(dtype, torch.float32)


def scales(levels: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ of per-frame levels (.., w), each (.., w, 1), for frames ``like`` these and no coarser than float32.

    They are taken in float64 where the device has it: there small σ keep their digits.
    """
    precise = (levels if levels.device.type == "mps" else levels.to(torch.float64)).unsqueeze(-1)
    dtype = at_least_single(like.dtype)
    return alpha(precise).to(like.device, dtype), torch.sqrt(sigma2(precise)).to(like.device, dtype)


def _known(prediction: str) -> None:
    if prediction not in get_args(Prediction):
        raise ValueError(f"a prediction is one of {', '.join(get_args(Prediction))}, got {prediction!r}")


def target(prediction: Prediction, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """What the network should have said of W = α X + σ ε.

    Args:
        prediction: a row of the table above.
        clean: X, (.., w, d).
        noise: ε, the same shape.
        levels: OU levels, (w,) or (.., w).

    Raises:
        ValueError: for an unknown prediction.
    """
    _known(prediction)
    a, s = scales(levels, clean)
    if prediction == "x0":
        return clean
    if prediction == "epsilon":
        return noise
    if prediction == "v":
        return a * noise - s * clean
    if prediction == "flow":
        return noise - clean
    return -noise / s


def denoised(prediction: Prediction, output: Tensor, window: Tensor, levels: Tensor) -> Tensor:
    """The denoised frame x̂ that an output stands for; arguments as :func:`target`, ``window`` is W."""
    _known(prediction)
    a, s = scales(levels, window)
    if prediction == "x0":
        return output
    if prediction == "epsilon":
        return (window - s * output) / a
    if prediction == "v":
        return a * window - s * output
    if prediction == "flow":
        return (window - s * output) / (a + s)
    return (window + s**2 * output) / a


def score_of(clean: Tensor, window: Tensor, levels: Tensor) -> Tensor:
    """The score (α x̂ - W)/σ² of a denoised frame x̂ = ``clean``; shapes as :func:`target`."""
    a, s = scales(levels, window)
    return (a * clean - window) / s**2


@dataclass(frozen=True)
class NetworkScore:
    """Any network as a score: the ledger, the I-MMSE estimate and the rollout take it as it is.

    The network is called without gradients, on at most ``batch`` windows at once, and shown the tensors on
    ``device`` and in ``dtype``, but levels in float32 at the least; its output comes back in the caller's.

    A network trained by flow matching on x_u = (1 - u) X + u ε is shown x_u and u in place of W and the levels:
    u = σ/(α + σ) and x_u = W/(α + σ) is the same frame on that clock. Window frames that stand at level 0 get the
    score 0: they never move again. References are shown as they are, noised as W is and at OU levels.

    Attributes:
        network: (window (batch, w, d), levels, references, actions) → output (batch, w, d). Levels are told as the
            score is asked: one a frame, (w,), or one a frame of every sample, (batch, w). ``actions`` are those of
            the window's frames, (batch, w, a), or None.
        prediction: what the output is.
        clock: maps the window's OU levels, a CPU tensor in float64, to what the network calls the noise level, a
            tensor or an array of the same shape. Left out, it is u with ``flow`` and the identity else.
        frame_shape: gives the network pictures (batch, w, \\*frame_shape) in place of flat frames.
        dtype: of the tensors that the network is shown.
        device: where it is called; that of the window if left out.
        batch: the most windows at once.
        clip: c, which takes x̂ into [-c, c]; None leaves it. A score that clips is not affine, and says so
            (``bends``), so that no probe within the range takes it for one.
        threshold: p of dynamic thresholding (Saharia et al. 2022): the p-quantile q of |x̂| over a window, at
            least 1 and at most ``clip`` (if given), takes x̂ into [-q, q] and divides it by q. None without.
        recall: references → the network for windows that are shown these, with what it makes of them alone kept;
            see :meth:`recalling`. None for a network that keeps nothing.

    Raises:
        ValueError: for an unknown prediction, a clip or threshold out of range, an output of another shape than
            the window's, or a clock's of another shape than the levels'.

    Example:
        >>> score = NetworkScore(lambda window, levels, references, actions: window, prediction="x0")
        >>> levels = torch.tensor([1.0, 2.0])
        >>> none = ReferenceBatch(torch.zeros(5, 0, 3), torch.zeros(0), (), (0, 1))
        >>> score(torch.ones(5, 2, 3), levels, none).shape
        torch.Size([5, 2, 3])
    """

    network: Network
    prediction: Prediction = "epsilon"
    clock: Callable[[Tensor], Tensor | NDArray[Any]] | None = None
    frame_shape: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.float32
    device: torch.device | str | None = None
    batch: int = 4096
    clip: float | None = None
    threshold: float | None = None
    recall: Callable[[ReferenceBatch], Network] | None = None

    def __post_init__(self) -> None:
        _known(self.prediction)
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"x̂ is clipped at a positive number, got {self.clip}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"the quantile of dynamic thresholding lies in (0, 1], got {self.threshold}")

    @property
    def bends(self) -> bool:
        """Whether it is known not to be affine: x̂ is clipped or thresholded."""
        return self.clip is not None or self.threshold is not None

    @classmethod
    def from_diffusers(
        cls,
        model: Any,
        scheduler: Any,
        layout: str = "BCFHW",
        *,
        clip: bool = True,
        batch: int = 256,
        **options: Any,
    ) -> NetworkScore:
        """A network that is called as diffusers' UNets and transformers are, on its scheduler's clock.

        Args:
            model: called with ``hidden_states`` or ``sample``, and ``timestep``, by name where its signature has
                them, else with (frames, timesteps) in this order. It is put as it is on no device and in no mode:
                bring it in ``eval()``.
            scheduler: a diffusers scheduler, the content of its ``scheduler_config.json``, or a
                :class:`~arvdm_theory.noise.NoiseSchedule` (then ``prediction`` is needed).
            layout: of its frames: ``BCFHW``, ``BFCHW``, ``BCHW`` (frames in the batch), or flat ``BFD``. Frames of
                the plan are pictures (H, W, C), flattened in this order.
            clip: whether x̂ is clipped or thresholded where the scheduler's config says so (``clip_sample``,
                ``thresholding``). The score then follows the clipped x̂, as DDPM's step does and DDIM's with
                ``use_clipped_model_output=True``.
            batch: the most windows at once.
            **options: ``prediction``, if not what the scheduler says, ``dtype`` and ``device`` of this class, and
                those of :func:`arvdm_theory.adapters.networks.model_call`: ``frame_shape``, ``references``,
                ``told``, ``whole``, ``conditioning``, ``unconditional``, ``guidance``. History guidance is
                :class:`~arvdm_theory.diffusion.scores.GuidedScore` around this score.

        Raises:
            ValueError: for a scheduler, layout or option that is not known.
        """
        own = {key: options.pop(key) for key in ("dtype", "device") if key in options}
        call, prediction, limits = model_call(model, scheduler, layout, **options)
        limited = limits if clip else {}
        return cls(
            call, cast(Prediction, prediction), batch=batch, clip=limited.get("clip"),
            threshold=limited.get("threshold"), **own,
        )  # fmt: skip

    @classmethod
    def from_diffusion_forcing(
        cls,
        model: Any,
        scheduler: Any,
        layout: str = "BFCHW",
        *,
        cond: Any = None,
        batch: int = 256,
        **options: Any,
    ) -> NetworkScore:
        """A network that is called as Diffusion Forcing's are: ``model(x, noise_levels, cond)``.

        References stand before the window in x; every frame has a whole noise level, (B, F), counted as entries of
        the schedule's table: 0 is the first noise, and clean frames are told 0 too. Arguments as
        :meth:`from_diffusers`.

        Source: Chen et al. 2024 (arXiv 2407.01392) and the public code of DFoT.
        """
        extra: dict[str, Any] = {"told": "frame", "whole": True, "positional": (cond,), **options}
        return cls.from_diffusers(model, scheduler, layout, batch=batch, **extra)

    @classmethod
    def from_cached_generator(
        cls,
        generator: Any,
        schedule: NoiseSchedule,
        make_cache: Callable[[int], Mapping[str, Any]],
        frame_shape: tuple[int, int, int],
        tokens: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        batch: int = 64,
        **options: Any,
    ) -> NetworkScore:
        """A generator that keeps a key-value cache, as Self-Forcing's; see
        :class:`arvdm_theory.adapters.networks.CachedCall` for its arguments and for what it costs.

        Args:
            generator, make_cache, frame_shape, tokens: see there.
            schedule: of its training, such as ``NoiseSchedule.flow(scale=1000)``.
            dtype, device, batch: as of this class.
            **options: ``block``, ``context_noise``, ``flow``, ``conditioning``, ``output``, ``whole``.
        """
        time = NetworkTime(schedule, bool(options.pop("whole", False)))
        call = CachedCall(generator, make_cache, time, frame_shape, tokens, **options)
        return cls(call, "x0", dtype=dtype, device=device, batch=batch)

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """∇_W log p(W | R), see :class:`arvdm_theory.interfaces.Score`."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(window), self.batch):
                rows = slice(start, start + self.batch)
                at = levels[rows] if levels.ndim > 1 else levels
                parts.append(self._part(window[rows], at, reference_rows(references, rows)))
        return torch.cat(parts) if parts else torch.zeros_like(window)

    def recalling(self, references: ReferenceBatch) -> NetworkScore:
        """See :func:`arvdm_theory.diffusion.scores.recalling`; nothing is kept of more windows than go at once."""
        if self.recall is None or len(references.values) > self.batch:
            return self
        with torch.no_grad():
            return replace(self, network=self.recall(self._context(references)), recall=None)

    def _part(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        a, s = scales(levels, window)
        shown, at = window, levels
        if self.prediction == "flow":
            shown, at = window / (a + s), (s / (a + s)).squeeze(-1)
        if self.clock is not None:
            at = torch.as_tensor(self.clock(levels.detach().cpu().double()))
            if at.shape != levels.shape:
                shapes = f"{tuple(levels.shape)}, got {tuple(at.shape)}"
                raise ValueError(f"the clock must return as many levels as it is given, {shapes}")

        context = self._context(references)
        output = self.network(
            self._picture(shown), self._levels(at, window.device), context, context.window_actions
        )
        if isinstance(output, Tensor) and self.frame_shape is not None and output.ndim > window.ndim:
            output = output.flatten(2)
        if not isinstance(output, Tensor) or output.shape != window.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"the network must return a tensor of the window's shape {tuple(window.shape)}, got {got}"
            )
        output = output.to(window.device, at_least_single(window.dtype))
        clean = self._limited(denoised(self.prediction, output, window, levels))
        score = score_of(clean, window, levels)
        # At level 0 the formula is 0/0; such frames never move again, and no score of theirs is used.
        moves = (levels > 0).to(score.device).unsqueeze(-1)
        return torch.where(moves, score, torch.zeros_like(score)).to(window.dtype)

    def _context(self, references: ReferenceBatch) -> ReferenceBatch:
        """The references as the network is shown them."""
        place = references.values.device
        return ReferenceBatch(
            self._picture(references.values),
            self._levels(references.levels, place),
            references.frames,
            references.window_frames,
            None if references.actions is None else self._given(references.actions, place),
            None if references.window_actions is None else self._given(references.window_actions, place),
        )

    def _given(self, values: Tensor, place: torch.device) -> Tensor:
        return values.to(self.device or place, self.dtype)

    def _levels(self, values: Tensor, place: torch.device) -> Tensor:
        return values.to(self.device or place, at_least_single(self.dtype))

    def _picture(self, values: Tensor) -> Tensor:
        moved = self._given(values, values.device)
        return moved if self.frame_shape is None else moved.reshape(*moved.shape[:-1], *self.frame_shape)

    def _limited(self, clean: Tensor) -> Tensor:
        """x̂ clipped or thresholded."""
        if self.threshold is not None:
            reach = torch.quantile(clean.flatten(1).abs(), self.threshold, dim=1).clamp(min=1.0, max=self.clip)
            reach = reach[:, None, None]
            return torch.minimum(torch.maximum(clean, -reach), reach) / reach
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)


def reference_rows(references: ReferenceBatch, rows: slice) -> ReferenceBatch:
    """Some videos of a batch of references."""
    return ReferenceBatch(
        references.values[rows],
        references.levels,
        references.frames,
        references.window_frames,
        None if references.actions is None else references.actions[rows],
        None if references.window_actions is None else references.window_actions[rows],
    )
