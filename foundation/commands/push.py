"""`gid push` and `rahf push`, which are one command for two libraries."""

# No `from __future__ import annotations`: typer reads the annotations, and their texts name the library.

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from foundation.weights.cards import Library
from foundation.weights.checks import WeightsKind
from foundation.weights.publish import Publication, publish


def push_command(kind: WeightsKind, library: Library, report_file: str) -> Callable[..., None]:
    """The command that publishes a folder of one library's weights.

    ``report_file``: what the library's `evaluate` writes, from which the card takes its numbers.
    """
    folder_help = f"Folder of weights, as {kind.made_by} writes it, or embedded."
    report_help = f"{report_file} of `{kind.library} evaluate`, for the card."

    def push(
        folder: Annotated[str, typer.Argument(help=folder_help, show_default=False)],
        repository: Annotated[
            str, typer.Argument(help="owner/name on the Hub; made if it is not there.", show_default=False)
        ],
        yes: Annotated[bool, typer.Option("--yes/--dry-run", help="Publish, or only show what would be.")] = False,
        private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
        licence: Annotated[str, typer.Option("--license", help="Terms, as the Hub writes them: apache-2.0.")] = "",
        title: Annotated[str, typer.Option(help="The model's name in its card.")] = "",
        data: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
        training: Annotated[str, typer.Option(help="How it was trained, for the card.")] = "",
        report: Annotated[Path | None, typer.Option(help=report_help)] = None,
        test_data: Annotated[str, typer.Option(help="What the report was measured on.")] = "",
    ) -> None:
        """Publish a folder of weights with a model card.

        Without --yes only what would be uploaded is shown.
        """
        publication = Publication(folder, repository, private, licence, title, data, training, report, test_data)
        typer.echo(publish(publication, kind, library, yes))

    return push
