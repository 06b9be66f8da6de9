"""Training windows: the right law at every place of a plan, drawn again at will, weighted as the ledger counts."""

import math

import pytest
import torch
from torch import Tensor

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.laws.states import State
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import linear_config
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.training.least_squares import fit_linear
from arvdm_theory.training.windows import HISTORY_LEVEL, TrainingBatch, WindowSampler, step_generator

PLANS = {
    "fifo": fifo(4, References.last(3), 5, 5),
    "outpainting": outpainting(2, References.last(2, level=0.2), 4, 4),
    "floor": Plan(
        (1.5, 3.0, 3.0, 3.0), 2, 3.0, 4, output_levels=(0.05, 0.05, 1.5, 3.0), floor=0.05,
        references=References.last(2, 0.3) + References.first(1),
    ),
}  # fmt: skip


def sampler(plan: Plan, ar_steps: int = 4, **options: object) -> WindowSampler:
    return WindowSampler(
        plan, ar_steps, reference_video(), **{"weighting": "x0", "dtype": torch.float64, **options}
    )


def same(a: TrainingBatch, b: TrainingBatch) -> bool:
    pairs = [(a.window, b.window), (a.levels, b.levels), (a.clean, b.clean), (a.weight, b.weight)]
    pairs.append((a.references.values, b.references.values))
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    first, second = sampler(PLANS["fifo"]), sampler(PLANS["fifo"])
    drawn = [first.draw(8, 5, step) for step in range(6)]
    for step in reversed(range(6)):
        torch.rand(3)
        assert same(second.draw(8, 5, step), drawn[step])
    assert not any(same(a, b) for i, a in enumerate(drawn) for b in drawn[:i] if a.window.shape == b.window.shape)
    assert not torch.equal(first.draw(8, 6, 0).clean[:, 0], drawn[0].clean[:, 0])


def test_no_two_steps_of_a_run_share_their_seed() -> None:
    seeds = {step_generator(1, step).initial_seed() for step in range(20000)}
    assert len(seeds) == 20000
    # Two runs that began at other places of one sequence would have all later steps in common.
    other = {step_generator(2, step).initial_seed() for step in range(20000)}
    assert len(seeds & other) <= 3  # 20000² / 2³² = 0.09 are expected


@pytest.mark.parametrize("name", PLANS)
def test_windows_and_references_have_the_law_of_the_plan(name: str) -> None:
    """Their sample moments against the joint law that the exact ledger uses."""
    plan, video, n = PLANS[name], reference_video(), 40_000
    drawer = sampler(plan)
    for number in (0, 1, 3):
        stage = drawer.stages[number]
        row = stage.steps // 2
        generator = torch.Generator().manual_seed(number)
        clean = drawer.source.draw(n, stage.frames.stop, generator)
        levels = stage.levels[row].expand(n, -1)
        batch = drawer.noised(number, clean, levels, levels, generator)
        parts = [batch.window, batch.clean, batch.references.values]
        sample = torch.cat([part.flatten(1) for part in parts], 1)
        k = number
        references = () if k == 0 else plan.references_at(k)
        window = range(plan.init_frames) if k == 0 else plan.window_frames(k)
        assert batch.references.frames == tuple(r.frame for r in references)
        assert batch.references.window_frames == tuple(window)
        assert batch.references.levels.tolist() == [max(r.level, plan.floor) for r in references]
        states = [State(frame, level) for frame, level in zip(window, stage.grid[row], strict=True)]
        states += [State(frame, 0.0) for frame in window]
        states += [State(r.frame, max(r.level, plan.floor)) for r in references]
        mean, covariance = (part[0] for part in video.joint(states))
        # Entries of a sample covariance have variance (Σ_ii Σ_jj + Σ_ij²)/n; five errors for some 500 entries.
        deviation = torch.sqrt((covariance.diag()[:, None] * covariance.diag() + covariance**2) / n)
        assert ((sample - mean).T @ (sample - mean) / n - covariance).abs().div(deviation).max() < 5
        assert (sample.mean(0) - mean).abs().div(torch.sqrt(covariance.diag() / n)).max() < 5


def test_levels_of_the_plan_are_its_rows() -> None:
    plan = PLANS["fifo"]
    batch = sampler(plan, init_share=0.0).draw(400, 0, 0)
    rows = {tuple(row) for row in batch.levels.tolist()}
    assert rows == {tuple(row) for row in plan.ar_grid[:-1]}


def test_continuous_levels_lie_between_rows_at_one_fraction() -> None:
    plan = PLANS["fifo"]
    levels = sampler(plan, init_share=0.0, levels="continuous").draw(2000, 0, 0).levels
    # FIFO moves all its frames alike: they keep their distances, and the first runs through its whole interval.
    steps = torch.tensor(plan.ar_grid[0], dtype=torch.float64)
    torch.testing.assert_close(levels - levels[:, :1], (steps - steps[0]).expand_as(levels))
    first = levels[:, 0] / plan.input_levels[0]
    assert 0 < float(first.min()) < 0.01
    assert 0.99 < float(first.max()) < 1
    # A uniform variable on [0, 1] has mean 1/2 and deviation 12^{-1/2}.
    assert abs(float(first.mean()) - 0.5) < 5 / math.sqrt(12 * 2000)


def test_independent_levels_know_nothing_of_one_another() -> None:
    plan = PLANS["fifo"]
    levels = sampler(plan, init_share=0.0, levels="independent").draw(4000, 0, 0).levels
    assert float(levels.min()) >= 0
    assert float(levels.max()) <= plan.horizon
    # FIFO's windows cover (0, T] evenly, whatever the place.
    torch.testing.assert_close(
        levels.mean(0), torch.full((4,), plan.horizon / 2, dtype=torch.float64), rtol=0.05, atol=0
    )
    correlation = torch.corrcoef(levels.T) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 5 / math.sqrt(4000)


def test_histories_are_noised_each_frame_by_itself_or_not_shown_at_all() -> None:
    plan = PLANS["fifo"]
    drawn = [
        sampler(plan, init_share=0.0, levels="history", first_ar_step=4).draw(2, 0, step) for step in range(600)
    ]
    shown = [batch.references.levels for batch in drawn]
    share = sum(len(levels) == 0 for levels in shown) / len(drawn)
    assert abs(share - 0.1) < 5 * math.sqrt(0.1 * 0.9 / len(drawn))
    noised = torch.stack([levels for levels in shown if len(levels) and float(levels.max()) > 0])
    assert abs(len(noised) / len(drawn) - 0.5) < 5 * math.sqrt(0.25 / len(drawn))
    # Squares of uniform numbers: mean 1/3, and one reference's tells nothing of another's.
    assert float(noised.max()) <= HISTORY_LEVEL
    spread = math.sqrt(1 / 5 - 1 / 9)
    assert abs(float(noised.mean()) - HISTORY_LEVEL / 3) < 5 * spread / math.sqrt(noised.numel())
    assert (torch.corrcoef(noised.T) - torch.eye(3)).abs().max() < 5 / math.sqrt(len(noised))
    # What is noised is the clean frame at that level: its variance is that of the law.
    batch = next(
        batch for batch in drawn if len(batch.references.levels) and float(batch.references.levels.max()) > 0
    )
    assert batch.references.values.shape == (2, 3, reference_video().frame_dim)
    windows = torch.stack([batch.levels for batch in drawn])
    assert (torch.corrcoef(windows[:, 0].T) - torch.eye(4)).abs().max() < 5 / math.sqrt(len(drawn))


def test_stages_are_drawn_at_their_shares() -> None:
    drawer = sampler(PLANS["fifo"], ar_steps=3, init_share=0.4)
    counts = torch.zeros(4)
    for step in range(1000):
        frames = drawer.draw(1, 0, step).references.window_frames
        counts[next(i for i, s in enumerate(drawer.stages) if tuple(s.frames) == frames)] += 1
    share = torch.tensor([0.4, 0.2, 0.2, 0.2])
    assert ((counts / 1000 - share).abs() < 5 * torch.sqrt(share * (1 - share) / 1000)).all()


@pytest.mark.parametrize("name", PLANS)
def test_the_see_weighted_loss_differs_between_networks_by_their_see_in_nats(name: str) -> None:
    """The ledger's SEE is closed-form for affine networks; the loss is sampled: within five standard errors."""
    plan, video, ar_steps = PLANS[name], reference_video(), 3
    drawer = sampler(plan, ar_steps, weighting="see")
    networks, exact = [], []
    for seed, videos in ((0, 60), (1, 90)):
        network = Denoiser(linear_config(plan, ar_steps, (2,), absolute=True))
        networks.append(fit_linear(network, drawer, videos, seed))
        terms = ledger(video, plan, ar_steps, score=network, girsanov=False).terms
        exact.append(float(terms.total("see") + terms.initialisation.see.sum()))
    gaps, batch = [], 256
    with torch.no_grad():
        for step in range(400):
            drawn = drawer.draw(batch, 7, step)
            one, two = (drawn.loss(net(drawn.window, drawn.levels, drawn.references)) for net in networks)
            gaps.append(float(one - two) * drawer.entries)
    found = torch.tensor(gaps, dtype=torch.float64)
    assert abs(float(found.mean()) - (exact[0] - exact[1])) < 5 * float(found.std()) / math.sqrt(len(gaps))
    # The test has teeth: the difference is far beyond its error.
    assert abs(exact[0] - exact[1]) > 10 * float(found.std()) / math.sqrt(len(gaps))


def test_the_network_weighting_is_the_squared_error_of_its_own_output() -> None:
    """At v-prediction with unit scale that output is α ε̂ - σ x̂, and its target α ε - σ X."""
    plan = PLANS["fifo"]
    network = Denoiser(DenoiserConfig("mlp", (2,), 4, 3, options={"width": 8, "depth": 0})).double()
    drawn = sampler(plan, weighting="network", precision=network.output_precision).draw(16, 0, 1)
    guess = network(drawn.window, drawn.levels, drawn.references)
    a, s = alpha(drawn.levels)[..., None], torch.sqrt(sigma2(drawn.levels))[..., None]
    truth = a * (drawn.window - a * drawn.clean) / s - s * drawn.clean
    own = a * (drawn.window - a * guess) / s - s * guess
    torch.testing.assert_close(drawn.loss(guess), (own - truth).square().mean())


def test_a_frame_that_is_clean_already_weighs_nothing() -> None:
    grid = ((1.0, 2.0), (0.0, 2.0), (0.0, 1.0))
    plan = Plan((1.0, 2.0), 1, 2.0, 2, init_steps=2, ar_grid=grid)
    network = Denoiser(DenoiserConfig("mlp", (2,), 2))
    for weighting in ("network", "x0", "see"):
        drawer = sampler(plan, init_share=0.0, weighting=weighting, precision=network.output_precision)
        batch = drawer.draw(64, 0, 0)
        done = batch.levels == 0
        assert bool(done.any())
        assert torch.isfinite(batch.weight).all()
        assert (batch.weight[done] == 0).all()
        assert (batch.weight[:, 1][batch.levels[:, 0] == 0] > 0).all()


def test_shares_of_a_batch_are_the_whole_batch() -> None:
    class WithActions:
        frame_shape, action_dim = (2,), 3

        def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
            values = torch.arange(videos * frames * 3.0).reshape(videos, frames, 3)
            return VideoBatch(values[..., :2], values)

    batch = WindowSampler(PLANS["fifo"], 4, WithActions(), init_share=0.0, weighting="x0").draw(6, 0, 2)
    parts = [batch.share(rank, 3) for rank in range(3)]

    def joined(get: object) -> Tensor:
        return torch.cat([get(part) for part in parts])  # type: ignore[operator]

    for get in (lambda b: b.window, lambda b: b.levels, lambda b: b.weight, lambda b: b.references.values,
                lambda b: b.references.actions, lambda b: b.references.window_actions):  # fmt: skip
        assert torch.equal(joined(get), get(batch))
    # The mean of equal shares' losses is the loss of the batch.
    guess = torch.zeros_like(batch.clean)
    shares = torch.stack([part.loss(guess[:2]) for part in parts])
    torch.testing.assert_close(shares.mean(), batch.loss(guess))
    # Actions lead to the frames that they stand beside.
    assert torch.equal(batch.references.window_actions[..., :2], batch.clean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "uniform"}, "levels is one of plan, continuous, independent"),
        ({"weighting": "snr"}, "weighting is one of network, see, x0"),
        ({"ar_steps": 0}, "at least one AR step"),
        ({"init_share": 1.0}, r"must lie in \[0, 1\)"),
        ({"weighting": "network", "precision": None}, "output_precision"),
        ({"weighting": "see", "levels": "continuous"}, "plan's own levels"),
        ({"weighting": "see", "step": "ancestral"}, "positive scalar variance"),
        ({"weighting": "see", "step": "ddim"}, "positive scalar variance"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(PLANS["fifo"], **options)
