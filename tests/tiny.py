"""A real pipeline with tiny random networks: every part is the project's own, only the sizes are small."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from PIL import Image

from gid.diffusion.autoencoder import MotionAutoencoder, MotionAutoencoderConfig
from gid.diffusion.denoiser import DenoiserConfig, SpectralDenoiser
from gid.diffusion.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from gid.diffusion.pipeline import GIDPipeline
from gid.rendering.renderer import Renderer, RendererConfig


def tiny_pipeline() -> GIDPipeline:
    """Two-resolution networks of a few channels, seeded."""
    torch.manual_seed(0)
    pipeline = GIDPipeline(
        autoencoder=MotionAutoencoder.from_preset(MotionAutoencoderConfig((8, 8, 8), 1, 4, 4, False)),
        denoiser=SpectralDenoiser.from_preset(DenoiserConfig(16, 4, 8, (8, 16), 1, 8, 4, (False, True), True)),
        photo_encoder=PhotoEncoder.from_preset(PhotoEncoderConfig("efficientnet-lite0", 8, 8, True, 0.0)),
        renderer=Renderer.from_preset(RendererConfig((8, 8), (1, 1), 3, (8, 8))),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
        ),
        scales=(1.0,) * 16,
        motion_area=32 * 32,
        name="tiny",
    )
    for name in ("autoencoder", "denoiser", "photo_encoder", "renderer"):
        getattr(pipeline, name).eval()
    return pipeline


def photo(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """A smooth random picture."""
    generator = torch.Generator().manual_seed(seed)
    small = (torch.rand(4, 6, 3, generator=generator) * 255).byte().numpy()
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
