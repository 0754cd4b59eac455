"""`gid train STAGE` and `gid data STEP`: commands whose options are the fields of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from foundation.commands.options import LazyGroup


class TrainGroup(LazyGroup):
    """The stages of training."""

    stages: ClassVar[Mapping[str, str]] = {
        "autoencoder": "gid.training.autoencoder:train_autoencoder",
        "envelope": "gid.training.envelope:train_envelope",
        "motion-map": "gid.training.motion_map:train_motion_map",
        "stillness": "gid.training.stillness:train_stillness",
        "latents": "gid.training.latents:encode_latents",
        "denoiser": "gid.training.denoiser:train_denoiser",
        "attention": "gid.training.denoiser:train_frequency_attention",
        "renderer": "gid.training.renderer:train_renderer",
        "assemble": "gid.training.assemble:assemble",
    }


class DataGroup(LazyGroup):
    """What training needs before it starts."""

    stages: ClassVar[Mapping[str, str]] = {
        "scenes": "gid.data.shards:write_shards",
        "clips": "gid.data.videos:prepare_clips",
        "prepare": "gid.training.sources:prepare_sources",
    }
