"""Stage 3: the single-slice denoiser. Stage 4: frequency attention, all else frozen (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foundation.files import replacing_files
from foundation.training import TrainingRun
from gid.diffusion.denoiser import DenoiserConfig, PhotoCondition, SpectralDenoiser
from gid.training.common import load_part, tile
from gid.training.latents import LatentMotion
from gid.training.mixture import Mixture, MixtureRunConfig


@dataclass(frozen=True)
class DenoiserTrainingConfig(MixtureRunConfig):
    """Stages 3 and 4; ``data`` are folders of encoded latents.

    Attributes:
        denoiser: folder of a denoiser to start from; needed by stage 4. What fits of an earlier design is taken over.
        preset: sizes of the denoiser.
        slices: frequency slices taken from each volume in stage 3.
        together: stage 3 with frequency attention: all slices of a volume at once, everything trained.
        drop_condition: chance that the photo is dropped, for classifier-free guidance.
        blurred_envelope: chance that the condition holds an envelope as inexact as a predicted one.
    """

    denoiser: Path | None = None
    preset: Literal["paper", "small"] = "small"
    slices: int = 8
    together: bool = False
    drop_condition: float = 0.1
    blurred_envelope: float = 0.7


def noise_scheduler() -> DDPMScheduler:
    """1,000 steps of scaled-linear betas with zero terminal SNR and v-prediction, which few-step sampling needs."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def inexact(log_envelope: Tensor) -> Tensor:
    """A log envelope (B, 1, h, w) as a head might predict it: off by a smooth random field, its edges softened."""
    size = log_envelope.shape[-2:]
    coarse = torch.randn(len(log_envelope), 1, 4, 7, device=log_envelope.device)
    error = F.interpolate(coarse, size, mode="bicubic", align_corners=False)
    soft = F.avg_pool2d(F.pad(log_envelope, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return soft + 0.5 * error


class DenoisingObjective(nn.Module):
    """Weighted mean squared error of the predicted velocity; slices on their own, or all K of a volume together."""

    def __init__(self, denoiser: SpectralDenoiser, config: DenoiserTrainingConfig, together: bool) -> None:
        super().__init__()
        if denoiser.photo_condition is None:
            raise ValueError("this denoiser takes no tokens of the shared encoder; start from one of preset 'small'")
        self.denoiser = denoiser
        self.look: PhotoCondition = denoiser.photo_condition
        self.config = config
        self.together = together
        self.scheduler = noise_scheduler()

    def conditions(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, D, h, w) condition, replaced by the null condition where the photo is dropped."""
        size = len(batch["latents"])
        chance = torch.rand(size, 1, 1, 1, device=batch["latents"].device)
        envelope = torch.where(chance < self.config.blurred_envelope, inexact(batch["envelope"]), batch["envelope"])
        condition = self.look(batch["tokens"], envelope)
        dropped = torch.rand(size, 1, 1, 1, device=condition.device) < self.config.drop_condition
        return torch.where(dropped, self.denoiser.null_condition.to(condition.dtype), condition)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        latents = batch["latents"]
        volumes, bands = latents.shape[:2]
        count = bands if self.together else self.config.slices
        chosen = torch.arange(bands, device=latents.device).expand(volumes, -1)
        if not self.together:
            chosen = torch.rand(volumes, bands, device=latents.device).topk(count, dim=1).indices
        rows = torch.arange(volumes, device=latents.device)[:, None]
        clean = latents[rows, chosen].flatten(0, 1)
        # One time for a whole volume: its slices are denoised in step at inference, too.
        times = torch.randint(0, 1000, (volumes,), device=latents.device).repeat_interleave(count)
        noise = torch.randn_like(clean)
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = self.scheduler.get_velocity(clean, noise, times)
        condition = self.conditions(batch).repeat_interleave(count, dim=0)
        prediction = self.denoiser(noisy, times, chosen.flatten(), condition).float()
        weight = batch["weight"].repeat_interleave(count, dim=0)
        loss = (weight * (prediction - target).square()).mean() / weight.mean()
        return loss, {"zero_loss": (weight * target.square()).mean() / weight.mean()}

    @torch.no_grad()
    def sheet(self, batch: dict[str, Tensor]) -> np.ndarray:
        """uint8 (H, W, 3): per slice, first latent channel: clean | half noise | the clean latent estimated from it."""
        latents = batch["latents"]
        volumes, bands = latents.shape[:2]
        clean = latents.flatten(0, 1)
        times = torch.full((len(clean),), 500, device=clean.device)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
        noisy = self.scheduler.add_noise(clean, noise, times)
        condition = self.look(batch["tokens"], batch["envelope"])
        indices = torch.arange(bands, device=clean.device).repeat(volumes)
        velocity = self.denoiser(noisy, times, indices, condition.repeat_interleave(bands, dim=0))
        alpha = self.scheduler.alphas_cumprod[500]
        estimate = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity
        strips = torch.cat([maps[:, :1] for maps in (clean, noisy, estimate)], dim=3)
        return tile(strips.float().cpu() / 6 + 0.5, columns=4)


def train_denoiser(config: DenoiserTrainingConfig) -> Path:
    """Stage 3: train the denoiser and its view of the photo; writes ``denoiser/``.

    Raises:
        ValueError: if the denoiser to start from is not there.
    """
    torch.manual_seed(config.seed)
    denoiser = SpectralDenoiser.from_preset(DenoiserConfig.preset(config.preset))
    if config.denoiser is not None:
        take_over(denoiser, load_part(SpectralDenoiser, config.denoiser, "denoiser"))
    denoiser.coordinate(config.together)
    left = set() if config.together else set(map(id, denoiser.attention_parameters()))
    trained = [parameter for parameter in denoiser.parameters() if id(parameter) not in left]
    return _train(config, denoiser, trained, config.together)


def take_over(denoiser: SpectralDenoiser, earlier: SpectralDenoiser) -> int:
    """Copy every weight of an earlier denoiser whose name and shape fit; returns how many were copied.

    Raises:
        ValueError: if nothing fits.
    """
    own = denoiser.state_dict()
    fitting = {
        key: value for key, value in earlier.state_dict().items() if own.get(key, value[:0]).shape == value.shape
    }
    if not fitting:
        raise ValueError("nothing of the earlier denoiser fits this one; start from another, or from none")
    denoiser.load_state_dict(fitting, strict=False)
    return len(fitting)


def train_frequency_attention(config: DenoiserTrainingConfig) -> Path:
    """Stage 4: train only the attention across frequencies of the denoiser in ``config.denoiser``.

    Raises:
        ValueError: if no denoiser is named.
    """
    if config.denoiser is None:
        raise ValueError("frequency attention is trained into a denoiser; name the folder of the one to start from")
    denoiser = load_part(SpectralDenoiser, config.denoiser, "denoiser")
    return _train(config, denoiser, list(denoiser.attention_parameters()), together=True)


def _train(
    config: DenoiserTrainingConfig, denoiser: SpectralDenoiser, trained: list[nn.Parameter], together: bool
) -> Path:
    dataset = Mixture([LatentMotion(folder, set(config.exclude)) for folder in config.data], config.shares)
    denoiser.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    objective = DenoisingObjective(denoiser.to(memory_format=torch.channels_last), config, together)
    run = TrainingRun(config, objective, trained, dataset.batches(config))
    objective.train()
    examples = next(iter(DataLoader(dataset, 4, sampler=dataset.sampler(4))))
    run.train(lambda: objective.sheet({key: value.to(run.accelerator.device) for key, value in examples.items()}))
    with run.averaged(), replacing_files(config.out / "denoiser") as partial:
        denoiser.save_pretrained(partial)
    return config.out
