"""A trained generator in files that a plain git push takes."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionInpaintPipeline

from foundation.files import new_folder, write_text
from rahf.training.generator.denoiser import FOLDER

LARGEST_PART = "9MB"


def pack_generator(run: Path, out: Path) -> list[str]:
    """Write the pipeline of a training run in half precision, no file over 9 MB.

    Args:
        run: folder of `rahf train-generator`, or a pipeline's own.
        out: new folder.

    Returns:
        a line for each file, its size and path.

    Raises:
        ValueError: if the folder holds no pipeline.
        FileExistsError: if `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a folder that does not")
    folder = run / FOLDER if (run / FOLDER).is_dir() else run
    try:
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    except OSError as error:
        raise ValueError(f"{folder} holds no generator ({error}); name a folder of `rahf train-generator`") from error
    with new_folder(out) as partial:
        pipeline.save_pretrained(partial, max_shard_size=LARGEST_PART)
        for path in sorted(partial.rglob("*.json")):
            _forget_paths(path)
        _write_vocabulary(partial / "tokenizer")
    return [f"{path.stat().st_size} {path}" for path in sorted(out.rglob("*")) if path.is_file()]


def _forget_paths(path: Path) -> None:
    """Take the folder that a part was read from out of its configuration."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
        write_text(path, json.dumps(config, indent=2) + "\n")


def _write_vocabulary(folder: Path) -> None:
    """The tokenizer's two files of old beside its new one: versions of transformers before 5 read those."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    write_text(folder / "vocab.json", json.dumps(model["vocab"]) + "\n")
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    write_text(folder / "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
