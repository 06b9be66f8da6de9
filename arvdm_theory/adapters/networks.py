"""Other people's networks as callables (window, levels, references, actions) → output.

A network here is whatever its owner calls: a diffusers UNet or transformer (``hidden_states`` or ``sample``,
``timestep``), a diffusion-forcing network (``model(x, noise_levels, cond)``), or a generator that keeps a
key-value cache. :class:`ModelCall` and :class:`CachedCall` put frames into its layout, tell it its own timesteps,
show it the references and bring its output back; :class:`arvdm_theory.diffusion.prediction.NetworkScore` makes a
score of it. Nothing is imported from the network's library.

Sources: the forward methods of diffusers 0.42; Chen et al. 2024 (Diffusion Forcing); Huang et al. 2025 (Self
    Forcing),
rollout with a key-value cache; Ho and Salimans 2022 (classifier-free guidance); Karras et al. 2022, table 1 (EDM's
preconditioning).
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from arvdm_theory.adapters.diffusers import prediction_from_config, schedule_from_config
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.noise import NoiseSchedule, alpha, sigma2

__all__ = ["CachedCall", "Layout", "ModelCall", "NetworkError", "NetworkTime", "Showing", "Told", "model_call"]

Layout = Literal["BCFHW", "BFCHW", "BCHW", "BFD"]
Showing = Literal["prepend", "channels", "none"]
Told = Literal["frame", "sample", "scalar"]


class NetworkError(ValueError):
    """A network cannot be called as it is asked to be, or gives back what it should not; the message says what."""


@dataclass(frozen=True)
class NetworkTime:
    """OU levels → what a network is told: native times of its schedule, not below the first that it knows.

    Attributes:
        schedule: of its training.
        whole: whether they are rounded to whole numbers, as integer noise levels are.
    """

    schedule: NoiseSchedule
    whole: bool = False

    def __call__(self, levels: Tensor) -> Tensor:
        """Native times of levels, float64 of the same shape."""
        last = self.schedule.last_level
        levels = torch.where((levels > last) & (levels < last * (1 + 1e-6)), last, levels)  # float32's rounding
        times = self.schedule.native(levels.clamp(min=1e-12 if self.schedule.kind == "edm" else 0.0))
        if self.schedule.kind == "table" and self.schedule.first < 0:
            times = times.clamp(min=0.0)  # no network is told -1
        return times.round() if self.whole else times


@dataclass
class ModelCall:
    """A network that is called on frames and their timesteps.

    Attributes:
        model: the network.
        time: what it is told.
        layout: of its frames: batch, channels, frames, height, width; BCHW folds the frames into the batch; BFD
            are flat frames.
        frame_shape: (H, W, C); left out, C is the model's ``config.in_channels`` and the frames are square.
        references: how they are shown: before the window (``prepend``), stacked onto the channels of each of its
            frames, oldest first (missing ones are black), or not at all.
        told: a timestep a frame, (B, F), a sample, (B,), or one for all.
        flow: whether frames are shown on the flow-matching clock, W/(α + σ), and the output û becomes
            x̂ = (W - σ û)/(α + σ).
        edm: σ_data of EDM's preconditioning, which makes x̂ of the output; None without.
        positional: what is given behind frames and timesteps, which then go without names.
        conditioning: further arguments; tensors of a batch of one are spread over the batch.
        unconditional: those that take their place in classifier-free guidance.
        guidance: g in unconditional + g (conditional - unconditional).
        memory: how many references the channels hold; those of ``channels`` alone.
    """

    model: Any
    time: NetworkTime
    layout: Layout = "BCFHW"
    frame_shape: tuple[int, int, int] | None = None
    references: Showing = "prepend"
    told: Told = "sample"
    flow: bool = False
    edm: float | None = None
    positional: tuple[Any, ...] = ()
    conditioning: Mapping[str, Any] = field(default_factory=dict)
    unconditional: Mapping[str, Any] | None = None
    guidance: float = 1.0
    memory: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("layout", self.layout, Layout), ("showing of references", self.references, Showing),
            ("telling of timesteps", self.told, Told),
        ):  # fmt: skip
            if value not in get_args(known):
                raise NetworkError(f"a {what} is one of {', '.join(get_args(known))}, got {value!r}")
        if not callable(self.model):
            raise NetworkError(f"a network can be called, which {type(self.model).__name__} cannot")
        if self.guidance != 1.0 and self.unconditional is None:
            raise NetworkError("classifier-free guidance needs the unconditional arguments, unconditional={...}")

    def __call__(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None = None
    ) -> Tensor:
        """The network's output on a window, (batch, w, d); ``levels`` and those of the references are OU levels.

        Raises:
            NetworkError: if frames have no such shape, stand at several levels that the network cannot be told, if
                the network refuses them, or if it returns another shape.
        """
        batch, frames, dim = window.shape
        at = levels.expand(batch, frames)
        shown, seen = self._shown(window, at), frames
        times = at
        if self.references == "prepend" and references.values.shape[1]:
            own = references.levels.expand(batch, -1)
            shown = torch.cat([self._shown(references.values.to(window), own), shown], 1)
            times, seen = torch.cat([own.to(at), at], 1), shown.shape[1]
        pictures = self._pictures(shown, dim)
        if self.references == "channels":
            pictures = self._stacked(pictures, references, dim)
        told = self._told(times, levels)
        said = self._call(self._laid_out(pictures), told, actions)
        said = self._back(said, batch, seen, dim)[:, seen - frames :]
        return said if self.edm is None and not self.flow else self._denoised(said, window, at)

    # -- in ---------------------------------------------------------------------------------------------

    def _shown(self, frames: Tensor, levels: Tensor) -> Tensor:
        """Noisy frames at the scale that the network was trained on."""
        if not self.flow and self.edm is None:
            return frames
        precise = levels.double()
        a, s = alpha(precise), torch.sqrt(sigma2(precise))
        scale = 1 / (a + s) if self.edm is None else 1 / torch.sqrt(s**2 + (a * self.edm) ** 2)
        return frames * scale.unsqueeze(-1).to(frames)

    def _denoised(self, output: Tensor, window: Tensor, levels: Tensor) -> Tensor:
        """x̂ of a flow, or c_skip x + c_out F of X + σ ε = W/α (Karras et al. 2022, table 1)."""
        precise = levels.double().unsqueeze(-1)
        a, s = alpha(precise), torch.sqrt(sigma2(precise))
        if self.edm is None:
            return window / (a + s).to(window) - (s / (a + s)).to(window) * output
        ratio, data = s / a, self.edm
        skip = data**2 / (ratio**2 + data**2) / a
        out = ratio * data / torch.sqrt(ratio**2 + data**2)
        return skip.to(window) * window + out.to(window) * output

    def _shape(self, dim: int) -> tuple[int, int, int]:
        if self.frame_shape is not None:
            if math.prod(self.frame_shape) != dim:
                raise NetworkError(f"frames of shape {self.frame_shape} (H, W, C) have no {dim} entries")
            return self.frame_shape
        channels = _channels(self.model)
        side = math.isqrt(dim // channels) if channels and dim % channels == 0 else 0
        if channels is None or side * side * channels != dim:
            raise NetworkError(
                f"frames of {dim} entries are no square pictures of the network's {channels} channels: say "
                "frame_shape=(H, W, C)"
            )
        return side, side, channels

    def _pictures(self, frames: Tensor, dim: int) -> Tensor:
        return frames if self.layout == "BFD" else frames.reshape(*frames.shape[:2], *self._shape(dim))

    def _stacked(self, pictures: Tensor, references: ReferenceBatch, dim: int) -> Tensor:
        """Each window frame with all references behind its own channels."""
        if self.layout == "BFD":
            raise NetworkError("flat frames have no channels to stack references onto: references='prepend'")
        values, batch = references.values.to(pictures), len(pictures)
        if values.shape[1] > self.memory:
            raise NetworkError(
                f"the network's channels hold {self.memory} references (memory=...), not {values.shape[1]}"
            )
        own = self._pictures(self._shown(values, references.levels.expand(batch, -1)), dim)
        black = own.new_zeros(batch, self.memory - own.shape[1], *pictures.shape[2:])
        memory = torch.cat([black, own], 1).permute(0, 2, 3, 1, 4).flatten(3)
        return torch.cat([pictures, memory[:, None].expand(-1, pictures.shape[1], -1, -1, -1)], -1)

    def _laid_out(self, pictures: Tensor) -> Tensor:
        if self.layout == "BFD":
            return pictures
        if self.layout == "BCHW":
            return pictures.flatten(0, 1).permute(0, 3, 1, 2)
        return pictures.permute(0, 4, 1, 2, 3) if self.layout == "BCFHW" else pictures.permute(0, 1, 4, 2, 3)

    def _told(self, times: Tensor, window: Tensor) -> Tensor:
        """Timesteps as the network is told them."""
        native = self.time(times.detach().double().cpu())
        single = torch.promote_types(times.dtype, torch.float32)
        native = native.to(times.device, torch.long if self.time.whole else single)
        if self.layout == "BCHW":
            return native.flatten()
        if self.told == "frame":
            return native
        if not bool((window == window[..., :1]).all()):
            raise NetworkError(
                "the window's frames stand at several levels, and this network is told one timestep for all: say "
                "told='frame' if it takes one a frame, or choose a plan with w = Δ whose frames go together"
            )
        own = native[:, -1]
        return own if self.told == "sample" else own[0]

    # -- the call ---------------------------------------------------------------------------------------

    def _call(self, frames: Tensor, told: Tensor, actions: Tensor | None) -> Tensor:
        def ask(more: Mapping[str, Any]) -> Tensor:
            given = {key: _spread(value, len(frames)) for key, value in more.items()}
            if actions is not None and "actions" in _parameters(self.model):
                given["actions"] = actions
            return _asked(self.model, frames, told, given, self.positional, self.told == "frame")

        said = ask(self.conditioning)
        if self.guidance == 1.0:
            return said
        assert self.unconditional is not None
        alone = ask({**self.conditioning, **self.unconditional})
        return alone + self.guidance * (said - alone)

    # -- back -------------------------------------------------------------------------------------------

    def _back(self, said: Tensor, batch: int, frames: int, dim: int) -> Tensor:
        if self.layout == "BFD":
            found = said
        else:
            height, width, channels = self._shape(dim)
            axis = {"BCFHW": 1, "BFCHW": 2, "BCHW": 1}[self.layout]
            if said.ndim == len(self.layout) and said.shape[axis] == 2 * channels:
                said = said.narrow(axis, 0, channels)  # the rest are variances
            wanted = {
                "BCFHW": (batch, channels, frames, height, width),
                "BFCHW": (batch, frames, channels, height, width),
                "BCHW": (batch * frames, channels, height, width),
            }[self.layout]
            if tuple(said.shape) != wanted:
                raise NetworkError(f"the network returned {tuple(said.shape)} where {wanted} was asked for")
            if self.layout == "BCHW":
                found = said.permute(0, 2, 3, 1).reshape(batch, frames, dim)
            else:
                order = (0, 2, 3, 4, 1) if self.layout == "BCFHW" else (0, 1, 3, 4, 2)
                found = said.permute(*order).flatten(2)
        if tuple(found.shape) != (batch, frames, dim):
            raise NetworkError(
                f"the network returned {tuple(found.shape)} where {(batch, frames, dim)} was asked for"
            )
        return found


def model_call(
    model: Any,
    scheduler: Any,
    layout: str = "BCFHW",
    *,
    prediction: str | None = None,
    told: Told | None = None,
    whole: bool = False,
    **options: Any,
) -> tuple[ModelCall, str, dict[str, float]]:
    """A network on its scheduler's clock, what its output is for a score, and how the scheduler limits x̂.

    Args:
        model: the network.
        scheduler: a diffusers scheduler, its config, or a schedule.
        layout: of its frames.
        prediction: what the network predicts; left out, what the scheduler says.
        told: left out, a timestep a frame if the model's signature has ``enable_diffusion_forcing``, else a
            sample.
        whole: whether timesteps are whole numbers.
        **options: further attributes of :class:`ModelCall`.

    Returns:
        the call, ``prediction`` of :class:`~arvdm_theory.diffusion.prediction.NetworkScore` (flow and EDM's are
        turned into ``x0``), and its ``clip`` and ``threshold``.

    Raises:
        SchedulerError, NetworkError: for what is not known.
    """
    settings: Mapping[str, Any] = {}
    edm = None
    if isinstance(scheduler, NoiseSchedule):
        schedule = scheduler
        if prediction is None:
            raise NetworkError("a schedule alone does not say what the network predicts: prediction=...")
    else:
        schedule, own = schedule_from_config(scheduler), prediction_from_config(scheduler)
        settings = scheduler if isinstance(scheduler, Mapping) else scheduler.config
        if "sigma_data" in settings and prediction is None:
            edm = float(settings["sigma_data"])
        prediction = own if prediction is None else prediction
    if told is None:
        told = "frame" if "enable_diffusion_forcing" in _parameters(model) else "sample"
    unknown = sorted(set(options) - {each.name for each in dataclasses.fields(ModelCall)})
    if unknown:
        raise NetworkError(f"a network's call has no option {unknown[0]!r}")
    flow = prediction == "flow"
    call = ModelCall(
        model, NetworkTime(schedule, whole), cast(Layout, layout), told=told, flow=flow, edm=edm, **options
    )
    limits = {}
    if settings.get("thresholding"):
        ratio, most = settings["dynamic_thresholding_ratio"], settings["sample_max_value"]
        limits = {"threshold": float(ratio), "clip": float(most)}
    elif settings.get("clip_sample"):
        limits = {"clip": float(settings.get("clip_sample_range", 1.0))}
    return call, "x0" if flow or edm is not None else prediction, limits


@dataclass
class CachedCall:
    """A generator with a key-value cache, as Self-Forcing's: the cache is rebuilt from the references.

    The pipeline of such a generator fills its cache as it goes; the ledger asks about true frames, so the cache is
    built anew: the references are run through the generator in contiguous blocks, at the noise that its cache is
    kept at, each writing at its own position. That costs ⌈r/block⌉ evaluations beside the one asked for whenever
    the references change (the reverse steps of one AR step in a rollout share them; a ledger of true windows draws
    them once a stage), and a copy of the cache at every evaluation, so that what the window wrote is gone.

    A rollout's own cache holds keys and values that were computed when *their* past was in the cache too; so do
    these, as long as the references are all the frames that are out. With a rolling cache (the last m) they saw
    frames that are no references; here they did not.

    Attributes:
        generator: called with ``noisy_image_or_video`` (B, F, C, H, W), ``timestep`` (B, F), ``current_start`` (a
            number of tokens) and what ``make_cache`` returns; it gives back x̂, or a tuple whose last entry is x̂.
        make_cache: batch ↦ keyword arguments of an empty cache.
        time: what it is told.
        frame_shape: (H, W, C).
        tokens: of one frame.
        block: frames that are written at once.
        context_noise: native time at which references are cached.
        flow: whether frames are shown on the flow-matching clock.
        conditioning: further arguments.
        output: which entry of a tuple is taken.
    """

    generator: Any
    make_cache: Callable[[int], Mapping[str, Any]]
    time: NetworkTime
    frame_shape: tuple[int, int, int]
    tokens: int
    block: int = 3
    context_noise: float = 0.0
    flow: bool = True
    conditioning: Mapping[str, Any] = field(default_factory=dict)
    output: int = -1
    evaluations: int = field(default=0, init=False)
    _kept: tuple[Tensor, tuple[int, ...], Mapping[str, Any]] | None = field(default=None, init=False, repr=False)

    def __call__(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None = None
    ) -> Tensor:
        """x̂ of a window, (batch, w, d), given the cache of the references; levels are OU levels.

        Raises:
            NetworkError: as :class:`ModelCall`.
        """
        del actions
        batch, frames, dim = window.shape
        if math.prod(self.frame_shape) != dim:
            raise NetworkError(f"frames of shape {self.frame_shape} (H, W, C) have no {dim} entries")
        at = levels.expand(batch, frames)
        cache = copy.deepcopy(self._cache(references, batch, window))
        said = self._ask(self._scaled(window, at), self._times(at), references.window_frames[0], cache)
        found = said.permute(0, 1, 3, 4, 2).flatten(2)
        if tuple(found.shape) != (batch, frames, dim):
            raise NetworkError(
                f"the generator returned {tuple(said.shape)} for {frames} frames of {self.frame_shape}"
            )
        return found

    def cost(self, references: int) -> int:
        """Evaluations of one call with so many new references in one contiguous run."""
        return 1 + -(-references // self.block)

    def _cache(self, references: ReferenceBatch, batch: int, like: Tensor) -> Mapping[str, Any]:
        values = references.values.to(like)
        if self._kept is not None:
            kept, frames, cache = self._kept
            if frames == references.frames and kept.shape == values.shape and torch.equal(kept, values):
                return cache
        cache = self.make_cache(batch)
        shown = self._scaled(values, references.levels.expand(batch, -1))
        for run in _runs(references.frames, self.block):
            times = torch.full((batch, len(run)), self.context_noise, dtype=torch.float32, device=like.device)
            self._ask(shown[:, list(run)], times, references.frames[run[0]], cache)
        self._kept = values.clone(), references.frames, cache
        return cache

    def _scaled(self, frames: Tensor, levels: Tensor) -> Tensor:
        if not self.flow:
            return frames
        precise = levels.double()
        return frames / (alpha(precise) + torch.sqrt(sigma2(precise))).unsqueeze(-1).to(frames)

    def _times(self, levels: Tensor) -> Tensor:
        native = self.time(levels.detach().double().cpu()).to(levels.device)
        return native.long() if self.time.whole else native.float()

    def _ask(self, frames: Tensor, times: Tensor, start: int, cache: Mapping[str, Any]) -> Tensor:
        height, width, channels = self.frame_shape
        pictures = frames.reshape(*frames.shape[:2], height, width, channels).permute(0, 1, 4, 2, 3)
        more = {key: _spread(value, len(frames)) for key, value in self.conditioning.items()}
        self.evaluations += 1
        with _OneLine("generator", pictures, times):
            said = self.generator(
                noisy_image_or_video=pictures, timestep=times, current_start=start * self.tokens, **cache, **more
            )
        found = said[self.output] if isinstance(said, tuple | list) else said
        if not isinstance(found, Tensor) or found.ndim != 5:
            raise NetworkError(f"the generator must return frames (B, F, C, H, W), got {type(found).__name__}")
        return found


# -- shared ---------------------------------------------------------------------------------------------------


def _channels(model: Any) -> int | None:
    """The channels of a picture that a diffusers model makes."""
    config = getattr(model, "config", None)
    for key in ("out_channels", "in_channels"):
        value = config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
        if isinstance(value, int):
            return value
    return None


def _parameters(model: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(getattr(model, "forward", model)).parameters
    except (TypeError, ValueError):
        return {}


def _spread(value: Any, batch: int) -> Any:
    """A tensor of a batch of one, or of one that divides the batch, spread over it."""
    if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == batch or batch % len(value):
        return value
    return value.repeat_interleave(batch // len(value), 0)


def _asked(
    model: Any, frames: Tensor, told: Tensor, more: Mapping[str, Any], positional: tuple[Any, ...], per_frame: bool
) -> Tensor:
    names = _parameters(model)
    given = dict(more)
    if per_frame and "enable_diffusion_forcing" in names:
        given.setdefault("enable_diffusion_forcing", True)
    with _OneLine("network", frames, told):
        if not positional and ("hidden_states" in names or "sample" in names) and "timestep" in names:
            said = model(
                **{"hidden_states" if "hidden_states" in names else "sample": frames}, timestep=told, **given
            )
        else:
            said = model(frames, told, *(_spread(value, len(frames)) for value in positional), **given)
    found = getattr(said, "sample", said)
    found = found[0] if isinstance(found, tuple | list) else found
    if not isinstance(found, Tensor):
        raise NetworkError(
            f"the network must return a tensor, or what has one as .sample, got {type(found).__name__}"
        )
    return found


class _OneLine:
    """Turns what a network raises at a wrong shape or argument into one line."""

    def __init__(self, what: str, frames: Tensor, told: Tensor) -> None:
        self.what, self.shapes = what, f"frames {tuple(frames.shape)} and timesteps {tuple(told.shape)}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError | TypeError | ValueError | IndexError | AssertionError):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise NetworkError(f"the {self.what} refuses {self.shapes}: {lines[0]}") from error


def _runs(frames: Sequence[int], block: int) -> list[tuple[int, ...]]:
    """Positions of references in contiguous runs of at most ``block`` frames."""
    runs: list[tuple[int, ...]] = []
    for _, group in itertools.groupby(enumerate(frames), lambda pair: pair[1] - pair[0]):
        places = [place for place, _ in group]
        runs += [tuple(places[start : start + block]) for start in range(0, len(places), block)]
    return runs
