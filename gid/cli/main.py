"""The command line: `gid animate PHOTO -o OUT.mp4` and its companions. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundation.commands.errors import user_errors
from foundation.commands.options import limited
from foundation.commands.tracing import Traced, trace_command
from foundation.trace import stage
from gid.cli.convert import convert
from gid.cli.distances import distances
from gid.cli.evaluate import evaluate
from gid.cli.poke import export, poke
from gid.cli.push import push
from gid.cli.shared import (
    Bar,
    Device,
    Guidance,
    HoldStill,
    LoopGuidance,
    MotionIn,
    Seed,
    Size,
    Solver,
    Steps,
    Weights,
    load,
    load_renderer,
)
from gid.cli.stages import DataGroup, TrainGroup
from gid.limits import LIMITS, MotionOptions, RenderOptions, strength_from_text

app = typer.Typer(
    name="gid",
    help="Generative Image Dynamics: one photo in, natural motion out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in a help text are not markup
)
app.add_typer(
    typer.Typer(cls=TrainGroup, rich_markup_mode=None),
    name="train",
    help="Train one stage; `gid train STAGE --help` lists its options.",
)
app.add_typer(typer.Typer(cls=DataGroup, rich_markup_mode=None), name="data", help="Make and prepare training data.")

Photo = Annotated[Path, typer.Argument(help="The photo: any common image format.", show_default=False)]
PhotoOrFolder = Annotated[
    Path, typer.Argument(help="The photo: any common image format; or a folder of them.", show_default=False)
]
MotionOut = Annotated[Path, typer.Option("--output", "-o", help="Motion file, .safetensors.", show_default=False)]


@app.callback()
def set_up(context: typer.Context, trace: Traced = False) -> None:
    """Generative Image Dynamics: one photo in, natural motion out."""
    if trace:
        trace_command(context)


@app.command()
@user_errors
def animate(
    photo: PhotoOrFolder,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="mp4, webm, gif, or png for a numbered sequence; for a folder of photos a folder.",
            show_default=False,
        ),
    ],
    loop: Annotated[bool, typer.Option(help="Let the end lead back to the start.")] = True,
    frames: Annotated[int, limited("Number of frames", LIMITS["frames"])] = RenderOptions.frames,
    fps: Annotated[float, limited("Frames a second", LIMITS["fps"])] = RenderOptions.fps,
    strength: Annotated[
        str, limited("Scale of the motion: 1 is as predicted, auto chooses", LIMITS["strength"])
    ] = "auto",
    speed: Annotated[
        float, limited("Speed of the motion: below 1 is slow motion", LIMITS["speed"])
    ] = RenderOptions.speed,
    seed: Seed = 0,
    steps: Steps = MotionOptions.steps,
    guidance: Guidance = MotionOptions.guidance,
    solver: Solver = MotionOptions.solver,
    loop_guidance: LoopGuidance = MotionOptions.loop_guidance,
    hold_still: HoldStill = MotionOptions.hold_still,
    size: Size = RenderOptions.size,
    weights: Weights = "embedded",
    motion_in: MotionIn = None,
    motion_out: Annotated[Path | None, typer.Option(help="Also write the motion file here.")] = None,
    video: Annotated[str, typer.Option("--format", help="For a folder: mp4, webm, gif or png.")] = "mp4",
    keep_motion: Annotated[bool, typer.Option(help="For a folder: keep the motion files too.")] = False,
    device: Device = "auto",
) -> None:
    """Turn a photo, or each of a folder, into a video or loop.

    A folder may be shared among processes by `accelerate launch`. It may be interrupted and started again: what is
    there already is skipped. Photos that cannot be used are listed in failures.jsonl at the end, with the reason.
    """
    motion = MotionOptions(seed, steps, guidance, solver, loop_guidance, hold_still)
    render = RenderOptions(frames, fps, strength_from_text(strength), speed, loop, size)
    if photo.is_dir():
        if motion_in is not None or motion_out is not None:
            raise ValueError("one motion file does not fit a folder of photos; use --keep-motion to keep theirs")
        _animate_folder(photo, output, motion, render, video, keep_motion, weights, device)
        return

    with stage("imports"):
        from foundation.pictures import load_photo
        from gid.jobs import VIDEO_SUFFIXES, check_output, predict_motion, prepare_rendering, write_animation
        from gid.motion.spectrum import SpectralVolume

    check_output(output, VIDEO_SUFFIXES)
    if motion_out is not None:
        check_output(motion_out, (".safetensors",))
    with stage("photo"):
        picture = load_photo(photo, max_side=size)
    if motion_in is not None:
        volume = SpectralVolume.load(motion_in)
        volume.check_photo(picture.shape[-1], picture.shape[-2])
        renderer = load_renderer(weights, device)
    else:
        pipeline = load(weights, device)
        prepare_rendering(pipeline)
        with Bar("motion") as bar:
            volume = predict_motion(pipeline, photo, motion, bar)
        renderer = pipeline.renderer
    with Bar("frames") as bar:
        write_animation(output, picture.to(renderer.device), volume, renderer, render, bar)
    if motion_out is not None:
        volume.save(motion_out)
    typer.echo(str(output))


def _animate_folder(
    folder: Path,
    output: Path,
    motion: MotionOptions,
    render: RenderOptions,
    video: str,
    keep_motion: bool,
    weights: str,
    device: str,
) -> None:
    from foundation.folders import Processes
    from gid.folders import animate_folder

    processes = Processes(device)
    pipeline = load(weights, processes.device(device))
    source = str(Path(weights).resolve()) if Path(weights).is_dir() else weights
    done = animate_folder(folder, output, pipeline, motion, render, processes, video, keep_motion, source)
    if processes.first:
        typer.echo(f"{output}: {done}")
        for line in done.details():
            typer.secho(line, err=True, fg=typer.colors.RED)
    if done.failures:
        raise typer.Exit(1)


@app.command()
@user_errors
def motion(
    photo: Photo,
    output: MotionOut,
    seed: Seed = 0,
    steps: Steps = MotionOptions.steps,
    guidance: Guidance = MotionOptions.guidance,
    solver: Solver = MotionOptions.solver,
    loop_guidance: LoopGuidance = MotionOptions.loop_guidance,
    hold_still: HoldStill = MotionOptions.hold_still,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Predict how a photo would move, as a motion file."""
    options = MotionOptions(seed, steps, guidance, solver, loop_guidance, hold_still)

    from foundation.pictures import load_photo
    from gid.jobs import check_output, predict_motion

    check_output(output, (".safetensors",))
    load_photo(photo, max_side=64)  # a bad photo is told before the models are loaded
    pipeline = load(weights, device)
    with Bar("motion") as bar:
        volume = predict_motion(pipeline, photo, options, bar)
    volume.save(output)
    typer.echo(str(output))


@app.command()
@user_errors
def extract(
    video: Annotated[Path, typer.Argument(help="A short clip from a still camera.", show_default=False)],
    output: MotionOut,
) -> None:
    """Measure the motion of a video.

    It is written as a motion file of the first frame.
    """
    from gid.jobs import check_output
    from gid.motion.flow import extract as measure

    check_output(output, (".safetensors",))
    measure(video).save(output)
    typer.echo(str(output))


app.command()(user_errors(evaluate))
app.command()(user_errors(distances))
app.command()(user_errors(push))
app.command()(user_errors(poke))
app.command()(user_errors(export))
app.command()(user_errors(convert))
