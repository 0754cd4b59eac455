"""Generators by name: the embedded one, a folder of diffusers, or the Hub; one interface for every tool.

generator = load_generator()
pictures = generator.generate("two red apples above a cat", count=4, seed=0)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.devices import resolve_device
from foundation.weights.checks import Layout, WeightsKind, check_file
from foundation.weights.resolver import EMBEDDED, HubName, resolve
from rahf.improve.generation.base import Adjust, Generator, OutOfMemoryError, Progress, Setting, Step
from rahf.improve.generation.conditioning import Conditioning
from rahf.improve.generation.latent import LatentGenerator, is_latent
from rahf.improve.generation.others import OtherGenerator
from rahf.improve.generation.schedule import Prediction
from rahf.limits import IMPROVE

if TYPE_CHECKING:
    import torch

__all__ = [
    "Adjust",
    "Conditioning",
    "Generator",
    "OutOfMemoryError",
    "Prediction",
    "Progress",
    "Setting",
    "Step",
    "add_lora",
    "load_generator",
    "remove_lora",
    "resolve_generator",
    "wrap",
]

FOLDER = Path(__file__).resolve().parents[1] / "weights" / "generator"
# Of the embedded one. It has learned whole scenes: around a mask it is shown the whole picture, however small.
LICENSE, SETTING = "apache-2.0", Setting(steps=25, guidance=3.0, padding=int(IMPROVE["padding"].high))
LORA, ADAPTER = "pytorch_lora_weights.safetensors", "tuned"
# Without a prefix: other number formats (".fp16.") would be a second copy.
_PATTERNS = (
    *("*.json", "*/*.json", "*/vocab.txt", "*/merges.txt", "*/spiece.model", "*/tokenizer.model"),
    *("*/model.safetensors", "*/model-*.safetensors"),
    *("*/diffusion_pytorch_model.safetensors", "*/diffusion_pytorch_model-*.safetensors"),
)


def layout(index: Mapping[str, Any]) -> Layout:
    """The files of a pipeline of diffusers, from its model_index.json. Raises ValueError if it is no such file."""
    name = str(index.get("_class_name", ""))
    if not name.endswith("Pipeline"):
        raise ValueError("its model_index.json names no pipeline of diffusers")
    parts = [part for part, value in index.items() if isinstance(value, list | tuple) and value and value[0]]
    required = []
    for part in parts:
        if part in ("unet", "transformer", "vae"):
            required += [f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"]
        elif part.startswith("text_encoder"):
            required += [f"{part}/config.json", f"{part}/model.safetensors"]
    return Layout(_PATTERNS, tuple(required))


KIND = WeightsKind("rahf improve", "IMPROVE_WEIGHTS", FOLDER, "model_index.json", "diffusers (save_pretrained)", layout)


def resolve_generator(name: str | Path = EMBEDDED, token: str | None = None) -> Path:
    """The folder of a generator: `embedded`, a folder, or `owner/repo[@revision][/subfolder]` on the Hub.

    Raises:
        ValueError: nothing is there, or something else; says what to do.
    """
    return resolve(name, KIND, token=token, headers=False)


def load_generator(
    name: str | Path = EMBEDDED,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = "auto",
    token: str | None = None,
    lora: str | Path | None = None,
) -> Generator:
    """Load a generator.

    Args:
        name: see `resolve_generator`.
        device: cpu, cuda, cuda:N, mps or auto.
        dtype: number format of the networks; "auto" is half precision on CUDA, else float32.
        token: for the Hub.
        lora: folder of an adapter to draw with (`add_lora`).

    Raises:
        ValueError: no such generator, one that is damaged or of no known kind, or a device that is not there.
    """
    import torch
    from diffusers import DiffusionPipeline

    place = resolve_device(device)
    chosen = (torch.float16 if place.type == "cuda" else torch.float32) if dtype == "auto" else dtype
    if not isinstance(chosen, torch.dtype):
        raise ValueError(f"dtype {dtype!r} is unknown; use auto, or a dtype of torch such as torch.float16")
    folder = resolve_generator(name, token)
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder), torch_dtype=chosen, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, AttributeError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"the generator in {folder} cannot be loaded ({reason}); fetch or make it again") from error
    pipeline.set_progress_bar_config(disable=True)
    license = LICENSE if str(name) == EMBEDDED else license_of(folder, str(name), token)
    generator = wrap(pipeline.to(place), str(name), license)
    if str(name) == EMBEDDED:
        generator.setting = SETTING
    if lora is not None:
        add_lora(generator, lora)
    return generator


def wrap(pipeline: Any, name: str = "", license: str | None = None) -> Generator:
    """A pipeline of diffusers behind the interface. Raises ValueError for one that draws no pictures from text."""
    name = name or type(pipeline).__name__
    kind = LatentGenerator if is_latent(pipeline) else OtherGenerator
    return kind(pipeline, name, license)


def license_of(folder: Path, name: str, token: str | None = None) -> str | None:
    """What the card beside the weights, or the one on the Hub, states; None if there is none or it cannot be asked."""
    card = folder / "README.md"
    if card.is_file():
        found = re.search(r"^license(?:_name)?:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.M)
        return found[1].strip("\"'") if found else None
    hub_name = HubName.parse(name)
    if hub_name is None or Path(name).expanduser().is_dir():
        return None
    from huggingface_hub import HfApi

    from foundation.weights.hub import NETWORK_ERRORS

    try:
        data = HfApi(token=token).model_info(hub_name.repo, revision=hub_name.revision, timeout=10).card_data
    except NETWORK_ERRORS:
        return None
    return str(data.license) if data is not None and data.license else None


def add_lora(generator: Generator, folder: str | Path, strength: float = 1.0) -> None:
    """Draw with a low-rank adapter that `rahf improve tune` or another trainer of diffusers wrote, from now on.

    Args:
        generator: is changed: whatever draws with it draws with the adapter.
        folder: with pytorch_lora_weights.safetensors in it.
        strength: how much of it; 0 is as without.

    Raises:
        ValueError: no such folder, or an adapter of another generator.
    """
    generator.need_gradient("an adapter")
    path = Path(folder).expanduser()
    if not (path / LORA).is_file():
        raise ValueError(f"{path} holds no {LORA}; name a folder that `rahf improve tune` wrote (OUT/lora)")
    check_file(path / LORA)
    remove_lora(generator)
    pipeline = generator.pipeline
    try:
        pipeline.load_lora_weights(str(path), weight_name=LORA, adapter_name=ADAPTER, local_files_only=True)
        pipeline.set_adapters([ADAPTER], [strength])
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        remove_lora(generator)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"the adapter in {path} does not fit {generator.name} ({reason}); it is another one's"
        ) from error
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if getattr(pipeline, part, None) is not None:
            getattr(pipeline, part).requires_grad_(False).eval()


def remove_lora(generator: Generator) -> None:
    """Draw without any adapter again."""
    generator.pipeline.unload_lora_weights()
