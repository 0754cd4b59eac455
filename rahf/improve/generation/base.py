"""What every generator can be asked, whatever pipeline is behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from foundation.limits import Checked
from rahf.improve.generation.conditioning import Conditioning
from rahf.improve.generation.schedule import Prediction
from rahf.improve.generation.windows import cut, cut_mask, paste, window_of
from rahf.limits import IMPROVE

Progress = Callable[[float, str], None]


class OutOfMemoryError(ValueError):
    """The device has no room for what was asked; what was finished before is not lost."""


@dataclass(frozen=True)
class Setting(Checked):
    """How a picture is drawn.

    Attributes:
        steps: of the sampler.
        guidance: how closely the prompt is followed (classifier-free guidance); up to 1 there is none.
        strength: how much of what was there is drawn anew where a mask is filled.
        side: of the picture in pixels; the generator's own by default.
        negative: what the picture should not show, in words.
        padding: pixels around a mask that are shown to the generator; by default all that it can see at once.
        seamless: whether what fills a mask is brought to the colours around it near the rim.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = {name: IMPROVE[name] for name in ("steps", "guidance", "strength")}

    steps: int = 30
    guidance: float = 5.0
    strength: float = 1.0
    side: int | None = None
    negative: str = ""
    padding: int | None = None
    seamless: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("side", "padding"):
            if getattr(self, name) is not None:
                IMPROVE[name].check(name, getattr(self, name))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of sampling, as whoever adjusts it sees it.

    Attributes:
        generator: that draws.
        latents: (B,c,h,w) before the step.
        index: of the step, from 0. steps: how many there are.
        timestep: () that the network is told.
        alpha: () cumulative product before the step. after: the same after it.
        conditioning, guidance: for `Generator.predict`.
        advance: latents after the step, from a prediction and the latents that it was made for.
    """

    generator: Generator
    latents: Tensor
    index: int
    steps: int
    timestep: Tensor
    alpha: Tensor
    after: Tensor
    conditioning: Conditioning
    guidance: float
    advance: Callable[[Tensor, Prediction], Tensor]

    def predict(self, latents: Tensor) -> Prediction:
        """What the network sees in latents (B,c,h,w) at this step."""
        return self.generator.predict(latents, self.timestep, self.conditioning, self.guidance)


# A step -> the latents after it.
Adjust = Callable[[Step], Tensor]


class Generator:
    """A text-to-image model behind one interface. Stateless between calls.

    Attributes:
        name: as it was asked for.
        side: of the pictures that it was made for, in pixels.
        can_inpaint: whether it fills masks.
        differentiable: whether latents, noise and gradients can be had; else only `generate` and `inpaint`.
        license: of the weights, None if nobody has stated one.
        setting: what to begin with.
        pipeline: of diffusers, underneath.
        batch: pictures that are drawn at once.
    """

    differentiable = False

    def __init__(self, pipeline: Any, name: str, side: int, can_inpaint: bool, license: str | None = None) -> None:
        self.pipeline, self.name, self.side = pipeline, name, side
        self.can_inpaint, self.license = can_inpaint, license
        self.setting = usual_setting(pipeline)
        self.batch = 8 if side <= 256 else 2

    def generate(
        self,
        prompt: str,
        count: int,
        seed: int,
        setting: Setting | None = None,
        progress: Progress | None = None,
        adjust: Adjust | None = None,
    ) -> Tensor:
        """Draw pictures.

        Args:
            prompt: what they show.
            count: how many; picture i depends on `seed + i` alone.
            seed: of the noise that they begin as.
            setting: steps and guidance; the generator's own by default.
            progress: told how far it is, and what is done.
            adjust: takes the place of each step (`Step` -> latents after it).

        Returns:
            (count,3,S,S) float32 in [0, 1], on the CPU.

        Raises:
            ValueError: no prompt, a number out of range, `adjust` for a generator that has no gradient, or no memory.
        """
        setting = self._checked(prompt, count, seed, setting)
        if adjust is not None:
            self.need_gradient("guidance")
        made = []
        for start, size in self._parts(count):
            with memory_errors(self.name, size), torch.no_grad():
                told = part_of(progress, start / count, (start + size) / count)
                made.append(self._draw(prompt, size, seed + start, setting, told, adjust).float().cpu())
        return torch.cat(made)

    def inpaint(
        self,
        picture: Tensor,
        mask: Tensor,
        prompt: str,
        count: int,
        seed: int,
        setting: Setting | None = None,
        progress: Progress | None = None,
        adjust: Adjust | None = None,
    ) -> Tensor:
        """Draw the masked part of a picture anew.

        Args:
            picture: (3,H,W) in [0, 1], of any size: a square around the mask is shown to the generator.
            mask: (H,W) bool, True where to draw; it may cover everything.
            prompt, count, seed, setting, progress, adjust: as for `generate`.

        Returns:
            (count,3,H,W) float32 in [0, 1]; pixels outside of the mask are those of the picture, unchanged.

        Raises:
            ValueError: as `generate`; an empty mask, one of another size, or a generator that cannot fill masks.
        """
        setting = self._checked(prompt, count, seed, setting)
        if not self.can_inpaint:
            raise ValueError(f"{self.name} cannot fill a mask; name a generator that inpaints, or use 'embedded'")
        if adjust is not None:
            self.need_gradient("guidance")
        check_mask(picture, mask)
        side = setting.side or self.side
        picture, mask = picture.float().cpu(), mask.cpu()
        window = window_of(mask, side, setting.padding)
        shown, hidden = cut(picture, window, side), cut_mask(mask, window, side)
        made = []
        for start, size in self._parts(count):
            with memory_errors(self.name, size), torch.no_grad():
                told = part_of(progress, start / count, (start + size) / count)
                made.append(self._fill(shown, hidden, prompt, size, seed + start, setting, told, adjust).float().cpu())
        return paste(picture, mask, window, torch.cat(made), setting.seamless)

    def cost(self, count: int, setting: Setting | None = None, inpainting: bool = False) -> int:
        """How often the network looks at one picture's latents for `count` pictures: the prompt and the empty prompt
        count as two."""
        setting = setting or self.setting
        steps = min(int(setting.steps * setting.strength), setting.steps) if inpainting else setting.steps
        return count * steps * (2 if setting.guidance > 1 else 1)

    # What guidance, inversion and fine-tuning need; latents (B,c,h,w) are scaled as the U-Net expects them.

    def embed(self, prompt: str, negative: str = "", side: int | None = None) -> Conditioning:
        """What the network is told of a prompt; a U-Net that inpaints is told that everything is masked."""
        raise self._no_gradient("embedding a prompt")

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Prediction:
        """Noise and picture seen in latents (B,c,h,w), differentiable in them; guided by the prompt above 1."""
        raise self._no_gradient("predicting noise")

    def noise(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        """The noise of `predict` alone."""
        return self.predict(latents, timestep, conditioning, guidance).epsilon

    def alphas(self, steps: int) -> tuple[Tensor, Tensor]:
        """Timesteps (n,) of DDIM, falling, and cumulative products (n+1,): of each of them, and of the picture."""
        raise self._no_gradient("a noise schedule")

    def encode(self, picture: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> latents, the mean of what the autoencoder gives; differentiable."""
        raise self._no_gradient("encoding a picture")

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B,3,H,W) in [0, 1]; differentiable."""
        raise self._no_gradient("decoding latents")

    def initial(self, count: int, seed: int, side: int | None = None) -> Tensor:
        """The noise (count,c,h,w) that `generate` begins with; row i depends on `seed + i` alone."""
        raise self._no_gradient("initial latents")

    # What a kind of pipeline does in its own way; both under no_grad.

    def _draw(
        self, prompt: str, count: int, seed: int, setting: Setting, progress: Progress, adjust: Adjust | None
    ) -> Tensor:
        raise NotImplementedError

    def _fill(
        self,
        picture: Tensor,
        mask: Tensor,
        prompt: str,
        count: int,
        seed: int,
        setting: Setting,
        progress: Progress,
        adjust: Adjust | None,
    ) -> Tensor:
        raise NotImplementedError

    def _checked(self, prompt: str, count: int, seed: int, setting: Setting | None) -> Setting:
        """The setting to use. Raises ValueError for what cannot be asked."""
        check_text(prompt)
        IMPROVE["count"].check("count", count)
        IMPROVE["seed"].check("seed", seed)
        return setting or self.setting

    def _parts(self, count: int) -> Iterator[tuple[int, int]]:
        """(first, number) of the pictures that are drawn at once."""
        for start in range(0, count, self.batch):
            yield start, min(self.batch, count - start)

    def need_gradient(self, what: str) -> None:
        """Raises ValueError, which says so, for a generator that has no gradient."""
        if not self.differentiable:
            raise self._no_gradient(what)

    def _no_gradient(self, what: str) -> ValueError:
        return ValueError(
            f"{what} needs a gradient, which {self.name} ({type(self.pipeline).__name__}) does not give; name a "
            "model of Stable Diffusion or SDXL, or 'embedded'; repair and selection work with this one"
        )


def usual_setting(pipeline: Any) -> Setting:
    """Steps and guidance that a pipeline takes if it is told nothing; 30 steps where it would take more."""
    taken = inspect.signature(pipeline.__call__).parameters
    usual = {
        field: taken[name].default
        for field, name in (("steps", "num_inference_steps"), ("guidance", "guidance_scale"))
        if name in taken and isinstance(taken[name].default, int | float)
    }
    steps, guidance = min(int(usual.get("steps", 30)), 30), float(usual.get("guidance", 5.0))
    return Setting(steps=max(steps, 1), guidance=min(max(guidance, 0.0), IMPROVE["guidance"].high))


def later_seed(seed: int, offset: int) -> int:
    """A seed so many places on, from the start again behind the last one."""
    return (seed + offset) % (int(IMPROVE["seed"].high) + 1)


def check_text(prompt: str) -> None:
    """Raises ValueError for an empty prompt."""
    if not prompt.strip():
        raise ValueError("no prompt is given; say in a few words what the picture is to show")


def check_mask(picture: Tensor, mask: Tensor) -> None:
    """Raises ValueError unless a mask (H,W) bool belongs to a picture (3,H,W)."""
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"the picture has shape {tuple(picture.shape)}; it must be (3, height, width)")
    if mask.dtype != torch.bool or mask.shape != picture.shape[-2:]:
        raise ValueError(
            f"the mask is {tuple(mask.shape)} of {mask.dtype}; it must be bool, of the picture's "
            f"{picture.shape[2]}x{picture.shape[1]} pixels"
        )
    if not bool(mask.any()):
        raise ValueError("the mask is empty: nothing is to be drawn anew; mark a place, or lower the threshold")


def part_of(progress: Progress | None, begin: float, end: float) -> Progress:
    """The progress of a part as that of the whole, of which it goes from one share to another."""

    def told(share: float, what: str) -> None:
        if progress is not None:
            progress(begin + share * (end - begin), what)

    return told


@contextmanager
def memory_errors(name: str, count: int) -> Iterator[None]:
    """Say of a full accelerator what can be done. Raises OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"the device has no memory left for {count} picture(s) of {name} at once; ask for fewer or smaller ones "
            "(side), or load it in half precision"
        ) from error
