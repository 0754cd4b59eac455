"""The judge of real pictures: small heads on the shared encoder's frozen tokens.

What a picture shows is said in the space of CLIP's image embedding, which the heads have learned to imitate, for the
whole picture and for each token; words are vectors in that space (`rahf.pictures.words`). Faults are found token by
token by several small perceptrons, parts of people by a linear map. Scores are linear in all of these, again several
times over: how far the members lie apart says how sure they are. What people like is not linear in a picture's summary;
for that, how near the summary lies to each of some hundred centres of pictures is among what the scores read.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation.features import Features
from foundation.files import replacing, replacing_files, write_text
from foundation.quantization import GROUP, pack, unpack

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
RADIAL_FILE = "radial.safetensors"  # apart, and all but its axes in single precision: it amplifies what is rounded
RADIAL = "radial_"  # what its tensors begin with
JUDGED_SCORES = ("plausibility", "alignment", "aesthetics", "overall")
SCORE_ROWS = (*JUDGED_SCORES, "people")  # the last is what speaks for the bodies of people, where there are any
PARTS = ("face", "hand", "limb")
WIDEST = 0.3  # part of a picture that hands, faces or limbs of people cover at most
TOP = 0.05  # part of the tokens that "the worst of the picture" is the mean of


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of the judge, and which weights it holds.

    Attributes:
        channels: of a token.
        layers: blocks of the encoder that are read.
        tokens: about how many patches a picture is seen in.
        embedding: width of the image-text space.
        hidden: width of the perceptrons that imitate the image embedding.
        dense_hidden: width of the one that does so for each token.
        fault_hidden: width of those that find faults.
        axes: principal axes of the summary in which pictures lie near or far from a centre.
        centres: number of these.
        radial: figures made of the nearness to the centres; 0 for a judge that knows none.
        members: of each ensemble.
        concepts: number of nouns that are known.
        word_threshold: from which probability on a word counts as not shown.
        residuals: standard deviation of the scores' log odds from the truth, by score, on groups left out.
        spread_limits: deviation of a score's members from which on it is called unsure.
        weights_source: where the weights come from.
        weights_license: their licence.
    """

    channels: int = 384
    layers: tuple[int, ...] = (3, 7, 11)
    tokens: int = 576
    embedding: int = 512
    hidden: int = 256
    dense_hidden: int = 384
    fault_hidden: int = 64
    axes: int = 0
    centres: int = 0
    radial: int = 0
    members: int = 4
    concepts: int = 199
    word_threshold: float = 0.5
    residuals: tuple[float, ...] = (0.8, 0.8, 0.4, 0.6)
    spread_limits: tuple[float, ...] = (0.6, 0.6, 0.4, 0.5)
    weights_source: str = ""
    weights_license: str = "apache-2.0"

    @property
    def summary(self) -> int:
        """Width of a picture's summary: class token, and mean and deviation of the tokens of each layer."""
        return self.channels * (1 + 2 * len(self.layers))

    @property
    def evidence(self) -> int:
        """Width of what the scores are linear in, of all `blocks`."""
        return sum(self.blocks.values())

    @property
    def blocks(self) -> dict[str, int]:
        """Widths of the parts of the evidence, in order."""
        return {
            "embedding": self.embedding,
            "summary": self.summary,
            "statistics": len(STATISTICS),
            "radial": self.radial,
        }

    def columns(self, block: str) -> slice:
        """Where a part of the evidence stands."""
        start = sum(list(self.blocks.values())[: list(self.blocks).index(block)])
        return slice(start, start + self.blocks[block])


STATISTICS = (
    "fault mean",
    "fault top",
    *(f"{part} {what}" for part in PARTS for what in ("area", "top", "fault")),
)


@dataclass(frozen=True)
class Judgement:
    """What the judge sees in a batch of pictures; B pictures, M members, h x w tokens.

    Attributes:
        embedding: (B,E) unit vectors in the image-text space, mean of the members.
        dense: (B,E,h,w) unit vectors for each token.
        faults: (B,M,h,w) logits of a fault by member.
        parts: (B,P,h,w) chances of `PARTS`.
        scores: (B,M,S) logits of `JUDGED_SCORES` by member.
        part_errors: (B,P) chances that a part of `PARTS` is wrong somewhere, where there is one.
        composed: (B,) chance that the picture is a composed scene of clip art.
    """

    embedding: Tensor
    dense: Tensor
    faults: Tensor
    parts: Tensor
    scores: Tensor
    part_errors: Tensor
    composed: Tensor

    def spread(self) -> Tensor:
        """(B,S) standard deviation over the members of the scores' logits."""
        return self.scores.std(dim=1, correction=0)


class PictureJudge(nn.Module):
    """Heads that read :class:`foundation.features.Features`; the encoder itself is not part of it."""

    summary_mean: Tensor
    summary_scale: Tensor
    token_mean: Tensor
    token_scale: Tensor
    evidence_mean: Tensor
    evidence_scale: Tensor
    embedding_mean: Tensor
    dense_mean: Tensor
    radial_axes: Tensor
    radial_centres: Tensor
    radial_mix: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        width, token = config.summary, config.channels * len(config.layers)
        for name, size in (("summary", width), ("token", token), ("evidence", config.evidence)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.register_buffer("embedding_mean", torch.zeros(config.embedding))
        self.register_buffer("dense_mean", torch.zeros(config.embedding))
        self.register_buffer("radial_axes", torch.zeros(width, config.axes))
        self.register_buffer("radial_centres", torch.zeros(config.centres, config.axes))
        self.register_buffer("radial_mix", torch.zeros(config.centres, config.radial))
        members = range(config.members)
        self.embed = nn.ModuleList(perceptron(width, config.hidden, config.embedding) for _ in members)
        self.dense = perceptron(token, config.dense_hidden, config.embedding)
        self.faults = nn.ModuleList(perceptron(token, config.fault_hidden, 1) for _ in members)
        self.parts = nn.Linear(token, len(PARTS))
        self.composed = nn.Linear(width, 1)
        shape = (config.members, len(SCORE_ROWS))
        self.score_weight = nn.Parameter(torch.zeros(*shape, config.evidence))
        self.score_bias = nn.Parameter(torch.zeros(shape))
        self.part_weight = nn.Parameter(torch.zeros(len(PARTS), config.evidence))
        self.part_bias = nn.Parameter(torch.full((len(PARTS),), -4.0))

    def forward(self, features: Features) -> Judgement:
        """Judge a batch of encoded pictures. Raises ValueError for features of other layers or widths."""
        summary, tokens = self.read(features)
        embedding = self.embed_summary(summary).mean(1)
        embedding = F.normalize(embedding, dim=-1)
        rows, columns = next(iter(features.tokens.values())).shape[-2:]

        def as_map(values: Tensor) -> Tensor:
            return values.transpose(1, 2).unflatten(2, (rows, columns))

        dense = as_map(F.normalize(self.dense(tokens) + self.dense_mean, dim=-1))
        faults = as_map(torch.cat([member(tokens) for member in self.faults], dim=-1))
        parts = as_map(self.parts(tokens).sigmoid())
        figures = map_statistics(faults, parts)
        evidence = torch.cat([embedding, summary, figures, self.nearness(summary)], dim=-1)
        evidence = (evidence - self.evidence_mean) / self.evidence_scale
        odds = torch.einsum("msd,bd->bms", self.score_weight, evidence) + self.score_bias
        scores = add_people(odds, presence(parts))
        wrong = torch.sigmoid(evidence @ self.part_weight.T + self.part_bias)
        return Judgement(embedding, dense, faults, parts, scores, wrong, self.composed(summary).sigmoid()[:, 0])

    def read(self, features: Features) -> tuple[Tensor, Tensor]:
        """Standardised summaries (B,W) and tokens (B,N,layers*C) of encoded pictures."""
        missing = sorted(set(self.config.layers) - set(features.tokens))
        if missing or features.summary.shape[-1] != self.config.channels:
            raise ValueError(
                f"the features have blocks {sorted(features.tokens)} of width {features.summary.shape[-1]}; this judge "
                f"reads blocks {self.config.layers} of width {self.config.channels}"
            )
        maps = [features.tokens[layer].flatten(2).transpose(1, 2) for layer in self.config.layers]
        summary = summarise(features.summary, maps)
        tokens = torch.cat(maps, dim=-1)
        return (
            (summary - self.summary_mean) / self.summary_scale,
            (tokens - self.token_mean) / self.token_scale,
        )

    def embed_summary(self, summary: Tensor) -> Tensor:
        """(B,M,E) image embeddings by member, from standardised summaries (B,W)."""
        return torch.stack([member(summary) for member in self.embed], dim=1) + self.embedding_mean

    def nearness(self, summary: Tensor) -> Tensor:
        """(B,R) figures of how near standardised summaries (B,W) lie to the centres."""
        return radial_kernel(summary @ self.radial_axes, self.radial_centres) @ self.radial_mix

    def save(self, folder: Path, concepts: list[str]) -> None:
        """Write config and weights, in half precision but for `RADIAL_FILE`, with the names of the concepts."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {"config": asdict(self.config), "concepts": concepts}
        tensors = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        packed = pack(tensors, _at_eight_bits)
        radial = {name: value for name, value in packed.items() if name.startswith(RADIAL)}
        exact = {name: tensors[name] for name in radial if name in tensors and radial[name].dtype != torch.int8}
        rest = {name: value for name, value in packed.items() if name not in radial}
        with replacing_files(folder) as partial:  # all or none
            write_text(partial / CONFIG_FILE, json.dumps(values, indent=1) + "\n")
            for file, part in ((WEIGHTS_FILE, rest), (RADIAL_FILE, radial | exact)):
                with replacing(partial / file) as target:
                    save_file(part, target)


def _at_eight_bits(name: str, tensor: Tensor) -> bool:
    """The large ones; on fifty pictures no score moves by more than 0.0011."""
    large = name == "radial_axes" or (name.startswith(("embed.", "dense.")) and name.endswith(".weight"))
    return large and tensor.numel() > 0 and tensor[0].numel() % GROUP == 0


def read_config(folder: Path) -> tuple[JudgeConfig, list[str]]:
    """Sizes and names of the concepts of a folder. Raises ValueError if it holds no judge."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in values["config"].items()
        }
        return JudgeConfig(**config), list(values["concepts"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} holds no judge of pictures ({error}); give one that training wrote") from error


def load_judge(folder: Path, device: str | torch.device = "cpu") -> PictureJudge:
    """The judge of a folder, in float32. Raises ValueError if the folder is incomplete or damaged."""
    config, _ = read_config(folder)
    judge = PictureJudge(config)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        if config.radial:
            tensors |= load_file(folder / RADIAL_FILE)
        empty = {name: value for name, value in judge.state_dict().items() if name not in tensors and not value.numel()}
        judge.load_state_dict(unpack(tensors) | empty)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"the judge in {folder} is damaged ({error}); install the package again") from error
    return judge.eval().requires_grad_(False).to(device)


def radial_kernel(places: Tensor, centres: Tensor) -> Tensor:
    """(B,K) in (0, 1]: exp(-distance² / 2) between the directions of places (B,A) and of unit centres (K,A)."""
    return torch.exp(F.normalize(places, dim=-1) @ centres.T - 1)


def presence(parts: Tensor) -> Tensor:
    """(B,) in [0, 1]: how far people are in pictures, from chances of parts (B,P,h,w)."""
    return presence_of(parts.mean((2, 3)).amax(1))


def presence_of(area: Tensor) -> Tensor:
    """The same from the part of the picture that the largest of the parts covers; half at one hundredth."""
    return area / (area + 0.01)


def trust(area: Tensor) -> Tensor:
    """In [0, 1]: how far parts that cover `area` of a picture are believed; not at all from three tenths on.

    On skies, drawings and others unlike what it was taught with, the map of parts is neither here nor there everywhere.
    """
    return (1 - area / WIDEST).clamp(min=0)


def add_people(rows: Tensor, present: Tensor) -> Tensor:
    """(B,M,S) scores from rows (B,M,S+1): the last takes the place of plausibility as far as people are there, and a
    fifth of the difference goes to overall."""
    place = JUDGED_SCORES.index("plausibility")
    difference = (rows[..., -1] - rows[..., place]) * present[:, None]
    share = rows.new_tensor([{"plausibility": 1.0, "overall": 0.2}.get(name, 0.0) for name in JUDGED_SCORES])
    return rows[..., :-1] + difference[..., None] * share


def perceptron(inputs: int, hidden: int, outputs: int, dropout: float = 0.2) -> nn.Sequential:
    """One hidden layer, its inputs and activations dropped out while training."""
    return nn.Sequential(
        nn.Dropout(dropout / 2), nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )


def summarise(class_token: Tensor, maps: list[Tensor]) -> Tensor:
    """(B,W): class token (B,C), and mean and deviation of each layer's tokens (B,N,C)."""
    parts = [class_token]
    for tokens in maps:
        parts += [tokens.mean(1), tokens.std(1, correction=0)]
    return torch.cat(parts, dim=-1)


def map_statistics(faults: Tensor, parts: Tensor) -> Tensor:
    """(B,len(STATISTICS)) figures of fault logits (B,M,h,w) and chances of parts (B,P,h,w)."""
    fault = faults.mean(1).flatten(1)
    many = max(int(TOP * fault.shape[1]), 1)
    figures = [fault.mean(1), fault.topk(many, dim=1).values.mean(1)]
    for chance in parts.flatten(2).unbind(1):
        figures += [
            chance.mean(1),
            chance.topk(many, dim=1).values.mean(1),
            (fault * chance).sum(1) / (chance.sum(1) + 1),
        ]
    return torch.stack(figures, dim=-1)
