"""Where weights come from: inside the package, a folder, or a repository on the Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

EMBEDDED = Path(__file__).parent / "weights"
_HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?$")


def resolve_weights(weights: str | Path | None = None) -> Path:
    """Folder that holds a pipeline: ``embedded``, a folder's path, or ``owner/repo[@revision]`` on the Hub.

    ``None`` reads the environment variable GID_WEIGHTS, else ``embedded``.

    Raises:
        ValueError: if nothing is there; says what is missing and how to get it.
    """
    name = str(weights if weights is not None else os.environ.get("GID_WEIGHTS", "embedded"))
    folder = EMBEDDED if name == "embedded" else Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"{folder} holds no weights (model_index.json is missing); name a folder made by `gid train`"
            )
        return folder
    match = _HUB_NAME.match(name)
    if match is None:
        raise ValueError(f"weights {name!r} are unknown; use 'embedded', a folder, or owner/repo[@revision] on the Hub")
    return _from_hub(match["repo"], match["revision"])


def _from_hub(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except GatedRepoError as error:
        raise ValueError(f"{repo} is gated; accept its terms on the Hub and log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{repo} is not on the Hub or is private; check the name or set HF_TOKEN") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repo} is not in the cache and the Hub cannot be reached; connect once to download it, name a local "
            "folder, or use 'embedded'"
        ) from error


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: if the device asked for is not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(chosen.type, False):
        raise ValueError(f"device {device!r} is not available here; use --device auto or cpu")
    return chosen
