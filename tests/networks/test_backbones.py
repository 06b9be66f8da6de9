"""The transformer and the U-Net, with every memory: what they depend on, what they do not, and that they learn."""

import dataclasses

import pytest
import torch
from network_cases import ACTIONS, BACKBONES, MEMORIES, inputs, network
from torch import Tensor

from arvdm_theory.diffusion.sampler import generate
from arvdm_theory.diffusion.scores import GuidedScore
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.embeddings import FrameStem
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.references import References

PAIRS = [(backbone, memory) for backbone in BACKBONES for memory in MEMORIES]
# Each structure and each compression once or more.
FEW = ["none", "prepend-none", "prepend-temporal", "concat-none", "concat-tokens", "cross-none", "cross-spatial"]
FEWER_PAIRS = [(backbone, memory) for backbone in BACKBONES for memory in FEW]
# Rounding of a few hundred float64 operations on numbers of size 1.
ROUNDING = 1e-12


def permuted(told: ReferenceBatch, order: Tensor) -> ReferenceBatch:
    assert told.actions is not None
    assert told.window_actions is not None
    return dataclasses.replace(
        told,
        values=told.values[order],
        actions=told.actions[order],
        window_actions=told.window_actions[order],
    )


@pytest.mark.parametrize("actions", [0, ACTIONS])
@pytest.mark.parametrize(("backbone", "memory"), PAIRS)
def test_every_parameter_has_a_gradient_from_the_start(backbone: str, memory: str, actions: int) -> None:
    net = network(backbone, memory, actions)
    window, levels, told = inputs(net)
    output = net(window, levels, told)
    assert output.shape == window.shape
    assert output.dtype == torch.float64
    output.square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert dead == []
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("actions", [0, ACTIONS])
@pytest.mark.parametrize(("backbone", "memory"), PAIRS)
def test_what_is_made_of_references_serves_windows_of_any_noise(backbone: str, memory: str, actions: int) -> None:
    net = network(backbone, memory, actions)
    window, levels, told = inputs(net)
    with torch.no_grad():
        kept = net.recall(told)
        for scale in (0.5, 2.0):
            args = scale * window, scale * levels, told
            assert torch.equal(net(*args, kept), net(*args))


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(("backbone", "memory"), [("vector", "cross-none"), ("patches", "concat-temporal")])
def test_the_sampler_has_a_network_look_at_the_references_once_a_stage(
    backbone: str, memory: str, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(backbone, memory, actions=0)
    plan = outpainting(window=2, references=References.last(3), reverse_steps=4, init_steps=5)
    looked: list[int] = []
    stem = FrameStem.references

    def seen(self: FrameStem, references: ReferenceBatch) -> object:
        looked.append(len(references.values))
        return stem(self, references)

    monkeypatch.setattr(FrameStem, "references", seen)
    made = []
    for batch in (5, 3):
        looked.clear()
        score = GuidedScore(guidance, net.as_score(batch))
        made.append(generate(score, plan, 3, 5, net.config.frame_dim, step="ddim", seed=1, batch=batch))
        # The first stage has no references; all five videos go at once, or three and two in each of four steps.
        assert looked == ([5] * 3 if batch == 5 else [3, 2] * 4 * 3)
    # Some tens of reverse steps: float64's rounding grows little in so few.
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e3 * ROUNDING)


def test_what_is_made_of_references_is_refused_as_they_are() -> None:
    net = network("patches", "cross-none")
    _, _, told = inputs(net)
    with pytest.raises(ModelError, match="at most 3 references"):
        net.recall(dataclasses.replace(told, levels=told.levels[:2]))
    few = net.as_score(batch=2)
    assert few.recalling(told) is few, "three windows do not go at once"
    assert net.as_score(batch=3).recalling(told).recall is None


@pytest.mark.parametrize(("backbone", "memory"), [pair for pair in FEWER_PAIRS if pair[1] != "none"])
def test_no_references_is_no_memory(backbone: str, memory: str) -> None:
    net, plain = network(backbone, memory), network(backbone, "none")
    missing, _ = plain.load_state_dict(net.state_dict(), strict=False)
    assert missing == []
    arguments = inputs(net, references=0)
    torch.testing.assert_close(net(*arguments), plain(*arguments), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("backbone", "memory"), PAIRS)
def test_what_the_output_depends_on(backbone: str, memory: str) -> None:
    net = network(backbone, memory, prediction="x0")
    window, levels, told = inputs(net)
    before = net(window, levels, told)

    def moved(at: Tensor = levels, **changes: object) -> float:
        after = net(window, at, dataclasses.replace(told, **changes))  # type: ignore[arg-type]
        return (after - before).abs().max().item()

    # F starts at 1e-3, and what passes a small projection on its way at 1e-5 or so of it: far above rounding.
    least, seen = 1e-10, memory != "none"
    assert moved(at=torch.stack([levels[:, 0], 2 * levels[:, 1]], 1)) > least
    assert told.actions is not None
    assert told.window_actions is not None
    assert moved(window_actions=told.window_actions + 1) > least
    for what, change in {
        "values": {"values": told.values + torch.tensor([0.0, 1, 0], dtype=torch.float64)[:, None]},
        "actions": {"actions": told.actions + torch.tensor([0.0, 1, 0], dtype=torch.float64)[:, None]},
        "levels": {"levels": told.levels + 0.2},
        "distances": {"frames": tuple(frame - 7 for frame in told.frames)},
    }.items():
        assert (moved(**change) > least) == seen, what


@pytest.mark.parametrize(("backbone", "memory"), FEWER_PAIRS)
def test_videos_of_a_batch_do_not_meet_and_time_has_no_origin(backbone: str, memory: str) -> None:
    net = network(backbone, memory)
    window, levels, told = inputs(net)
    before, order = net(window, levels, told), torch.tensor([2, 0, 1])
    after = net(window[order], levels[order], permuted(told, order))
    torch.testing.assert_close(after, before[order], rtol=0, atol=ROUNDING)
    later = dataclasses.replace(
        told, frames=tuple(f + 40 for f in told.frames), window_frames=tuple(f + 40 for f in told.window_frames)
    )
    torch.testing.assert_close(net(window, levels, later), before, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_absolute_option_tells_where_in_the_video_the_window_is(backbone: str) -> None:
    net = network(backbone, "prepend-none", options={"absolute": True})
    window, levels, told = inputs(net)
    later = dataclasses.replace(
        told, frames=tuple(f + 40 for f in told.frames), window_frames=tuple(f + 40 for f in told.window_frames)
    )
    assert not torch.allclose(net(window, levels, later), net(window, levels, told), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("backbone", "memory"), FEWER_PAIRS)
def test_any_number_of_references_and_a_shorter_window(backbone: str, memory: str) -> None:
    net = network(backbone, memory)
    for references, window in ((0, 1), (1, 2), (2, 1)):
        arguments = inputs(net, references=references, window=window)
        assert net(*arguments).shape == arguments[0].shape


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_seed_fixes_the_network(backbone: str) -> None:
    one, two = network(backbone, "cross-tokens"), network(backbone, "cross-tokens")
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    again = Denoiser(DenoiserConfig.from_json(one.config.to_json())).double()
    again.load_state_dict(one.state_dict())
    arguments = inputs(one)
    assert torch.equal(again(*arguments), one(*arguments))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_float32_is_float64_rounded(backbone: str) -> None:
    net = network(backbone, "cross-none")
    window, levels, told = inputs(net)
    expected = net(window, levels, told)
    value = net.float()(window, levels, told)
    assert value.dtype == torch.float32
    # 6e-8 an operation, a few hundred of them, on numbers of size 1; parameters are rounded too.
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("memory", ["prepend-temporal", "concat-none", "cross-tokens"])
def test_bfloat16_rounds_neither_levels_nor_times(backbone: str, memory: str) -> None:
    net = network(backbone, memory)
    window, levels, told = inputs(net, start=600)
    told = dataclasses.replace(told, frames=(300, 343, 599))
    expected = net(window, levels, told)
    exact = net.backbone.stem.references(told)[1]  # type: ignore[union-attr]
    value = net.bfloat16()(window, levels, told)
    values = told.values.bfloat16()
    actions = None if told.actions is None else told.actions.bfloat16()
    coarse = dataclasses.replace(told, values=values, actions=actions)
    known = net.backbone.stem.references(coarse)[1]  # type: ignore[union-attr]
    # bfloat16 has no -257 and no -301.
    assert known.times.tolist() == exact.times.tolist() == [-300, -257, -1]
    # 8 bits an operation, a few dozen of them, on numbers of size 1 and parameters that are rounded too.
    torch.testing.assert_close(known.condition.double(), exact.condition, rtol=0, atol=0.05)
    assert (value.double() - expected).square().mean().sqrt().item() < 0.1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_fresh_network_says_little(backbone: str) -> None:
    net = network(backbone, "none", prediction="x0")
    largest = net(*inputs(net)).abs().max().item()
    assert 1e-6 < largest < 0.1


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("patches", {"widht": 8}, "no option widht"),
        ("patches", {"width": 12, "heads": 2}, "width is a multiple of 4 x heads, got 12 and 2"),
        ("patches", {"depth": 0}, "depth is a whole number of at least 1, got 0"),
        ("patches", {"heads": True}, "heads is a whole number of at least 1, got True"),
        ("patches", {"patch": 3}, r"patch 3 does not divide frames of shape \(4, 4, 2\)"),
        ("patches", {"absolute": 1}, "absolute is True or False, got 1"),
        ("patches", {"absolute": True, "horizon_frames": 0}, "horizon_frames is a positive number, got 0"),
        ("unet", {"patch": 2}, "a U-Net has no option patch"),
        ("unet", {"width": 6}, "width is a multiple of 4 x heads, got 6 and 2"),
        ("unet", {"multipliers": ()}, r"a list of whole numbers, each at least 1, got \(\)"),
        ("unet", {"multipliers": (1, 0)}, r"a list of whole numbers, each at least 1, got \(1, 0\)"),
        ("unet", {"multipliers": (1, 1, 1, 1)}, "4 multipliers need a height and width that 8 divides, got 4 x 4"),
        ("unet", {"blocks": 0}, "blocks is a whole number of at least 1, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(backbone: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        network(backbone, "none", options=options)


def test_a_unet_refuses_vectors() -> None:
    with pytest.raises(ModelError, match=r"a U-Net needs pictures \(H, W, C\), got frames of shape \(5,\)"):
        Denoiser(DenoiserConfig("unet", (5,), 2))


def test_frames_need_not_be_square_and_attention_over_places_can_be_limited() -> None:
    torch.manual_seed(0)
    options = {"width": 8, "heads": 2, "multipliers": [1, 2, 2], "place_attention": 4, "blocks": 2}
    net = Denoiser(DenoiserConfig("unet", (4, 8, 3), 2, 3, options=options)).double()
    arguments = inputs(net)
    net(*arguments).square().sum().backward()
    assert all(bool(p.grad.any()) for p in net.parameters() if p.grad is not None)
    # Down, middle and up: only the finest of the three grids (4 x 8) is too large to attend over.
    assert len([name for name, _ in net.named_parameters() if "places.attention.query" in name]) == 2 * 2 * 2 + 1


@pytest.mark.parametrize(
    ("backbone", "memory"),
    [("vector", "prepend-none"), ("patches", "cross-none"), ("unet", "concat-none")],
)
def test_a_network_learns_to_find_the_frame_with_its_own_action(backbone: str, memory: str) -> None:
    """Windows of pure noise: all that is known of a frame is which of three remembered frames has its action."""
    architecture, shape, options = BACKBONES[backbone]
    steps, batch = {"vector": (120, 32), "patches": (80, 32), "unet": (100, 16)}[backbone]
    torch.manual_seed(0)
    size = {"width": 16 if backbone == "unet" else 32, "heads": 2, "memory": MEMORIES[memory]}
    net = Denoiser(DenoiserConfig(architecture, shape, 1, 3, 4, "x0", options={**options, **size}))  # type: ignore[arg-type]
    adam, g = torch.optim.Adam(net.parameters(), lr=4e-3), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        values = torch.randn(batch, 3, net.config.frame_dim, generator=g)
        actions = torch.randn(batch, 3, 4, generator=g)
        rows, pick = torch.arange(batch)[:, None], torch.randint(3, (batch, 1), generator=g)
        told = ReferenceBatch(values, torch.zeros(3), (0, 1, 2), (3,), actions, actions[rows, pick])
        noise = torch.randn(batch, 1, net.config.frame_dim, generator=g)
        loss = (net(noise, torch.full((batch, 1), 8.0), told) - values[rows, pick]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    # Knowing nothing costs 1, and the mean of the frames, which needs no look-up, 2/3; half of that needs one.
    assert sum(losses[-10:]) / 10 < 1 / 3
