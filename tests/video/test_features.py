"""Networks from files: what they are shown, what is asked of them, and what is said when they are missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
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
    distance = load_lpips(_save(Distance(), tmp_path / "lpips.pt"), trust_code=True)
    rng = np.random.default_rng(0)
    truth, generated = rng.uniform(-1, 1, (2, 19, 6, 5, 3))
    # The network computes in single precision.
    np.testing.assert_allclose(distance(truth, generated), np.abs(truth - generated).mean((1, 2, 3)), rtol=1e-5)
    grey = truth[..., :1]
    np.testing.assert_allclose(distance(grey, -grey), 2 * np.abs(grey).mean((1, 2, 3)), rtol=1e-5)
    several = load_lpips(_save(Plain(), tmp_path / "plain.pt"), trust_code=True)
    with pytest.raises(FeatureError, match="does not take"):
        several(truth, generated)


def test_videos_are_cut_resized_and_laid_out_as_the_published_network_wants(tmp_path: Path) -> None:
    extract = load_video_features(_save(Inflated(), tmp_path / "i3d.pt"), frames=4, trust_code=True)
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
    extract = load_video_features(_save(Plain(), tmp_path / "plain.pt"), frames=2, trust_code=True)
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
            load(tmp_path / "text.pt", trust_code=True)
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


# -- networks built from weights ----------------------------------------------------------------------


def test_code_is_run_only_if_it_is_trusted(tmp_path: Path) -> None:
    for name in ("lpips.pt", "lpips.pth", "lpips"):
        path = _save(Distance(), tmp_path / name)
        for load in (load_lpips, load_video_features):
            with pytest.raises(FeatureError, match=r"is run only with --trust-code"):
                load(path)
    disguised = _save(Distance(), tmp_path / "lpips.safetensors")
    for load in (load_lpips, load_video_features):
        with pytest.raises(FeatureError, match=r"not a whole safetensors file"):
            load(disguised)


def _alex() -> dict[str, Tensor]:
    """AlexNet's shapes as LPIPS names them, filled at random; the learned weights are positive."""
    generator = torch.Generator().manual_seed(0)
    shapes = {(1, 0): (64, 3, 11), (2, 3): (192, 64, 5), (3, 6): (384, 192, 3), (4, 8): (256, 384, 3),
              (5, 10): (256, 256, 3)}  # fmt: skip
    weights = {}
    for (part, number), (out, into, kernel) in shapes.items():
        scale = (into * kernel**2) ** -0.5
        weights[f"net.slice{part}.{number}.weight"] = scale * torch.randn(
            out, into, kernel, kernel, generator=generator
        )
        weights[f"net.slice{part}.{number}.bias"] = 0.1 * torch.randn(out, generator=generator)
        weights[f"lin{part - 1}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    return weights


def test_lpips_is_its_formula(tmp_path: Path) -> None:
    """Against AlexNet built of PyTorch's own layers, and the distance written out in NumPy, float64."""
    weights = _alex()
    save_file(weights, tmp_path / "lpips.safetensors")
    rng = np.random.default_rng(0)
    truth, generated = rng.uniform(-1, 1, (2, 3, 64, 80, 3))
    nn = torch.nn
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    layers.load_state_dict({name.split(".", 2)[2]: value for name, value in weights.items() if name[0] == "n"})
    layers.double()
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    expected = np.zeros(3)
    values = [torch.tensor((x - shift) / scale).permute(0, 3, 1, 2) for x in (truth, generated)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            values = [layer(x) for x in values]
            if number in (1, 4, 7, 9, 11):
                part = (1, 4, 7, 9, 11).index(number)
                unit = [x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in values]
                learned = weights[f"lin{part}.model.1.weight"].double().numpy()
                expected += (learned * (unit[0] - unit[1]) ** 2).sum(1).mean((1, 2))
    found = load_lpips(tmp_path / "lpips.safetensors")(truth, generated)
    # Single precision through five convolutions of up to 3456 terms.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (load_lpips(tmp_path / "lpips.safetensors")(truth, truth) == 0).all()


def test_weights_that_are_missing_or_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lpips.safetensors"
    weights = _alex()
    save_file({name: value for name, value in weights.items() if name != "lin2.model.1.weight"}, path)
    with pytest.raises(FeatureError, match=r"lpips\.safetensors: there is no weight 'lin2\.model\.1\.weight'"):
        load_lpips(path)
    save_file({**weights, "lin2.model.1.weight": torch.ones(1, 3, 1, 1)}, path)
    with pytest.raises(FeatureError, match=r"'lin2\.model\.1\.weight' has shape \(1, 3, 1, 1\), \(1, 384, 1, 1\)"):
        load_lpips(path)
    with pytest.raises(FeatureError, match=r"there is no weight 'Conv3d_1a_7x7"):
        load_video_features(path)
    with pytest.raises(FeatureError, match="9 frames or more, got 4"):
        load_video_features(path, frames=4)


MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64), "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128), "5c": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Channels into each mixed part and out of its units, from the papers on Inception and its inflation."""


def _inflated() -> dict[str, Tensor]:
    units = {"Conv3d_1a_7x7": (64, 3, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (192, 64, 3)}
    for name, (into, b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        for unit, shape in {"b0": (b0, into, 1), "b1a": (b1a, into, 1), "b1b": (b1b, b1a, 3),
                            "b2a": (b2a, into, 1), "b2b": (b2b, b2a, 3),
                            "b3b": (b3b, into, 1)}.items():  # fmt: skip
            units[f"Mixed_{name}.{unit}"] = shape
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, (out, into, kernel) in units.items():
        scale = (2 / (into * kernel**3)) ** 0.5
        weights[f"{name}.conv3d.weight"] = scale * torch.randn(out, into, *(kernel,) * 3, generator=generator)
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            weights[f"{name}.bn.{part}"] = low + torch.rand(out, generator=generator)
    weights["logits.conv3d.weight"] = 0.05 * torch.randn(400, 1024, 1, 1, 1, generator=generator)
    weights["logits.conv3d.bias"] = torch.randn(400, generator=generator)
    return weights


def test_i3d_is_the_published_network(tmp_path: Path) -> None:
    """Its size, and its output against PyTorch's layers put together by hand, as in the paper's figure."""
    weights = _inflated()
    learned = sum(value.numel() for name, value in weights.items() if "running" not in name)
    assert 12.6e6 < learned < 12.8e6  # "12 M parameters" in the paper's table; 12.7 M with the 400 classes
    save_file(weights, tmp_path / "i3d.safetensors")
    clip = np.random.default_rng(0).integers(0, 256, (10, 224, 224, 3), dtype=np.uint8)
    found = load_video_features(tmp_path / "i3d.safetensors", frames=10)([clip])
    nn = torch.nn

    def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """TensorFlow's rule, by what it must give: ceil(size / stride) outputs, the smaller half in front."""
        around: list[int] = []
        for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            around = [total // 2, total - total // 2, *around]
        return nn.functional.pad(x, around)

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.conv3d.weight"]
        convolution = nn.Conv3d(*kernel.shape[1::-1], kernel.shape[2:], stride, bias=False)  # type: ignore[arg-type]
        norm = nn.BatchNorm3d(len(kernel), eps=1e-3).eval()
        convolution.load_state_dict({"weight": kernel})
        state = {part: weights[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        norm.load_state_dict(state, strict=False)
        return norm(convolution(padded(x, tuple(kernel.shape[2:]), (stride,) * 3))).relu()

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return nn.MaxPool3d(kernel, stride)(padded(x, kernel, stride))

    def mixed(x: Tensor, name: str) -> Tensor:
        part = f"Mixed_{name}"
        return torch.cat([
            unit(x, f"{part}.b0"), unit(unit(x, f"{part}.b1a"), f"{part}.b1b"),
            unit(unit(x, f"{part}.b2a"), f"{part}.b2b"), unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{part}.b3b"),
        ], 1)  # fmt: skip

    with torch.no_grad():
        x = torch.tensor(clip / 127.5 - 1, dtype=torch.float32).permute(3, 0, 1, 2)[None]
        x = pool(unit(x, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
        x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
        x = pool(mixed(mixed(x, "3b"), "3c"), (3, 3, 3), (2, 2, 2))
        for name in ("4b", "4c", "4d", "4e", "4f"):
            x = mixed(x, name)
        x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "5b"), "5c")
        assert x.shape == (1, 1024, 2, 7, 7)
        x = nn.AvgPool3d((2, 7, 7), 1)(x)
        logits = torch.einsum("nctij,kc->nk", x, weights["logits.conv3d.weight"][:, :, 0, 0, 0])
        expected = logits + weights["logits.conv3d.bias"]
    assert float(expected.std()) > 0.1
    # Single precision through 22 layers.
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)
