"""`gid convert`: other people's checkpoints to folders that every other command takes as --weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KNOWN = {"fltwr": "unet_v1.pth of fltwr/generative-image-dynamics, trained on videos of real plants"}


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The downloaded file.", show_default=False)],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Whose: " + "; ".join(f"{name} ({what})" for name, what in KNOWN.items()) + ".",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; must not exist yet.", show_default=False)
    ],
    autoencoder: Annotated[
        str | None,
        typer.Option(
            help="Its autoencoder: a folder, or owner/repo[@revision][/subfolder] on the Hub. "
            "Without it, the one it was trained with, from the Hub.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Convert another project's checkpoint.

    Nothing in it is executed, and every key that does not fit is named.
    """
    if source not in KNOWN:
        raise ValueError(f"--from is {source!r}; known are {', '.join(KNOWN)}")
    if not output.parent.is_dir():
        raise ValueError(f"output folder {output.parent} does not exist; create it first")

    from foundation.files import check_folder
    from gid.cli.shared import quiet
    from gid.diffusion.conversion import convert_fltwr
    from gid.diffusion.fltwr import AUTOENCODER, NOTICE

    check_folder(output)
    quiet()
    convert_fltwr(checkpoint, output, autoencoder or AUTOENCODER)
    typer.echo(str(output))
    typer.echo(NOTICE, err=True)
