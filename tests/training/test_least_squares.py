"""Least squares for the linear denoiser: the textbook's excess loss, and what resampling the noise buys."""

import math

import pytest
import torch

from arvdm_theory.information.gaussian import condition
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.linear import exponential_video, reference_video
from arvdm_theory.laws.states import State
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import linear_config
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.training.least_squares import fit_linear
from arvdm_theory.training.windows import WindowSampler

FIFO = fifo(4, References.last(3), 5, 5)


def sampler(dtype: torch.dtype) -> WindowSampler:
    return WindowSampler(FIFO, 2, reference_video(), weighting="x0", dtype=dtype)


def test_least_squares_has_the_excess_loss_of_the_textbook() -> None:
    """(n + 1)(n - 2)/(n (n - p - 1)) of the mmse, averaged over fits: within five standard errors."""
    video, plan, n = exponential_video(0.8), outpainting(1, References.last(1, level=0.1), 3, 1), 30
    drawer = WindowSampler(plan, 1, video, weighting="x0", dtype=torch.float64)
    network = Denoiser(linear_config(plan, 1, (1,)))
    ratios: list[list[float]] = []
    for seed in range(150):
        fit_linear(network, drawer, n, seed)
        ratios.append([_excess(network, video, plan, row) for row in range(3)])
    found = torch.tensor(ratios, dtype=torch.float64)
    p = 3  # the window's frame, the reference, the constant
    expected = (n + 1) * (n - 2) / (n * (n - p - 1)) - 1
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - expected).abs() < 5 * error).all()
    assert (error < 0.15 * expected).all()


def test_a_fit_is_the_same_to_the_last_bit_whatever_lay_in_the_memory_before() -> None:
    """What cells compute is compared byte for byte; PyTorch's default driver reads memory that it never set."""
    drawer = sampler(torch.float64)
    found = set()
    for number in range(6):
        for size in range(1, 40):  # freed at once, to be handed out again
            torch.full((size,), number - 3, dtype=torch.int32)
        network = fit_linear(Denoiser(linear_config(FIFO, 2, (2,))), drawer, 40, seed=1)
        found.add(torch.cat([table.detach().flatten() for table in network.parameters()]).numpy().tobytes())
    assert len(found) == 1


def _excess(network: Denoiser, video: GaussianVideo, plan: Plan, row: int) -> float:
    """E(x̂ - x*)²/mmse of a one-frame window with one reference, from the exact covariance."""
    k = 1
    (frame,), (reference,) = plan.window_frames(k), plan.references_at(k)
    level = plan.ar_grid[row][0]
    states = [State(frame, 0.0), State(frame, level), State(reference.frame, reference.level)]
    covariance = video.joint(states)[1][0]
    best, residual = condition(covariance, [0], [1, 2])
    at = torch.tensor([level], dtype=torch.float64)
    probe = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    told = torch.tensor([reference.level], dtype=torch.float64)
    batch = ReferenceBatch(probe[:, 1:, None], told, (reference.frame,), (frame,))
    with torch.no_grad():
        value = network(probe[:, :1, None], at, batch).flatten()
    gap = torch.stack([value[1] - value[0], value[2] - value[0]]) - best[0]
    return float((gap @ covariance[1:, 1:] @ gap + value[0] ** 2) / residual[0, 0])


def test_least_squares_with_many_noisings_leaves_the_videos_own_error() -> None:
    """Noise averaged out: the fit depends on the drawn videos alone, so two noise draws agree ever better."""
    plan = FIFO

    def spread(resamples: int) -> float:
        fits = []
        for seed in (0, 1):
            network = fit_linear(Denoiser(linear_config(plan, 2, (2,))), _Fixed.sampler(plan), 40, seed, resamples)
            fits.append(torch.cat([table.detach().flatten() for table in network.backbone.tables]))
        return float((fits[0] - fits[1]).norm())

    # The noise's part of the error falls like r^{-1/2}: by 8 from 1 to 64 times; half of that is asked.
    assert spread(64) < spread(1) / 4


class _Fixed:
    """The same forty videos at every draw."""

    frame_shape, action_dim = (2,), 0
    kept = reference_video().sample(40, 12, torch.Generator().manual_seed(9))[:, 0]

    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
        return VideoBatch(self.kept[:videos, :frames])

    @classmethod
    def sampler(cls, plan: Plan) -> WindowSampler:
        return WindowSampler(plan, 2, cls(), weighting="x0", dtype=torch.float64)


def test_least_squares_refuses_what_it_cannot_fit() -> None:
    plan, drawer = FIFO, sampler(torch.float64)
    network = Denoiser(linear_config(plan, 2, (2,)))
    with pytest.raises(ValueError, match="regressors need as many rows"):
        fit_linear(network, drawer, 5)
    with pytest.raises(ValueError, match="float64"):
        fit_linear(network, sampler(torch.float32), 50)
    with pytest.raises(ValueError, match="linear denoiser"):
        fit_linear(Denoiser(DenoiserConfig("mlp", (2,), 4, 3)), drawer, 50)
