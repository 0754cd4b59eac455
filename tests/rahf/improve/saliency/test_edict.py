"""Invertible sampling on a tiny real U-Net: the inverse, the gradient against plain autograd, and flat memory."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rahf.improve.saliency.edict import Coefficients, coefficients, differentiable_sample, invert, sample

Noise = Callable[[Tensor, int], Tensor]


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """A U-Net that inpaints: four channels, a mask and four more; its last layer larger so that steps matter."""
    torch.manual_seed(3)
    model = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    with torch.no_grad():
        model.conv_out.weight.mul_(4)
    return model.eval()


def setting(unet: UNet2DConditionModel, count: int, dtype: torch.dtype = torch.float32) -> tuple[Noise, Coefficients]:
    """Noise with guidance 3, and DDIM's coefficients, for so many steps."""
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    scheduler.set_timesteps(count)
    alphas = torch.stack([*scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod])
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(2, 5, 12, generator=generator).to(dtype)
    extra = torch.randn(1, 5, 8, 8, generator=generator).to(dtype)

    def noise(latents: Tensor, index: int) -> Tensor:
        entry = torch.cat([latents.to(dtype), extra.expand(len(latents), -1, -1, -1)], dim=1)
        states = text.repeat_interleave(len(latents), 0)
        without, with_text = unet(torch.cat([entry, entry]), scheduler.timesteps[index], states).sample.chunk(2)
        return without + 3 * (with_text - without)

    return noise, coefficients(alphas)


def start(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_coefficients_are_ddims_step() -> None:
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(7)
    alphas = torch.stack([*scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod])
    steps = coefficients(alphas)
    latents, seen = start(), start().flip(0)
    for index in range(6):  # where diffusers and the schedule agree on what comes next
        expected = scheduler.step(seen, scheduler.timesteps[index], latents).prev_sample
        torch.testing.assert_close(steps.scale[index] * latents + steps.shift[index] * seen, expected)


@pytest.mark.parametrize("count", [5, 20, 50])
def test_the_inverse_gives_the_start_back(unet: UNet2DConditionModel, count: int) -> None:
    noise, steps = setting(unet, count)
    end = sample((start(), start()), noise, steps)
    assert float((end[0] - start()).abs().max()) > 0.3  # something was done
    for back in invert(end, noise, steps):
        assert float((back - start()).abs().max()) < 1e-4


def test_a_picture_comes_back_from_its_inversion(unet: UNet2DConditionModel) -> None:
    noise, steps = setting(unet, 10)
    picture = start() / 2
    for back in sample(invert((picture, picture), noise, steps), noise, steps):
        assert float((back - picture).abs().max()) < 1e-4


def test_plain_ddim_does_not_come_back(unet: UNet2DConditionModel) -> None:
    """The yardstick of the two tests above: the usual inversion takes the noise of the wrong end of each step."""
    noise, steps = setting(unet, 10)
    picture = start() / 2
    latents = picture
    with torch.no_grad():
        for index in reversed(range(10)):
            latents = (latents - steps.shift[index] * noise(latents, index)) / steps.scale[index]
        for index in range(10):
            latents = steps.scale[index] * latents + steps.shift[index] * noise(latents, index)
    assert float((latents - picture).abs().max()) > 1e-2


def plainly(latents: Tensor, noise: Noise, steps: Coefficients, mixing: float) -> Tensor:
    """EDICT as the paper writes it, with autograd's own graph over everything."""
    pair = [latents, latents]
    for index in range(len(steps)):
        if index % 2:
            pair.reverse()
        x = steps.scale[index] * pair[0] + steps.shift[index] * noise(pair[1], index)
        y = steps.scale[index] * pair[1] + steps.shift[index] * noise(x, index)
        x = mixing * x + (1 - mixing) * y
        pair = [x, mixing * y + (1 - mixing) * x]
        if index % 2:
            pair.reverse()
    return pair[0]


def slope(run: Callable[..., Tensor], unet: UNet2DConditionModel, count: int, mixing: float) -> Tensor:
    """Gradient of a loss on the last latents with respect to the first, in double precision."""
    model = unet.double()
    noise, steps = setting(model, count, torch.float64)
    latents = start(dtype=torch.float64).requires_grad_(True)
    target = torch.randn(latents.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    ((run(latents, noise, steps, mixing) - target) ** 2).mean().backward()
    unet.float()
    assert latents.grad is not None
    return latents.grad


@pytest.mark.parametrize(("count", "mixing"), [(1, 0.93), (4, 0.93), (5, 0.8)])
def test_the_gradient_is_that_of_plain_autograd(unet: UNet2DConditionModel, count: int, mixing: float) -> None:
    mine, plain = (slope(run, unet, count, mixing) for run in (differentiable_sample, plainly))
    assert float(plain.abs().max()) > 1e-4
    torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-10)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that came into being under it and are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.count(value.untyped_storage())
        return result

    def count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)

        def gone(_: Any) -> None:
            self.alive -= size
            self.known.pop(key, None)

        self.known[key] = weakref.ref(storage, gone)


def peak(run: Callable[..., Tensor], unet: UNet2DConditionModel, count: int) -> int:
    """Most bytes alive during one forward and backward pass."""
    noise, steps = setting(unet, count)
    latents = start().requires_grad_(True)
    gc.collect()
    with LiveBytes() as counted:
        run(latents, noise, steps, 0.93).square().mean().backward()
    return counted.peak


def test_memory_does_not_grow_with_the_steps(unet: UNet2DConditionModel) -> None:
    unet.requires_grad_(False)
    few, many = (peak(differentiable_sample, unet, count) for count in (5, 20))
    assert many <= 1.02 * few
    plain_few, plain_many = (peak(plainly, unet, count) for count in (5, 20))
    assert plain_many > 3 * plain_few  # so that the count is known to count
    assert few < plain_few / 4


def test_nothing_is_kept_between_forward_and_backward(unet: UNet2DConditionModel) -> None:
    kept: dict[int, int] = {}
    for count in (5, 20):
        sizes: list[int] = []
        noise, steps = setting(unet, count)

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            differentiable_sample(start().requires_grad_(True), noise, steps)
        kept[count] = sum(sizes)
    assert kept[5] == kept[20] == 2 * start().numel() * 8  # two latents in float64


def test_what_cannot_be_sampled_is_refused(unet: UNet2DConditionModel) -> None:
    noise, steps = setting(unet, 2)
    for mixing in (0.2, 1.5):
        with pytest.raises(ValueError, match=f"mixing is {mixing:g}"):
            sample((start(), start()), noise, steps, mixing)
        with pytest.raises(ValueError, match=r"from 0\.5 to 1"):
            differentiable_sample(start(), noise, steps, mixing)
    for alphas in (torch.tensor([0.5]), torch.tensor([0.0, 0.5])):
        with pytest.raises(ValueError, match="at least two"):
            coefficients(alphas)
