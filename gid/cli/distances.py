"""`gid distances`: FID, KID, FVD and DTFVD between two folders of videos, with networks that the user brings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NETWORK = "TorchScript file of"


def distances(
    real: Annotated[Path, typer.Argument(help="Folder of real videos.", show_default=False)],
    generated: Annotated[Path, typer.Argument(help="Folder of generated videos.", show_default=False)],
    inception: Annotated[Path | None, typer.Option(help=f"{NETWORK} Inception, for FID and KID.")] = None,
    i3d: Annotated[Path | None, typer.Option(help=f"{NETWORK} I3D trained on Kinetics, for FVD.")] = None,
    dynamic_textures: Annotated[
        Path | None, typer.Option(help=f"{NETWORK} I3D trained on dynamic textures, for DTFVD.")
    ] = None,
    picture_input: Annotated[str, typer.Option(help="What Inception takes: uint8, unit or signed.")] = "uint8",
    picture_side: Annotated[int, typer.Option(help="Side of the pictures Inception is shown; 0: as they are.")] = 299,
    clip_input: Annotated[str, typer.Option(help="What I3D takes: uint8, unit or signed.")] = "signed",
    clip_side: Annotated[int, typer.Option(help="Side of the clips I3D is shown; 0: as they are.")] = 224,
    stride: Annotated[int, typer.Option(help="Frames between windows of FVD and DTFVD.")] = 4,
    sliding: Annotated[bool, typer.Option(help="Also how FID and DTFVD change over time.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """FID, KID, FVD and DTFVD between two folders of videos.

    By the paper's protocol: 256x128, windows of 16 and 32 frames. No network is downloaded: name the files of those you
    have.
    """
    for name in (picture_input, clip_input):
        if name not in ("uint8", "unit", "signed"):
            raise ValueError(f"input {name!r} is unknown; use uint8 (0 to 255), unit (0 to 1) or signed (-1 to 1)")
    if inception is None and i3d is None and dynamic_textures is None:
        raise ValueError("no network named; give --inception, --i3d or --dynamic-textures a TorchScript file")

    from gid.diffusion.loading import resolve_device
    from gid.evaluation.distances import (
        Features,
        picture_distances,
        read_videos,
        sliding_distances,
        video_distances,
    )

    target = resolve_device(device)
    ours, theirs = read_videos(real), read_videos(generated)
    measured: dict[str, float] = {}
    changes: dict[str, list[float]] = {}
    if inception is not None:
        network = Features.load(inception, picture_side or None, picture_input, device=target)  # type: ignore[arg-type]
        measured |= picture_distances(ours, theirs, network)
        if sliding:
            changes["FID, windows of 30"] = sliding_distances(ours, theirs, network, 30, clips=False)
    for name, path in (("FVD", i3d), ("DTFVD", dynamic_textures)):
        if path is not None:
            network = Features.load(path, clip_side or None, clip_input, device=target)  # type: ignore[arg-type]
            measured |= video_distances(ours, theirs, network, name, stride=stride)
            if sliding and name == "DTFVD":
                changes["DTFVD, windows of 16"] = sliding_distances(ours, theirs, network, 16, clips=True)
    for name, value in measured.items():
        typer.echo(f"{name}: {value:.4g}")
    for name, values in changes.items():
        typer.echo(f"{name}: {' '.join(f'{value:.4g}' for value in values)}")
