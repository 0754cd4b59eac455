"""`gid evaluate`: predicted against measured motion on clips left out of training, as a report with pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gid.cli.shared import Device, Guidance, Steps, Weights
from gid.limits import MotionOptions

if TYPE_CHECKING:
    from torch import Tensor

    from gid.diffusion.pipeline import GIDPipeline
    from gid.evaluation.visible import Frames
    from gid.motion.spectrum import SpectralVolume


def evaluate(
    clips: Annotated[Path, typer.Argument(help="Folder of looping clips from a still camera.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report; made if missing.", show_default=False)
    ],
    all_clips: Annotated[bool, typer.Option("--all", help="Every clip, not only the third held out.")] = False,
    seeds: Annotated[int, typer.Option(help="How many seeds are sampled for each photo.")] = 3,
    starts: Annotated[int, typer.Option(help="How many frames of each clip serve as the photo.")] = 3,
    steps: Steps = MotionOptions.steps,
    guidance: Guidance = MotionOptions.guidance,
    render: Annotated[bool, typer.Option(help="Also render a loop of each and judge its seam.")] = True,
    visible: Annotated[
        bool, typer.Option(help="Also compare what a person sees move in clip and loop, without optical flow.")
    ] = False,
    ablations: Annotated[bool, typer.Option(help="Also rows that leave parts of the method out.")] = True,
    name: Annotated[str, typer.Option(help="What to call these weights in the table.")] = "",
    others: Annotated[
        list[Path] | None,
        typer.Option("--beside", help="Report of other weights to put beside; may be given more than once."),
    ] = None,
    weights: Weights = "embedded",
    device: Device = "auto",
) -> None:
    """Compare predicted with measured motion on clips.

    The table, beside baselines, is printed and written. Predicted motions are kept in the output folder, by weights and
    settings: an interrupted run goes on where it was.
    """
    MotionOptions(0, steps, guidance)
    if seeds < 1 or starts < 1:
        raise ValueError(f"{seeds} seeds and {starts} starts asked for; at least one of each is needed")

    import torch

    from foundation.files import check_folder
    from gid.cli.shared import load
    from gid.data.videos import clip_name, clips_in, held_out, measured_pairs
    from gid.diffusion.loading import resolve_weights
    from gid.evaluation.ablations import ablation_rows, predicted_envelope
    from gid.evaluation.merging import merged, read_report
    from gid.evaluation.remembered import Remembered, fingerprint
    from gid.evaluation.report import evaluate as judge
    from gid.evaluation.report import write_tables
    from gid.rendering.animate import animate as render_frames

    reports = [read_report(path) for path in others or []]
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
    if reports:
        report = merged(report, reports)
        write_tables(report, output)
    typer.echo(report.markdown())
    if visible:
        shown = [path for path in clips_in(clips) if clip_name(path) in chosen]
        typer.echo(_compare_what_is_seen(shown, pipeline, sample, tuple(range(seeds)), output / "visible.md"))


def _compare_what_is_seen(
    clips: list[Path],
    pipeline: GIDPipeline,
    sample: Callable[[Tensor, int], SpectralVolume],
    seeds: tuple[int, ...],
    path: Path,
) -> str:
    """Write and return the table of what a person sees move, in clips and in loops at the natural strength."""
    import torch

    from foundation.files import write_text
    from gid.evaluation.visible import visible_table, written
    from gid.motion.strength import automatic_strength
    from gid.rendering.animate import animate as render_frames

    def loop_of(first: Frames, seed: int) -> Frames:
        photo = torch.from_numpy(first).permute(2, 0, 1).float() / 255
        side = min(1.0, 512 / max(photo.shape[1:]))
        photo = torch.nn.functional.interpolate(photo[None], scale_factor=side, mode="area")[0]
        volume = sample(photo, seed)
        strength = automatic_strength(volume)
        chunks = render_frames(photo.to(pipeline.device), volume, pipeline.renderer, strength=strength)
        return torch.cat([(255 * c).round().byte().cpu() for c in chunks]).permute(0, 2, 3, 1).numpy()

    text = written(visible_table(clips, loop_of, seeds))
    write_text(path, text + "\n")
    return text
