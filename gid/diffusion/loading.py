"""Where the weights of gid come from, and which device they go to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.devices import resolve_device as resolve_device
from foundation.weights.checks import Layout, WeightsKind, safetensors_names
from foundation.weights.resolver import resolve

if TYPE_CHECKING:
    import torch

    from foundation.weights.download import Progress

EMBEDDED = Path(__file__).resolve().parents[1] / "weights"
PIPELINES = ("GIDPipeline", "FltwrPipeline")  # the second: what `gid convert` writes


def layout(index: Mapping[str, Any]) -> Layout:
    """The files of a pipeline, from its model_index.json. Raises ValueError if it is another pipeline's."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise ValueError(f"its pipeline is {name}, not {' or '.join(PIPELINES)}")
    parts = {
        part: str(value[1])
        for part, value in index.items()
        if not part.startswith("_") and _names_a_class(value) and value[1] is not None
    }
    required: list[str] = []
    for part, class_name in parts.items():
        if not part.isidentifier():
            raise ValueError(f"it names a part {part!r}, which is no name of a folder")
        if class_name.endswith("Scheduler"):
            required.append(f"{part}/scheduler_config.json")
        else:
            required += [f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"]
    return Layout(("*.json", *(f"{part}/*" for part in parts)), tuple(required))


KIND = WeightsKind("gid", "GID_WEIGHTS", EMBEDDED, "model_index.json", "`gid train assemble`", layout)


def resolve_weights(
    weights: str | Path | None = None, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """Folder that holds a pipeline: ``embedded``, a folder's path, or ``owner/repo[@revision][/subfolder]`` on the Hub.

    ``None`` reads the environment variable GID_WEIGHTS, else ``embedded``. See :mod:`foundation.weights.resolver`.

    Raises:
        ValueError: if nothing is there; says what is missing and how to get it.
    """
    return resolve(weights, KIND, token=token, progress=progress)


def check_parts(folder: Path, parts: Mapping[str, torch.nn.Module]) -> None:
    """Check that each part's files hold exactly its tensors: diffusers leaves out what is missing with a warning.

    Raises:
        ValueError: naming the first tensors that are missing or left over.
    """
    for part, model in parts.items():
        found = {name for file in (folder / part).glob("*.safetensors") for name in safetensors_names(file)}
        wanted = set(model.state_dict())
        problems = [f"{name} is missing" for name in sorted(wanted - found)]
        problems += [f"{name} belongs to nothing" for name in sorted(found - wanted)]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError(
                f"weights in {folder / part} do not fit this version: {', '.join(problems[:3])}{more}; fetch or make "
                "them again"
            )


def _names_a_class(value: Any) -> bool:
    """Whether an entry of model_index.json is [library, class] rather than a setting."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str | None) for v in value)
