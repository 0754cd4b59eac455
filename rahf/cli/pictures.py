"""`rahf picture-features`, `plant-faults`, `train-pictures` and `evaluate-pictures`: the judge of real pictures."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.files import check_folder, write_text
from rahf.cli.options import Device

Pictures = Annotated[Path, typer.Option("--pictures", help="Folder of tables (.jsonl) and their pictures.")]
Features = Annotated[Path, typer.Option("--features", help="Folder that `picture-features` wrote.")]
Planted = Annotated[Path, typer.Option("--planted", help="Folder that `plant-faults` wrote.")]
Text = Annotated[Path, typer.Option("--text", help="Folder of CLIP's text embeddings and heads (names.json).")]
PartBoxes = Annotated[
    Path, typer.Option("--parts", help="Faces, hands and poses found in the pictures, .jsonl by file.")
]


def picture_features(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the features; goes on from what is there.")],
    pictures: Pictures,
    teacher: Annotated[Path | None, typer.Option(help="CLIP ViT-B/16 image tower, a transformers folder.")] = None,
    device: Device = "auto",
) -> None:
    """See real pictures through the shared encoder, once.

    With --teacher its embeddings are kept beside the features, for training.
    """
    from foundation.features import load_encoder
    from rahf.data.pictures import read_pictures
    from rahf.training.picture_features import Teacher, keep_features

    check_folder(out)
    guide = Teacher.load(teacher) if teacher is not None else None
    written = keep_features(read_pictures(pictures), out, load_encoder(device), guide)
    typer.echo(f"wrote the features of {written} pictures to {out}")


def plant_faults(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the features; goes on from what is there.")],
    pictures: Pictures,
    parts: PartBoxes,
    seeds: Annotated[int, typer.Option(help="Spoiled versions of each picture.", min=1)] = 1,
    device: Device = "auto",
) -> None:
    """Plant faults into real pictures and see them through the shared encoder."""
    from foundation.features import load_encoder
    from rahf.data.pictures import read_pictures
    from rahf.training.judge_data import read_parts
    from rahf.training.planting import keep_planted

    check_folder(out)
    written = keep_planted(read_pictures(pictures), out, load_encoder(device), read_parts(parts), seeds)
    typer.echo(f"wrote the features of {written} spoiled pictures to {out}")


def train_pictures(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the judge; heads that are there are kept.")],
    pictures: Pictures,
    features: Features,
    planted: Planted,
    parts: PartBoxes,
    text: Text,
    composed: Annotated[
        Path | None, typer.Option(help="Features of composed scenes, by which they are told from pictures.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each perceptron.", min=10)] = 1500,
    seed: int = 0,
    left_out: Annotated[
        bool, typer.Option("--leave-out", help="Without the groups that `evaluate-pictures` reports on.")
    ] = False,
) -> None:
    """Train the judge of real pictures on kept features.

    Interrupted and started again it goes on with the first head that is not there.
    """
    from rahf.data.pictures import read_pictures
    from rahf.training.judge import JudgeTraining, train_judge

    check_folder(out)
    settings = JudgeTraining(steps=steps, left_out=left_out, seed=seed)
    train_judge(read_pictures(pictures), features, planted, parts, text, composed, out, settings)
    typer.echo(f"wrote {out}")


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
