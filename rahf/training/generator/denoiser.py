"""The generator's second stage: a U-Net that denoises latents as a prompt and a mask ask for (Rombach et al. 2022).

It predicts v (Salimans and Ho 2022), which is steadier than the noise where hardly anything but noise is left, and that
is where the few pixels of its latents decide what stands where. The words' meaning is learned along with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from foundation.limits import Limit
from foundation.training import TrainingConfig, TrainingRun
from rahf.data.drawable import draw_prompts
from rahf.limits import TRAINING
from rahf.training.generator.autoencoder import LATENT_CHANNELS, norms_in_float32
from rahf.training.generator.latents import Latents
from rahf.training.generator.scenes import STRIDE
from rahf.training.generator.tokens import build_text_encoder, build_tokenizer

TIMES = 1000
LARGEST_WEIGHT = 5.0  # of a step, by its signal-to-noise ratio: Hang et al. 2023
SHEET_SEED = 9
SHEET_STEPS, SHEET_GUIDANCE = 25, 3.0
FOLDER = "pipeline"


@dataclass(frozen=True)
class DenoiserConfig(TrainingConfig):
    """The generator's denoiser.

    Attributes:
        latents: folder that `rahf generator-latents` wrote.
        autoencoder: folder of the autoencoder that made them.
        widths: channels at each resolution; those between the first and the last read the prompt.
        text_width: channels of the text encoder.
        init: pipeline of an earlier run to start from, with its tokenizer.
        no_prompt: part of the samples that are shown no prompt, for guidance without a classifier.
        sheet: prompts on the sample sheets, a multiple of 8.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING

    steps: int = 8000
    batch_size: int = 16
    learning_rate: float = 8e-4
    warmup_steps: int = 100
    ema_decay: float = 0.999
    save_every: int = 500
    log_every: int = 50
    latents: Path = field(kw_only=True)
    autoencoder: Path = field(kw_only=True)
    widths: tuple[int, ...] = (64, 128, 160)
    text_width: int = 128
    init: Path | None = None
    no_prompt: float = 0.1
    sheet: int = 32


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise levels, for a model that predicts v."""
    return DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def build_denoiser(widths: tuple[int, ...], text_width: int, grid: int) -> UNet2DConditionModel:
    """The network, untrained: latents, mask and masked latents in, v out. Raises ValueError for bad widths."""
    if len(widths) < 2 or any(width % 32 for width in widths):
        raise ValueError(f"widths are {widths}; at least two multiples of 32 are needed")
    middle = len(widths) - 2 if len(widths) > 2 else 1
    reads = [False, *[True] * middle, *[False] * (len(widths) - 1 - middle)]
    return UNet2DConditionModel(
        sample_size=grid,
        in_channels=2 * LATENT_CHANNELS + 1,
        out_channels=LATENT_CHANNELS,
        down_block_types=tuple("CrossAttnDownBlock2D" if read else "DownBlock2D" for read in reads),
        up_block_types=tuple("CrossAttnUpBlock2D" if read else "UpBlock2D" for read in reversed(reads)),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=tuple(max(width // 32, 1) for width in widths),  # in fact how many heads, by its history
        norm_num_groups=16,
    )


class DenoiserObjective(nn.Module):
    """A batch of `LatentBatches` -> the weighted squared error of v."""

    def __init__(self, denoiser: UNet2DConditionModel, text_encoder: CLIPTextModel, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.denoiser, self.text_encoder, self.scheduler = denoiser, text_encoder, scheduler

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        clean = batch["latents"]
        times = torch.randint(0, TIMES, (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        noisy = self.scheduler.add_noise(clean, noise, times)
        wanted = self.scheduler.get_velocity(clean, noise, times)
        words = self.text_encoder(batch["ids"]).last_hidden_state
        seen = torch.cat([noisy, batch["masks"], batch["masked"]], dim=1).contiguous(memory_format=torch.channels_last)
        predicted = self.denoiser(seen, times, words).sample.float()
        error = (predicted - wanted).square().mean(dim=(1, 2, 3))
        alphas = self.scheduler.alphas_cumprod.to(clean.device)[times]
        weight = (LARGEST_WEIGHT * (1 - alphas)).clamp(max=1)
        return (weight * error).mean(), {"error": error.detach().mean()}


class LatentBatches:
    """The batch of each step, by seed and step: latents and prompts, a part of them without."""

    def __init__(self, source: Latents, ids: Tensor, no_prompt: Tensor, config: DenoiserConfig) -> None:
        self.source, self.ids, self.no_prompt, self.config = source, ids, no_prompt, config

    def __call__(self, step: int, process: int, processes: int) -> dict[str, Tensor]:
        """One process's part of the batch of a step: latents, masks, masked (B,*,h,w), ids (B,L)."""
        generator = np.random.default_rng([self.config.seed, step, process])
        count = self.config.batch_size // processes
        rows = generator.integers(len(self.source.latents), size=count)
        ids = self.ids[rows].clone()
        ids[torch.from_numpy(generator.random(count) < self.config.no_prompt)] = self.no_prompt
        return {
            "latents": torch.from_numpy(self.source.latents[rows]).float(),
            "masks": torch.from_numpy(self.source.masks[rows])[:, None].float(),
            "masked": torch.from_numpy(self.source.masked[rows]).float(),
            "ids": ids,
        }


def train_generator(config: DenoiserConfig) -> Path:
    """Train the generator's denoiser and text encoder.

    The folder `pipeline` in the run's holds them with the autoencoder.
    """
    source = Latents.load(config.latents)
    autoencoder = AutoencoderKL.from_pretrained(config.autoencoder).eval().to(memory_format=torch.channels_last)
    tokenizer, text_encoder, denoiser = _beginning(config, source.latents.shape[-1])
    norms_in_float32(denoiser)
    denoiser.set_attn_processor(AttnProcessor())  # with so few places, faster on CPUs than the fused kernel
    objective = DenoiserObjective(denoiser.to(memory_format=torch.channels_last), text_encoder, build_scheduler())
    pipeline = StableDiffusionInpaintPipeline(
        autoencoder, text_encoder, tokenizer, denoiser, build_scheduler(), None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)

    def tokens(prompts: list[str]) -> Tensor:
        ids: Tensor = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return ids

    batches = LatentBatches(source, tokens(source.prompts), tokens([""])[0], config)
    run = TrainingRun(config, objective, list(objective.parameters()), batches)
    prompts = [prompt for prompt, _ in draw_prompts(config.sheet, SHEET_SEED, held_out=False)]
    run.train(
        samples=lambda: sheet(draw(pipeline, prompts, SHEET_SEED)),
        save=lambda: pipeline.save_pretrained(config.out / FOLDER),
    )
    return config.out


def _beginning(config: DenoiserConfig, grid: int) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """New networks, or those of an earlier run."""
    torch.manual_seed(config.seed)
    if config.init is None:
        tokenizer = build_tokenizer()
        text_encoder = build_text_encoder(tokenizer, config.text_width)
        return tokenizer, text_encoder, build_denoiser(config.widths, config.text_width, grid)
    tokenizer = CLIPTokenizer.from_pretrained(config.init / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(config.init / "text_encoder", attn_implementation="eager")
    return tokenizer, text_encoder.train(), UNet2DConditionModel.from_pretrained(config.init / "unet").train()


@torch.no_grad()
def draw(
    pipeline: Any, prompts: list[str], seed: int, steps: int = SHEET_STEPS, guidance: float = SHEET_GUIDANCE
) -> np.ndarray:
    """Text to image by an inpainting pipeline: (N,S,S,3) uint8, a picture for each prompt."""
    side = pipeline.unet.config.sample_size * STRIDE
    pictures = pipeline(
        prompt=prompts,
        image=torch.zeros(len(prompts), 3, side, side),
        mask_image=torch.ones(len(prompts), 1, side, side),
        height=side,
        width=side,
        strength=1.0,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
    ).images
    result: np.ndarray = (pictures * 255).round().astype(np.uint8)
    return result


def sheet(pictures: np.ndarray, columns: int = 8) -> np.ndarray:
    """Pictures (N,S,S,3) in rows of `columns`; what does not fill a row is left out."""
    rows = [pictures[i : i + columns] for i in range(0, len(pictures) - columns + 1, columns)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
