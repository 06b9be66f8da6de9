"""The linear network: one row of a table a place of the plan's grid."""

import dataclasses

import numpy as np
import pytest
import torch
from oracle_score import OracleScore
from reference_cases import random_video

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import LinearBackbone, linear_config
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

DIM = 2
PLAN = Plan((1.0, 2.0, 3.0), 1, 3.0, 2, 2, references=References.last(2, 0.3) + References.first(1), floor=0.05)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def told(ar_step: int, batch: int) -> ReferenceBatch:
    shown = PLAN.references_at(ar_step)
    return ReferenceBatch(
        draw(batch, len(shown), DIM, seed=1),
        torch.tensor([max(r.level, PLAN.floor) for r in shown], dtype=torch.float64),
        tuple(r.frame for r in shown),
        tuple(PLAN.window_frames(ar_step)),
    )


def start(batch: int) -> ReferenceBatch:
    none = draw(batch, 0, DIM)
    return ReferenceBatch(none, torch.zeros(0, dtype=torch.float64), (), tuple(range(PLAN.init_frames)))


def test_stages_whose_references_stand_alike_share_a_table() -> None:
    shared = linear_config(PLAN, 6, (DIM,))
    # Initialisation, no reference, one, two, and then the first frame moves away at every step.
    assert len(shared.options["stages"]) == 1 + 6
    last = dataclasses.replace(PLAN, references=References.last(2))
    assert len(linear_config(last, 6, (DIM,)).options["stages"]) == 1 + 3
    assert len(linear_config(last, 6, (DIM,), absolute=True).options["stages"]) == 1 + 6
    assert DenoiserConfig.from_json(shared.to_json()) == shared


def test_it_starts_at_the_mean() -> None:
    net = Denoiser(linear_config(PLAN, 2, (DIM,), data_mean=0.4, data_scale=2.0))
    levels = torch.tensor(PLAN.ar_grid[0], dtype=torch.float64)
    assert torch.equal(net(draw(5, 3, DIM), levels, told(2, 5)), torch.full((5, 3, DIM), 0.4, dtype=torch.float64))


def test_it_holds_the_exact_score_of_a_gaussian_video() -> None:
    """Least squares on exact scores' denoised frames recovers E[X | W, R] at every place of the grid."""
    covariance, mean = (torch.from_numpy(part) for part in random_video(PLAN.total_frames(3), DIM, 0))
    net = Denoiser(linear_config(PLAN, 3, (DIM,), data_mean=0.3, data_scale=1.4, absolute=True))
    score = net.as_score()
    for ar_step in range(4):
        law = ArrayVideo(covariance, DIM, mean).at(PLAN.stage(ar_step)).window
        given = told(ar_step, 40) if ar_step else start(40)
        window = draw(40, len(given.window_frames), DIM, seed=2)
        grid = PLAN.ar_grid if ar_step else PLAN.init_grid
        for m, row in enumerate(grid[:-1]):
            levels = torch.tensor(row, dtype=torch.float64)
            exact = oracle(covariance.numpy(), mean.numpy(), window, levels, given)
            assert law.levels[m].tolist() == list(row)
            backbone = net.backbone
            assert isinstance(backbone, LinearBackbone)
            number, places = backbone.place(levels.expand(40, -1), given)
            assert (number, places.tolist()) == (ar_step, [m] * 40)
            fit(net, window, levels, given, exact)
            # 40 draws of at most 13 regressors: a condition number below 100, and a division by σ² = 0.05.
            torch.testing.assert_close(score(window, levels, given), exact, rtol=0, atol=1e-10)


def oracle(
    covariance: np.ndarray, mean: np.ndarray, window: torch.Tensor, levels: torch.Tensor, given: ReferenceBatch
) -> torch.Tensor:
    return OracleScore(covariance, mean, DIM)(window, levels, given)


def fit(
    net: Denoiser, window: torch.Tensor, levels: torch.Tensor, given: ReferenceBatch, exact: torch.Tensor
) -> None:
    """Sets a row of the table by least squares of F on what the backbone is shown."""
    config, backbone = net.config, net.backbone
    assert isinstance(backbone, LinearBackbone)
    number, places = backbone.place(levels.expand(len(window), -1), given)

    def unit(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        a2 = torch.exp(-at)[:, None]
        return (values - a2.sqrt() * config.data_mean) / torch.sqrt(a2 * config.data_scale**2 + 1 - a2)

    a2 = torch.exp(-levels)[:, None]
    clean = (window + (1 - a2) * exact) / a2.sqrt()
    shown = backbone.inputs(
        unit(window, levels), dataclasses.replace(given, values=unit(given.values, given.levels))
    )
    target = ((clean - config.data_mean) / config.data_scale).flatten(1)
    with torch.no_grad():
        backbone.tables[number][places[0]] = torch.linalg.lstsq(shown, target).solution.T


def test_videos_of_a_batch_may_stand_at_different_rows() -> None:
    net = Denoiser(linear_config(PLAN, 2, (DIM,)))
    with torch.no_grad():
        for table in net.parameters():
            table.copy_(draw(*table.shape, seed=3))
    rows = torch.tensor(PLAN.ar_grid[:-1], dtype=torch.float64)
    window, given, pick = draw(5, 3, DIM), told(2, 5), torch.tensor([1, 0, 0, 1, 1])
    mixed = net(window, rows[pick], given)
    for row in (0, 1):
        alone = net(window, rows[row], given)[pick == row]
        torch.testing.assert_close(mixed[pick == row], alone, rtol=0, atol=1e-12)


def test_what_the_table_does_not_hold_is_refused() -> None:
    net = Denoiser(linear_config(PLAN, 2, (DIM,)))
    levels, given = torch.tensor(PLAN.ar_grid[0], dtype=torch.float64), told(2, 5)
    window = draw(5, 3, DIM)
    net(window, levels + 1e-6, given)
    with pytest.raises(ModelError, match=r"knows only its plan's levels; these are 0\.2 away from them"):
        net(window, levels - torch.tensor([0, 0, 0.2]), given)
    with pytest.raises(ModelError, match="no table for 3 window frames from frame 1 with references"):
        net(window, levels, dataclasses.replace(given, levels=given.levels + 0.1))
    with pytest.raises(ModelError, match="no table for 1 window frames"):
        net(window[:, :1], levels[:1], dataclasses.replace(given, window_frames=(1,)))
    absolute = Denoiser(linear_config(PLAN, 2, (DIM,), absolute=True))
    with pytest.raises(ModelError, match="no table for 3 window frames from frame 9"):
        absolute(
            window, levels,
            dataclasses.replace(given, frames=(8,), window_frames=(9, 10, 11)),
        )  # fmt: skip


def test_a_linear_network_is_made_by_linear_config() -> None:
    for config in (
        DenoiserConfig("linear", (DIM,), 3),
        dataclasses.replace(linear_config(PLAN, 2, (DIM,)), action_dim=1),
    ):
        with pytest.raises(ModelError, match=r"has the option 'stages' .* and no actions"):
            Denoiser(config)
