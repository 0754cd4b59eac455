# ruff: noqa: E402 - imports come after what makes them light
"""What the libraries take from diffusers, imported without its other networks, peft and torch's compiler.

    from foundation.networks import ConfigMixin, ModelMixin, register_to_config

These are diffusers' own classes, whoever imports them first. Take them from here in whatever a command or the page
imports at its start; elsewhere it makes no difference.
"""

from contextlib import suppress
from typing import TypeVar

from foundation.deferred import deferring

T = TypeVar("T")


def _as_it_is(module: T) -> T:
    """In place of torch._dynamo's mark on diffusers' attention blocks; diffusers itself does so where that is missing.

    Only ``torch.compile`` reads it: it then traces those blocks instead of calling them as a whole.
    """
    return module


# Should it fail with some version of them, what follows imports the same the ordinary way.
with (
    suppress(ImportError),
    deferring(
        ("diffusers.models.autoencoders", "diffusers.models.transformers", "diffusers.models.unets"),
        instead={"torch._dynamo": {"allow_in_graph": _as_it_is}, "scipy.stats": {}},
    ),
):
    import diffusers.models.autoencoders.vae
    import diffusers.models.unets.unet_2d
    import diffusers.schedulers.scheduling_dpmsolver_multistep  # noqa: F401

from diffusers.configuration_utils import ConfigMixin, FrozenDict, register_to_config
from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample2D, ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

__all__ = [
    "BaseOutput",
    "ConfigMixin",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "Decoder",
    "DiagonalGaussianDistribution",
    "Downsample2D",
    "Encoder",
    "FrozenDict",
    "ModelMixin",
    "ResnetBlock2D",
    "SchedulerMixin",
    "UNet2DModel",
    "register_to_config",
]
