"""`rahf improve saliency` and `rahf improve checklist`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.commands.errors import user_errors
from foundation.commands.options import limited
from rahf.cli.improve import (
    GeneratorName,
    Guidance,
    Out,
    Seed,
    echo_scores,
    improve,
    load,
    ready,
    save_picture,
    setting_of,
)
from rahf.cli.improve import shown as bar
from rahf.cli.options import Device, Weights
from rahf.limits import IMPROVE, SALIENCY

if TYPE_CHECKING:
    from rahf.improve.checklist.scoring import ChecklistResult

MOST_FRAMES = 240  # of a video that are read
VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")


@improve.command()
@user_errors
def saliency(
    out: Out,
    picture: Annotated[
        Path | None, typer.Option(help="Only show what draws the eye in this picture; nothing is drawn anew.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What a new picture is to show.")] = "",
    method: Annotated[str, typer.Option(help="sgool: picture and salient part; doodl: the picture alone.")] = "sgool",
    iterations: Annotated[int, limited("Steps of the search", SALIENCY["iterations"])] = 6,
    starts: Annotated[int, limited("Seeds drawn first, of which the best is taken", SALIENCY["starts"])] = 1,
    balance: Annotated[float, limited("Weight of the salient part", SALIENCY["balance"])] = 0.5,
    rate: Annotated[float, limited("Length of a step, of the noise's deviation", SALIENCY["rate"])] = 0.2,
    steps: Annotated[int, limited("Of the sampler", IMPROVE["steps"])] = 8,
    guidance: Guidance = None,
    seed: Seed = 0,
    generator: GeneratorName = "embedded",
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Draw a picture from starting noise that is optimised by what is salient (SGOOL, DOODL).

    With --picture, the saliency map and the salient part of a picture are written instead.
    """
    ready(out)
    if (picture is None) == (not prompt):
        raise ValueError("give either --prompt TEXT, to draw a picture, or --picture FILE, to see what draws the eye")
    if picture is not None:
        _show_saliency(picture, out)
        return
    from foundation.files import replacing_files, write_text
    from rahf.improve.saliency.optimise import SaliencyOptions, optimise_saliency

    options = SaliencyOptions(method, iterations, starts, balance, rate)
    models = load(generator, weights, device)
    setting = setting_of(models[0], steps, guidance)
    found = optimise_saliency(*models, prompt, seed, options, setting, bar())
    with replacing_files(out) as partial:
        save_picture(partial / "before.png", found.before)
        save_picture(partial / "optimised.png", found.picture)
        save_picture(partial / "saliency.png", found.saliency[None].expand(3, -1, -1))
        told = {
            "prompt": prompt,
            "method": found.method,
            "losses": found.losses,
            "best": found.best,
            "words": found.words,
            "judged_as": found.kind,
            "calls": found.calls,
            "stopped": found.stopped,
            "before": found.feedback_before.scores,
            "after": found.feedback.scores,
        }
        write_text(partial / "saliency.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"loss {found.losses[0]:.3f} -> {found.losses[found.best]:.3f}, measured as {found.kind}")
    echo_scores(found.feedback_before, found.feedback)
    typer.echo(f"{found.stopped} {found.seconds:.1f} s, {found.calls} calls; wrote {out}")


@improve.command()
@user_errors
def checklist(
    picture: Annotated[Path, typer.Argument(help="The picture, or a video or an animation, judged by its frames.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text it was made from.")] = "",
    original: Annotated[
        Path | None,
        typer.Option(help="Copy of VisionReward's repository, for its questions and weights; needs --model."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Chat model that sees pictures, folder or Hub id, to answer instead of our measures.")
    ] = "",
    loop: Annotated[bool, typer.Option(help="Of a video: whether its end is to run on into its beginning.")] = True,
    most: Annotated[int, typer.Option(help="Answers to show, those that count most.", min=1)] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all answers.")] = False,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Judge a picture or a loop by a list of questions, and show which answers made the score."""
    from rahf.improve.checklist.scoring import checklist as judge
    from rahf.improve.checklist.scoring import checklist_frames

    video = picture.suffix.lower() in VIDEOS
    questions = None
    if original is not None:
        from rahf.improve.checklist.original import read_original

        if not model:
            raise ValueError("the questions of VisionReward need a model that reads them; name one: --model FOLDER")
        questions = read_original(original, "video" if video else "image")
    pixels = _frames(picture) if video else _picture(picture)
    answering = _answering(model, weights, device)
    if video:
        found = checklist_frames(pixels, prompt, questions=questions, loop=loop, progress=bar(), **answering)
    else:
        found = judge(pixels, prompt, questions=questions, **answering)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
        return
    _echo_result(found, most)


def _answering(model: str, weights: str, device: str) -> dict[str, Any]:
    if model:
        from rahf.improve.checklist.chat import ChatAnswers

        return {"answerer": ChatAnswers.from_pretrained(model, device)}
    from rahf.predictor import Predictor

    return {"predictor": Predictor.from_pretrained(weights, device, "auto")}


def _picture(path: Path) -> Any:
    from foundation.pictures import KEPT_SIDE, load_photo

    return load_photo(path, KEPT_SIDE)


def _frames(path: Path) -> Any:
    """Frames (3,H,W) in [0, 1] of a video, at most `MOST_FRAMES` from its beginning, their longer side at most 512."""
    import torch

    from foundation.video import read_video
    from rahf.improve.checklist.measures import at_side

    frames, _ = read_video(path, MOST_FRAMES)
    return [at_side(torch.tensor(frame).permute(2, 0, 1) / 255) for frame in frames]


def _show_saliency(path: Path, out: Path) -> None:
    from foundation.files import replacing_files
    from rahf.improve.saliency.maps import saliency_map, salient_box

    pixels = _picture(path)
    found = saliency_map(pixels)
    box = salient_box(found)
    with replacing_files(out) as partial:
        save_picture(partial / "saliency.png", found[None].expand(3, -1, -1))
        save_picture(partial / "salient.png", box.crop(pixels))
    typer.echo(f"salient: columns {box.left} to {box.right}, rows {box.top} to {box.bottom}; wrote {out}")


def _echo_result(found: "ChecklistResult", most: int) -> None:
    typer.echo(f"score {found.score:.2f} by the list {found.questions.name}, answered by {found.answered_by}")
    if found.alignment is not None:
        typer.echo(f"{found.alignment_points:+7.3f}  agreement with the prompt: {found.alignment:.2f}")
    for answer in found.made_of(most):
        said = "yes" if (answer.yes or 0.0) >= 0.5 else "no"
        typer.echo(f"{answer.points:+7.3f}  {answer.question.text} {said} ({answer.reason})")
    missing = [answer.question.text for answer in found.answers if answer.yes is None and "not asked" in answer.reason]
    if missing:
        typer.echo(f"not asked: {' '.join(missing)}")
