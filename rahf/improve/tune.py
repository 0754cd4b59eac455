"""Fine-tuning on what was kept: low-rank adapters (LoRA, Hu et al. 2021) on the U-Net's attention, by peft.

The generator itself is never changed: an adapter is a small file that is loaded on top, and can be taken off again.
Liang et al. 2024, section 6, do it with the pictures that `rahf.improve.select` keeps.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foundation.batches import InPasses, RowBatches
from foundation.files import replacing_files, write_text
from foundation.folders import Processes
from foundation.pictures import load_photo
from foundation.training import TRAINING_LIMITS, TrainingConfig, TrainingRun
from rahf.data.prompt_tables import read_prompts
from rahf.improve.generation.latent import LatentGenerator
from rahf.improve.generation.schedule import ddim
from rahf.improve.generation.windows import Window, cut, shrink_mask
from rahf.improve.generator import ADAPTER, Generator, load_generator
from rahf.improve.select import KEPT
from rahf.limits import IMPROVE

logger = logging.getLogger(__name__)

FOLDER, NOTE = "lora", "lora.json"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
LEAST = 2  # pictures; fewer teach nothing but themselves


@dataclass(frozen=True)
class TuneConfig(TrainingConfig):
    """A run of fine-tuning.

    Attributes:
        kept: folder that `rahf improve select` wrote, or a table (.jsonl, .csv) with filename and prompt.
        generator: embedded, a folder, or owner/repo on the Hub.
        rank: of the adapters.
        dropout: part of the pictures that are shown without their prompt, which guidance needs.
        masked: part of the pictures of which only a rectangle is drawn, where the generator fills masks by itself.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = {
        **TRAINING_LIMITS,
        "rank": IMPROVE["rank"],
        "dropout": IMPROVE["part"],
        "masked": IMPROVE["part"],
    }

    kept: Path = Path()
    generator: str = "embedded"
    rank: int = 8
    dropout: float = 0.1
    masked: float = 0.3
    steps: int = 500
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    ema_decay: float = 0.0
    precision: str = "no"


def tune(config: TuneConfig) -> str:
    """Teach a generator the pictures that were kept, as a low-rank adapter.

    Interrupted and started again with the same settings it goes on; it can be shared by `accelerate launch`. The
    adapter lies in `OUT/lora` after each save; `load_generator(..., lora=OUT/lora)` draws with it.

    Raises:
        ValueError: nothing to learn from, a generator without gradients, settings of another run in `out`.
    """
    place = Processes("auto").device("auto")
    generator = load_generator(config.generator, place, torch.float32)
    return tune_generator(generator, config)


def tune_generator(generator: Generator, config: TuneConfig) -> str:
    """`tune` for a generator that is loaded already; the adapter stays on it. Returns a line about what was done."""
    generator.need_gradient("fine-tuning")
    assert isinstance(generator, LatentGenerator)
    rows = read_kept(config.kept)
    if len(rows) < LEAST:
        raise ValueError(
            f"{config.kept} holds {len(rows)} pictures that were kept; {LEAST} are the least: keep more by a lower "
            "threshold (`rahf improve select --keep`)"
        )
    torch.manual_seed(config.seed)
    add_adapter(generator, config.rank)
    dataset = KeptPictures(generator, rows, config.seed)
    objective = LoraObjective(generator, dataset.prompts, config)
    batches = RowBatches(dataset, InPasses(len(dataset), config.batch_size, config.seed))
    run = TrainingRun(config, objective, list(objective.lora.values()), batches)
    note = {"generator": generator.name, "license": generator.license, "rank": config.rank, "pictures": len(rows)}
    run.train(save=lambda: save_lora(generator, config.out / FOLDER, {**note, "steps": run.step}))
    run.keep_average()
    return f"wrote {config.out / FOLDER}: {len(rows)} pictures, {run.step} steps"


def read_kept(source: Path) -> list[tuple[Path, str]]:
    """Pictures with their prompts, in order. Raises ValueError for a table that is missing or damaged, or a picture
    that is."""
    table = source / KEPT if source.is_dir() else source
    rows = [(table.parent / name, prompt) for name, prompt in read_prompts(table).items()]
    for path, _ in rows:
        if not path.is_file():
            raise ValueError(f"{path} is listed in {table.name} but missing; select again, or remove its line")
    return rows


class KeptPictures:
    """Latents of the kept pictures, computed once; row -> latents, its rectangle, the number of its prompt."""

    def __init__(self, generator: LatentGenerator, rows: list[tuple[Path, str]], seed: int) -> None:
        texts = sorted({prompt for _, prompt in rows})
        self.prompts = [generator.embed(text) for text in texts]
        self.rows: list[dict[str, Tensor]] = []
        for number, (path, prompt) in enumerate(rows):
            photo = load_photo(path)
            height, width = photo.shape[-2:]
            side = min(height, width)
            window = Window((width - side) // 2, (height - side) // 2, side)
            shown = cut(photo, window, generator.side)
            with torch.no_grad():
                row = {"latents": generator.encode(shown)[0].cpu(), "prompt": torch.tensor(texts.index(prompt))}
                if generator.fills:
                    row["extra"] = _rectangle(generator, shown, seed + number)[0].cpu()
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.rows[index]


def _rectangle(generator: LatentGenerator, picture: Tensor, seed: int) -> Tensor:
    """(1,1+c,h,w): a random rectangle of a picture (1,3,S,S) as mask, and what is known around it."""
    side = picture.shape[-1]
    draw = torch.Generator().manual_seed(seed)
    size = (side * (0.25 + 0.5 * torch.rand(2, generator=draw))).long()
    corner = ((side - size) * torch.rand(2, generator=draw)).long()
    mask = torch.zeros(1, 1, side, side, dtype=torch.bool)
    mask[..., corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = True
    known = generator.encode(torch.where(mask, torch.full_like(picture, 0.5), picture))
    return torch.cat([shrink_mask(mask, side // generator.factor).to(known), known], dim=1)


class LoraObjective(nn.Module):
    """Error of the predicted noise; only the adapters are its parameters, so that only they are kept and saved."""

    def __init__(self, generator: LatentGenerator, prompts: list[Any], config: TuneConfig) -> None:
        super().__init__()
        self.lora = nn.ParameterDict(
            {
                name.replace(".", "/"): value
                for name, value in generator.pipeline.unet.named_parameters()
                if "lora_" in name
            }
        )
        self._frozen = (generator, prompts)  # in a tuple: no part of this module
        self._config = config
        sampler = ddim(generator.pipeline.scheduler)
        self._products = sampler.alphas_cumprod.float().to(generator.device)
        self._prediction = str(sampler.config.prediction_type)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Rows of `KeptPictures` -> loss () and nothing else for the log."""
        generator, prompts = self._frozen
        latents = batch["latents"].to(generator.device)
        count = len(latents)
        draw = torch.rand(count, 2)
        noise = torch.randn(latents.shape).to(latents)
        timesteps = torch.randint(0, len(self._products), (count,)).to(latents.device)
        signal, rest = (value[timesteps].view(-1, 1, 1, 1).sqrt() for value in (self._products, 1 - self._products))
        told = [prompts[int(index)] for index in batch["prompt"]]
        bare = draw[:, 0] < self._config.dropout
        text = torch.cat([one.empty if drop else one.text for one, drop in zip(told, bare, strict=True)])
        added = {
            name: torch.cat(
                [(one.added_empty if drop else one.added)[name] for one, drop in zip(told, bare, strict=True)]
            )
            for name in told[0].added
        }
        inputs = signal * latents + rest * noise
        if told[0].extra is not None:
            chosen = (draw[:, 1] < self._config.masked).to(latents.device).view(-1, 1, 1, 1)
            inputs = torch.cat([inputs, torch.where(chosen, batch["extra"].to(latents), told[0].extra)], dim=1)
        output = generator.pipeline.unet(
            inputs, timesteps, encoder_hidden_states=text, added_cond_kwargs=added or None, return_dict=False
        )[0]
        target = {
            "epsilon": noise,
            "v_prediction": signal * noise - rest * latents,
            "sample": latents,
        }[self._prediction]
        return (output.float() - target).square().mean(), {}


def add_adapter(generator: LatentGenerator, rank: int) -> None:
    """New adapters on the U-Net's attention, which change nothing until they are trained."""
    from peft import LoraConfig

    unet = generator.pipeline.unet
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights="gaussian"), ADAPTER)
    for name, value in unet.named_parameters():
        value.requires_grad_("lora_" in name)


def save_lora(generator: LatentGenerator, folder: Path, note: dict[str, Any]) -> None:
    """Write the adapters as diffusers reads them, and a note on what they belong to."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(generator.pipeline.unet, adapter_name=ADAPTER))
    with replacing_files(folder) as partial:
        type(generator.pipeline).save_lora_weights(str(partial), unet_lora_layers=state, safe_serialization=True)
        write_text(partial / NOTE, json.dumps(note, indent=1, ensure_ascii=False) + "\n")
