"""The perceptron over a whole window and its references."""

import dataclasses

import pytest
import torch
from network_cases import inputs

from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser


def network(actions: int = 2, **options: object) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(DenoiserConfig("mlp", (3,), 2, 3, actions, options={"width": 16, **options})).double()


@pytest.mark.parametrize("actions", [0, 2])
@pytest.mark.parametrize("absolute", [False, True])
def test_every_parameter_has_a_gradient_from_the_start(actions: int, absolute: bool) -> None:
    net = network(actions, absolute=absolute)
    window, levels, told = inputs(net)
    net(window, levels, told).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_any_number_of_references_and_a_shorter_window() -> None:
    net = network()
    for references in range(4):
        for window in (1, 2):
            arguments = inputs(net, references=references, window=window)
            assert net(*arguments).shape == (3, window, 3)


def test_the_nearest_reference_always_stands_in_the_last_slot() -> None:
    """Dropping the oldest reference changes what an empty slot would: nothing but its own."""
    net = network(actions=0)
    window, levels, told = inputs(net)
    embed = net.backbone.embed  # type: ignore[union-attr]
    size, last = 3 + 4, 2 + 3
    with torch.no_grad():
        # Blind to all but the slot of the nearest reference.
        embed.weight[:, : (last - 1) * size] = 0  # type: ignore[index, union-attr]
    before = net(window, levels, told)
    fewer = dataclasses.replace(told, values=told.values[:, 1:], levels=told.levels[1:], frames=told.frames[1:])
    torch.testing.assert_close(net(window, levels, fewer), before, rtol=0, atol=1e-14)
    moved = dataclasses.replace(told, values=told.values + torch.tensor([0.0, 0, 1]).double()[:, None])
    assert (net(window, levels, moved) - before).abs().max().item() > 1e-8


def test_time_has_no_origin_unless_asked_for() -> None:
    for absolute in (False, True):
        net = network(absolute=absolute)
        window, levels, told = inputs(net)
        later = dataclasses.replace(
            told, frames=tuple(f + 9 for f in told.frames), window_frames=tuple(f + 9 for f in told.window_frames)
        )
        same = torch.allclose(net(window, levels, later), net(window, levels, told), rtol=0, atol=1e-12)
        assert same != absolute


def test_videos_of_a_batch_do_not_meet() -> None:
    net = network(actions=0)
    window, levels, told = inputs(net)
    order = torch.tensor([1, 2, 0])
    after = net(window[order], levels[order], dataclasses.replace(told, values=told.values[order]))
    torch.testing.assert_close(after, net(window, levels, told)[order], rtol=0, atol=1e-13)


def test_levels_are_rounded_no_earlier_than_their_features() -> None:
    """log(1.002) is 0.002; of the level rounded to bfloat16, 1, it would be 0."""
    seen: list[torch.Tensor] = []
    net = network(actions=0)
    embed = net.backbone.embed  # type: ignore[union-attr]
    embed.register_forward_pre_hook(lambda layer, given: seen.append(given[0].double()))
    window, levels, told = inputs(net)
    levels = torch.full_like(levels, 1.002)
    net(window, levels, told)
    net.bfloat16()(window, levels, told)
    # Half a last place of 8 bits of every input, the window's after its scaling.
    torch.testing.assert_close(seen[1], seen[0], rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "an MLP: width is a whole number of at least 1, got 0"),
        ({"depth": -1}, "an MLP: depth is a whole number of at least 0, got -1"),
        ({"width": 8.5}, "an MLP: width is a whole number of at least 1, got 8.5"),
        ({"horizon_frames": float("nan")}, "an MLP: horizon_frames is a positive number, got nan"),
        ({"heads": 2}, "an MLP has no option heads; it has absolute, depth, horizon_frames, width"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        network(**options)
