"""``arvdm video train``: one network with a memory, trained on first-person video; resumable."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import seed, whole
from arvdm_theory.video.simulators import SIMULATORS

if TYPE_CHECKING:
    from arvdm_theory.video.runs import VideoRun

# As arvdm_theory.video.presets has them, which would import torch.
PRESETS = (
    "smoke", "cpu", "cpu-walk", "cpu-between", "cpu-slip", "cpu-walk-slip", "cpu-far", "cpu-farthest", "cpu-long",
    "smoke-history", "cpu-history", "gpu",
)  # fmt: skip

# As arvdm_theory.video.memory_plans has them.
PLANS = ("outpainting", "fifo", "rolling", "pyramid")

__all__ = ["PLANS", "PRESETS", "add_data_options", "configure", "run", "run_from"]

EXAMPLES = (
    "arvdm video train --preset smoke --memory cross --out demo/cross",
    "arvdm video train --preset smoke --memory none --out demo/none",
)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that one network and a sweep over networks have in common."""
    add = parser.add_argument
    add("--data", choices=list(SIMULATORS), default="dmlab", help="which videos")
    add("--folder", metavar="DIR", default=None,
        help="of a data set laid out as TECO's (default: the stand-in's simulator makes one)")  # fmt: skip
    add("--leads-to", choices=("next", "this"), default="next",
        help="the frame that an action of its files leads to: of the same number, or the next")  # fmt: skip
    add("--preset", choices=PRESETS, default="cpu",
        help="smoke: does it run; cpu: 16 x 16 pixels, turning in place; cpu-walk: walking; cpu-between: views "
        "between remembered ones; cpu-slip, cpu-walk-slip: steps slip, no view is met twice; cpu-far, "
        "cpu-farthest: 32 and 112 remembered frames; cpu-long: 32 x 32, walking; gpu: full size")  # fmt: skip
    add("--size", type=whole(), metavar="PX", default=None, help="height and width (default: the preset's)")
    add(
        "--memory-frames",
        type=whole(),
        metavar="M",
        default=None,
        help="that are remembered (default: the preset's)",
    )
    add("--compress", type=whole(), metavar="R", default=1, help="so many parts of the memory become one")
    add("--compression", choices=("spatial", "temporal", "tokens"), default="spatial",
        help="the parts: places (R is a square number), frames in a row, or learned tokens")  # fmt: skip
    add("--plan", choices=PLANS, default="outpainting",
        help="generate whole windows, one frame or half a window after another down a staircase of noise levels, "
        "or whole windows whose frames begin one after another")  # fmt: skip
    add("--architecture", choices=("transformer", "unet"), default=None, help="default: the preset's first")
    add(
        "--told",
        choices=("poses", "reckoned", "actions"),
        default="poses",
        help="what networks are told of a frame: where it was taken, where the actions add up to, or the actions",
    )
    add("--worlds", type=seed, default=0, metavar="S", help="seed of the simulated worlds")
    add("--steps", type=whole(), metavar="N", default=None, help="updates of the training (default: the preset's)")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="auto: CUDA, else MPS, else CPU")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "A killed or interrupted run goes on from its last checkpoint when the command is given again. Next: "
        "arvdm video sample --run DIR."
    )
    add_data_options(parser)
    add = parser.add_argument
    add("--memory", choices=("none", "prepend", "concat", "cross"), default="cross",
        help="how the network is shown remembered frames; none: it sees the short context alone")  # fmt: skip
    add("--seed", type=seed, default=0, metavar="S", help="of weights, batches and samples")
    add("--out", required=True, metavar="DIR", help="folder of the run: data, checkpoints, history")


def run_from(args: argparse.Namespace, **chosen: Any) -> VideoRun:
    """The run that the options describe, ``chosen`` fields over them."""
    from arvdm_theory.video.runs import VideoRun

    names = (
        "data", "folder", "leads_to", "preset", "size", "memory_frames", "compress", "compression", "plan",
        "architecture", "told", "worlds", "steps", "device",
    )  # fmt: skip
    return VideoRun(**{**{name: getattr(args, name) for name in names}, **chosen})


def run(args: argparse.Namespace) -> int:
    """Trains, or goes on with it; prints where the run lies."""
    from pathlib import Path

    from arvdm_theory.files import check_folder
    from arvdm_theory.training.devices import resolve_device
    from arvdm_theory.video.runs import train_run

    check_folder("--out", args.out)
    resolve_device(args.device)
    chosen, folder = run_from(args, memory=args.memory, seed=args.seed), Path(args.out)
    trained = train_run(chosen, folder)
    size = sum(weight.numel() for weight in trained.denoiser.parameters())
    last = trained.history.iloc[-1]
    print(
        f"{size:,} weights, {int(last['step'])} updates in {last['seconds']:.0f} s, last loss {last['loss']:.4g}; "
        f"the run is in {folder}"
    )
    return 0
