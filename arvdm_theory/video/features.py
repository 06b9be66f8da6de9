"""Networks that look at pictures and videos, always from a file or folder of one's own: nothing is downloaded.

- LPIPS, the learned perceptual distance of Zhang et al. (2018): its weights as safetensors.
- Video features: the weights of an I3D as safetensors, which is built here
  (:mod:`arvdm_theory.video.feature_networks`); or a folder with a VideoMAE as ``save_pretrained`` of the
  ``transformers`` package writes it, whose feature is the mean of the last layer's tokens.
- A TorchScript file in place of either, if the caller says that its code is trusted: it is a program, which may
  write any file and never end. LPIPS maps two batches of pictures (n, 3, h, w) on [-1, 1] to n distances,
  a video network videos (n, 3, frames, size, size) on [-1, 1] to features (n, d), as the published
  ``i3d_torchscript.pt`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.data.clips import to_unit
from arvdm_theory.video.feature_networks import FEWEST_I3D_FRAMES, i3d, load_weights, lpips

__all__ = ["FeatureError", "VideoFeatures", "load_lpips", "load_video_features"]

Array = NDArray[np.float64]
Network = TypeVar("Network")

_BATCH = 8
# The side of the picture that both published networks take.
_SIZE = 224
# ImageNet's, with which VideoMAE's pictures are normalised unless its folder says otherwise.
_IMAGE_MEAN, _IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureError(ValueError):
    """A network that is missing or does not do what it should; the message says how to give one."""


@dataclass(frozen=True)
class VideoFeatures:
    """A network that turns videos into features.

    Attributes:
        name: what it is, and from where.
        frames: frames of a video that it looks at.
        network: videos (n, 3, frames, size, size) on [-1, 1], float32 → features (n, d).
    """

    name: str
    frames: int
    network: Callable[[Tensor], Tensor]

    def __call__(self, clips: Sequence[NDArray[Any]]) -> Array:
        """Features of every stretch of ``frames`` frames, shape (stretches, d); a clip's rest is left out.

        Args:
            clips: each (at least ``frames``, height, width, 1 or 3), bytes or floats in [-1, 1].

        Raises:
            FeatureError: if a clip is too short, or the network fails or gives anything but a feature a video.
        """
        found = []
        for clip in clips:
            count = len(clip) // self.frames
            if count == 0:
                raise FeatureError(f"the feature network looks at {self.frames} frames, a clip has {len(clip)}")
            stretches = clip[: count * self.frames].reshape(count, self.frames, *clip.shape[1:])
            for start in range(0, count, _BATCH):
                batch = stretches[start : start + _BATCH]
                found.append(_run(self.name, self.network, _resized(batch), count=len(batch)))
        features = np.concatenate([part.reshape(len(part), -1) for part in found])
        if not np.isfinite(features).all():
            raise FeatureError(f"{self.name} gives features that are NaN or infinite")
        return features


def load_lpips(path: str | Path, trust_code: bool = False) -> Callable[[NDArray[Any], NDArray[Any]], Array]:
    """The perceptual distance in a file: (true frames, generated frames) → a distance a frame.

    Args:
        path: a safetensors file of LPIPS' weights, or TorchScript.
        trust_code: whether TorchScript may be run.

    Raises:
        FeatureError: if there is no such file, it is neither, its code is not trusted, or it does not give one
            distance a picture.
    """
    place = Path(path)
    network: Callable[..., Tensor]
    if place.suffix == ".safetensors":
        network = _from_weights(place, lpips)
    else:
        network = _script(place, "an LPIPS network", trust_code)

    def distance(truth: NDArray[Any], generated: NDArray[Any]) -> Array:
        found = []
        for start in range(0, len(truth), _BATCH):
            pair = [_channels_first(to_unit(x[start : start + _BATCH])) for x in (truth, generated)]
            found.append(_run(str(path), network, *pair, count=len(pair[0])))
        values = np.concatenate(found).reshape(len(truth), -1)
        if values.shape[1] != 1:
            raise FeatureError(f"{path} gives {values.shape[1]} numbers a picture; LPIPS is one")
        return values[:, 0]

    return distance


def load_video_features(path: str | Path, frames: int = 16, trust_code: bool = False) -> VideoFeatures:
    """The feature network at a path: weights of an I3D, a folder with a VideoMAE, or a TorchScript file.

    Args:
        path: where it is.
        frames: frames that the network is shown; a VideoMAE's folder says its own number.
        trust_code: whether TorchScript may be run.

    Raises:
        FeatureError: if nothing is there or it cannot be read, its code is not trusted, ``transformers`` is
            missing, or there are too few frames.
    """
    place = Path(path)
    if frames < 1:
        raise FeatureError(f"a video has at least 1 frame, got {frames}")
    if place.is_dir():
        return _video_mae(place)
    if place.suffix == ".safetensors":
        if frames < FEWEST_I3D_FRAMES:
            raise FeatureError(f"an I3D looks at {FEWEST_I3D_FRAMES} frames or more, got {frames}")
        return VideoFeatures(f"I3D {place.name}", frames, _from_weights(place, i3d))
    return _torchscript(place, frames, trust_code)


def _from_weights(path: Path, build: Callable[[Mapping[str, Tensor]], Network]) -> Network:
    try:
        weights = {name: value.to(torch.float32) for name, value in load_weights(path).items()}
        return build(weights)
    except FileNotFoundError as error:
        raise FeatureError(
            f"{path}: no such file; the weights are a file of your own, none is downloaded"
        ) from error
    except ValueError as error:
        raise FeatureError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _torchscript(path: Path, frames: int, trust_code: bool) -> VideoFeatures:
    script = _script(path, "a video feature network", trust_code)
    names = {argument.name for argument in script.forward.schema.arguments}
    # The published I3D resizes and rescales unless told that this is done, and gives logits unless asked.
    switches = {"rescale": False, "resize": False, "return_features": True}
    chosen = {name: value for name, value in switches.items() if name in names}
    return VideoFeatures(f"TorchScript {path.name}", frames, lambda videos: script(videos, **chosen))


def _video_mae(folder: Path) -> VideoFeatures:
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise FeatureError(
            f"{folder}: a VideoMAE needs the transformers package: pip install transformers"
        ) from error
    try:
        # Its weights as safetensors alone: the older format is a pickle.
        model = transformers.VideoMAEModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise FeatureError(f"{folder}: not a VideoMAE that save_pretrained wrote ({error})") from error
    if model.config.image_size not in (_SIZE, [_SIZE, _SIZE]):
        raise FeatureError(
            f"{folder}: a VideoMAE for pictures of {_SIZE} pixels a side, got {model.config.image_size}"
        )
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (_IMAGE_MEAN, _IMAGE_STD))

    def network(videos: Tensor) -> Tensor:
        pictures = ((videos + 1) / 2).transpose(1, 2)
        tokens: Tensor = model(pixel_values=(pictures - mean) / std).last_hidden_state
        return tokens.mean(1)

    return VideoFeatures(f"VideoMAE {folder.name}", int(model.config.num_frames), network)


def _script(path: Path, what: str, trust_code: bool) -> Any:
    if not path.is_file():
        raise FeatureError(f"{path}: no such file; {what} is a file of your own, none is downloaded")
    if not trust_code:
        raise FeatureError(
            f"{path}: {what} is given by its weights, a .safetensors file; anything else may be a program, "
            "which is run only with --trust-code"
        )
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise FeatureError(f"{path}: not a TorchScript file") from error


def _run(name: str, network: Callable[..., Tensor], *inputs: Tensor, count: int) -> Array:
    try:
        with torch.no_grad():
            output = network(*inputs)
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise FeatureError(f"{name} does not take {[tuple(x.shape) for x in inputs]} ({reason})") from error
    if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != count:
        raise FeatureError(f"{name} does not give one output for each of {count} inputs")
    return output.to(torch.float64).numpy()


def _channels_first(pictures: Array) -> Tensor:
    """(n, h, w, c) → (n, 3, h, w), float32; grey becomes three equal channels."""
    tensor = torch.from_numpy(pictures).to(torch.float32).movedim(-1, 1)
    return tensor.expand(-1, 3, -1, -1) if tensor.shape[1] == 1 else tensor


def _resized(stretches: NDArray[Any]) -> Tensor:
    """(n, frames, h, w, c) → (n, 3, frames, size, size) on [-1, 1], bilinear."""
    count, frames = stretches.shape[:2]
    pictures = _channels_first(to_unit(stretches.reshape(count * frames, *stretches.shape[2:])))
    large = torch.nn.functional.interpolate(pictures, (_SIZE, _SIZE), mode="bilinear", align_corners=False)
    return large.reshape(count, frames, 3, _SIZE, _SIZE).transpose(1, 2)
