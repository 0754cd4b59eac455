"""`rahf push`: a folder of weights to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from commons.publish import Publication, publish

from .loading import KIND
from .model_card import LIBRARY

Folder = Annotated[str, typer.Argument(help="Folder of weights, as `rahf train` writes it, or embedded.")]
Repository = Annotated[str, typer.Argument(help="owner/name on the Hub; made if it is not there.")]


def push(
    folder: Folder,
    repository: Repository,
    yes: Annotated[bool, typer.Option("--yes/--dry-run", help="Publish, or only show what would be.")] = False,
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    licence: Annotated[str, typer.Option("--license", help="Terms, as the Hub writes them: apache-2.0.")] = "",
    title: Annotated[str, typer.Option(help="The model's name in its card.")] = "",
    data: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    training: Annotated[str, typer.Option(help="How it was trained, for the card.")] = "",
    report: Annotated[Path | None, typer.Option(help="metrics.json of `rahf evaluate`, for the card.")] = None,
    test_data: Annotated[str, typer.Option(help="What the report was measured on.")] = "",
) -> None:
    """Publish a folder of weights with a model card; without --yes only what would be uploaded is shown."""
    said = Publication(folder, repository, private, licence, title, data, training, report, test_data)
    typer.echo(publish(said, KIND, LIBRARY, yes))
