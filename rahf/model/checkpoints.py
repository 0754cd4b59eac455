"""Weights on disk: one stable key layout whatever the installed transformers calls its modules, and strict loading.

Files use the names of the public checkpoint (`vit.encoder.layer.N.attention.attention.query.weight`, ...), with the
tied embedding stored once. transformers 5.9 renamed the ViT's modules; which naming a model has is read off its keys.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import hf_hub_download, split_torch_state_dict_into_shards
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foundation.files import new_folder, replacing, write_text
from foundation.weights.state_dicts import CheckpointError
from rahf.model.config import RAHFConfig

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
HEADER_ROOM = 100_000  # bytes of a part left for its header
PART_BYTES = 1_000_000_000  # of weights that are not asked for in smaller parts
EMBEDDING = "t5.shared.weight"
TIED = ("t5.encoder.embed_tokens.weight", "t5.decoder.embed_tokens.weight", "t5.lm_head.weight")

_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
_LAYER_PARTS = {
    **{f"attention.attention.{old}": f"attention.{new}" for old, new in _ATTENTION.items()},
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_LAYER_PARTS_BACK = {new: old for old, new in _LAYER_PARTS.items()}
_OLD_LAYER = re.compile(r"^vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
_NEW_LAYER = re.compile(r"^vit\.layers\.(\d+)\.(.+)\.(weight|bias)$")


def canonical_key(key: str) -> str:
    """The name that files use, from either naming of the ViT."""
    match = _NEW_LAYER.match(key)
    if match is None:
        return key
    layer, part, kind = match.groups()
    return f"vit.encoder.layer.{layer}.{_LAYER_PARTS_BACK.get(part, part)}.{kind}"


def installed_key(key: str, installed: Iterable[str]) -> str:
    """The name that a model with the keys `installed` uses, from the name in a file."""
    key = canonical_key(key)
    match = _OLD_LAYER.match(key)
    if match is None or not any(_NEW_LAYER.match(name) for name in installed):
        return key
    layer, part, kind = match.groups()
    return f"vit.layers.{layer}.{_LAYER_PARTS.get(part, part)}.{kind}"


def check_keys(shapes: Mapping[str, torch.Size], model: nn.Module) -> None:
    """Compare the canonical names and shapes of a checkpoint with a model's; tied copies may be absent.

    Raises CheckpointError that names every missing, unexpected and misshaped key.
    """
    wanted = {canonical_key(name): tensor.shape for name, tensor in model.state_dict().items()}
    missing = sorted(set(wanted) - set(shapes) - set(TIED))
    unexpected = sorted(set(shapes) - set(wanted))
    misshaped = sorted(name for name in set(wanted) & set(shapes) if wanted[name] != shapes[name])
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
    problems += [f"{name} has shape {tuple(shapes[name])}, not {tuple(wanted[name])}" for name in misshaped]
    if problems:
        raise CheckpointError(
            f"the checkpoint does not fit this model ({len(missing)} keys missing, {len(unexpected)} unexpected, "
            f"{len(misshaped)} misshaped):\n  " + "\n  ".join(problems)
        )


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by canonical name, the tied embedding once."""
    return {
        canonical_key(name): tensor.detach()
        for name, tensor in model.state_dict().items()
        if canonical_key(name) not in TIED
    }


def write_weights(
    folder: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    most: int = PART_BYTES,
) -> list[Path]:
    """Write `model.safetensors`, or parts of at most `most` bytes with an index, as the Hub lays out large models.

    Floating-point tensors are cast to `dtype` if given, one part at a time, so that memory holds one part beyond the
    sources. Gives the files. Raises ValueError if a single tensor is larger than `most`.
    """
    kinds = {name: dtype if dtype and tensor.is_floating_point() else tensor.dtype for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        size = tensor.numel() * kinds[name].itemsize
        if size > most - HEADER_ROOM:
            raise ValueError(f"{name} takes {size} bytes, more than a part of {most} holds; allow larger parts")
    # Tensors of the stored sizes that take no memory: only the plan is made of them.
    sizes = {name: torch.empty_like(tensor, dtype=kinds[name], device="meta") for name, tensor in tensors.items()}
    plan = split_torch_state_dict_into_shards(
        sizes, filename_pattern="model{suffix}.safetensors", max_shard_size=most - HEADER_ROOM
    )
    for file, names in plan.filename_to_tensors.items():
        part = {name: tensors[name].to(device="cpu", dtype=kinds[name]).contiguous() for name in names}
        with replacing(folder / file) as partial:
            save_file(part, partial, {"format": "pt", **(metadata or {})})
        del part  # before the next is made
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_text(folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
    return [folder / file for file in plan.filename_to_tensors]


def write_config(path: Path, config: RAHFConfig) -> None:
    """Write config.json; it appears under its name only when it is whole."""
    write_text(path, json.dumps(asdict(config), indent=2, sort_keys=True) + "\n")


def read_config(folder: Path) -> RAHFConfig:
    """Read config.json of a weights folder. Raises ValueError if it is absent or damaged."""
    path = folder / CONFIG_FILE
    try:
        return RAHFConfig(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no {CONFIG_FILE}; give a folder written by `rahf convert` or training"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration of this model: {error}") from error


def save_folder(model: nn.Module, config: RAHFConfig, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `model.safetensors` and `config.json` into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, named_weights(model), dtype, weights_metadata(config))
    write_config(folder / CONFIG_FILE, config)


def save_parts(model: nn.Module, config: RAHFConfig, folder: Path, dtype: torch.dtype, most: int) -> list[Path]:
    """Write the weights in parts of at most `most` bytes; gives the parts. `folder` must not exist, and appears only
    when it is whole.

    Raises FileExistsError, and ValueError if a single tensor is larger than `most`.
    """
    with new_folder(folder) as partial:
        parts = write_weights(partial, named_weights(model), dtype, weights_metadata(config), most)
        write_config(partial / CONFIG_FILE, config)
    return [folder / part.name for part in parts]


def weights_metadata(config: RAHFConfig) -> dict[str, str]:
    """What is written into the head of every weight file."""
    return {"model": "rahf", "source": config.weights_source, "license": config.weights_license}


def load_folder(
    model: Model,
    source: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    hub: Mapping[str, Any] | None = None,
) -> Model:
    """Load `model.safetensors`, or the parts its index names, of a folder or Hub repository into `model` (best built on
    the meta device).

    Returns the model in evaluation mode. Raises CheckpointError for a damaged file or one of another model.
    """
    paths = weight_parts(source, hub or {})
    with ExitStack() as stack:
        places = {name: file for path in paths for file, names in [_opened(path, stack)] for name in names}
        shapes = {canonical_key(name): torch.Size(file.get_slice(name).get_shape()) for name, file in places.items()}
        check_keys(shapes, model)
        _assign(model, ((name, file.get_tensor(name)) for name, file in places.items()), dtype, device)
    return model.eval()


def weight_parts(source: str, hub: Mapping[str, Any]) -> list[Path]:
    """The weight files of a folder or Hub repository: one, or the parts that its index names.

    Raises CheckpointError if there are none, or if a part is missing.
    """
    local = os.path.isdir(source)

    def fetch(name: str) -> Path | None:
        if local:
            path = Path(source) / name
            return path if path.is_file() else None
        try:
            return Path(hf_hub_download(source, name, **hub))
        except EntryNotFoundError:
            return None

    whole = fetch(WEIGHTS_FILE)
    if whole is not None:
        return [whole]
    index = fetch(INDEX_FILE)
    if index is None:
        raise CheckpointError(f"{source} holds no {WEIGHTS_FILE}; give a folder written by `rahf convert` or training")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error}); fetch it again") from error
    parts = {name: fetch(name) for name in names}
    missing = [name for name, part in parts.items() if part is None]
    if missing:
        raise CheckpointError(f"{source} lacks {', '.join(missing)}, which {INDEX_FILE} names; fetch it again")
    return [part for part in parts.values() if part is not None]


def _opened(path: Path, stack: ExitStack) -> tuple[Any, list[str]]:
    try:
        file = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or is no safetensors file ({error}); fetch it again") from error
    return file, list(file.keys())


def _assign(
    model: nn.Module, tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype, device: torch.device | str
) -> None:
    installed = list(model.state_dict())
    for name, tensor in tensors:
        if canonical_key(name) in TIED:
            continue
        owner, _, leaf = installed_key(name, installed).rpartition(".")
        module = model.get_submodule(owner)
        placed = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
        if leaf in module._buffers:  # running statistics
            setattr(module, leaf, placed)
        else:
            setattr(module, leaf, nn.Parameter(placed, requires_grad=module.get_parameter(leaf).requires_grad))
    for name in (EMBEDDING, *TIED):  # assignment undoes the tie
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, model.get_parameter(EMBEDDING))
