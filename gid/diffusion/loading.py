"""Where the weights of gid come from, and which device they go to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from foundation.devices import resolve_device as resolve_device
from foundation.weights.checks import Layout, WeightsKind, check_file
from foundation.weights.resolver import resolve

if TYPE_CHECKING:
    import torch

    from foundation.weights.hub import Progress

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
    weights: str | Path | None = None,
    *,
    token: str | None = None,
    progress: Progress | None = None,
    headers: bool = True,
) -> Path:
    """Folder that holds a pipeline: ``embedded``, a folder's path, or ``owner/repo[@revision][/subfolder]`` on the Hub.

    ``None`` reads the environment variable GID_WEIGHTS, else ``embedded``. See :mod:`foundation.weights.resolver`.
    ``headers`` False leaves the check of the tensors to who loads them next.

    Raises:
        ValueError: if nothing is there; says what is missing and how to get it.
    """
    return resolve(weights, KIND, token=token, progress=progress, headers=headers)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Say of what goes wrong here that the weights in the folder do not fit. Raises ValueError."""
    try:
        yield
    except (OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split("\n")[:2])
        raise ValueError(f"weights in {folder} do not fit this version: {reason}; fetch or make them again") from error


def load_parts(folder: Path, pipeline: type[Any]) -> dict[str, torch.nn.Module]:
    """The networks of a pipeline, float32 and ready for use; each file is read once and has to fit exactly.

    diffusers' own loading opens every file several times, and leaves out what is missing with a warning. The classes
    are those that the pipeline's constructor names, whatever the folder says.

    Raises:
        ValueError: a file is damaged, or its tensors are not those of its network; names the first of them.
    """
    import torch

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts = {}
    for part, hint in get_type_hints(pipeline.__init__).items():
        kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)]
        kind = next((kind for kind in kinds if issubclass(kind, torch.nn.Module)), None)
        if kind is not None and _names_a_class(index.get(part)) and index[part][1] is not None:
            parts[part] = _load_part(folder / part, kind)
    return parts


def _load_part(folder: Path, kind: Any) -> torch.nn.Module:
    from accelerate import init_empty_weights
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with fitting(folder), init_empty_weights(include_buffers=False):
        model = kind.from_config(kind.load_config(str(folder)))
    file = folder / "diffusion_pytorch_model.safetensors"
    try:
        state = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        check_file(file)  # says what is wrong with it
        raise ValueError(f"{file} could not be read ({error}); fetch it again") from error
    wanted = set(model.state_dict())
    problems = [f"{name} is missing" for name in sorted(wanted - set(state))]
    problems += [f"{name} belongs to nothing" for name in sorted(set(state) - wanted)]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"weights in {folder} do not fit this version: {', '.join(problems[:3])}{more}; fetch or make them again"
        )
    floats = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    with fitting(folder):
        model.load_state_dict(floats, assign=True)
    result: torch.nn.Module = model.eval()
    return result


def _names_a_class(value: Any) -> bool:
    """Whether an entry of model_index.json is [library, class] rather than a setting."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str | None) for v in value)
