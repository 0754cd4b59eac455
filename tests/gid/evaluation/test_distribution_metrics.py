"""FID, KID, FVD: distances against scipy, closed forms and torchmetrics; the protocol with tiny real networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from typer.testing import CliRunner

from foundation.video import write_video
from gid.cli.main import app
from gid.evaluation.distances import (
    Features,
    centre,
    frechet_distance,
    kernel_distance,
    kernel_distance_of_subsets,
    picture_distances,
    sliding_distances,
    video_distances,
    windows,
)


def samples(seed: int, count: int = 60, size: int = 6, shift: float = 0.0, spread: float = 1.0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).double() * spread + shift


def scipy_frechet(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(linalg.sqrtm(c1 @ c2))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root))


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (2.0, 1.0), (0.3, 3.0)])
def test_frechet_distance_is_scipys(shift: float, spread: float) -> None:
    x, y = samples(0), samples(1, 80, shift=shift, spread=spread)
    assert frechet_distance(x, y) == pytest.approx(scipy_frechet(x.numpy(), y.numpy()), rel=1e-6)


def test_frechet_distance_closed_forms() -> None:
    x = samples(0)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    # The same cloud elsewhere: only the means differ.
    assert frechet_distance(x, x + torch.tensor([3.0, 4.0, 0, 0, 0, 0])) == pytest.approx(25.0)
    # In one dimension: (m1 - m2)^2 + (s1 - s2)^2.
    line = samples(2, size=1)
    deviation = float(line.std())
    assert frechet_distance(line, line * 3) == pytest.approx(float(line.mean() * 2) ** 2 + (2 * deviation) ** 2)


def test_frechet_distance_with_fewer_samples_than_dimensions() -> None:
    """Covariances are singular then, as in every FVD of a few clips."""
    x, y = samples(0, 5, 40), samples(1, 7, 40, shift=1.0)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-6)
    assert frechet_distance(x, y) >= float((x.mean(0) - y.mean(0)).square().sum()) - 1e-6


def brute_force_kid(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_by_brute_force() -> None:
    x, y = samples(0, 9, 4), samples(1, 7, 4, shift=0.5)
    assert kernel_distance(x, y) == pytest.approx(brute_force_kid(x.numpy(), y.numpy()), rel=1e-9)


def test_kernel_distance_of_one_distribution_is_about_zero() -> None:
    values = [kernel_distance(samples(2 * i), samples(2 * i + 1)) for i in range(30)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(30), "unbiased"
    assert kernel_distance(samples(0), samples(1, shift=1.0)) > 10 * np.std(values)


def test_kernel_distance_of_subsets() -> None:
    x, y = samples(0, 40), samples(1, 40, shift=0.5)
    mean, deviation = kernel_distance_of_subsets(x, y, subsets=50, size=20)
    assert mean == pytest.approx(kernel_distance(x, y), abs=4 * deviation / np.sqrt(50) + 1e-9)
    assert deviation > 0
    whole, none = kernel_distance_of_subsets(x, y, subsets=3, size=1000)
    assert whole == pytest.approx(kernel_distance(x, y))
    assert none == pytest.approx(0.0, abs=1e-9)


def test_distances_refuse_what_is_no_distribution() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(samples(0, 1), samples(1))
    with pytest.raises(ValueError, match="of one D"):
        kernel_distance(samples(0, size=3), samples(1, size=4))


class TinyInception(nn.Module):
    """Like the usual Inception files: pictures in, features out if asked for, else classes."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        features = x.float().mean(dim=(2, 3))
        return features if return_features else features * 0


def pixel_statistics(x: Tensor) -> Tensor:
    """A fixed network for clips (B, 3, T, H, W): mean colour and how much it changes."""
    return torch.cat([x.mean(dim=(2, 3, 4)), x.diff(dim=2).abs().mean(dim=(2, 3, 4))], 1)


def test_torchmetrics_agrees_on_the_same_network() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    real, fake = torch.rand(20, 3, 16, 16), torch.rand(20, 3, 16, 16) * 0.5
    metric = torchmetrics.FrechetInceptionDistance(feature=network, normalize=True, input_img_size=(3, 16, 16))
    metric.set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    features = Features(network, scaling="unit")
    ours = frechet_distance(features.of_pictures(real), features.of_pictures(fake))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-3)


@pytest.mark.parametrize(("scaling", "expected"), [("uint8", 64.0), ("unit", 0.25), ("signed", -0.5)])
def test_networks_get_what_they_were_made_for(tmp_path: Path, scaling: str, expected: float) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.save(torch.jit.script(TinyInception()), str(path))
    features = Features.load(path, size=8, scaling=scaling, batch=2)  # type: ignore[arg-type]
    found = features.of_pictures(torch.full((5, 3, 20, 30), 0.25))
    assert found.shape == (5, 3)
    assert found.mean() == pytest.approx(expected, rel=0.02), "features, not classes"


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_text("no network")
    for wrong in (path, tmp_path / "missing.pt"):
        with pytest.raises(ValueError, match="TorchScript"):
            Features.load(wrong)


@pytest.mark.parametrize(("width", "height"), [(512, 288), (256, 128), (100, 300)])
def test_the_centre_of_a_video(width: int, height: int) -> None:
    ramp = torch.linspace(0, 1, width).expand(2, 3, height, width)
    cut = centre(ramp)
    assert cut.shape == (2, 3, 128, 256)
    assert cut[..., 127:129].mean() == pytest.approx(0.5, abs=0.01), "the middle stays in the middle"


def test_windows() -> None:
    found = windows(torch.arange(20), 16, 4)
    assert found.shape == (2, 16)
    assert found[:, 0].tolist() == [0, 4]
    assert found[1, -1] == 19
    with pytest.raises(ValueError, match="no such window"):
        windows(torch.arange(10), 16, 4)


def clips(seed: int, jitter: float, count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    still = [torch.rand(1, 3, 16, 32, generator=generator) for _ in range(count)]
    return [video + jitter * torch.rand(40, 1, 1, 1, generator=generator) for video in still]


def test_the_protocol() -> None:
    real, alike, frozen = clips(0, 0.3), clips(1, 0.3), clips(2, 0.0)
    network = Features(pixel_statistics)
    good = video_distances(real, alike, network, "DTFVD")
    bad = video_distances(real, frozen, network, "DTFVD")
    assert set(good) == {"DTFVD16", "DTFVD32"}
    assert good["DTFVD16"] < 0.5 * bad["DTFVD16"]
    pictures = Features(lambda x: x.mean(dim=(2, 3)))
    same = picture_distances(real, real, pictures)
    assert same["FID"] == pytest.approx(0.0, abs=1e-6)
    assert same["KID"] <= 1e-3


def test_sliding_windows_tell_when_it_gets_worse() -> None:
    real = clips(0, 0.1, 6)
    drifting = [video * torch.linspace(1, 0, 40)[:, None, None, None] for video in clips(0, 0.1, 6)]
    pictures = Features(lambda x: x.mean(dim=(2, 3)))
    found = sliding_distances(real, drifting, pictures, 10, clips=False)
    assert len(found) == 4
    assert found == sorted(found)
    assert found[-1] > 10 * found[0]
    assert len(sliding_distances(real, drifting, Features(pixel_statistics), 16, clips=True)) == 2
    with pytest.raises(ValueError, match="do not fit"):
        sliding_distances(real, drifting, pictures, 41, clips=False)


def test_the_command_compares_folders_of_videos(tmp_path: Path) -> None:
    """Two folders of short clips and a scripted network go in, the named distances come out."""
    network = tmp_path / "network.pt"
    torch.jit.save(torch.jit.script(TinyInception()), str(network))
    for name, dim in (("real", 1.0), ("same", 1.0), ("dark", 0.3)):
        (tmp_path / name).mkdir()
        for index, video in enumerate(clips(0, 0.1, 3)):
            frames = video[:32].repeat_interleave(4, 2).repeat_interleave(4, 3).clamp(0, 1) * dim
            pixels = frames.mul(255).round().to(torch.uint8).movedim(1, -1).numpy()
            write_video(tmp_path / name / f"{index}.mp4", [pixels], 30.0)

    def run(generated: str, *options: object) -> Any:
        arguments = ["distances", tmp_path / "real", tmp_path / generated, *options]
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    found = {}
    for generated in ("same", "dark"):
        result = run(generated, "--inception", network)
        assert result.exit_code == 0, result.output
        found[generated] = float(re.search(r"^FID: (\S+)", result.output, re.MULTILINE)[1])  # type: ignore[index]
        assert re.search(r"^FID, windows of 30: \S+$", result.output, re.MULTILINE)
    assert found["same"] == pytest.approx(0.0, abs=1e-3)
    assert found["dark"] > 100
    assert "no network named" in run("same").stderr
    assert "unknown" in run("same", "--inception", network, "--picture-input", "float").stderr
