"""`rahf`: convert, analyze, rank, train, evaluate, pack, sprites."""

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
from .cli_hub import push
from .config import PRESETS, preset
from .data.richhf import read_prompts
from .data.samples import SampleSource

app = typer.Typer(help="Rich human feedback on generated images.", no_args_is_help=True, add_completion=False)

Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="embedded, a folder, or owner/repo[@revision][/subfolder] on the Hub.",
        envvar="RAHF_WEIGHTS",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 for large models where it is fast.")]


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
    image: Annotated[Path, typer.Argument(help="The image, or a folder of images.")],
    weights: Weights = "embedded",
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The text it was made from.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="For a folder: prompts by file name, .csv, .jsonl or .json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for JSON, heatmaps and a report.")] = None,
    scores_only: Annotated[bool, typer.Option(help="Only the four scores.")] = False,
    report: Annotated[bool, typer.Option(help="For a folder: a report picture of each image too.")] = False,
    batch_size: Annotated[int, typer.Option(help="For a folder: images at once.")] = 8,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Feedback on one image; or on every image of a folder, also under `accelerate launch`.

    A folder may be interrupted and started again: what is there already is skipped. Images that cannot be used are
    listed in failures.jsonl at the end, with the reason.
    """
    if image.is_dir():
        _analyze_folder(image, weights, prompt, prompts, out, scores_only, report, batch_size, precision, device)
        return
    if prompt is None:
        raise ValueError("give the text that the image was made from: --prompt TEXT")

    from .folders import write_feedback
    from .predictor import Predictor

    feedback = Predictor.from_pretrained(weights, device, precision).predict(image, prompt, scores_only=scores_only)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_feedback(out, image, feedback)
    if as_json:
        typer.echo(json.dumps(feedback.to_dict(), indent=2, ensure_ascii=False))
        return
    for name, value in feedback.scores.items():
        typer.echo(f"{name:13} {value:.3f}")
    for word in feedback.words:
        typer.echo(f"{word.probability:13.3f} {word.text}")
    if feedback.noncommercial:
        typer.echo("weights for non-commercial use only", err=True)


def _analyze_folder(
    folder: Path,
    weights: str,
    prompt: str | None,
    prompts: Path | None,
    out: Path | None,
    scores_only: bool,
    report: bool,
    batch_size: int,
    precision: str,
    device: str,
) -> None:
    if out is None:
        raise ValueError("give a folder for the results: -o OUT")
    if (prompt is None) == (prompts is None):
        raise ValueError("give either --prompts FILE, prompts by file name, or one --prompt TEXT for all images")

    from commons.folders import Processes

    from .folders import analyze_folder
    from .predictor import Predictor

    texts = read_prompts(prompts) if prompts is not None else str(prompt)
    processes = Processes(device)
    predictor = Predictor.from_pretrained(weights, processes.device(device), precision)
    done = analyze_folder(folder, out, predictor, texts, processes, batch_size, scores_only, report)
    if processes.first:
        typer.echo(f"{out}: {done}")
        for failure in done.failures:
            typer.echo(f"{failure.file}: {failure.reason}", err=True)
    if done.failures:
        raise typer.Exit(1)


@app.command()
@_explained
def rank(
    folder: Annotated[Path, typer.Argument(help="Folder of images.")],
    prompts: Annotated[Path, typer.Option(help="Prompts by file name: .csv, .jsonl (filename, prompt) or .json.")],
    weights: Weights = "embedded",
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
    photographs: Annotated[Path | None, typer.Option(help="With --scenes: photographs to plant faults into.")] = None,
    photograph_share: Annotated[float, typer.Option(help="Part of the samples that are photographs.")] = 0.2,
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
    schedule: Annotated[str, typer.Option(help="reciprocal_sqrt (the paper's) or cosine.")] = "reciprocal_sqrt",
    tower_rate: Annotated[float, typer.Option(help="Learning rate of the image tower, as a part of the rest's.")] = 1.0,
    save_every: Annotated[int, typer.Option(help="Steps between saves.")] = 500,
    auxiliary_tasks: Annotated[
        bool,
        typer.Option("--auxiliary", help="With --scenes: teach tokens what they lie on, and words whether they fit."),
    ] = False,
) -> None:
    """Train a model, on composed scenes or on RichHF-18K."""
    from .model import RAHF
    from .prompts import load_tokenizer
    from .towers import load_towers
    from .training import TrainConfig
    from .training import train as run

    torch.manual_seed(seed)
    network = RAHF.from_pretrained(init) if init else RAHF(preset(model).with_(variant=variant, blind=blind))
    load_towers(network, vit, t5, pyramid=init is None)
    source = _source("train", scenes, count, seed, network.config.image_size, records, images, prompts)
    tokenizer = load_tokenizer(network.config, init)
    auxiliary = _auxiliary(network, source, tokenizer) if auxiliary_tasks else None
    if photographs is not None:
        source = _with_photographs(source, photographs, photograph_share, seed, network.config.image_size)
    settings = TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        workers=workers,
        seed=seed,
        mixed_precision=precision,
        schedule=schedule,
        tower_rate=tower_rate,
        save_every=save_every,
    )
    run(network, source, tokenizer, out, settings, auxiliary=auxiliary)


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
def pack(
    run: Annotated[Path, typer.Argument(help="Weights folder, such as a training run's.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the parts.")],
    dtype: Annotated[Half, typer.Option(help="Number format to store.")] = Half.float16,
    megabytes: Annotated[float, typer.Option(help="Largest part; a plain git push takes up to 10.")] = 9.5,
    source: Annotated[str, typer.Option(help="Where the weights come from, for their notice.")] = "",
    license_name: Annotated[str, typer.Option("--license", help="Their licence.")] = "apache-2.0",
) -> None:
    """Write weights in small parts of half precision, to be shipped."""
    from .checkpoints import save_parts
    from .model import RAHF

    model = RAHF.from_pretrained(run)
    config = model.config.with_(weights_source=source, weights_license=license_name)
    for part in save_parts(model, config, out, getattr(torch, dtype.value), int(megabytes * 1e6)):
        typer.echo(f"{part.stat().st_size} {part}")


@app.command()
@_explained
def sprites(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the library.")],
    emoji: Annotated[list[Path] | None, typer.Option(help="Folder of emoji named by code point; repeatable.")] = None,
    clipart: Annotated[Path | None, typer.Option(help="Folder of the unpacked Debian package openclipart-png.")] = None,
    font: Annotated[Path | None, typer.Option(help="Colour font with bitmap glyphs: NotoColorEmoji.ttf.")] = None,
) -> None:
    """Make a sprite library for composed scenes from packages that you have unpacked."""
    from .data.sprites import build_library

    typer.echo(f"{build_library(out, emoji or [], clipart, font)} sprites in {out}")


def _with_photographs(source: SampleSource, folder: Path, share: float, seed: int, size: int) -> SampleSource:
    from .data.photographs import Mixture, SpoiledPhotographs

    if not 0 < share < 1:
        raise ValueError(f"--photograph-share is {share}; it must lie between 0 and 1")
    spoiled = SpoiledPhotographs(folder, len(source), seed, size)
    return Mixture([source, spoiled], [1 - share, share], len(source), seed)


def _auxiliary(network: Any, source: Any, tokenizer: Any) -> Any:
    from .auxiliary import Auxiliary
    from .data.grammar import COLOURS
    from .data.scenes import ComposedScenes

    if not isinstance(source, ComposedScenes):
        raise ValueError("--auxiliary needs --scenes: only there is it known what lies where")
    return Auxiliary(network, tokenizer, sorted(source.sprites), list(COLOURS))


app.command()(_explained(push))


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


def _write_sheet(path: Path, predictor: Any, source: SampleSource, count: int) -> None:
    from .sheets import contact_sheet, report

    samples = [source[index] for index in range(min(count, len(source)))]
    found = predictor.predict_batch([sample.image for sample in samples], [sample.prompt for sample in samples])
    contact_sheet([report(s.image, item) for s, item in zip(samples, found, strict=True)]).save(path)


if __name__ == "__main__":
    app()
