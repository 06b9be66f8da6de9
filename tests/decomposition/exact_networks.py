"""Networks that know a Gaussian video exactly: a table of a linear denoiser, and plain callables of every kind."""

from __future__ import annotations

import torch
from oracle_score import OracleScore
from torch import Tensor

from arvdm_theory import GaussianVideo, NetworkScore, Plan, ReferenceBatch
from arvdm_theory.diffusion.prediction import Prediction
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import LinearBackbone, linear_config
from arvdm_theory.noise import alpha, sigma2

__all__ = ["linear_denoiser", "own_network"]


def linear_denoiser(
    video: GaussianVideo, plan: Plan, ar_steps: int, error: float = 0.0, seed: int = 0
) -> Denoiser:
    """E[X | W, R] = (W + σ² s*)/α in a linear denoiser's tables, plus random errors of that size."""
    denoiser = Denoiser(linear_config(plan, ar_steps, (video.frame_dim,), absolute=True))
    assert isinstance(denoiser.backbone, LinearBackbone)
    generator = torch.Generator().manual_seed(seed)
    laws = [video.at(plan.stage(k)).window for k in range(ar_steps + 1)]
    for law, table in zip(laws, denoiser.backbone.tables, strict=True):
        on_window, on_refs, bias = (part[:, 0] for part in law.raw(law.score))
        scale, variance = law.per_entry(alpha(law.levels))[:-1], law.per_entry(sigma2(law.levels))[:-1]
        eye = torch.eye(on_window.shape[-1], dtype=torch.float64)
        rows = torch.cat([on_window, on_refs, bias.unsqueeze(-1)], -1) * variance.mT
        rows[..., : len(eye)] += eye
        with torch.no_grad():
            table.copy_(
                rows / scale.mT + error * torch.randn(table.shape, generator=generator, dtype=torch.float64)
            )
    return denoiser


def own_network(covariance: object, mean: object, dim: int, prediction: Prediction) -> NetworkScore:
    """The exact score of a video as a network of one's own would say it: nothing but a callable."""
    oracle = OracleScore(covariance, mean, dim)  # type: ignore[arg-type]

    def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
        assert actions is None
        if prediction == "flow":
            # It is shown x_u and u = σ/(α + σ), and knows that σ/α = u/(1 - u).
            ratio = levels / (1 - levels)
            levels = torch.log1p(ratio**2)
            window = window * (torch.exp(-levels / 2) * (1 + ratio)).unsqueeze(-1)
        a, s = (torch.sqrt(v).unsqueeze(-1) for v in (1 - sigma2(levels), sigma2(levels)))
        score = oracle(window, levels, references)
        clean, noise = (window + s**2 * score) / a, -s * score
        said = {"x0": clean, "epsilon": noise, "v": a * noise - s * clean, "flow": noise - clean, "score": score}
        return said[prediction]

    return NetworkScore(network, prediction, dtype=torch.float64)
