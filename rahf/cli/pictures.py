"""`rahf evaluate-pictures`: how far the judge of real pictures agrees with people."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.files import check_folder, write_text

Pictures = Annotated[Path, typer.Option("--pictures", help="Folder of tables (.jsonl) and their pictures.")]
Features = Annotated[Path, typer.Option("--features", help="Folder that `picture-features` wrote.")]
Planted = Annotated[Path, typer.Option("--planted", help="Folder that `plant-faults` wrote.")]
Text = Annotated[Path, typer.Option("--text", help="Folder of CLIP's text embeddings and heads (names.json).")]


def evaluate_pictures(
    judge: Annotated[Path, typer.Argument(help="Folder of a judge that was trained with --leave-out.")],
    pictures: Pictures,
    features: Features,
    planted: Planted,
    text: Text,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the table.")] = None,
) -> None:
    """How far the judge agrees with people, on scenes, prompts, generators and photographs it has not seen."""
    from rahf.data.pictures import read_pictures
    from rahf.evaluation.pictures import evaluate_judge, figures_table
    from rahf.pictures.feedback import load_words
    from rahf.pictures.judge import load_judge

    if out is not None:
        check_folder(out)
    found = evaluate_judge(load_judge(judge), load_words(judge), read_pictures(pictures), features, planted, text)
    table = figures_table(found)
    typer.echo(table)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "pictures.md", table + "\n")
