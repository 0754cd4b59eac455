"""The rich-feedback model: image and prompt in; two heatmaps, four scores and the marked prompt out.

A ViT turns the image into tokens; a T5 encoder reads them with the embedded prompt behind them, so that self-attention
fuses both ways; convolutional heads read the image tokens, a T5 decoder reads the text tokens and writes the prompt
with `_0` behind every misaligned word (Liang et al., "Rich Human Feedback for Text-to-Image Generation", CVPR 2024,
section 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel
from transformers.modeling_outputs import BaseModelOutput

from rahf.model.checkpoints import load_folder, save_folder
from rahf.model.config import HEATMAPS, PYRAMID, SCORES, WORDS, RAHFConfig
from rahf.model.heads import HeatmapHead, ScoreHead
from rahf.model.matching import WordMatching
from rahf.model.pyramid import PyramidTower
from rahf.model.word_embedding import WordEmbedding

END_OF_TEXT = 1  # T5's
SHARED = "shared"  # the one heatmap head and the one score head of the augmented-prompt variant


@dataclass(frozen=True)
class TextTokens:
    """Token ids (B,L) int64 with the end mark, padded at the end, and a mask (B,L) bool that is False on padding."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "TextTokens":
        """The tokens on another device."""
        return TextTokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Fused:
    """Output of the fusing encoder: `features` (B,C,g,g), `context` (B,L,C) of the text and its `mask` (B,L) bool."""

    features: Tensor
    context: Tensor
    mask: Tensor


@dataclass
class RAHFOutput:
    """Heatmaps (B,h,w) and scores (B,) by name, both in (0, 1), and word logits (B,T,V), only what was asked for; and
    the visual tokens (B,1+g·g,C) before they meet the text; and with the words the encoder's text tokens (B,L,C)."""

    heatmaps: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    word_logits: Tensor | None = None
    visual: Tensor | None = None
    context: Tensor | None = None


Texts = TextTokens | Mapping[str, TextTokens]


class RAHF(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="rahf",
    tags=["image-quality", "text-to-image", "rich-human-feedback"],
    paper_url="https://arxiv.org/abs/2312.10240",
):
    """Rich Automatic Human Feedback. `config` says which variant and size; see `rahf.model.config.PRESETS`."""

    def __init__(self, config: RAHFConfig) -> None:
        super().__init__()
        self.config = config
        if config.image_tower == PYRAMID:
            self.pyramid = PyramidTower(config.vit_width, config.grid)
        else:
            self.vit = ViTModel(_vit_config(config), add_pooling_layer=config.vit_pooler)
        self.t5 = T5ForConditionalGeneration(_t5_config(config))
        self.word_embedding = WordEmbedding(config.word_rows, config.text_width) if config.word_rows else None
        self.word_matching = WordMatching(config.text_width, config.layout) if config.word_rows else None
        self.visual_token_projection = nn.Linear(config.vit_width, config.text_width)
        multi_head = config.variant == "multi_head"
        self.heatmap_predictor = nn.ModuleDict(
            {
                name: HeatmapHead(config.text_width, config.heatmap_stem, config.heatmap_stages)
                for name in (HEATMAPS if multi_head else (SHARED,))
            }
        )
        self.score_predictor = nn.ModuleDict(
            {
                name: ScoreHead(config.text_width, config.grid, config.score_channels, config.score_hidden)
                for name in (SCORES if multi_head else (SHARED,))
            }
        )

        if config.word_rows:
            self._attend_to_the_same_word()

    def _attend_to_the_same_word(self) -> None:
        """Let the decoder begin by attending to what resembles its own input: the bytes of the word that it writes."""
        weights = dict(self.t5.decoder.named_parameters())
        for name, queries in weights.items():
            if name.endswith("EncDecAttention.q.weight"):
                with torch.no_grad():
                    queries.copy_(weights[name.replace(".q.", ".k.")] * 0.2)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.visual_token_projection.weight.device

    @property
    def image_tower(self) -> nn.Module:
        """What turns pixels into visual tokens."""
        return self.pyramid if self.config.image_tower == PYRAMID else self.vit

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.visual_token_projection.weight.dtype

    def forward(
        self,
        images: Tensor,
        texts: Texts,
        heatmaps: Sequence[str] = HEATMAPS,
        scores: Sequence[str] = SCORES,
        targets: Tensor | None = None,
    ) -> RAHFOutput:
        """Predict what is asked for and compute nothing else.

        images: (B,3,H,W) in [0, 1], any size (squashed to the model's square); differentiable.
        texts: tokens of the cleaned prompts; for the augmented-prompt variant one `TextTokens` for each output's name.
        targets: (B,T) ids of the marked prompts for teacher forcing; None skips the decoder.
        Raises ValueError for an unknown output name or batches that differ in size.
        """
        visual = self.encode_image(images)
        fused: dict[int, Fused] = {}

        def fuse(name: str) -> Fused:
            text = self._text_for(name, texts)
            if id(text) not in fused:
                fused[id(text)] = self.fuse(visual, text)
            return fused[id(text)]

        output = RAHFOutput(visual=visual)
        for name in heatmaps:
            output.heatmaps[name] = self.head(name)(fuse(name).features)
        for name in scores:
            output.scores[name] = self.head(name)(fuse(name).features)
        if targets is not None:
            output.word_logits = self.decode(fuse(WORDS), targets)
            output.context = fuse(WORDS).context
        return output

    def squash(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3,S,S), the model's square, with antialiased bilinear filtering as in the release.

        Raises ValueError for another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}; they must be (batch, 3, height, width)")
        side = self.config.image_size
        images = images.to(torch.promote_types(self.dtype, torch.float32))  # filter in float32 even for half weights
        if images.shape[-2:] == (side, side):
            return images
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)

    def prepare(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> (B,3,S,S) squashed and normalised."""
        return self.normalize(self.squash(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] -> what the image tower was pretrained on, in the faster layout for convolutions."""
        mean = images.new_tensor(self.config.image_mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.config.image_std).view(1, 3, 1, 1)
        return ((images - mean) / std).to(self.dtype, memory_format=torch.channels_last)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> visual tokens (B,1+g·g,C), the class token first."""
        pixels = self.prepare(images)
        if self.config.blind == "image":  # all see the same, which has to be looked at only once
            pixels = torch.zeros_like(pixels[:1])
        if self.config.image_tower == PYRAMID:
            tokens = self.pyramid(pixels)
        else:
            tokens = self.vit(pixel_values=pixels).last_hidden_state
        return self.visual_token_projection(tokens).expand(len(images), -1, -1)

    def encode_part(self, pictures: Tensor, corner: tuple[int, int]) -> Tensor:
        """Visual tokens (B,1+n,C) of pictures (B,3,s,s) smaller than the model's, as if at `corner` of its grid.

        Raises ValueError for a model without a feature pyramid.
        """
        if self.config.image_tower != PYRAMID:
            raise ValueError(f"the image tower is {self.config.image_tower!r}; only {PYRAMID} reads parts of a picture")
        return self.visual_token_projection(self.pyramid.part(self.normalize(pictures), corner))

    def fuse(self, visual: Tensor, text: TextTokens) -> Fused:
        """Run the T5 encoder over visual tokens (B,N,C) followed by the text; padding is masked everywhere.

        Raises ValueError if the numbers of images and texts differ.
        """
        if len(visual) != len(text.ids):
            raise ValueError(f"{len(visual)} images came with {len(text.ids)} prompts; give one prompt an image")
        ids, mask = text.ids.to(visual.device), text.mask.to(visual.device)
        text_tokens = self._embed(ids)
        if self.word_embedding is not None and self.word_matching is not None:
            to_visual, to_text = self.word_matching(visual, self.word_embedding.words(ids), mask)
            visual, text_tokens = visual + to_visual, text_tokens + to_text
        embedded = torch.cat([visual, text_tokens], dim=1)
        seen = torch.cat([mask.new_ones(visual.shape[:2]), mask], dim=1)
        hidden = self.t5.encoder(inputs_embeds=embedded, attention_mask=seen.long()).last_hidden_state
        count, grid = visual.shape[1], self.config.grid
        features = hidden[:, 1:count].transpose(1, 2).reshape(len(hidden), -1, grid, grid)
        context = hidden[:, count:]
        if self.word_embedding is not None:  # by which the decoder finds the word it is at
            context = context + self.word_embedding(ids)
        return Fused(features, context, mask)

    def decode(self, fused: Fused, targets: Tensor) -> Tensor:
        """Teacher forcing: logits (B,T,V), where [:, t] predicts targets[:, t] (B,T) from the targets before it.

        Entries below 0 (outside the loss) are fed as padding. Only the text tokens are attended to.
        """
        shifted = F.pad(targets.clamp(min=0), (1, 0))[:, :-1]  # T5 starts from its padding token, which is 0
        hidden = self.t5.decoder(
            inputs_embeds=self._embed(shifted, causal=True),
            encoder_hidden_states=fused.context,
            encoder_attention_mask=fused.mask.long(),
            use_cache=False,
        ).last_hidden_state
        return self.t5.lm_head(hidden * self.config.text_width**-0.5)

    def _embed(self, ids: Tensor, causal: bool = False) -> Tensor:
        """Text ids (B,L) -> (B,L,C); `causal` where a byte must not know how its word goes on."""
        embedded = self.t5.shared(ids)
        if self.word_embedding is None:
            return embedded
        return embedded + self.word_embedding(ids, causal)

    @torch.no_grad()
    def generate(self, fused: Fused, max_new_tokens: int | None = None) -> Tensor:
        """Free greedy generation of the marked prompt: ids (B,T), padded with 0 after the end mark."""
        if self.word_embedding is not None:
            return self._generate_words(fused, max_new_tokens or self.config.max_new_tokens)
        write: Any = self.t5.generate  # which some versions of the library type as taking a protocol for `self`
        ids = write(
            encoder_outputs=BaseModelOutput(last_hidden_state=fused.context),
            attention_mask=fused.mask.long(),
            max_new_tokens=max_new_tokens or self.config.max_new_tokens,
            do_sample=False,
            num_beams=1,
        )
        return ids[:, 1:]

    def _generate_words(self, fused: Fused, most: int) -> Tensor:
        """Greedy generation where the embedding of a byte depends on those before it, which transformers' has no place
        for; the one decoder layer is small enough to run again for every byte."""
        ids = torch.zeros(len(fused.context), 0, dtype=torch.long, device=fused.context.device)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        while ids.shape[1] < most and not bool(done.all()):
            logits = self.decode(fused, F.pad(ids, (0, 1)))[:, -1]
            chosen = torch.where(done, 0, logits.argmax(dim=-1))
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            done |= chosen == END_OF_TEXT
        return ids

    def head(self, name: str) -> nn.Module:
        """The head that predicts output `name`. Raises ValueError for an unknown name."""
        heads = self.heatmap_predictor if name in HEATMAPS else self.score_predictor
        if name not in HEATMAPS + SCORES:
            raise ValueError(f"no output is called {name!r}; there are {', '.join(HEATMAPS + SCORES)}")
        return heads[name if self.config.variant == "multi_head" else SHARED]

    def _text_for(self, name: str, texts: Texts) -> TextTokens:
        if isinstance(texts, TextTokens):
            if self.config.variant == "augmented_prompt":
                raise ValueError(
                    "the augmented-prompt variant needs one text an output; make them with rahf.prompts.encode_prompts"
                )
            return texts
        if name not in texts:
            raise ValueError(f"no text was given for output {name!r}; there are {', '.join(texts)}")
        return texts[name]

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        config: RAHFConfig | None = None,
        map_location: str = "cpu",
        dtype: torch.dtype = torch.float32,
        **hub: Any,
    ) -> "RAHF":
        if config is None:
            raise ValueError(f"{model_id} holds no config.json; give the folder that `rahf convert` or training wrote")
        with torch.device("meta"):
            model = cls(config)
        return load_folder(model, model_id, dtype=dtype, device=map_location, hub=hub)


def _vit_config(config: RAHFConfig) -> ViTConfig:
    return ViTConfig(
        hidden_size=config.vit_width,
        num_hidden_layers=config.vit_layers,
        num_attention_heads=config.vit_heads,
        intermediate_size=config.vit_mlp,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
    )


def _t5_config(config: RAHFConfig) -> T5Config:
    text = T5Config(
        vocab_size=config.vocabulary,
        d_model=config.text_width,
        d_kv=config.text_key_width,
        d_ff=config.text_mlp,
        num_layers=config.text_layers,
        num_decoder_layers=config.text_decoder_layers,
        num_heads=config.text_heads,
        relative_attention_num_buckets=config.relative_buckets,
        dropout_rate=config.dropout,
        feed_forward_proj="relu",
        pad_token_id=0,
        eos_token_id=END_OF_TEXT,
    )
    text.decoder_start_token_id = 0
    return text
