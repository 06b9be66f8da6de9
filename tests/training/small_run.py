"""A training run of a few seconds, for the tests: ``python small_run.py FOLDER [STEPS] [FIELD=VALUE ..]``."""

import json
import sys
import time
from pathlib import Path

import torch

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.plan.methods import fifo
from arvdm_theory.plan.references import References
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import Trained, train

PLAN = fifo(4, References.last(3), 5, 5)
NETWORK = DenoiserConfig("mlp", (2,), window=4, references=3, options={"width": 16, "depth": 1})


class SlowSource:
    """The reference video, leaving the parent process the time to interrupt."""

    frame_shape, action_dim = (2,), 0

    def __init__(self, pause: float) -> None:
        self.video, self.pause = reference_video(), pause

    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
        time.sleep(self.pause)
        return self.video.draw(videos, frames, generator)


def config(**changes: object) -> TrainingConfig:
    fields = {
        "steps": 60, "batch": 8, "warmup": 5, "lr": 1e-2, "device": "cpu", "checkpoint_every": 7, "log_every": 4,
        "weight_decay": 0.01, "tensorboard": False, "seed": 3, "keep": 3,
    }  # fmt: skip
    return TrainingConfig(**{**fields, **changes})


def run(folder: Path, pause: float = 0.0, network: DenoiserConfig = NETWORK, **changes: object) -> Trained:
    return train(network, PLAN, SlowSource(pause), config(**changes), folder, progress=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    settings = {key: json.loads(value) for key, value in (word.split("=") for word in sys.argv[2:])}
    run(Path(sys.argv[1]), **settings)
