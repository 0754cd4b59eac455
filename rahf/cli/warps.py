"""`rahf evaluate-warps`: are planted warps found in real pictures?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from foundation.commands.options import limited
from foundation.files import check_folder, replacing, write_text
from rahf.cli.options import Device, Weights
from rahf.data.prompt_tables import read_prompts
from rahf.limits import LIMITS


def evaluate_warps(
    folder: Annotated[Path, typer.Argument(help="Folder of real pictures; its subfolders are told apart.")],
    weights: Weights = "embedded",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for table, JSON and sheet.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts by file name, where they are known.")] = None,
    severity: Annotated[float, limited("Strength of the warps", LIMITS["severity"])] = 0.8,
    seed: int = 0,
    batch_size: Annotated[int, limited("Pictures at once", LIMITS["batch_size"])] = 4,
    device: Device = "auto",
) -> None:
    """Plant a warp into every picture of a folder.

    The table says how often it is found, beside baselines.
    """
    from rahf.evaluation.warps import find_warps, summarise_warps, warp_sheet, warp_table, warps_to_json
    from rahf.predictor import Predictor

    if out is not None:
        check_folder(out)
    texts = read_prompts(prompts) if prompts is not None else None
    predictor = Predictor.from_pretrained(weights, device)
    warps = find_warps(predictor, folder, texts, severity, seed=seed, batch_size=batch_size)
    summary = summarise_warps(warps)
    text = warp_table(summary)
    typer.echo(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "warps.md", text + "\n")
        rows = json.dumps(warps_to_json(warps, summary), indent=1, ensure_ascii=False)
        write_text(out / "warps.json", rows + "\n")
        with replacing(out / "warps.png") as partial:
            warp_sheet(warps).save(partial)
