"""Networks from files: what they are shown, what is asked of them, and what is said when they are missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from arvdm_theory.video.features import FeatureError, load_lpips, load_video_features


class Distance(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean((1, 2, 3), keepdim=True)


class Inflated(torch.nn.Module):
    """With the published network's switches: what it returns tells how they stood and how the video lay."""

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        if rescale or resize or not return_features:
            return torch.zeros(len(x), 400)
        return torch.stack([x[:, 0, 0].mean((1, 2)), x[:, 2, -1].mean((1, 2))], 1)


class Plain(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((3, 4)).flatten(1)


def _save(module: torch.nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def test_lpips_sees_pairs_of_pictures(tmp_path: Path) -> None:
    distance = load_lpips(_save(Distance(), tmp_path / "lpips.pt"))
    rng = np.random.default_rng(0)
    truth, generated = rng.uniform(-1, 1, (2, 19, 6, 5, 3))
    # The network computes in single precision.
    np.testing.assert_allclose(distance(truth, generated), np.abs(truth - generated).mean((1, 2, 3)), rtol=1e-5)
    grey = truth[..., :1]
    np.testing.assert_allclose(distance(grey, -grey), 2 * np.abs(grey).mean((1, 2, 3)), rtol=1e-5)
    several = load_lpips(_save(Plain(), tmp_path / "plain.pt"))
    with pytest.raises(FeatureError, match="does not take"):
        several(truth, generated)


def test_videos_are_cut_resized_and_laid_out_as_the_published_network_wants(tmp_path: Path) -> None:
    extract = load_video_features(_save(Inflated(), tmp_path / "i3d.pt"), frames=4)
    clips = [np.random.default_rng(i).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8) for i, n in enumerate((9, 4))]
    features = extract(clips)
    stretches = [clips[0][:4], clips[0][4:8], clips[1][:4]]
    # Frame by frame and channel by channel, where nothing can be laid out wrongly.
    for found, stretch in zip(features, stretches, strict=True):
        for value, frame, channel in ((found[0], 0, 0), (found[1], -1, 2)):
            picture = torch.tensor(stretch[frame, :, :, channel] / 127.5 - 1, dtype=torch.float32)
            large = torch.nn.functional.interpolate(picture[None, None], (224, 224), mode="bilinear")
            assert value == pytest.approx(float(large.mean()), abs=1e-6)
    with pytest.raises(FeatureError, match="looks at 4 frames, a clip has 3"):
        extract([clips[0][:3]])


def test_a_network_without_switches_is_called_plainly(tmp_path: Path) -> None:
    extract = load_video_features(_save(Plain(), tmp_path / "plain.pt"), frames=2)
    grey = np.full((2, 8, 8, 1), 0.25)
    np.testing.assert_allclose(extract([grey]), np.full((1, 6), 0.25), rtol=1e-6)


def test_what_is_missing_or_no_network_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.pt").write_text("no network")
    for load in (load_lpips, load_video_features):
        with pytest.raises(FeatureError, match="none is downloaded"):
            load(tmp_path / "nowhere.pt")
        with pytest.raises(FeatureError, match="not a TorchScript file"):
            load(tmp_path / "text.pt")
    with pytest.raises(FeatureError, match="at least 1 frame"):
        load_video_features(tmp_path / "text.pt", frames=0)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FeatureError, match="pip install transformers"):
        load_video_features(tmp_path)


def test_a_video_mae_from_its_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=224, patch_size=56, num_frames=4, tubelet_size=2, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=8, decoder_hidden_size=8, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=8,
    )  # fmt: skip
    model = transformers.VideoMAEModel(config).eval()
    model.save_pretrained(str(tmp_path / "mae"))
    extract = load_video_features(tmp_path / "mae")
    assert extract.frames == 4
    clip = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.tensor((clip / 255 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state.mean(1)
    # Single precision, through a few dozen operations.
    np.testing.assert_allclose(extract([clip]), expected.numpy(), rtol=0, atol=1e-5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatureError, match="not a VideoMAE"):
        load_video_features(tmp_path / "empty")
