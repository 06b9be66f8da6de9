"""LPIPS and the inflated 3-D Inception (I3D), computed here from weights in a safetensors file: no code is loaded.

Which weights a file holds is told by their names, which are those of the networks' own published sources: the
published weights need no more than to be stored in another format, once, by whoever trusts their pickles::

    save_file(lpips.LPIPS(net="alex").state_dict(), "lpips.safetensors")
    save_file(torch.load("rgb_imagenet.pt", weights_only=True), "i3d.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, conv3d, max_pool2d, max_pool3d, pad, relu

from arvdm_theory.files import regular_file

__all__ = ["FEWEST_I3D_FRAMES", "i3d", "load_weights", "lpips"]

Weights = Mapping[str, Tensor]

# Of each part of a picture network: the numbers of its convolutions, with stride and padding; all but the first
# part of a network begin with a pooling, whose kernel comes last (stride 2), unless it is 0.
_ALEX = ((((0, 4, 2),), 0), (((3, 1, 2),), 3), (((6, 1, 1),), 3), (((8, 1, 1),), 0), (((10, 1, 1),), 0))
_VGG = tuple(
    (tuple((number, 1, 1) for number in numbers), 2 if part else 0)
    for part, numbers in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)))
)
# The mean and scale of ImageNet's pictures on [-1, 1], as LPIPS has them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

# The parts of I3D in order: a convolution with its stride, a pooling with kernel and stride, or a mixed part.
_POOL_SPACE, _POOL_ALL = ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))
_I3D: tuple[tuple[str, object], ...] = (
    ("Conv3d_1a_7x7", 2), ("", _POOL_SPACE), ("Conv3d_2b_1x1", 1), ("Conv3d_2c_3x3", 1), ("", _POOL_SPACE),
    ("Mixed_3b", None), ("Mixed_3c", None), ("", _POOL_ALL), ("Mixed_4b", None), ("Mixed_4c", None),
    ("Mixed_4d", None), ("Mixed_4e", None), ("Mixed_4f", None), ("", ((2, 2, 2), (2, 2, 2))), ("Mixed_5b", None),
    ("Mixed_5c", None),
)  # fmt: skip
_BRANCHES = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("pool", "b3b"))

FEWEST_I3D_FRAMES = 9
"""Frames below which nothing is left to average over after I3D has halved them three times."""


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: if it is no such file.
        OSError: if it cannot be read.
    """
    file = regular_file(path)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error})") from error


def lpips(weights: Weights) -> Callable[[Tensor, Tensor], Tensor]:
    """The learned perceptual distance of Zhang et al. (2018, arXiv 1801.03924) on AlexNet's or VGG's features.

    With φ_l the features of part l, scaled to length 1 at every place, and w_l the learned weights,

        d(x, y) = Σ_l mean over places of Σ_c w_lc (φ_l(x) - φ_l(y))_c².

    Args:
        weights: as ``lpips.LPIPS(net="alex")`` or ``"vgg"`` names them.

    Returns:
        pictures x and y (n, 3, h, w) on [-1, 1] → distances (n, 1, 1, 1).

    Raises:
        ValueError: if weights are missing or of another shape.
    """
    parts = _VGG if "net.slice1.2.weight" in weights else _ALEX
    widths = (64, 128, 256, 512, 512) if parts is _VGG else (64, 192, 384, 256, 256)
    for part, ((convolutions, _), width) in enumerate(zip(parts, widths, strict=True), 1):
        for number, _, _ in convolutions:
            _want(weights, f"net.slice{part}.{number}.weight", (width, None, None, None))
            _want(weights, f"net.slice{part}.{number}.bias", (width,))
        _want(weights, f"lin{part - 1}.model.1.weight", (1, width, 1, 1))
    shift, scale = (torch.tensor(numbers)[:, None, None] for numbers in (_SHIFT, _SCALE))

    def features(pictures: Tensor) -> list[Tensor]:
        values, found = (pictures - shift) / scale, []
        for part, (convolutions, pooling) in enumerate(parts, 1):
            if pooling:
                values = max_pool2d(values, pooling, 2)
            for number, stride, padding in convolutions:
                name = f"net.slice{part}.{number}"
                values = relu(conv2d(values, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding))
            found.append(values / (values.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def distance(truth: Tensor, generated: Tensor) -> Tensor:
        pairs = enumerate(zip(features(truth), features(generated), strict=True))
        parts = [conv2d((x - y).square(), weights[f"lin{n}.model.1.weight"]).mean((2, 3)) for n, (x, y) in pairs]
        return torch.stack(parts).sum(0)[..., None, None]

    return distance


def i3d(weights: Weights) -> Callable[[Tensor], Tensor]:
    """The two-stream paper's inflated Inception (Carreira and Zisserman 2017, arXiv 1705.07750), its RGB stream.

    Args:
        weights: as ``pytorch-i3d``'s ``InceptionI3d`` names them.

    Returns:
        videos (n, 3, frames ≥ 9, 224, 224) on [-1, 1] → the logits, averaged over time, (n, classes), whose
        Fréchet distance is FVD.

    Raises:
        ValueError: if weights are missing.
    """
    names = [name for name, _ in _I3D if name.startswith("Conv")]
    mixed = [name for name, _ in _I3D if name.startswith("Mixed")]
    names += [f"{name}.{unit}" for name in mixed for branch in _BRANCHES for unit in branch if unit != "pool"]
    for name in names:
        _want(weights, f"{name}.conv3d.weight", (None,) * 5)
        for part in ("weight", "bias", "running_mean", "running_var"):
            _want(weights, f"{name}.bn.{part}", (len(weights[f"{name}.conv3d.weight"]),))
    _want(weights, "logits.conv3d.weight", (None, None, 1, 1, 1))
    _want(weights, "logits.conv3d.bias", (len(weights["logits.conv3d.weight"]),))

    def unit(values: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.conv3d.weight"]
        values = conv3d(_same(values, tuple(kernel.shape[2:]), (stride,) * 3), kernel, None, stride)
        mean, variance, gain, bias = (
            weights[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return relu(batch_norm(values, mean, variance, gain, bias, training=False, eps=1e-3))

    def pooled(values: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        # Zeros at the border change no maximum: all values are at least 0.
        return max_pool3d(_same(values, kernel, stride), kernel, stride)

    def branch(values: Tensor, name: str, units: tuple[str, ...]) -> Tensor:
        for part in units:
            values = pooled(values, (3, 3, 3), (1, 1, 1)) if part == "pool" else unit(values, f"{name}.{part}")
        return values

    def network(videos: Tensor) -> Tensor:
        values = videos
        for name, how in _I3D:
            if isinstance(how, int):
                values = unit(values, name, how)
            elif isinstance(how, tuple):
                values = pooled(values, *how)
            else:
                values = torch.cat([branch(values, name, units) for units in _BRANCHES], 1)
        values = torch.nn.functional.avg_pool3d(values, (2, 7, 7), 1)
        return conv3d(values, weights["logits.conv3d.weight"], weights["logits.conv3d.bias"]).mean((2, 3, 4))

    return network


def _same(values: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around, so that strides alone make the output smaller; an odd one comes at the end."""
    padding: list[int] = []
    for size, width, step in reversed(list(zip(values.shape[2:], kernel, stride, strict=True))):
        total = max(width - (step if size % step == 0 else size % step), 0)
        padding += [total // 2, total - total // 2]
    return pad(values, padding)


def _want(weights: Weights, name: str, shape: tuple[int | None, ...]) -> None:
    if name not in weights:
        raise ValueError(f"there is no weight {name!r}")
    found = tuple(weights[name].shape)
    if len(found) != len(shape) or any(want not in (None, has) for want, has in zip(shape, found, strict=True)):
        raise ValueError(f"weight {name!r} has shape {found}, {shape} is expected")
