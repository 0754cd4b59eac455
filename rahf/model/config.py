"""Configurations of the rich-feedback model and the three presets `paper`, `public` and `small`."""

from dataclasses import dataclass, fields, replace
from typing import Any

HEATMAPS: tuple[str, ...] = ("implausibility", "misalignment")
SCORES: tuple[str, ...] = ("plausibility", "alignment", "aesthetics", "overall")
WORDS = "words"
PYRAMID = "efficientnet-lite0"
IMAGE_TOWERS: tuple[str, ...] = ("vit", PYRAMID)
VARIANTS: tuple[str, ...] = ("multi_head", "augmented_prompt")

# What the augmented-prompt variant prepends to the prompt, one pass an output.
TASKS: dict[str, str] = {
    "implausibility": "implausibility heatmap",
    "misalignment": "misalignment heatmap",
    "plausibility": "plausibility score",
    "alignment": "alignment score",
    "aesthetics": "aesthetics score",
    "overall": "overall score",
    WORDS: "misaligned words",
}


@dataclass(frozen=True)
class RAHFConfig:
    """Everything that is needed to build a model and to prepare its input; stored as config.json beside the weights.

    Raises ValueError for an unknown variant and for sizes that do not divide.
    """

    variant: str = "multi_head"
    # Image tower: a ViT, or the tokens of a pretrained feature pyramid, which reads only image_size and vit_width.
    image_tower: str = "vit"
    image_size: int = 384
    patch_size: int = 16
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    vit_width: int = 1024
    vit_layers: int = 24
    vit_heads: int = 16
    vit_mlp: int = 4096
    vit_pooler: bool = False
    # Text tower (T5 encoder, which fuses, and T5 decoder, which writes the words).
    tokenizer: str = "google-t5/t5-base"  # "bytes", a Hub repository, or a folder
    vocabulary: int = 32128
    word_rows: int = 0  # rows of the hashed word embedding that accompanies bytes, a power of 2; 0 for none
    layout: bool = False  # with word_rows: tell words how many there are of what they name, and where
    text_width: int = 768
    text_key_width: int = 64
    text_heads: int = 12
    text_mlp: int = 3072
    text_layers: int = 12
    text_decoder_layers: int = 12
    relative_buckets: int = 32
    dropout: float = 0.1
    max_text_tokens: int = 512
    max_new_tokens: int = 100
    # Heads: channels after each convolution.
    heatmap_stem: tuple[int, ...] = (768, 384)
    heatmap_stages: tuple[int, ...] = (768, 384, 384, 192)
    score_channels: tuple[int, ...] = (768, 384, 192, 96, 48, 12)
    score_hidden: tuple[int, ...] = (512, 128)
    # "image" or "text" hides that input: an ablation that says how much the other one tells by itself.
    blind: str = ""
    # From which probability on a word counts as misaligned; chosen when the weights were made.
    word_threshold: float = 0.5
    # Where the weights come from and on what terms; "" for weights that nobody has trained.
    weights_source: str = ""
    weights_license: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):  # JSON knows no tuples
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}; it must be one of {', '.join(VARIANTS)}")
        if self.blind not in ("", "image", "text"):
            raise ValueError(f"blind is {self.blind!r}; it must be empty, 'image' or 'text'")
        if self.image_tower not in IMAGE_TOWERS:
            raise ValueError(f"image_tower is {self.image_tower!r}; it must be one of {', '.join(IMAGE_TOWERS)}")
        if self.image_tower == PYRAMID and (self.patch_size != 16 or self.image_size % 32):
            raise ValueError(
                f"image_size {self.image_size} with patch_size {self.patch_size} does not suit {PYRAMID}: its patches "
                "are 16 wide and its images a multiple of 32"
            )
        if self.word_rows and (self.tokenizer != "bytes" or self.word_rows & (self.word_rows - 1)):
            raise ValueError(f"word_rows is {self.word_rows}; it must be 0 or, with bytes, a power of 2")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}; "
                f"take {self.image_size // self.patch_size * self.patch_size}"
            )
        if not 0 < self.word_threshold < 1:
            raise ValueError(f"word_threshold is {self.word_threshold}; it must lie between 0 and 1")
        if self.vit_width % self.vit_heads:
            raise ValueError(f"vit_width {self.vit_width} is not a multiple of vit_heads {self.vit_heads}")

    @property
    def grid(self) -> int:
        """Image tokens a side."""
        return self.image_size // self.patch_size

    @property
    def heatmap_size(self) -> int:
        """Side of the heatmaps that the heads give, in pixels; each stage doubles the grid."""
        return self.grid * 2 ** len(self.heatmap_stages)

    @property
    def noncommercial(self) -> bool:
        """True when the weights may not be used commercially."""
        return "nc" in self.weights_license.lower().replace("-", " ").split()

    def changed(self, **changes: Any) -> "RAHFConfig":
        """A copy with some fields changed."""
        return replace(self, **changes)


# The paper: ViT-B/16 at 512 px, T5-base.
PAPER = RAHFConfig(image_size=512, vit_width=768, vit_layers=12, vit_heads=12, vit_mlp=3072)

# The released checkpoint: ViT-L/16 at 384 px with its unused pooler, T5-base.
PUBLIC = RAHFConfig(vit_pooler=True)

# Small enough to ship: ImageNet features in place of the ViT, byte-level text, about seven million parameters.
SMALL = RAHFConfig(
    image_tower=PYRAMID,
    image_size=224,
    image_mean=(0.0, 0.0, 0.0),  # the pyramid scales its pixels itself
    image_std=(1.0, 1.0, 1.0),
    vit_width=192,
    vit_heads=6,
    tokenizer="bytes",
    vocabulary=384,
    word_rows=4096,
    layout=True,
    text_width=192,
    text_key_width=32,
    text_heads=6,
    text_mlp=576,
    text_layers=3,
    text_decoder_layers=1,
    dropout=0.0,
    max_text_tokens=768,
    max_new_tokens=768,
    heatmap_stem=(96, 64),
    heatmap_stages=(48, 24),
    score_channels=(48, 8),
    score_hidden=(48,),
)

PRESETS: dict[str, RAHFConfig] = {"paper": PAPER, "public": PUBLIC, "small": SMALL}


def preset(name: str) -> RAHFConfig:
    """The configuration called `name`. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
