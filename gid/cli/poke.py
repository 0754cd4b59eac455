"""`gid poke` and `gid export`: a photo, or a clip, that answers a hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.commands.options import limited
from gid.cli.shared import Device, Guidance, MotionIn, Seed, Size, Steps, Weights
from gid.limits import POKE, MotionOptions

if TYPE_CHECKING:
    from foundation.pictures import Photo
    from gid.motion.spectrum import SpectralVolume
    from gid.poking.simulation import Gesture
    from gid.rendering.renderer import Renderer

Source = Annotated[Path, typer.Argument(help="A photo, or a short clip from a still camera.", show_default=False)]


def pair(text: str, name: str) -> tuple[float, float]:
    """Two numbers from "X,Y". Raises ValueError with the option's name."""
    parts = text.split(",")
    try:
        x, y = (float(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"--{name} is {text!r}; give two numbers with a comma, for example 120,80") from error
    return x, y


def what_to_poke(source: Path) -> Photo:
    """A photo, or a clip's first frame, read once. Raises ValueError if it is neither."""
    from foundation.pictures import read_photo
    from gid.poking.responses import first_frame, is_clip

    return read_photo(first_frame(source)) if is_clip(source) else read_photo(source)


def motion_of(
    source: Path, photo: Photo, motion_in: Path | None, options: MotionOptions, weights: str, device: str
) -> tuple[SpectralVolume, Renderer | None]:
    """Motion for what is poked: predicted, read from a file, or measured in the clip that the photo is the start of.

    The second is the renderer of the pipeline that predicted, if one had to be loaded.
    Raises ValueError for a clip that is refused, or a motion file of another photo.
    """
    from gid.cli.shared import Bar, load
    from gid.jobs import predict_motion
    from gid.motion.flow import extract
    from gid.motion.spectrum import SpectralVolume
    from gid.poking.responses import is_clip

    renderer = None
    if motion_in is not None:
        volume = SpectralVolume.load(motion_in)
    elif is_clip(source):
        volume = extract(source)
    else:
        pipeline = load(weights, device)
        renderer = pipeline.renderer
        with Bar("motion") as bar:
            volume = predict_motion(pipeline, photo, options, bar)
    volume.check_photo(*photo.size)
    return volume, renderer


def poke(
    photo: Source,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="mp4, webm, gif, or png for a numbered sequence.", show_default=False),
    ],
    at: Annotated[str | None, typer.Option(help="X,Y in pixels of the photo: where to take hold.")] = None,
    force: Annotated[str | None, typer.Option(help="DX,DY in pixels: how far to pull, right and down.")] = None,
    kind: Annotated[str, typer.Option(help="drag (pull and let go) or poke (a short push).")] = "drag",
    hold: Annotated[float, limited("Seconds until a drag lets go", POKE["hold"])] = 0.5,
    gust: Annotated[float, typer.Option(help="Strength of a gust of wind, 0 for none, 1 for a breeze.")] = 0.0,
    gust_angle: Annotated[float, typer.Option(help="Where the wind blows: 0 right, 90 down, in degrees.")] = 0.0,
    gust_seed: Annotated[int, typer.Option(help="Which gust.")] = 0,
    seconds: Annotated[float, limited("Length of the video", POKE["seconds"])] = 3.0,
    fps: Annotated[float, limited("Frames a second", POKE["fps"])] = 30.0,
    stiffness: Annotated[float, limited("Above 1 swings faster", POKE["stiffness"])] = 1.0,
    damping: Annotated[float, limited("1 is the paper's, smaller rings longer", POKE["damping"])] = 0.5,
    strength: Annotated[float, limited("Scale of what is shown", POKE["strength"])] = 1.0,
    seed: Seed = 0,
    steps: Steps = MotionOptions.steps,
    guidance: Guidance = MotionOptions.guidance,
    size: Size = 512,
    motion_in: MotionIn = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Pull, poke or blow at a photo and render how it swings.

    The first and the last frame are the photo at rest.
    """
    from gid.cli.shared import Bar, load_renderer
    from gid.jobs import VIDEO_SUFFIXES, check_output
    from gid.poking.responses import Response, gesture_at, write_response
    from gid.poking.simulation import Knobs
    from gid.poking.wind import Wind

    check_output(output, VIDEO_SUFFIXES)
    POKE["size"].check("size", size)
    if (at is None) != (force is None):
        raise ValueError("give both --at X,Y and --force DX,DY, or neither and a --gust")
    if at is None and not gust:
        raise ValueError("nothing acts on the photo: give --at X,Y and --force DX,DY, or a --gust 1")
    POKE["hold"].check("--hold", hold)
    if kind not in ("drag", "poke"):
        raise ValueError(f"--kind is {kind!r}; use drag or poke")
    options = MotionOptions(seed=seed, steps=steps, guidance=guidance)
    start = what_to_poke(photo)
    gestures: tuple[Gesture, ...] = ()
    if at is not None and force is not None:
        gestures = (gesture_at(pair(at, "at"), pair(force, "force"), start.size, kind, hold),)
    wind = Wind(gust, gust_angle, seed=gust_seed) if gust else None
    knobs = Knobs(stiffness=stiffness, damping=damping, strength=strength)
    response = Response(gestures, wind, seconds, fps, knobs)
    volume, renderer = motion_of(photo, start, motion_in, options, weights, device)
    if renderer is None:
        renderer = load_renderer(weights, device)
    with Bar("frames") as bar:
        write_response(output, start.tensor(size).to(renderer.device), volume, renderer, response, bar)
    typer.echo(str(output))


def export(
    photo: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page, .html.", show_default=False)],
    seed: Seed = 0,
    steps: Steps = MotionOptions.steps,
    guidance: Guidance = MotionOptions.guidance,
    size: Size = 512,
    motion_in: MotionIn = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Write one HTML page with a photo that answers pokes.

    It works in any browser, without a network.
    """
    from foundation.files import write_text
    from gid.jobs import check_output
    from gid.poking.page import export_page

    check_output(output, (".html",))
    POKE["size"].check("size", size)
    options = MotionOptions(seed=seed, steps=steps, guidance=guidance)
    start = what_to_poke(photo)
    volume, _ = motion_of(photo, start, motion_in, options, weights, device)
    page = export_page(start.tensor(size), volume, photo.stem)
    write_text(output, page)
    typer.echo(str(output))
