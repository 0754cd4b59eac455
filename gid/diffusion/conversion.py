"""Downloaded checkpoints of other people -> folders that :func:`gid.diffusion.pipeline.load_pipeline` reads."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from diffusers import DDPMScheduler, VQModel

from foundation.files import new_folder
from foundation.weights.resolver import HubName
from foundation.weights.state_dicts import CheckpointError, check_keys, read_state_dict
from gid.diffusion.fltwr import AUTOENCODER, FACTOR, LATENTS, FltwrLayout, FltwrPipeline
from gid.diffusion.loading import EMBEDDED
from gid.rendering.renderer import Renderer

logger = logging.getLogger(__name__)


def convert_fltwr(
    checkpoint: str | Path,
    folder: str | Path,
    autoencoder: str = AUTOENCODER,
    layout: FltwrLayout | None = None,
) -> Path:
    """Convert `unet_v1.pth` of fltwr/generative-image-dynamics into a new folder of safetensors.

    Nothing in the checkpoint is executed. Its autoencoder is another project's and is copied in beside it, so that the
    folder needs no network afterwards; the renderer is this project's embedded one.

    Args:
        checkpoint: the file, a dictionary whose entry ``model`` is the U-Net's state dict.
        folder: written whole or not at all.
        autoencoder: a folder, or ``owner/repo[@revision][/subfolder]`` on the Hub.
        layout: sizes of the U-Net; those of the published file unless given.

    Raises:
        CheckpointError: if a file is damaged, unsafe or of another model; every key that does not fit is named.
        ValueError: if the autoencoder cannot be had.
        FileExistsError: if ``folder`` exists.
        FileNotFoundError: if ``checkpoint`` does not.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a folder that does not")
    tensors = read_state_dict(checkpoint, "model")
    with torch.device("meta"):
        denoiser = (layout or FltwrLayout()).build()
    check_keys(tensors, denoiser.state_dict(), checkpoint.name)
    denoiser.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True, assign=True)
    pipeline = FltwrPipeline(
        load_autoencoder(autoencoder),
        denoiser.eval(),
        Renderer.from_pretrained(EMBEDDED / "renderer"),
        DDPMScheduler(num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear"),
        autoencoder_source=autoencoder if _is_on_the_hub(autoencoder) else "a local folder",
    )
    with new_folder(folder) as partial:
        pipeline.save_pretrained(partial, safe_serialization=True)
    logger.info("wrote %s", folder)
    return folder


def load_autoencoder(source: str) -> VQModel:
    """The `VQModel` of a folder, or of ``owner/repo[@revision][/subfolder]`` on the Hub.

    A file in torch's own format, which is what the original repository holds, is read as tensors only.

    Raises:
        ValueError: if it is not there, cannot be reached, or is not such an autoencoder.
    """
    where: dict[str, str | None] = {}
    name = source
    if _is_on_the_hub(source):
        hub_name = HubName.parse(source)
        if hub_name is None:
            raise ValueError(f"autoencoder {source!r} is neither a folder nor owner/repo[@revision][/subfolder]")
        name = hub_name.repo
        where = {"revision": hub_name.revision, "subfolder": hub_name.subfolder}
    try:
        model, report = VQModel.from_pretrained(
            name, **{key: value for key, value in where.items() if value}, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"the autoencoder {source} could not be loaded ({_first_line(error)}); connect to the Hub once, or give "
            "its folder with --autoencoder"
        ) from error
    problems = [f"{kind} {', '.join(map(str, keys))}" for kind, keys in report.items() if keys]
    if problems:
        raise CheckpointError(f"the autoencoder {source} does not fit its configuration: " + "; ".join(problems))
    config = model.config
    found = (config.in_channels, config.out_channels, config.latent_channels, 2 ** (len(config.block_out_channels) - 1))
    if found != (3, 3, LATENTS, FACTOR):
        raise CheckpointError(
            f"the autoencoder {source} has {found[2]} latent channels at 1/{found[3]} of the size for {found[0]} "
            f"colours; this model needs {LATENTS} at 1/{FACTOR} for 3"
        )
    return model.float().eval()


def _is_on_the_hub(source: str) -> bool:
    return not Path(source).expanduser().is_dir()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
