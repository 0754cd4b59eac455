"""Reading other people's torch files without running them, and comparing what they hold with a model by name."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


class CheckpointError(ValueError):
    """A weight file that is damaged, unsafe, or of another model; the message says which and names every problem."""


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """A state dict from a torch file, memory-mapped where its format allows, never executing what it holds.

    Args:
        path: the file.
        key: where in the file's dictionary the state dict lies; None if the file is the state dict.

    Raises:
        CheckpointError: if the file holds anything but tensors and plain values, is cut short or no torch file, or the
            state dict is not where it should be.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of the downloaded checkpoint")
    try:
        # The older, unzipped torch format cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than tensors, or is damaged, and was not loaded: running what a checkpoint holds "
            f"is unsafe ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path.name} is cut short or is no torch file ({_first_line(error)}); download it again"
        ) from error
    if key is not None:
        if not isinstance(loaded, Mapping) or key not in loaded:
            names = ", ".join(sorted(map(str, loaded))[:5]) if isinstance(loaded, Mapping) else type(loaded).__name__
            raise CheckpointError(
                f"{path.name} has no entry {key!r} (it holds {names or 'nothing'}); is it another model?"
            )
        loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path.name} holds no plain state dict of tensors; is it another model?")
    return {str(name): tensor for name, tensor in loaded.items()}


def check_keys(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> None:
    """Compare names and shapes of a state dict with those of a model (which may be on the meta device).

    Raises CheckpointError that names every missing, unexpected and misshaped key, and the first that holds NaN or
    infinity.
    """
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    misshaped = sorted(key for key in set(wanted) & set(tensors) if wanted[key].shape != tensors[key].shape)
    problems = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected]
    problems += [f"{key} has shape {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}" for key in misshaped]
    if problems:
        raise CheckpointError(
            f"{name} does not fit this model ({len(missing)} keys missing, {len(unexpected)} unexpected, "
            f"{len(misshaped)} misshaped):\n  " + "\n  ".join(problems)
        )
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} holds NaN or infinity in {key}; download it again")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
