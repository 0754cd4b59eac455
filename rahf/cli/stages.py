"""`rahf evaluate`, `pack` and `sprites`: the commands beside training that make and judge weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.commands.options import limited
from foundation.files import check_folder, replacing, write_text
from rahf.cli.options import Device, Half
from rahf.limits import LIMITS
from rahf.model.loading import weights_folder
from rahf.training.sources import SampleChoice, open_samples

if TYPE_CHECKING:
    from rahf.data.samples import SampleSource

CALIBRATION_SEED = 1_000_003


def evaluate(
    weights: Annotated[list[str], typer.Option("--weights", "-w", help="Weights; several give several columns.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for table, JSON and sample sheet.")] = None,
    scenes: Annotated[Path | None, typer.Option(help="Sprite library: test on held-out composed scenes.")] = None,
    count: Annotated[int, typer.Option(help="Composed scenes.")] = 1000,
    records: Annotated[list[Path] | None, typer.Option(help="RichHF-18K TFRecords.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the records' images.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Table of the records' prompts.")] = None,
    word_threshold: Annotated[float | None, typer.Option(help="Instead of the one that the weights name.")] = None,
    batch_size: Annotated[int, limited("Samples at once", LIMITS["batch_size"])] = 8,
    sheet: Annotated[int, typer.Option(help="Samples on the sheet.")] = 6,
    device: Device = "auto",
) -> None:
    """All metrics, beside the paper's numbers.

    For composed scenes also those of a constant prediction.
    """
    from rahf.evaluation.report import collect, constant_predictions, summarise, table, to_json
    from rahf.predictor import Predictor

    if out is not None:
        check_folder(out)
    predictors = {name: Predictor.from_pretrained(name, device) for name in weights}
    first = predictors[weights[0]]
    size = first.model.config.image_size
    choice = SampleChoice(scenes, count, 0, tuple(records or ()), images, prompts)
    test = open_samples(choice, "test", size)
    columns = {}
    for name, predictor in predictors.items():
        threshold = predictor.model.config.word_threshold if word_threshold is None else word_threshold
        columns[name] = summarise(collect(predictor, test, batch_size), threshold)
    if scenes is not None:
        shown = open_samples(choice, "train", size)
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
    import torch

    from rahf.evaluation.report import best_word_threshold, collect
    from rahf.model.checkpoints import save_parts
    from rahf.model.rahf import RAHF
    from rahf.predictor import Predictor

    check_folder(out)
    model = RAHF.from_pretrained(weights_folder(run)).eval()
    config = model.config.changed(weights_source=source, weights_license=license_name)
    if calibrate is not None:
        # Scenes of training sprites that no run of a usual seed has seen; the test split decides nothing.
        scenes = open_samples(SampleChoice(calibrate, 300, CALIBRATION_SEED), "train", config.image_size)
        threshold = best_word_threshold(collect(Predictor(model), scenes))
        config = config.changed(word_threshold=round(threshold, 3))
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

    check_folder(out)
    typer.echo(f"{build_library(out, emoji or [], clipart, font)} sprites in {out}")


def _write_sheet(path: Path, predictor: Any, source: "SampleSource", count: int) -> None:
    from rahf.sheets import contact_sheet, report

    samples = [source[index] for index in range(min(count, len(source)))]
    feedback = predictor.predict_batch([sample.image for sample in samples], [sample.prompt for sample in samples])
    with replacing(path) as partial:
        contact_sheet([report(s.image, item) for s, item in zip(samples, feedback, strict=True)]).save(partial)
