"""Tiny random pipelines of diffusers: real classes, a few channels, 32 pixels a side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIDE = 32
WORDS = ("a", "red", "blue", "apple", "cat", "two", "cats", "ball", "green", "dog")


def tokenizer() -> Any:
    """Whole words, a handful."""
    from transformers import CLIPTokenizer

    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *(chr(97 + n) for n in range(26)),
        *(f"{chr(97 + n)}</w>" for n in range(26)),
    ]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    pairs: list[Any] = list(dict.fromkeys(merges))
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=16)


def text_encoder(words: int, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIDE,
    )


def unet(channels: int, xl: bool) -> Any:
    from diffusers import UNet2DConditionModel

    extra: dict[str, Any] = {}
    if xl:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 16 + 6 * 4,
        }
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32 if xl else 16,
        attention_head_dim=4,
        norm_num_groups=4,
        **extra,
    )


def scheduler(prediction: str = "epsilon", **options: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        **options,
    )


def make(kind: str, prediction: str = "epsilon") -> Any:
    """A pipeline: "sd", "sd-inpaint", "xl" or "xl-inpaint"."""
    import diffusers

    torch.manual_seed(0)
    channels, words = 9 if kind.endswith("inpaint") else 4, tokenizer()
    parts: dict[str, Any] = {
        "vae": autoencoder(),
        "text_encoder": text_encoder(len(words)),
        "tokenizer": words,
        "unet": unet(channels, kind.startswith("xl")),
        "scheduler": scheduler(prediction),
    }
    if kind.startswith("xl"):
        parts |= {"text_encoder_2": text_encoder(len(words), projected=True), "tokenizer_2": tokenizer()}
        name = "StableDiffusionXLInpaintPipeline" if channels == 9 else "StableDiffusionXLPipeline"
        options: dict[str, Any] = {"add_watermarker": False}
    else:
        name = "StableDiffusionInpaintPipeline" if channels == 9 else "StableDiffusionPipeline"
        options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, name)(**parts, **options)
    pipeline.set_progress_bar_config(disable=True)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


def save(kind: str, folder: Path) -> Path:
    """The same as a folder."""
    make(kind).save_pretrained(folder)
    return folder


def make_flux() -> Any:
    """A pipeline that is built otherwise: a transformer, rectified flow, two text encoders."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    torch.manual_seed(0)
    words = tokenizer()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            latent_channels=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.1,
            scaling_factor=1.5,
        ).eval(),
        text_encoder=text_encoder(len(words)).eval(),
        tokenizer=words,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=384, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        ).eval(),
        tokenizer_2=ByT5Tokenizer(model_max_length=24),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ).eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
