"""What several commands of `gid` share: options, loading a pipeline quietly, and bars of progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.commands.options import limited
from foundation.trace import stage
from gid.diffusion.loading import resolve_device
from gid.limits import LIMITS, SOLVERS

if TYPE_CHECKING:
    from gid.diffusion.pipeline import GIDPipeline
    from gid.rendering.renderer import Renderer

Weights = Annotated[str, typer.Option(help="embedded, a folder, or owner/repo on the Hub.", envvar="GID_WEIGHTS")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, limited("Which of the possible motions", LIMITS["seed"])]
Steps = Annotated[int, limited("Diffusion steps", LIMITS["steps"])]
Guidance = Annotated[float, limited("How strictly the photo is followed", LIMITS["guidance"])]
Solver = Annotated[str, typer.Option(help=f"{' or '.join(SOLVERS)}.")]
LoopGuidance = Annotated[
    float,
    limited("Guide the motion towards closing; 0 is off. Needs --solver ddim", LIMITS["loop_guidance"]),
]
HoldStill = Annotated[bool, typer.Option(help="Let pictures of things that do not move, such as a cup, hardly move.")]
Size = Annotated[int, limited("Longer side of the result in pixels", LIMITS["size"])]
MotionIn = Annotated[Path | None, typer.Option(help="Use this motion file instead of predicting one.")]


def load(weights: str, device: str) -> GIDPipeline:
    """The pipeline, on its device. Raises ValueError for an unknown device or weights that are not there."""
    resolve_device(device)  # a wrong one is told before weights are fetched
    with stage("imports"):
        from gid.diffusion.pipeline import load_pipeline

    quiet()
    with stage("weights"):
        pipeline = load_pipeline(weights, device)
    if pipeline.notice:
        typer.echo(pipeline.notice, err=True)
    return pipeline


def load_renderer(weights: str, device: str) -> Renderer:
    """What draws motion that is known, without the networks that predict it; on its device.

    Raises ValueError for an unknown device or weights that are not there.
    """
    target = resolve_device(device)
    from gid.diffusion.loading import load_parts, resolve_weights
    from gid.rendering.renderer import Renderer

    class RendererOnly:
        def __init__(self, renderer: Renderer) -> None: ...

    quiet()
    # The hints are looked up where the class is made, which is here.
    RendererOnly.__init__.__annotations__ = {"renderer": Renderer}
    renderer: Any = load_parts(resolve_weights(weights, headers=False), RendererOnly)["renderer"]
    moved: Renderer = renderer.to(target)
    return moved


def quiet() -> None:
    """Silence the loading of models; the commands show bars of their own."""
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


class Bar:
    """A progress bar that is called with (done, total), and ends its line whatever happens within ``with``."""

    def __init__(self, text: str) -> None:
        from tqdm.auto import tqdm

        self._bar: Any = tqdm(desc=text, leave=True)

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
