"""`gid evaluate`: predicted against measured motion on clips left out of training, as a report with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gid.limits import MotionOptions


def evaluate(
    clips: Annotated[Path, typer.Argument(help="Folder of looping clips from a still camera.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report; made if missing.", show_default=False)
    ],
    all_clips: Annotated[bool, typer.Option("--all", help="Every clip, not only the third held out.")] = False,
    seeds: Annotated[int, typer.Option(help="How many seeds are sampled for each photo.")] = 3,
    starts: Annotated[int, typer.Option(help="How many frames of each clip serve as the photo.")] = 3,
    steps: Annotated[int, typer.Option(help="Diffusion steps, 1 to 250.")] = MotionOptions.steps,
    guidance: Annotated[float, typer.Option(help="How strictly the photo is followed, 1 to 20.")] = (
        MotionOptions.guidance
    ),
    render: Annotated[bool, typer.Option(help="Also render a loop of each and judge its seam.")] = True,
    ablations: Annotated[bool, typer.Option(help="Also rows that leave parts of the method out.")] = True,
    name: Annotated[str, typer.Option(help="What to call these weights in the table.")] = "",
    beside: Annotated[
        list[Path] | None, typer.Option(help="Report of other weights to put beside; may be given more than once.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="embedded, a folder, or owner/repo on the Hub.", envvar="GID_WEIGHTS")
    ] = "embedded",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Compare predicted with measured motion on clips.

    The table, beside baselines, is printed and written. Predicted motions are kept in the output folder, by weights and
    settings: an interrupted run goes on where it was.
    """
    MotionOptions(0, steps, guidance)
    if seeds < 1 or starts < 1:
        raise ValueError(f"{seeds} seeds and {starts} starts asked for; at least one of each is needed")

    import torch
    from torch import Tensor

    from foundation.files import check_folder
    from gid.cli.shared import load
    from gid.data.videos import held_out, measured_pairs
    from gid.diffusion.loading import resolve_weights
    from gid.evaluation.ablations import ablation_rows, predicted_envelope
    from gid.evaluation.merging import merged, read_report
    from gid.evaluation.remembered import Remembered, fingerprint
    from gid.evaluation.report import evaluate as judge
    from gid.evaluation.report import write_tables
    from gid.motion.spectrum import SpectralVolume
    from gid.rendering.animate import animate as render_frames

    others = [read_report(path) for path in beside or []]
    check_folder(output)
    pairs = measured_pairs(clips, output / "pairs", starts)
    chosen = {pair.clip for pair in pairs} if all_clips else held_out(pair.clip for pair in pairs)
    reference = [pair for pair in pairs if pair.clip not in chosen]
    pipeline = load(weights, device)
    title = name or weights

    def sample(photo: Tensor, seed: int) -> SpectralVolume:
        return pipeline(photo, seed=seed, steps=steps, guidance_scale=guidance).volumes[0]

    def frames(photo: Tensor, volume: SpectralVolume) -> Tensor:
        return torch.cat([chunk.cpu() for chunk in render_frames(photo.to(pipeline.device), volume, pipeline.renderer)])

    key = fingerprint(resolve_weights(weights), steps, guidance)
    report = judge(
        Remembered(sample, output / "motions", key),
        [pair for pair in pairs if pair.clip in chosen],
        tuple(range(seeds)),
        output,
        reference or None,
        frames if render else None,
        title,
        (lambda p, s: ablation_rows(p, s, reference, lambda photo: predicted_envelope(pipeline, photo), title))
        if ablations and reference
        else None,
    )
    if others:
        report = merged(report, others)
        write_tables(report, output)
    typer.echo(report.markdown())
