"""Steps a second of the training loop against a plain PyTorch loop of the same network.

Usage: python experiments/benchmarks/training.py [--repeats 5] [--steps 60] [--architecture unet]

Both draw the same batches from the same sampler, clip, average and log alike; what the loop adds is its
processes, its resumable state and its checks. The two take turns, and each figure is the median of the repeats:
seconds on the wall, and of processor time, which a busy machine disturbs less.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from arvdm_theory import PixelVideo, References, VideoBatch, fifo
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import train
from arvdm_theory.training.sources import DatasetSource, dataset_source
from arvdm_theory.training.windows import WindowSampler

PLAN = fifo(4, References.last(2), 5, 5)


class Timed:
    """Marks the time whenever a batch is asked for, which both loops do once a step."""

    def __init__(self, inner: DatasetSource) -> None:
        self.inner, self.frame_shape, self.action_dim = inner, inner.frame_shape, inner.action_dim
        self.marks: list[tuple[float, float]] = []

    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
        self.marks.append((time.perf_counter(), time.process_time()))
        return self.inner.draw(videos, frames, generator)

    def seconds_a_step(self, steps: int) -> tuple[float, float]:
        (wall, cpu), (wall_end, cpu_end) = self.marks[-steps], self.marks[-1]
        return (wall_end - wall) / (steps - 1), (cpu_end - cpu) / (steps - 1)


def library(network: DenoiserConfig, config: TrainingConfig, source: Timed) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(network, PLAN, source, config, folder, progress=False)


def plain(network: DenoiserConfig, config: TrainingConfig, source: Timed) -> None:
    torch.manual_seed(config.seed)
    model, average = Denoiser(network), Denoiser(network)
    average.load_state_dict(model.state_dict())
    weights, averages = list(model.parameters()), list(average.parameters())
    optimiser = torch.optim.AdamW(weights, lr=config.lr, betas=config.betas, weight_decay=0.0)
    sampler = WindowSampler(PLAN, config.ar_steps, source, precision=model.output_precision)
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)
        with (Path(folder) / "history.csv").open("w") as file:
            for step in range(1, config.steps + 1):
                batch = sampler.draw(config.batch, config.seed, step)
                for group in optimiser.param_groups:
                    group["lr"] = config.rate(step)
                loss = batch.loss(model(batch.window, batch.levels, batch.references))
                optimiser.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
                optimiser.step()
                with torch.no_grad():
                    torch._foreach_lerp_(averages, weights, 1 - config.decay(step))
                losses.append(loss.detach())
                if step % config.log_every == 0:
                    mean = float(torch.stack(losses).mean())
                    file.write(f"{step},{mean},{config.rate(step)},{float(norm)}\n")
                    writer.add_scalar("loss", mean, step)
                    writer.add_scalar("lr", config.rate(step), step)
                    writer.add_scalar("grad_norm", float(norm), step)
                    losses.clear()
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--architecture", choices=("unet", "mlp"), default="unet")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    video = PixelVideo(16, 16, PowerLaw(), ExponentialMemory(tau=10.0, exponent=1.0), variance=1.0)
    frames = video.sample_pixels(64, 10, torch.Generator().manual_seed(0)).float()
    options = {"width": 16} if args.architecture == "unet" else {"width": 128, "depth": 2}
    network = DenoiserConfig(args.architecture, (16, 16, 1), PLAN.window, references=2, options=options)
    config = TrainingConfig(args.steps, batch=8, warmup=5, device="cpu", log_every=10, checkpoint_every=10**6)
    loops: dict[str, Callable[[DenoiserConfig, TrainingConfig, Timed], None]] = {
        "plain": plain,
        "library": library,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for repeat in range(args.repeats + 1):
        # The first round warms up; the order turns round each time.
        for name in loops if repeat % 2 else reversed(loops):
            source = Timed(dataset_source(frames))
            loops[name](network, config, source)
            if repeat:
                found[name].append(source.seconds_a_step(args.steps))
    weights = sum(weight.numel() for weight in Denoiser(network).parameters())
    print(f"{args.architecture}, {weights} weights, batch {config.batch}")
    print(f"{'loop':<10} {'steps/s':>9} {'wall ms':>9} {'CPU ms':>9} {'wall ratio':>11} {'CPU ratio':>10}")
    base = [statistics.median(values) for values in zip(*found["plain"], strict=True)]
    for name, pairs in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratios = f"{wall / base[0]:11.3f} {cpu / base[1]:10.3f}"
        print(f"{name:<10} {1 / wall:9.1f} {1e3 * wall:9.2f} {1e3 * cpu:9.2f} {ratios}")
    # Pairs that ran next to each other, whose spread is the machine's.
    each = [ours[1] / theirs[1] for ours, theirs in zip(found["library"], found["plain"], strict=True)]
    print("CPU ratio of each pair: " + ", ".join(f"{ratio:.3f}" for ratio in each))


if __name__ == "__main__":
    main()
