"""What changes during a run: the network, its average, the optimiser; as tensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW

from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.training.checkpoint import CheckpointError, load_state, under
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.history import COLUMNS

__all__ = ["TrainingState", "start_state"]


@dataclass
class TrainingState:
    """A run after ``step`` updates.

    Attributes:
        network: the weights being trained.
        average: their exponential moving average.
        optimiser: AdamW, whose moments are found by the weights' names.
        names: of the weights, in the optimiser's order.
        step: updates done.
        seconds: spent on them.
        recent: loss and gradient norm of every update since the last row of the history, float64, (n, 2).
        history: its rows, as :data:`~arvdm_theory.training.history.COLUMNS` names them.
    """

    network: Denoiser
    average: Denoiser
    optimiser: AdamW
    names: tuple[str, ...]
    step: int = 0
    seconds: float = 0.0
    recent: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.float64))
    history: list[tuple[float, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._weights: list[Tensor] = list(self.network.parameters())
        self._averages: list[Tensor] = list(self.average.parameters())

    def to(self, device: torch.device) -> None:
        """Moves the weights; to be done before the first update, as the moments stay where they are made."""
        self.network.to(device)
        self.average.to(device)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Average ← decay · average + (1 - decay) · weights; other buffers are copied."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for kept, new in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(new)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        found = {f"model/{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"average/{name}": value for name, value in self.average.state_dict().items()}
        moments = self.optimiser.state_dict()["state"]
        for index, name in enumerate(self.names):
            # A weight that no batch has used yet has none.
            found |= {f"optimiser/{key}/{name}": value for key, value in moments.get(index, {}).items()}
        found["recent"] = self.recent
        found["history"] = torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(COLUMNS))
        return found

    def restore(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """The inverse of :meth:`tensors`, from the checkpoint ``path``.

        Raises:
            CheckpointError: if something is missing, unknown or of another shape.
        """
        for name, columns in (("recent", 2), ("history", len(COLUMNS))):
            if name not in tensors or tensors[name].ndim != 2 or tensors[name].shape[1] != columns:
                raise CheckpointError(f"{path} lacks {name!r}, numbers in {columns} columns")
        load_state(self.network, under(tensors, "model"), path)
        load_state(self.average, under(tensors, "average"), path)
        moments: dict[int, dict[str, Tensor]] = {}
        place = {name: index for index, name in enumerate(self.names)}
        for label, value in under(tensors, "optimiser").items():
            key, _, name = label.partition("/")
            if name not in place:
                raise CheckpointError(f"{path} has moments of the unknown weight {name!r}")
            moments.setdefault(place[name], {})[key] = value
        self.optimiser.load_state_dict(
            {"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]}
        )
        self.recent = tensors["recent"]
        self.history = [(int(row[0]), *row[1:]) for row in tensors["history"].tolist()]


def start_state(denoiser_config: DenoiserConfig, config: TrainingConfig) -> TrainingState:
    """A run before its first update, on the CPU; its weights are a function of PyTorch's global generator."""
    network = Denoiser(denoiser_config)
    average = Denoiser(denoiser_config)
    average.load_state_dict(network.state_dict())
    average.requires_grad_(False).eval()
    named = list(network.named_parameters())
    matrices = [(name, weight) for name, weight in named if weight.ndim >= 2]
    rest = [(name, weight) for name, weight in named if weight.ndim < 2]
    optimiser = AdamW(
        [
            {"params": [weight for _, weight in matrices], "weight_decay": config.weight_decay},
            {"params": [weight for _, weight in rest], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
    )
    return TrainingState(network, average, optimiser, tuple(name for name, _ in matrices + rest))
