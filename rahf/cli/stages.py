"""`rahf train`, `recognize`, `evaluate`, `pack` and `sprites`: the commands that make and judge weights."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from foundation.files import replacing, write_text
from rahf.cli.options import Device, Half
from rahf.data.richhf import read_prompts
from rahf.data.samples import SampleSource
from rahf.model.config import PRESETS, preset
from rahf.model.loading import resolve_weights, weights_folder

CALIBRATION_SEED = 1_000_003


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for weights and state; goes on from a state there.")],
    model: Annotated[str, typer.Option(help=f"Preset: {', '.join(PRESETS)}.")] = "small",
    init: Annotated[Path | None, typer.Option(help="Weights folder to start from.")] = None,
    grow: Annotated[
        bool, typer.Option(help="With --init: build --model anew and take over what fits, of an earlier architecture.")
    ] = False,
    vit: Annotated[str | None, typer.Option(help="Pretrained ViT to start from: Hub repository or folder.")] = None,
    t5: Annotated[str | None, typer.Option(help="Pretrained T5 to start from: Hub repository or folder.")] = None,
    recognition: Annotated[str | None, typer.Option(help="Weights to take the image tower and its keys from.")] = None,
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
    from rahf.model.rahf import RAHF
    from rahf.model.towers import load_fitting, load_recognition, load_towers
    from rahf.prompts import load_tokenizer
    from rahf.training.feedback import TrainConfig
    from rahf.training.feedback import train as run

    torch.manual_seed(seed)
    init = weights_folder(init) if init else None
    network = RAHF.from_pretrained(init) if init and not grow else RAHF(preset(model).with_(variant=variant))
    if init and grow:
        load_fitting(network, str(init))
    network.config = network.config.with_(blind=blind)
    source = _source("train", scenes, count, seed, network.config.image_size, records, images, prompts)
    load_towers(network, vit, t5, pyramid=init is None)
    if recognition is not None:
        load_recognition(network, str(resolve_weights(recognition)))
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


def recognize(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the weights.")],
    scenes: Annotated[Path, typer.Option(help="Sprite library.")],
    init: Annotated[Path | None, typer.Option(help="Weights folder to start from; else the preset `small`.")] = None,
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    tower_rate: Annotated[float, typer.Option(help="Learning rate of the image tower, as a part of the rest's.")] = 0.3,
    seed: int = 0,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
) -> None:
    """Teach the image tower what single sprites show.

    `rahf train --init` goes on from there.
    """
    from rahf.data.sprites import SpriteLibrary
    from rahf.model.rahf import RAHF
    from rahf.model.towers import load_towers
    from rahf.prompts import load_tokenizer
    from rahf.training.recognition import RecognitionConfig, train_recognition

    torch.manual_seed(seed)
    init = weights_folder(init) if init else None
    network = RAHF.from_pretrained(init) if init else load_towers(RAHF(preset("small")), pyramid=True)
    settings = RecognitionConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        tower_rate=tower_rate,
        seed=seed,
        mixed_precision=precision,
    )
    train_recognition(network, SpriteLibrary.load(scenes), load_tokenizer(network.config, init), out, settings)


def evaluate(
    weights: Annotated[list[str], typer.Option("--weights", "-w", help="Weights; several give several columns.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for table, JSON and sample sheet.")] = None,
    scenes: Annotated[Path | None, typer.Option(help="Sprite library: test on held-out composed scenes.")] = None,
    count: Annotated[int, typer.Option(help="Composed scenes.")] = 1000,
    records: Annotated[list[Path] | None, typer.Option(help="RichHF-18K TFRecords.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the records' images.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of the records' prompts.")] = None,
    word_threshold: Annotated[float | None, typer.Option(help="Instead of the one that the weights name.")] = None,
    batch_size: int = 8,
    sheet: Annotated[int, typer.Option(help="Samples on the sheet.")] = 6,
    device: Device = "auto",
) -> None:
    """All metrics, beside the paper's numbers.

    For composed scenes also those of a constant prediction.
    """
    from rahf.evaluation.report import collect, constant_predictions, summarise, table, to_json
    from rahf.predictor import Predictor

    predictors = {name: Predictor.from_pretrained(name, device) for name in weights}
    first = predictors[weights[0]]
    size = first.model.config.image_size
    test = _source("test", scenes, count, 0, size, records, images, prompts)
    columns = {}
    for name, predictor in predictors.items():
        threshold = predictor.model.config.word_threshold if word_threshold is None else word_threshold
        columns[name] = summarise(collect(predictor, test, batch_size), threshold)
    if scenes is not None:
        shown = _source("train", scenes, count, 0, size, None, None, None)
        columns["constant"] = summarise(constant_predictions(shown, test))
    text = table(columns)
    typer.echo(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "table.md", text + "\n")
        rows = {name: to_json(column) for name, column in columns.items()}
        write_text(out / "metrics.json", json.dumps(rows, indent=1) + "\n")
        _write_sheet(out / "samples.png", first, test, sheet)


def pack(
    run: Annotated[Path, typer.Argument(help="Weights folder, such as a training run's.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the parts.")],
    dtype: Annotated[Half, typer.Option(help="Number format to store.")] = Half.float16,
    megabytes: Annotated[float, typer.Option(help="Largest part; a plain git push takes up to 10.")] = 9.5,
    source: Annotated[str, typer.Option(help="Where the weights come from, for their notice.")] = "",
    license_name: Annotated[str, typer.Option("--license", help="Their licence.")] = "apache-2.0",
    calibrate: Annotated[
        Path | None, typer.Option(help="Sprite library: choose the word threshold on 300 scenes.")
    ] = None,
) -> None:
    """Write weights in small parts of half precision."""
    from rahf.evaluation.report import best_word_threshold, collect
    from rahf.model.checkpoints import save_parts
    from rahf.model.rahf import RAHF
    from rahf.predictor import Predictor

    model = RAHF.from_pretrained(weights_folder(run)).eval()
    config = model.config.with_(weights_source=source, weights_license=license_name)
    if calibrate is not None:
        # Scenes of training sprites that no run of a usual seed has seen; the test split decides nothing.
        scenes = _source("train", calibrate, 300, CALIBRATION_SEED, config.image_size, None, None, None)
        threshold = best_word_threshold(collect(Predictor(model), scenes))
        config = config.with_(word_threshold=round(threshold, 3))
        typer.echo(f"words count as misaligned from {threshold:.3f} on")
    for part in save_parts(model, config, out, getattr(torch, dtype.value), int(megabytes * 1e6)):
        typer.echo(f"{part.stat().st_size} {part}")


def sprites(
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the library.")],
    emoji: Annotated[list[Path] | None, typer.Option(help="Folder of emoji named by code point; repeatable.")] = None,
    clipart: Annotated[Path | None, typer.Option(help="Folder of the unpacked Debian package openclipart-png.")] = None,
    font: Annotated[Path | None, typer.Option(help="Colour font with bitmap glyphs: NotoColorEmoji.ttf.")] = None,
) -> None:
    """Make a sprite library for composed scenes.

    Its pictures come from packages that you have unpacked.
    """
    from rahf.data.sprites import build_library

    typer.echo(f"{build_library(out, emoji or [], clipart, font)} sprites in {out}")


def _with_photographs(source: SampleSource, folder: Path, share: float, seed: int, size: int) -> SampleSource:
    from rahf.data.photographs import Mixture, SpoiledPhotographs

    if not 0 < share < 1:
        raise ValueError(f"--photograph-share is {share}; it must lie between 0 and 1")
    spoiled = SpoiledPhotographs(folder, len(source), seed, size)
    return Mixture([source, spoiled], [1 - share, share], len(source), seed)


def _auxiliary(network: Any, source: Any, tokenizer: Any) -> Any:
    from rahf.data.grammar import COLOURS
    from rahf.data.scenes import ComposedScenes
    from rahf.training.auxiliary import Auxiliary

    if not isinstance(source, ComposedScenes):
        raise ValueError("--auxiliary needs --scenes: only there is it known what lies where")
    return Auxiliary(network, tokenizer, sorted(source.sprites), list(COLOURS))


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
    from rahf.data.richhf import RichHF
    from rahf.data.scenes import ComposedScenes, SceneConfig
    from rahf.data.sprites import SpriteLibrary

    if scenes is not None:
        return ComposedScenes(SpriteLibrary.load(scenes), count, split, seed, SceneConfig(size=size))
    if not records or images is None or prompts is None:
        raise ValueError("give --scenes LIBRARY, or --records with --images and --prompts")
    return RichHF(records, images, read_prompts(prompts))


def _write_sheet(path: Path, predictor: Any, source: SampleSource, count: int) -> None:
    from rahf.sheets import contact_sheet, report

    samples = [source[index] for index in range(min(count, len(source)))]
    found = predictor.predict_batch([sample.image for sample in samples], [sample.prompt for sample in samples])
    with replacing(path) as partial:
        contact_sheet([report(s.image, item) for s, item in zip(samples, found, strict=True)]).save(partial)
