"""`gid train assemble` on folders that lack a stage; `test_training.py` assembles whole ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gid.cli import app

FILES = (
    "autoencoder/normalization.json",
    "autoencoder/autoencoder/config.json",
    "denoiser/denoiser/config.json",
    "denoiser/photo_encoder/config.json",
    "renderer/config.json",
    "envelope/photo_encoder/config.json",
    "stillness/stillness/config.json",
)


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        ("autoencoder/normalization.json", "--autoencoder-run {0} holds no normalization.json"),
        ("autoencoder/autoencoder/config.json", "--autoencoder-run {0} holds no autoencoder/config.json"),
        ("denoiser/photo_encoder/config.json", "--denoiser-run {0} holds no photo_encoder/config.json"),
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
