"""Shared by the tests of the resolver and of publishing: a Hub on this machine, and weights of the right layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from safetensors.numpy import save

from foundation.weights.checks import WeightsKind
from foundation.weights.resolver import resolve
from tests.foundation.hub.server import LocalHub, running_hub

REPO = "someone/motion"
WEIGHTS = "renderer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """A fresh Hub; huggingface_hub talks to it, with an empty cache, without a token and without Xet."""
    with running_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # versions before 1.0 keep a copy of their own
            if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
                monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GID_WEIGHTS", "RAHF_WEIGHTS"):
            monkeypatch.delenv(name, raising=False)
        forget_session()
        yield running


def forget_session() -> None:
    """Versions of huggingface_hub before 1.0 look only once, when a session begins, whether they are offline."""
    if hasattr(_http, "reset_sessions"):
        _http.reset_sessions()


def tensors(seed: int, count: int = 1000) -> bytes:
    """A safetensors file of so many random numbers."""
    return save({"weight": np.random.default_rng(seed).standard_normal(count).astype(np.float32)})


def gid_files(seed: int = 0, count: int = 1000) -> dict[str, bytes]:
    """A pipeline's files: the layout is real, the numbers are random."""
    index = {
        "_class_name": "GIDPipeline",
        "name": "random",
        "renderer": ["gid.rendering.renderer", "Renderer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "scales": [1.0, 0.5],
    }
    return {
        "model_index.json": json.dumps(index).encode(),
        "renderer/config.json": b'{"_class_name": "Renderer"}',
        "renderer/diffusion_pytorch_model.safetensors": tensors(seed, count),
        "scheduler/scheduler_config.json": b'{"_class_name": "DDIMScheduler"}',
    }


def rahf_files(seed: int = 0) -> dict[str, bytes]:
    """A feedback model's files."""
    config = {"variant": "multi_head", "vit_width": 24, "text_width": 32, "heatmap_stem": [8]}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": tensors(seed)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def says(name: str | Path, kind: WeightsKind, token: str | None = None) -> str:
    """The one sentence with which a name is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers look at the text
        resolve(name, kind, token=token)
    text = str(caught.value)
    assert "\n" not in text
    assert not re.search(r"\. [A-Z]", text), f"more than one sentence: {text}"
    return text
