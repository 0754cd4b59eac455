"""Pipelines that are built otherwise (Flux and the like): called as they are, for pictures and masks, no gradient."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from rahf.improve.generation.base import Adjust, Generator, Progress, Setting

SIDE = 1024  # where a pipeline does not say what it was made for


class OtherGenerator(Generator):
    """Any text-to-image pipeline of diffusers that it knows by task, with its own sampler."""

    def __init__(self, pipeline: Any, name: str, license: str | None = None) -> None:
        """Take a pipeline. Raises ValueError for one that neither draws from text nor fills masks."""
        self.text, self.filling = (_sibling(pipeline, task) for task in ("Text2Image", "Inpainting"))
        if self.text is None and self.filling is None:
            raise ValueError(
                f"{name} is a {type(pipeline).__name__}, which neither draws from text nor fills masks; name a "
                "text-to-image model of diffusers, or 'embedded'"
            )
        factor = int(getattr(pipeline, "vae_scale_factor", 8))
        latent = getattr(pipeline, "default_sample_size", None)
        super().__init__(pipeline, name, int(latent) * factor if latent else SIDE, self.filling is not None, license)

    def _draw(
        self, prompt: str, count: int, seed: int, setting: Setting, progress: Progress, adjust: Adjust | None
    ) -> Tensor:
        if self.text is None:
            raise ValueError(f"{self.name} fills masks only; give a picture and a mask, or another generator")
        return self._call(self.text, prompt, count, seed, setting, progress)

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
        given = {"image": picture, "mask_image": mask.float(), "strength": setting.strength}
        return self._call(self.filling, prompt, count, seed, setting, progress, given)

    def _call(
        self,
        pipeline: Any,
        prompt: str,
        count: int,
        seed: int,
        setting: Setting,
        progress: Progress,
        given: dict[str, Any] | None = None,
    ) -> Tensor:
        """Pictures of the pipeline's own call, with what it takes of the options."""

        def told(_: Any, index: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            progress((index + 1) / setting.steps, "drawing")
            return values

        side = setting.side or self.side
        options: dict[str, Any] = {
            "prompt": prompt,
            "num_images_per_prompt": count,
            "height": side,
            "width": side,
            "num_inference_steps": setting.steps,
            "guidance_scale": setting.guidance,
            "generator": [torch.Generator().manual_seed(seed + row) for row in range(count)],
            "output_type": "pt",
            "callback_on_step_end": told,
            **(given or {}),
        }
        if setting.negative:
            options["negative_prompt"] = setting.negative
        taken = inspect.signature(pipeline.__call__).parameters
        pictures = pipeline(**{name: value for name, value in options.items() if name in taken}).images
        return pictures.float().clamp(0, 1)


def _sibling(pipeline: Any, task: str) -> Any:
    """The pipeline of a task with the same parts, None if diffusers knows none."""
    import diffusers

    try:
        return getattr(diffusers, f"AutoPipelineFor{task}").from_pipe(pipeline)
    except ValueError:
        return None
