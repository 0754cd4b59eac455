"""The last step: stage outputs to one folder that `GIDPipeline.from_pretrained` reads."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from foundation.files import replacing_files
from gid.diffusion.autoencoder import MotionAutoencoder
from gid.diffusion.denoiser import SpectralDenoiser
from gid.diffusion.motion_map import MotionMap
from gid.diffusion.photo_encoder import EnvelopeEnsemble, EnvelopeHead, PhotoEncoder
from gid.diffusion.pipeline import GIDPipeline
from gid.diffusion.stillness import Stillness
from gid.rendering.renderer import Renderer
from gid.training.denoiser import noise_scheduler
from gid.training.latents import load_normalization

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 10_000_000


@dataclass(frozen=True)
class AssembleConfig:
    """Which stages make up the pipeline.

    Attributes:
        autoencoder_run: folder of stage 1.
        denoiser_run: folder of stage 3 or 4.
        renderer: folder of a renderer: `renderer` in that of its stage.
        out: folder to write.
        motion_map: folder of the stage that says where photos move and how far, and what stands still.
        envelope_run: folders of envelope heads, for a denoiser that reads no tokens, or for the trunk that stillness
            needs; all heads found are averaged. They must be built alike, on one trunk.
        stillness: folder of the stage that holds pictures of things still by the trunk of the envelope heads.
        name: what motion files say of the model.
        half: store float16, which halves the files; they are computed in float32 all the same.
    """

    autoencoder_run: Path
    denoiser_run: Path
    renderer: Path
    out: Path
    motion_map: Path | None = None
    envelope_run: tuple[Path, ...] = ()
    stillness: Path | None = None
    name: str = "gid-small"
    half: bool = True


def assemble(config: AssembleConfig) -> Path:
    """Write the pipeline; existing weights in ``out`` are replaced only after the new ones are whole.

    Raises:
        ValueError: if a stage's folder does not hold what the stage writes, or the envelope heads belong to another
            trunk or are built differently.
    """
    if config.motion_map is None and not config.envelope_run:
        raise ValueError("give --motion-map, the folder that `gid train motion-map` wrote, or --envelope-run")
    if config.stillness is not None and not config.envelope_run:
        raise ValueError("--stillness looks through the trunk of the envelope heads; give their --envelope-run too")
    _check_stages(config)
    normalization, envelope = load_normalization(config.autoencoder_run)
    encoder = None
    if config.envelope_run:
        encoder = PhotoEncoder.from_pretrained(config.envelope_run[0] / "photo_encoder")
    if encoder is not None and len(config.envelope_run) > 1:
        encoder = _with_heads(encoder, config.envelope_run)
    pipeline = GIDPipeline(
        autoencoder=MotionAutoencoder.from_pretrained(config.autoencoder_run / "autoencoder"),
        denoiser=SpectralDenoiser.from_pretrained(config.denoiser_run / "denoiser"),
        photo_encoder=encoder,
        renderer=Renderer.from_pretrained(config.renderer),
        scheduler=noise_scheduler(),
        stillness=None if config.stillness is None else Stillness.from_pretrained(config.stillness / "stillness"),
        motion_map=None if config.motion_map is None else MotionMap.from_pretrained(config.motion_map / "motion_map"),
        scales=normalization.scales,
        envelope=envelope,
        name=config.name,
    )
    if config.half:
        for part in (pipeline.autoencoder, pipeline.denoiser, pipeline.photo_encoder, pipeline.renderer):
            if part is not None:
                nn.Module.to(part, torch.float16)
    config.out.mkdir(parents=True, exist_ok=True)
    with replacing_files(config.out) as partial:
        pipeline.save_pretrained(partial)
        for file in partial.rglob("config.json"):  # where a part was loaded from is a path of this machine
            fields = json.loads(file.read_text())
            if fields.pop("_name_or_path", None) is not None:
                file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    for file in sorted(config.out.rglob("*.safetensors")):
        if file.stat().st_size > MAX_FILE_BYTES:
            logger.warning("%s is over 10 MB: a plain push to a Space refuses it", file)
    return config.out


def _check_stages(config: AssembleConfig) -> None:
    """Raises ValueError by the option's name for a folder without its stage; diffusers would ask the Hub for it."""
    wanted = [
        ("autoencoder-run", config.autoencoder_run, "autoencoder", "autoencoder"),
        ("denoiser-run", config.denoiser_run, "denoiser", "attention"),
        *(("envelope-run", run, "photo_encoder", "envelope") for run in config.envelope_run),
    ]
    if config.stillness is not None:
        wanted.append(("stillness", config.stillness, "stillness", "stillness"))
    if config.motion_map is not None:
        wanted.append(("motion-map", config.motion_map, "motion_map", "motion-map"))
    files = [(option, run, f"{part}/config.json", stage) for option, run, part, stage in wanted]
    files.append(("autoencoder-run", config.autoencoder_run, "normalization.json", "autoencoder"))
    for option, run, file, stage in files:
        if not (run / file).is_file():
            raise ValueError(f"--{option} {run} holds no {file}; name the folder that `gid train {stage}` wrote")
    if not (config.renderer / "config.json").is_file():
        raise ValueError(
            f"--renderer {config.renderer} holds no config.json; name `renderer` in the folder that `gid train "
            "renderer` wrote"
        )


def _with_heads(encoder: PhotoEncoder, runs: tuple[Path, ...]) -> PhotoEncoder:
    """The same encoder with all the envelope heads of ``runs``, averaged."""
    heads: list[EnvelopeHead] = []
    known = encoder.trunk.state_dict()
    shape: tuple[object, ...] | None = None
    for run in runs:
        other = PhotoEncoder.from_pretrained(run / "photo_encoder")
        if other.envelope_head is None:
            raise ValueError(f"{run} has no envelope head; name folders written by `gid train envelope`")
        if any(not torch.equal(value, known[name]) for name, value in other.trunk.state_dict().items()):
            raise ValueError(f"the trunk of {run} is another than the first one's; heads on it cannot be taken over")
        fields = (other.config.base_channels, tuple(other.config.envelope_strides), other.config.relative)
        if shape not in (None, fields):
            raise ValueError(f"the head of {run} has sizes {fields}, the one before {shape}; heads must be built alike")
        shape = fields
        found = (
            other.envelope_head.heads if isinstance(other.envelope_head, EnvelopeEnsemble) else [other.envelope_head]
        )
        heads += [cast("EnvelopeHead", head) for head in found]
    settings = {**encoder.config, "members": len(heads), "base_channels": fields[0]}
    settings |= {"envelope_strides": fields[1], "relative": fields[2]}
    merged = PhotoEncoder(**{name: value for name, value in settings.items() if not name.startswith("_")})
    merged.trunk = encoder.trunk
    merged.condition.load_state_dict(encoder.condition.state_dict())
    merged.envelope_head = heads[0] if len(heads) == 1 else EnvelopeEnsemble(heads)
    return merged
