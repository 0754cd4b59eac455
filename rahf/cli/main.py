"""`rahf`: convert, analyze, rank, and the commands of the modules beside this one."""

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from foundation.commands.errors import user_errors
from foundation.commands.options import LazyGroup, Names, limited
from foundation.commands.tracing import Traced, trace_command
from foundation.trace import stage
from rahf.cli.improve_tools import improve
from rahf.cli.options import Device, Half, Precision, Weights
from rahf.cli.pictures import evaluate_pictures
from rahf.cli.push import push
from rahf.cli.stages import evaluate, pack, sprites
from rahf.cli.warps import evaluate_warps
from rahf.data.prompt_tables import read_prompts
from rahf.limits import LIMITS


class Commands(LazyGroup):
    """The commands below, and those whose options are a configuration of training."""

    stages: ClassVar[Mapping[str, str]] = {
        "train": "rahf.training.run:train_feedback",
        "recognize": "rahf.training.run:recognize",
        "picture-features": "rahf.training.picture_runs:picture_features",
        "plant-faults": "rahf.training.picture_runs:plant_faults",
        "train-pictures": "rahf.training.picture_runs:train_pictures",
        "generator-scenes": "rahf.training.generator.scenes:prepare_scenes",
        "train-autoencoder": "rahf.training.generator.autoencoder:train_autoencoder",
        "generator-latents": "rahf.training.generator.latents:prepare_latents",
        "train-generator": "rahf.training.generator.denoiser:train_generator",
        "pack-generator": "rahf.training.generator.packing:pack_generator",
    }
    option_names: ClassVar[Names] = {
        "out": ("--out", "-o"),
        "warmup_steps": ("--warmup", "--warmup-steps"),
        "left_out": ("--leave-out",),
    }


app = typer.Typer(
    name="rahf",
    cls=Commands,
    help="Rich human feedback on generated images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in a help text are not markup
)


@app.callback()
def set_up(context: typer.Context, trace: Traced = False) -> None:
    """Rich human feedback on generated images."""
    # The commands say on the way what they do.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if trace:
        trace_command(context)


@app.command()
@user_errors
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="rahf_model.pt of the public release.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the weights.")],
    dtype: Annotated[Half, typer.Option(help="Number format to store.")] = Half.float32,
) -> None:
    """Convert the public checkpoint (CC BY-NC 4.0).

    A folder of weights is written. Nothing in the checkpoint is executed.
    """
    import torch

    from foundation.files import check_folder
    from rahf.model.conversion import convert_checkpoint

    check_folder(out)
    convert_checkpoint(checkpoint, out, dtype=getattr(torch, dtype.value))
    typer.echo(f"wrote {out}; these weights are for non-commercial use only")


@app.command()
@user_errors
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
    batch_size: Annotated[int, limited("For a folder: images at once", LIMITS["batch_size"])] = 8,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Feedback on one image, or on each of a folder.

    A folder may be shared among processes by `accelerate launch`. It may be interrupted and started again: what is
    there already is skipped. Images that cannot be used are listed in failures.jsonl at the end, with the reason.
    """
    if image.is_dir():
        if out is None:
            raise ValueError("give a folder for the results: -o OUT")
        if (prompt is None) == (prompts is None):
            raise ValueError("give either --prompts FILE, prompts by file name, or one --prompt TEXT for all images")
        texts = read_prompts(prompts) if prompts is not None else str(prompt)
        load = partial(_predictor, weights, precision)
        _analyze_folder(image, out, texts, load, device, batch_size, scores_only, report)
        return
    if prompt is None:
        raise ValueError("give the text that the image was made from: --prompt TEXT")

    with stage("imports"):
        from foundation.files import check_folder
        from foundation.pictures import KEPT_SIDE, load_photo
        from rahf.folders import save_feedback
        from rahf.predictor import Predictor
        from rahf.prompts import check_prompt

    # What is wrong with these is told before a model is loaded.
    check_prompt(prompt)
    with stage("pictures"):
        picture = load_photo(image, KEPT_SIDE)
    if out is not None:
        check_folder(out)
    feedback = Predictor.from_pretrained(weights, device, precision).predict(picture, prompt, scores_only=scores_only)
    if out is not None:
        save_feedback(out, image, feedback)
    if as_json:
        typer.echo(json.dumps(feedback.to_dict(), indent=2, ensure_ascii=False))
        return
    for name, value in feedback.scores.items():
        low, high = feedback.intervals.get(name, (value, value))
        ends = f"  ({low:.2f} to {high:.2f})" if name in feedback.intervals else ""
        typer.echo(f"{name:13} {value:.3f}{ends}{'  unsure' if name in feedback.unsure else ''}")
    if feedback.words:
        typer.echo("how likely each word is not shown:")
    for word in feedback.words:
        if not word.judged:
            typer.echo(f"{'-':>13} {word.text}  not judged")
            continue
        mark = "  not shown" if word.probability >= feedback.word_threshold else ""
        typer.echo(f"{word.probability:13.3f} {word.text}{mark}")
    if feedback.noncommercial:
        typer.echo("weights for non-commercial use only", err=True)


def _predictor(weights: str, precision: str, device: str) -> Any:
    from rahf.predictor import Predictor

    return Predictor.from_pretrained(weights, device, precision)


def _analyze_folder(
    folder: Path,
    out: Path,
    texts: str | dict[str, str],
    load: Callable[[str], Any],
    device: str,
    batch_size: int,
    scores_only: bool,
    report: bool,
) -> None:
    from foundation.folders import Processes
    from rahf.folders import analyze_folder

    processes = Processes(device)
    predictor = load(processes.device(device))
    done = analyze_folder(folder, out, predictor, texts, processes, batch_size, scores_only, report)
    if processes.first:
        typer.echo(f"{out}: {done}")
        for line in done.details():
            typer.echo(line, err=True)
    if done.failures:
        raise typer.Exit(1)


@app.command()
@user_errors
def rank(
    folder: Annotated[Path, typer.Argument(help="Folder of images.")],
    prompts: Annotated[Path, typer.Option(help="Prompts by file name: .csv, .jsonl (filename, prompt) or .json.")],
    weights: Weights = "embedded",
    by: Annotated[str, typer.Option(help="Weights of the scores, as in plausibility=2,overall=1.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch_size: Annotated[int, limited("Images at once", LIMITS["batch_size"])] = 8,
    device: Device = "auto",
) -> None:
    """Rank the images of a folder, best first, with reasons.

    Images that cannot be used are named, with the reason, and left out.
    """
    from foundation.folders import Summary, printable
    from rahf.feedback import rank as ranked
    from rahf.predictor import Predictor

    chosen = _score_weights(by) if by else None
    texts = read_prompts(prompts)
    predictor = Predictor.from_pretrained(weights, device)
    summary = Summary()
    results = list(predictor.predict_folder(folder, texts, batch_size, summary))
    for line in summary.details():
        typer.echo(line, err=True)
    order = ranked([feedback for _, feedback in results], chosen)
    names = [path.relative_to(folder).as_posix() for path, _ in results]
    if as_json:
        rows = [
            {
                "file": names[index],
                "value": value,
                **results[index][1].to_dict(),
                "against": results[index][1].reasons(),
            }
            for index, value in order
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for index, value in order:
            typer.echo(f"{value:.3f} {printable(names[index])}  {'; '.join(results[index][1].reasons())}")
    if summary.failures:
        raise typer.Exit(1)


for command in (
    evaluate,
    evaluate_warps,
    pack,
    sprites,
    evaluate_pictures,
    push,
):
    app.command()(user_errors(command))
app.add_typer(improve)


def _score_weights(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ValueError(f"--by is {text!r}; write it as plausibility=2,overall=1") from error
