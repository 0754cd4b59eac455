"""The public checkpoint `rahf_model.pt` -> a folder of this project, safely and in bounded memory."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from foundation.files import new_folder
from foundation.weights.state_dicts import read_state_dict
from rahf.model.checkpoints import (
    CONFIG_FILE,
    EMBEDDING,
    TIED,
    CheckpointError,
    canonical_key,
    check_keys,
    weights_metadata,
    write_config,
    write_weights,
)
from rahf.model.config import PUBLIC, RAHFConfig
from rahf.model.rahf import RAHF

logger = logging.getLogger(__name__)

PUBLIC_KEYS = 842
PUBLIC_PARAMETERS = 642_612_710
PUBLIC_SOURCE = "youweiliang/RichHF rahf_model.pt"
PUBLIC_LICENSE = "cc-by-nc-4.0"


def convert_checkpoint(
    checkpoint: str | Path,
    folder: str | Path,
    config: RAHFConfig = PUBLIC,
    dtype: torch.dtype | None = None,
    source: str = PUBLIC_SOURCE,
    license_name: str = PUBLIC_LICENSE,
) -> Path:
    """Read a state dict in the public layout and write its weights and `config.json` into a new folder.

    Nothing in the file is executed (`weights_only`), its tensors are mapped rather than read, and one part of the
    weights at a time is in memory. Either naming of the ViT is taken. `dtype` casts, for instance to bfloat16.
    Raises CheckpointError if the file is damaged, unsafe or of another model, and FileExistsError if `folder` exists.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    if folder.exists():  # told before the work
        raise FileExistsError(f"{folder} exists already; name a folder that does not")
    tensors = _canonical(read_state_dict(checkpoint))
    with torch.device("meta"):
        model = RAHF(config)
    check_keys({name: tensor.shape for name, tensor in tensors.items()}, model)
    _check_ties(tensors)
    config = config.changed(weights_source=source, weights_license=license_name)
    kept = {name: tensor for name, tensor in tensors.items() if name not in TIED}
    with new_folder(folder) as partial:
        write_weights(partial, kept, dtype, weights_metadata(config))
        write_config(partial / CONFIG_FILE, config)
    logger.info("wrote %d tensors to %s", len(kept), folder)
    return folder


def _canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = canonical_key(name)
        if key in renamed:
            raise CheckpointError(f"the checkpoint holds {key} twice, in two namings of the image tower")
        renamed[key] = tensor
    return renamed


def _check_ties(tensors: Mapping[str, Tensor]) -> None:
    """The embedding is stored several times; copies that differ would silently lose one of them."""
    for name in TIED:
        copy = tensors.get(name)
        if copy is None or copy.data_ptr() == tensors[EMBEDDING].data_ptr():
            continue
        if not torch.equal(copy, tensors[EMBEDDING]):
            raise CheckpointError(f"{name} differs from {EMBEDDING}, to which this model ties it")
