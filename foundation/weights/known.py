"""Weights that the code knows by name: what they are, on what terms, how good, and their sha256 where it is known.

`python -m foundation.weights.table` writes this table into weights.md; the resolver pins the revisions and compares the
sha256; `gid push` and `rahf push` take the model cards of the embedded weights from here. None means: not known here.
Nobody's checksum is guessed: an entry gets one when somebody has had the file in hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        key: identifier, as in the report that `gid evaluate` or `rahf evaluate` writes.
        name: what a reader sees.
        value: the number.
    """

    key: str
    name: str
    value: float


@dataclass(frozen=True)
class KnownWeights:
    """One set of weights.

    Attributes:
        name: what the weights call themselves (model_index.json of gid), or their file.
        used_by: which command or setting reads them.
        what: one line.
        source: who made them and where they are.
        licence: identifier as on the Hub, None if nobody has stated one to us.
        data: what they were trained on.
        quality: measured quality in one line, None if it was not measured here.
        embedded: folder in this repository, if they are inside a package.
        repo: repository on the Hub, if they are there.
        revision: commit that the resolver takes when none is named.
        files: sha256 by path in the repository or folder, as far as known.
        size: bytes in all.
        parameters: number of trained numbers.
        metrics: for the model card.
        test_data: what the metrics were measured on.
        training: how they were trained, for the model card.
        limits: what they are not good for.
    """

    name: str
    used_by: str
    what: str
    source: str
    licence: str | None = None
    data: str | None = None
    quality: str | None = None
    embedded: str | None = None
    repo: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    parameters: int | None = None
    metrics: tuple[Metric, ...] = ()
    test_data: str = ""
    training: str = ""
    limits: str = ""


GID_SMALL = KnownWeights(
    name="gid-small",
    used_by="`gid`, `embedded`",
    what=(
        "photo encoder with three envelope heads, motion autoencoder, denoiser with frequency attention, renderer, and "
        "a part that holds pictures of things still"
    ),
    source="this project",
    licence="apache-2.0",
    data=(
        "3,000 procedural scenes and 12 looping clips (CC0); one envelope head also 1,000 scenes pasted from "
        "photographs; 283 photographs for what stands still; the trunk of the photo encoder: ImageNet"
    ),
    quality="correlation of motion energy 0.53, background leakage 0.23 on seven clips left out",
    embedded="gid/weights",
    metrics=(
        Metric("correlation", "correlation of motion energy with the measured one", 0.53),
        Metric("leakage", "background leakage (median)", 0.23),
        Metric("spectral_distance", "spectral distance, dB", 11.1),
        Metric("strength", "strength against the measured one", 0.87),
        Metric("agreement", "error of agreement between moving pixels", 0.14),
    ),
    test_data="seven looping clips of the paper's project page (CC0), left out of training",
    training=(
        "From nothing, except the trunk of the photo encoder, which is EfficientNet-Lite0 at its ImageNet weights: the "
        "autoencoder of frequency slices, three envelope heads, the denoiser one slice at a time, then attention "
        "across frequencies with the rest frozen, the renderer by itself, and the regression that holds things still."
    ),
    limits=(
        "Good for flowers, leaves, trees, hanging paper, cloth and lanterns before a still background. Not good for "
        "candles in the dark, walls of leaves, water, people."
    ),
)

RAHF_SMALL = KnownWeights(
    name="rahf-small",
    used_by="`rahf`, `embedded`",
    what="rich feedback on generated images: two heatmaps, four scores, words",
    source="this project",
    licence="apache-2.0",
    data=(
        "composed scenes with known prompts and known faults; for real pictures 969 checked and 143 anatomy-labelled "
        "generated pictures, 363 captioned photographs, planted faults, embeddings and ratings of CLIP-based teachers "
        "on 3,700 pictures"
    ),
    quality=(
        "on 1,000 composed scenes of unseen sprites: plausibility PLCC 0.72, alignment 0.69; implausibility CC "
        "0.76, AUC 0.95; misalignment CC 0.75; words F1 0.64"
    ),
    embedded="rahf/weights",
    test_data="composed scenes of sprites and backgrounds that training never showed",
    training=(
        "On composed scenes: sprites on backgrounds, with a prompt that tells of them and faults put in on purpose; "
        "and small heads on the frozen shared encoder for real pictures."
    ),
    limits=(
        "On real pictures it knows 199 kinds of things by 1,185 words, 12 colours and counts to six; other words are "
        "not judged. Of people's bodies it has seen 143 labelled pictures. Plausibility of animals and things agrees "
        "with people hardly better than chance."
    ),
)

RAHF_GENERATOR = KnownWeights(
    name="rahf-generator",
    used_by="`rahf improve`, `embedded`",
    what=(
        "pictures of clip art from a restricted vocabulary, and parts of them anew: autoencoder, U-Net with a mask, "
        "text encoder, tokenizer; opens in diffusers' StableDiffusionInpaintPipeline"
    ),
    source="this project",
    licence="apache-2.0",
    data="composed scenes without faults: one emoji each of sixteen nouns, in eight colours, up to four in a picture",
    quality=("of 300 unseen prompts objects right 0.89, colours 0.95, counts 0.73 (chance 0.02, 0.01, 0.01)"),
    embedded="rahf/weights/generator",
    test_data="300 prompts whose plans no training picture shows; objects counted by a recogniser that no tool sees",
    training=(
        "From nothing, on a CPU core: the autoencoder on crops of scenes, its decoder alone on noisy latents, U-Net "
        "and text encoder together on latents, a third of them with a part to draw anew."
    ),
    limits=(
        "It knows sixteen nouns, eight colours, counts up to four and four relations, draws everything in one size, "
        "and makes mistakes: those are what the tools of `rahf improve` are shown on."
    ),
)

PUBLIC_RAHF = KnownWeights(
    name="rahf_model.pt",
    used_by="`rahf convert`",
    what="the released model of the second paper: ViT-L/16 at 384 pixels, T5-base, seven heads; 842 tensors",
    source="youweiliang/RichHF, the author's release; in this project's layout it is on no Hub repository known here",
    licence="cc-by-nc-4.0",
    data="RichHF-18K (15,810 images with human feedback)",
    quality="as released: plausibility PLCC .739, alignment .565, aesthetics .629, overall .642; not measured here",
    parameters=642_612_710,
)

FLTWR = KnownWeights(
    name="unet_v1.pth",
    used_by="`gid convert --from fltwr`",
    what="another implementation's U-Net of the first paper (no frequency attention), trained on real videos",
    source="fltwr/generative-image-dynamics, on its author's OneDrive",
    licence="none stated by its author",
    data="818 real plant videos (7,218 clips of 150 frames at 256x160)",
)

CELEBAHQ_VQ = KnownWeights(
    name="CompVis/ldm-celebahq-256, vqvae",
    used_by="`gid convert --from fltwr`, whose autoencoder it is",
    what="VQModel, factor 4, three latent channels",
    source="the Hub",
    repo="CompVis/ldm-celebahq-256",
    data="CelebA-HQ",
)

T5_TOKENIZER = KnownWeights(
    name="google-t5/t5-base, tokenizer",
    used_by="`rahf` with weights of the presets `paper` and `public`",
    what="T5's sentencepiece vocabulary",
    source="the Hub",
    repo="google-t5/t5-base",
)

KNOWN: tuple[KnownWeights, ...] = (GID_SMALL, RAHF_SMALL, RAHF_GENERATOR, PUBLIC_RAHF, FLTWR, CELEBAHQ_VQ, T5_TOKENIZER)
