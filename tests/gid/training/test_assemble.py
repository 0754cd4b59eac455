"""`gid train` on folders that lack a stage; `test_training.py` trains and assembles whole ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from foundation.efficientnet import EfficientNetLite0
from gid.cli.main import app

FILES = (
    "autoencoder/normalization.json",
    "autoencoder/autoencoder/config.json",
    "denoiser/denoiser/config.json",
    "renderer/config.json",
    "envelope/photo_encoder/config.json",
    "stillness/stillness/config.json",
)


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ("autoencoder/normalization.json", "--autoencoder-run {0} holds no normalization.json"),
        ("autoencoder/autoencoder/config.json", "--autoencoder-run {0} holds no autoencoder/config.json"),
        ("denoiser/denoiser/config.json", "--denoiser-run {0} holds no denoiser/config.json"),
        ("renderer/config.json", "--renderer {0} holds no config.json; name `renderer` in the folder"),
        ("envelope/photo_encoder/config.json", "--envelope-run {0} holds no photo_encoder/config.json"),
        (
            "stillness/stillness/config.json",
            "--stillness {0} holds no stillness/config.json; name the folder that `gid train stillness` wrote",
        ),
    ],
)
def test_a_folder_without_its_stage_is_named(tmp_path: Path, lacking: str, says: str) -> None:
    for file in FILES:
        if file != lacking:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    options = [
        *("--autoencoder-run", tmp_path / "autoencoder"),
        *("--denoiser-run", tmp_path / "denoiser"),
        *("--renderer", tmp_path / "renderer"),
        *("--envelope-run", tmp_path / "envelope"),
        *("--stillness", tmp_path / "stillness"),
        *("--out", tmp_path / "weights"),
    ]
    result = CliRunner().invoke(app, ["train", "assemble", *map(str, options)])
    assert result.exit_code == 2
    assert says.format(tmp_path / lacking.split("/")[0]) in result.stderr
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            "denoiser --out {0}/run --data {0} --shares 1 --denoiser {0}/no",
            "/no holds no config.json; name the folder of",
        ),
        ("attention --out {0}/run --data {0} --shares 1 --denoiser {0}/no", "/no holds no config.json"),
        ("latents --source {0} --autoencoder-run {0}/no --out {0}/run", "autoencoder holds no config.json"),
        ("stillness --out {0}/run --moving {0}/no --still {0}", "photographs {0}/no does not exist"),
    ],
)
def test_a_missing_start_is_told_and_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, says: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("gid.training.stillness.pretrained_trunk", EfficientNetLite0)  # its package is optional
    result = CliRunner().invoke(app, ["train", *command.format(tmp_path).split()])
    assert result.exit_code == 2, result.output
    assert says.format(tmp_path) in result.stderr
    assert not (tmp_path / "run").exists()


def test_no_folder_is_made_for_clips_that_are_not_there(tmp_path: Path) -> None:
    command = ["data", "clips", "--folder", str(tmp_path / "no"), "--out-dir", str(tmp_path / "pairs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert not (tmp_path / "pairs").exists()
