"""Where the weights of rahf come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.weights.checks import Layout, WeightsKind, check_folder
from foundation.weights.resolver import resolve

if TYPE_CHECKING:
    from foundation.weights.hub import Progress

EMBEDDED = Path(__file__).resolve().parents[1] / "weights"
# Fields of `RAHFConfig` that every version has written and no other model's config.json holds.
TELLING = ("variant", "vit_width", "text_width", "heatmap_stem")


def layout(config: Mapping[str, Any]) -> Layout:
    """The files of a model, from its config.json. Raises ValueError if it is another model's."""
    missing = [field for field in TELLING if field not in config]
    if missing:
        raise ValueError(f"its config.json has no {missing[0]}")
    return Layout(("*.json", "model*.safetensors", "tokenizer/*", "pictures/*"), ("model.safetensors",))


KIND = WeightsKind("rahf", "RAHF_WEIGHTS", EMBEDDED, "config.json", "`rahf train` or `rahf convert`", layout)


def resolve_weights(
    weights: str | Path | None = None, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """Folder that holds a model: ``embedded``, a folder's path, or ``owner/repo[@revision][/subfolder]`` on the Hub.

    ``None`` reads the environment variable RAHF_WEIGHTS, else ``embedded``. See :mod:`foundation.weights.resolver`.

    Raises:
        ValueError: if nothing is there; says what is missing and how to get it.
    """
    return resolve(weights, KIND, token=token, progress=progress, headers=False)


def weights_folder(folder: str | Path) -> Path:
    """A folder of weights on this machine, checked to be whole; the Hub is not asked.

    Raises:
        ValueError: if there is no such folder, or it holds no weights of rahf.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name weights made by {KIND.made_by}")
    check_folder(folder, KIND, headers=False)
    return folder
