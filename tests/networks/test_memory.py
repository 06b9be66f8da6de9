"""The memory part: its options, its compressions, and what each structure lets through."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from network_cases import MEMORIES, inputs, network
from torch.utils.flop_counter import FlopCounterMode

from arvdm_theory.networks.attention import Attention, FrameAttention, Remembered, on_grid
from arvdm_theory.networks.compression import (
    PlaceMerge,
    Resampler,
    TemporalMerge,
    merge_places,
    split_places,
)
from arvdm_theory.networks.config import ModelError
from arvdm_theory.networks.embeddings import Frames
from arvdm_theory.networks.memory import MemoryOptions, Slots


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_frames(batch: int, count: int, size: int = 8, seed: int = 1) -> Frames:
    condition = draw(batch, count, size, seed=seed)
    return Frames(condition, draw(batch, count, size, seed=seed + 1), torch.arange(-count, 0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"structure": "stack"}, "memory: structure is one of none, prepend, concat, cross, got 'stack'"),
        ({"compression": "zip"}, "memory: compression is one of none, spatial, temporal, tokens, got 'zip'"),
        ({"attention": "sparse"}, "memory: attention is one of same-place, full, factorised, got 'sparse'"),
        ({"factor": 1}, "memory: factor is a whole number of at least 2, got 1"),
        ({"tokens": 0}, "memory: tokens is a whole number of at least 1, got 0"),
        ({"film": "yes"}, "memory: film is True or False, got 'yes'"),
        ({"slots": 3}, "memory has no option slots"),
        ({"structure": "none", "compression": "tokens"}, "memory: compression tokens needs a structure, got none"),
        ("prepend", "the options of memory are a mapping, got str"),
    ],
)
def test_options_that_do_not_fit_are_refused(given: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MemoryOptions.of(given, 3)  # type: ignore[arg-type]


def test_a_memory_needs_references() -> None:
    assert MemoryOptions.of({}, 0).structure == "none"
    assert MemoryOptions.of({}, 1).structure == "prepend"
    with pytest.raises(ModelError, match="structure cross needs a config with references, got 0"):
        MemoryOptions.of({"structure": "cross"}, 0)


def test_a_factor_must_fit_the_grid() -> None:
    with pytest.raises(ModelError, match="factor 3 does not divide the memory's grid of 4 x 4"):
        network("unet", "none", options={"memory": {**MEMORIES["cross-spatial"], "factor": 3}})
    with pytest.raises(ModelError, match="factor 3 its grid of 4 x 4 and the network's of 6 x 6 do not divide"):
        network(
            "unet",
            "none",
            frame_shape=(12, 12, 1),
            options={"memory": {**MEMORIES["cross-spatial"], "factor": 3}},
        )


def test_merged_places_are_the_squares_of_the_grid() -> None:
    x = draw(2, 3, 4, 6, 5)
    merged = merge_places(x, 2)
    assert merged.shape == (2, 3, 2, 3, 20)
    for i in range(2):
        for j in range(3):
            square = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert torch.equal(merged[:, :, i, j], square.flatten(2))
    # A linear map of squares is a convolution with stride.
    layer = PlaceMerge((4, 6), 5, 2).double()
    kernel = layer.merge.weight.reshape(5, 2, 2, 5).permute(0, 3, 1, 2)
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(pictures, kernel, layer.merge.bias, stride=2)
    torch.testing.assert_close(layer(x, some_frames(2, 3))[0].flatten(0, 1).permute(0, 3, 1, 2), expected)
    assert torch.equal(on_grid(x, 8, 12)[:, :, ::2, 1::2], x)
    assert torch.equal(split_places(merged, 2), x)


def test_frames_are_merged_in_groups_counted_back_from_the_newest() -> None:
    layer = TemporalMerge((1, 1), 4, 8, 2, conditioned=True, posed=True).double()
    x, frames = draw(2, 5, 1, 1, 4), some_frames(2, 5)
    merged, after = layer(x, frames)
    assert merged.shape == (2, 3, 1, 1, 4)
    assert layer.slots(5) == 3
    assert after.times.tolist() == [-5.0, -3.5, -1.5]
    ones = torch.ones(2, 2, 1, dtype=torch.float64)
    for group, members in ((1, (1, 2)), (2, (3, 4))):
        parts = torch.cat([torch.cat([x[:, m, 0, 0], ones[:, 0]], -1) for m in members], -1)
        torch.testing.assert_close(merged[:, group, 0, 0], layer.merge(parts))
        assert layer.pose is not None
        assert frames.pose is not None
        assert after.pose is not None
        pose = layer.pose(frames.pose[:, list(members)].flatten(1))
        torch.testing.assert_close(after.pose[:, group], pose)
    # The oldest frame's group is filled up with nothing, not even a mark.
    alone = torch.cat([torch.zeros_like(x[:, 0, 0, 0]), 0 * ones[:, 0], x[:, 0, 0, 0], ones[:, 0]], -1)
    torch.testing.assert_close(merged[:, 0, 0, 0], layer.merge(alone))


def test_tokens_read_any_number_of_frames_whatever_their_order() -> None:
    torch.manual_seed(0)
    layer = Resampler(8, 8, 2, tokens=3, conditioned=True, posed=True).double()
    assert layer.slots(7) == 3
    assert layer.slots(0) == 0
    for count in (1, 4):
        tokens, frames = layer(draw(2, count, 3, 3, 8), some_frames(2, count))
        assert tokens.shape == (2, 3, 1, 1, 8)
        assert frames.times.tolist() == [-3, -2, -1]
    x, frames = draw(2, 4, 3, 3, 8), some_frames(2, 4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Frames(frames.condition[:, order], None, frames.times[order])
    torch.testing.assert_close(layer(x[:, order], shuffled)[0], layer(x, frames)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backbone", ["vector", "patches", "unet"])
@pytest.mark.parametrize("structure", ["prepend-none", "cross-none", "cross-none-full"])
def test_the_order_in_which_references_are_listed_does_not_matter(backbone: str, structure: str) -> None:
    """Attention knows frames by their times, levels and poses; slots, of course, by their order."""
    net = network(backbone, structure)
    window, levels, told = inputs(net)
    assert told.actions is not None
    order = [2, 0, 1]
    listed = dataclasses.replace(
        told,
        values=told.values[:, order],
        levels=told.levels[order],
        actions=told.actions[:, order],
        frames=tuple(told.frames[i] for i in order),
    )
    torch.testing.assert_close(net(window, levels, listed), net(window, levels, told), rtol=0, atol=1e-12)


def test_attention_is_a_softmax_over_frames() -> None:
    """Against the definition, with rotations written as complex numbers."""
    torch.manual_seed(0)
    layer = Attention(16, 2, null=True).double()
    assert torch.equal(layer.query.weight, layer.key.weight)
    assert layer.null_key is not None
    assert layer.null_value is not None
    torch.nn.init.normal_(layer.null_key)
    torch.nn.init.normal_(layer.null_value)
    null_key = torch.cat([torch.zeros(2, 1, 4, dtype=torch.float64), layer.null_key], -1)
    asked, known, values = draw(3, 2, 16), draw(3, 5, 16, seed=1), draw(3, 5, 16, seed=2)
    asked_times, known_times = torch.tensor([0.0, 1.0]).double(), torch.tensor([-9.0, -4, -3, -2, 70]).double()

    def rotated(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        turn = torch.exp(1j * times[:, None] * torch.tensor([1.0, 1e-3**0.5], dtype=torch.float64))
        turned = torch.complex(x[..., :2], x[..., 2:4]) * turn
        return torch.cat([turned.real, turned.imag, x[..., 4:]], -1)

    out = []
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        q = rotated((asked @ layer.query.weight.T)[..., part], asked_times)
        k = rotated((known @ layer.key.weight.T)[..., part], known_times)
        v = (values @ layer.value.weight.T)[..., part]
        k = torch.cat([null_key[head].expand(3, 1, 8), k], 1)
        v = torch.cat([layer.null_value[head].expand(3, 1, 8), v], 1)
        weights = torch.exp(q @ k.mT / 8**0.5)
        out.append(weights / weights.sum(-1, keepdim=True) @ v)
    expected = torch.cat(out, -1) @ layer.out.weight.T + layer.out.bias
    value = layer(asked, known, values, asked_times, known_times)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    # Only differences of times count.
    later = layer(asked, known, values, asked_times + 100, known_times + 100)
    torch.testing.assert_close(later, value, rtol=0, atol=1e-12)


def test_rows_beyond_what_a_fused_kernel_takes_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Attention(16, 2).double()
    x = draw(7, 4, 16)
    whole = layer(x, x, x)
    monkeypatch.setattr("arvdm_theory.networks.attention._MOST_ROWS", 6)
    torch.testing.assert_close(layer(x, x, x), whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("attention", "reach"), [("same-place", "place"), ("full", "all"), ("factorised", "all")])
def test_which_places_of_a_memory_a_place_sees(attention: str, reach: str) -> None:
    torch.manual_seed(0)
    layer = FrameAttention(8, 2, 8, poses=True, memory=True, attention=attention, places=16).double()
    x, memory = draw(1, 2, 4, 4, 8), draw(1, 3, 2, 2, 8, seed=3).requires_grad_()
    output = layer(x, some_frames(1, 2), Remembered(memory, some_frames(1, 3, seed=5)))
    output[0, 1, 3, 0].sum().backward()
    assert memory.grad is not None
    seen = memory.grad[0].abs().sum((0, -1)) > 0
    # Place (3, 0) of the 4 x 4 grid lies in place (1, 0) of the memory's 2 x 2.
    expected = torch.ones(2, 2) if reach == "all" else torch.tensor([[0, 0], [1, 0]])
    assert torch.equal(seen, expected.bool())


@pytest.mark.parametrize("attention", ["same-place", "factorised"])
@pytest.mark.parametrize("merged", [1, 6])
def test_a_merged_memory_is_attended_to_as_if_it_were_spread_over_the_grid(attention: str, merged: int) -> None:
    """Against a grid on which every merged place stands as often as it was merged, and every place's own map."""
    torch.manual_seed(0)
    layer = FrameAttention(8, 2, 8, True, True, attention, places=24, merged=merged).double()
    spread = FrameAttention(8, 2, 8, True, True, attention, places=24).double()
    shared = {name: value for name, value in layer.state_dict().items() if not name.startswith("attention.out")}
    x, memory = draw(2, 2, 4, 6, 8), draw(2, 5, 2, 2, 8, seed=3)
    frames, known = some_frames(2, 2), some_frames(2, 5, seed=5)
    # Without what comes after it: the attention alone, or a place's own map would reach the other places.
    for each in (layer, spread):
        each.places = each.places if merged == 1 else None
    shared = {name: value for name, value in shared.items() if merged == 1 or not name.startswith("places")}
    value = layer(x, frames, Remembered(memory, known))
    weights, biases = (part.chunk(merged) for part in (layer.attention.out.weight, layer.attention.out.bias))
    for place in range(merged):
        spread.load_state_dict(
            {**shared, "attention.out.weight": weights[place], "attention.out.bias": biases[place]}
        )
        expected = spread(x, frames, Remembered(on_grid(memory, 4, 6), known))
        mine = ... if merged == 1 else np.s_[:, :, place // 3 :: 2, place % 3 :: 3]
        torch.testing.assert_close(value[mine], expected[mine], rtol=0, atol=1e-12)


@pytest.mark.parametrize("structure", ["cross", "concat"])
def test_work_on_a_merged_memory_falls_by_the_factor(structure: str) -> None:
    """Operations counted, not timed: what is made of the merged grid, and that it is made once."""
    made: dict[int, int] = {}
    for side in (1, 2, 4):
        torch.manual_seed(0)
        memory = Remembered(draw(2, 7, side, side, 8), some_frames(2, 7))
        x, frames, merged = draw(2, 2, 4, 4, 8), some_frames(2, 2), (4 // side) ** 2
        layer: FrameAttention | Slots
        if structure == "cross":
            layer = FrameAttention(8, 2, 8, False, True, places=16, merged=merged).double()
        else:
            layer = Slots(7, 8, 8, True, merged).double()
        first, later = (_operations(layer, x, frames, memory) for _ in range(2))
        made[side] = first - later
        if structure == "concat":
            # Gates, and their sum on the merged grid, are of the poses alone and are kept, too.
            assert later == 0
            made[side] = _operations(layer._filled, memory.grid)
        else:
            # Queries, and their maps out: as many whatever they are asked of.
            projected = 2 * 2 * (2 * 2 * 16 * 8 * 8)
            assert later >= projected
    assert made[1] * 16 == made[2] * 4 == made[4] > 0


def _operations(call: Callable[..., object], *given: object) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*given)
    return counter.get_total_flops()


def test_only_videos_with_actions_have_poses() -> None:
    def named(actions: int) -> list[str]:
        return [name for name, _ in network("vector", "cross-none", actions).named_parameters() if "pose" in name]

    assert named(0) == []
    assert "backbone.stem.pose.weight" in named(2)
