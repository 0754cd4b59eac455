"""Deterministic DDIM (Song et al. 2021, equation 12, sigma 0) on the noise schedule that a pipeline was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Prediction:
    """What the network sees in noisy latents: the noise and the picture under it, both (B,c,h,w)."""

    epsilon: Tensor
    original: Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise of a run of DDIM.

    Attributes:
        timesteps: (n,) int64, falling: what the network is told at each step.
        alphas: (n+1,) float32 cumulative products; `alphas[i]` belongs to `timesteps[i]`, the last one to the picture.
        prediction: what the network gives, one of `PREDICTIONS`.
        clip: largest value of a predicted picture's latents, None for any.
    """

    timesteps: Tensor
    alphas: Tensor
    prediction: str
    clip: float | None

    def advance(self, latents: Tensor, prediction: Prediction, index: int) -> Tensor:
        """Latents after step `index`."""
        original = prediction.original
        if self.clip is not None:
            original = original.clamp(-self.clip, self.clip)
        after = self.alphas[index + 1].to(latents)
        return after.sqrt() * original + (1 - after).sqrt() * prediction.epsilon

    def add_noise(self, original: Tensor, noise: Tensor, index: int) -> Tensor:
        """Latents of a picture as they are before step `index`; `index` n is the picture itself."""
        if index == len(self.timesteps):
            return original
        alpha = self.alphas[index].to(original)
        return alpha.sqrt() * original + (1 - alpha).sqrt() * noise


def ddim(scheduler: Any) -> Any:
    """A DDIM scheduler on the noise that another scheduler of diffusers was made for.

    Raises:
        ValueError: it is made for something else than noise that DDIM knows, such as rectified flow.
    """
    from diffusers import DDIMScheduler

    config = dict(scheduler.config)
    if "beta_schedule" not in config or config.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise ValueError(f"{type(scheduler).__name__} is no scheduler that DDIM can stand in for")
    # Other schedulers do not state what DDIM would clip latents to; they do not clip.
    defaults = {"clip_sample": False, "thresholding": False}
    return DDIMScheduler.from_config({**defaults, **config, "thresholding": False})


def schedule_of(scheduler: Any, steps: int, device: torch.device | str = "cpu") -> Schedule:
    """The schedule of so many steps.

    It is that of diffusers' own DDIM wherever `steps` divides the number of training steps. Elsewhere a spacing
    "trailing" or "linspace" rounds there so that one step ends a timestep beside where the next begins; here the next
    one begins where the last has ended.

    Raises:
        ValueError: more steps than the noise was trained in, or a scheduler that DDIM cannot stand in for.
    """
    sampler = ddim(scheduler)
    trained = int(sampler.config.num_train_timesteps)
    if steps > trained:
        raise ValueError(f"steps is {steps}; this generator was trained in {trained}, take at most so many")
    sampler.set_timesteps(steps)
    products = sampler.alphas_cumprod.float()
    alphas = [*products[sampler.timesteps], sampler.final_alpha_cumprod.float()]
    clip = float(sampler.config.clip_sample_range) if sampler.config.clip_sample else None
    return Schedule(sampler.timesteps.to(device), torch.stack(alphas), str(sampler.config.prediction_type), clip)


def interpret(output: Tensor, latents: Tensor, alpha: Tensor, prediction: str) -> Prediction:
    """The network's output (B,c,h,w) as noise and picture, for latents of cumulative product `alpha` ()."""
    signal, noise = alpha.sqrt().to(latents), (1 - alpha).sqrt().to(latents)
    if prediction == "v_prediction":
        return Prediction(signal * output + noise * latents, signal * latents - noise * output)
    if prediction == "sample":
        return Prediction((latents - signal * output) / noise, output)
    return Prediction(output, (latents - noise * output) / signal)
