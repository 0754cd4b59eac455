"""Options that several commands of `rahf` share."""

from enum import StrEnum
from typing import Annotated

import typer

Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="embedded, a folder, or owner/repo[@revision][/subfolder] on the Hub.",
        envvar="RAHF_WEIGHTS",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 for large models where it is fast.")]


class Half(StrEnum):
    """Number formats of a weight file."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
