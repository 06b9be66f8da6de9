"""The training loop: denoising score matching on a plan's windows, resumable after anything.

An update is a function of the weights, the optimiser's moments and (seed, step): on the CPU a run that was killed
and resumed is bit for bit the run that never was.

With several processes (``accelerate launch``, ``torchrun``) each draws the whole batch and takes its share: the
batch is the one of a single process, and so is the result, up to the rounding of a sum in another order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from arvdm_theory.files import locked, write_json
from arvdm_theory.interfaces import VideoSource
from arvdm_theory.limits import Pace
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.plan.plan import Plan
from arvdm_theory.provenance import provenance
from arvdm_theory.signals import deferred_stop
from arvdm_theory.training.checkpoint import (
    CheckpointError,
    checkpoints,
    clear_leftovers,
    differences,
    json_form,
    last_good,
    save_checkpoint,
)
from arvdm_theory.training.config import TrainingConfig, TrainingError
from arvdm_theory.training.devices import resolve_device
from arvdm_theory.training.history import History
from arvdm_theory.training.state import TrainingState, start_state
from arvdm_theory.training.windows import WindowSampler

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

__all__ = ["Trained", "describe", "train"]

# What may change from one start of a run to the next: it decides what is kept and where, not what comes out.
_FREE = ("device", "checkpoint_every", "keep", "log_every", "tensorboard")


@dataclass(frozen=True)
class Trained:
    """The outcome of a run.

    Attributes:
        denoiser: the averaged weights, in evaluation mode, on the device that trained them.
        history: a row every ``log_every`` updates: step, loss and gradient norm (means since the last row),
            learning rate, and the seconds of training so far.
        folder: where the checkpoints, ``history.csv``, a provenance of every start and ``tensorboard`` lie.
    """

    denoiser: Denoiser
    history: pd.DataFrame
    folder: Path


def train(
    denoiser_config: DenoiserConfig,
    plan: Plan,
    source: VideoSource,
    training_config: TrainingConfig,
    folder: str | Path,
    resume: bool = True,
    progress: bool = True,
    note: Mapping[str, Any] | None = None,
) -> Trained:
    """Trains a denoiser on the windows of a plan, or goes on where an earlier call in ``folder`` stopped.

    Ctrl-C or SIGTERM ends the run at the end of the update it is in, with a checkpoint (with several processes: at
    the next row of the history or checkpoint); a second one ends it at once. A damaged last checkpoint is passed
    over for the last good one, with a warning. A second call in the same folder waits until the first has ended.

    Args:
        denoiser_config: the network.
        plan: its windows, levels and references.
        source: the videos.
        training_config: how.
        folder: of the run; made if need be.
        resume: whether to go on from the folder's last checkpoint; if not, a folder with one is refused.
        progress: whether to show a progress bar.
        note: JSON values that every checkpoint carries beside the run's own.

    Raises:
        TrainingError: if network, plan and videos do not fit together, if the folder holds another run (naming the
            field that differs), or if the loss or the gradient stops being finite (naming the step and the last
            good checkpoint).
        CheckpointError: if there are checkpoints and none is whole. They are left as they are.
        LimitError: if the first updates tell that the rest would take more than :data:`~arvdm_theory.limits.HOURS`
            (one process only; not within :func:`~arvdm_theory.limits.unlimited`).
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written; after SIGTERM, its subclass
            :class:`~arvdm_theory.signals.Terminated`.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs  # type: ignore[import-untyped]

    config, folder = training_config, Path(folder)
    _check_fit(denoiser_config, plan, source, config)
    # Precision is this library's own affair; a stage without references leaves the weights that read them unused.
    accelerator = Accelerator(
        mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )
    described = describe(denoiser_config, plan, source, config)
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(config.seed)
        state = start_state(denoiser_config, config)
        device = _device(state.network.dtype, config, accelerator)
        state.to(device)
        if accelerator.num_processes > 1:
            torch.manual_seed(config.seed + accelerator.process_index)
        with locked(folder) if accelerator.is_main_process else nullcontext():
            _resume(state, described, folder, resume, accelerator, device)
            run = _Run(state, plan, source, config, folder, accelerator, device, described, note or {})
            return run.go(progress)


def describe(denoiser: DenoiserConfig, plan: Plan, source: VideoSource, config: TrainingConfig) -> dict[str, Any]:
    """All that makes a run what it is, as JSON values; a checkpoint carries it.

    Videos are known by a few of their numbers: the moments of a small draw, and its first entries.
    """
    frames = plan.total_frames(config.ar_steps)
    sample = source.draw(8, frames, Generator().manual_seed(0))
    probe = [sample.frames] if sample.actions is None else [sample.frames, sample.actions]
    numbers = [
        # Five digits: the last ones differ from one machine to the next.
        [float(f"{value:.5g}") for value in (part.mean().item(), part.std().item(), *part.flatten()[:4].tolist())]
        for part in (values.to(torch.float64) for values in probe)
    ]
    described = {
        "denoiser": denoiser.to_json(),
        "plan": {key: value for key, value in dataclasses.asdict(plan).items() if key != "name"},
        "training": config.to_json(),
        "source": {
            "frame_shape": list(source.frame_shape),
            "action_dim": source.action_dim,
            "sample": numbers,
        },
    }
    formed: dict[str, Any] = json_form(described)
    return formed


class _Run:
    """One start of a run: what it works with, and its loop."""

    def __init__(
        self,
        state: TrainingState,
        plan: Plan,
        source: VideoSource,
        config: TrainingConfig,
        folder: Path,
        accelerator: Accelerator,
        device: torch.device,
        described: dict[str, Any],
        note: Mapping[str, Any],
    ) -> None:
        self.state, self.config, self.folder, self.described, self.note = state, config, folder, described, note
        self.accelerator, self.device = accelerator, device
        self.sampler = WindowSampler(
            plan,
            config.ar_steps,
            source,
            levels=config.levels,
            init_share=config.init_share,
            weighting=config.weighting,
            precision=state.network.output_precision,
            step=config.reverse_step,
            dtype=state.network.dtype,
            first_ar_step=config.first_ar_step,
        )
        self.unsettled: list[Tensor] = []
        self.saved = state.step if checkpoints(folder) else -1
        self.started = time.perf_counter() - state.seconds

    def go(self, progress: bool) -> Trained:
        """Updates until the last, with the log and the checkpoints."""
        state, config, main = self.state, self.config, self.accelerator.is_main_process
        alone = self.accelerator.num_processes == 1
        model = self.accelerator.prepare_model(state.network, device_placement=False)
        model.train()
        going_on = state.step < config.steps
        history = (
            History(self.folder, state.history, state.step, config.tensorboard and going_on) if main else None
        )
        try:
            if main and state.step < config.steps:
                self._write_provenance()
            bar = tqdm(
                total=config.steps,
                initial=state.step,
                desc="training",
                disable=not (progress and main) or None,
                leave=False,
            )
            pace = Pace(f"the training ({config.steps} updates)", config.steps - state.step)
            with bar, deferred_stop() as stop_if_told:
                while state.step < config.steps:
                    self._update(model)
                    bar.update()
                    if alone:
                        pace.round()
                    step = state.step
                    row = step % config.log_every == 0 or step == config.steps
                    kept = step % config.checkpoint_every == 0 or step == config.steps
                    if row or kept:
                        self._settle()
                    if row:
                        self._log(history, bar)
                    if kept:
                        self._save()
                    told = _told(stop_if_told)
                    if not alone:
                        told = self._anywhere(told) if row or kept else None
                    if told is not None:
                        self._settle()
                        self._save()
                        raise told
            table = history.table() if history is not None else pd.DataFrame()
        finally:
            if history is not None:
                history.__exit__(None, None, None)
        self.accelerator.wait_for_everyone()
        return Trained(state.average, table, self.folder)

    def _update(self, model: torch.nn.Module) -> None:
        state, config = self.state, self.config
        step, accelerator = state.step + 1, self.accelerator
        batch = self.sampler.draw(config.batch, config.seed, step)
        batch = batch.share(accelerator.process_index, accelerator.num_processes).to(self.device)
        for group in state.optimiser.param_groups:
            group["lr"] = config.rate(step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            denoised = model(batch.window, batch.levels, batch.references)
        loss = batch.loss(denoised)
        state.optimiser.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.grad_clip)
        state.optimiser.step()
        state.update_average(config.decay(step))
        state.step = step
        self.unsettled.append(torch.stack([loss.detach(), norm.to(loss)]))

    def _settle(self) -> None:
        """Moves what was logged since the last time off the device, averaged over processes, and checks it.

        Raises:
            TrainingError: if a loss or a gradient was not finite.
        """
        state = self.state
        if not self.unsettled:
            return
        values = self.accelerator.reduce(torch.stack(self.unsettled), reduction="mean").cpu().to(torch.float64)
        first, self.unsettled = state.step - len(values) + 1, []
        bad = torch.nonzero(~torch.isfinite(values).all(1))
        if len(bad):
            at = int(bad[0])
            found = checkpoints(self.folder)
            last = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
            raise TrainingError(
                f"step {first + at}: the loss is {float(values[at, 0])} and its gradient has norm "
                f"{float(values[at, 1])}; {last}"
            )
        state.recent = torch.cat([state.recent, values])

    def _log(self, history: History | None, bar: Any) -> None:
        state = self.state
        state.seconds = time.perf_counter() - self.started
        loss, norm = state.recent.mean(0).tolist()
        state.recent = state.recent[:0]
        if history is not None:
            row = {"step": state.step, "loss": loss, "grad_norm": norm, "seconds": state.seconds}
            history.add({**row, "lr": self.config.rate(state.step)})
            state.history = history.rows
            bar.set_postfix(loss=f"{loss:.4g}", refresh=False)

    def _save(self) -> None:
        """The checkpoint of the last finished update, if it is not there already."""
        state, accelerator = self.state, self.accelerator
        if self.saved == state.step:
            return
        state.seconds = time.perf_counter() - self.started
        rng = {"rng/cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        gathered = {name: accelerator.gather(value[None].to(self.device)) for name, value in rng.items()}
        if accelerator.is_main_process:
            metadata = {**self.described, **self.note, "seconds": state.seconds}
            tensors = {**state.tensors(), **gathered}
            for name, value in tensors.items():
                if name.startswith(("model/", "average/")) and not torch.isfinite(value).all():
                    found = checkpoints(self.folder)
                    last = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
                    raise TrainingError(f"step {state.step}: weight {name!r} is NaN or infinite; {last}")
            save_checkpoint(self.folder, state.step, tensors, metadata, self.config.keep)
        self.saved = state.step

    def _anywhere(self, told: KeyboardInterrupt | None) -> KeyboardInterrupt | None:
        """What this process was told, or any other was."""
        stop = self.accelerator.reduce(
            torch.tensor([float(told is not None)], device=self.device), reduction="sum"
        )
        return told or (KeyboardInterrupt() if stop.item() > 0 else None)

    def _write_provenance(self) -> None:
        start = provenance(self.described, self.config.seed, str(self.device))
        start["versions"] = {**start["versions"], "accelerate": version("accelerate")}
        start |= {"processes": self.accelerator.num_processes, "from_step": self.state.step}
        write_json(self.folder / f"provenance-{self.state.step:08d}.json", start)


def _told(stop_if_told: Callable[[], None]) -> KeyboardInterrupt | None:
    try:
        stop_if_told()
    except KeyboardInterrupt as told:
        return told
    return None


def _check_fit(denoiser: DenoiserConfig, plan: Plan, source: VideoSource, config: TrainingConfig) -> None:
    most = max(len(plan.references_at(k)) for k in range(config.first_ar_step, config.ar_steps + 1))
    for field, has, needed in (
        ("window", denoiser.window, plan.window),
        ("references", denoiser.references, most),
    ):
        if has < needed:
            raise TrainingError(
                f"the network's {field} is {has}, but {config.ar_steps} AR steps of the plan need {needed}"
            )
    if denoiser.frame_shape != tuple(source.frame_shape):
        raise TrainingError(
            f"the network's frame_shape is {denoiser.frame_shape}, the videos' {source.frame_shape}"
        )
    if denoiser.action_dim not in (0, source.action_dim):
        raise TrainingError(f"the network's action_dim is {denoiser.action_dim}, the videos' {source.action_dim}")


def _device(dtype: torch.dtype, config: TrainingConfig, accelerator: Accelerator) -> torch.device:
    ranks = accelerator.num_processes
    if ranks == 1:
        return resolve_device(config.device, dtype)
    if config.batch % ranks:
        raise TrainingError(f"batch must be a multiple of the {ranks} processes, got {config.batch}")
    device: torch.device = accelerator.device
    if config.device not in ("auto", device.type):
        raise TrainingError(f"device is {config.device!r}, but the processes were launched on {device.type!r}")
    return device


def _resume(
    state: TrainingState,
    described: dict[str, Any],
    folder: Path,
    resume: bool,
    accelerator: Accelerator,
    device: torch.device,
) -> None:
    """Brings ``state`` to the folder's last checkpoint, if there is one."""
    if checkpoints(folder) and not resume:
        name = checkpoints(folder)[-1].name
        raise TrainingError(f"{folder} holds a run already ({name}): resume it, or take another folder")
    found = last_good(folder)
    if found is not None:
        path, tensors, metadata = found
        for part in ("denoiser", "plan", "training", "source"):
            for difference in differences(metadata.get(part), described[part], part):
                if difference.split(" ")[0] not in {f"training.{name}" for name in _FREE}:
                    raise TrainingError(f"{path} belongs to another run: {difference}")
        state.restore(tensors, path)
        state.step, state.seconds = int(metadata["step"]), float(metadata["seconds"])
        if state.step > int(described["training"]["steps"]):
            raise CheckpointError(f"{path} is of step {state.step}, beyond the run's last one")
        ranks, rank = accelerator.num_processes, accelerator.process_index
        # On another number of processes the generators of dropout start anew.
        if len(tensors["rng/cpu"]) == ranks:
            torch.set_rng_state(tensors["rng/cpu"][rank])
            if device.type == "cuda" and "rng/cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng/cuda"][rank], device)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
