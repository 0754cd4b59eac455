"""Generated scenes as files: sharded, resumable, and shared out over machines by shard number.

A shard is a safetensors file with ``photos`` uint8 (N,3,H,W), ``coefficients`` float16 (N,K,4,h,w) in the order x_re,
x_im, y_re, y_im (fractions of the picture, as in `gid.motion.spectrum`) and ``seeds`` int64 (N,); its metadata holds
the kinds and the configuration. Its name tells the first seed and the number of scenes, so that a finished shard is
never made twice.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from foundation.files import replacing
from gid.data.scenes import SceneConfig, generate_scene

logger = logging.getLogger(__name__)
FORMAT = "gid-scenes/1"


@dataclass(frozen=True)
class Shard:
    """Scenes read from one file.

    Attributes:
        photos: uint8 (N,3,H,W).
        coefficients: float16 (N,K,4,h,w), x_re, x_im, y_re, y_im as fractions of the picture.
        seeds: int64 (N,).
        kinds: the kind of each scene.
        config: the configuration the scenes were made with.
    """

    photos: Tensor
    coefficients: Tensor
    seeds: Tensor
    kinds: list[str]
    config: SceneConfig


def degrade(photo: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """What a camera or website does to a photo (H,W,3) uint8: JPEG of a quality drawn from the seed, often softened."""
    rng = np.random.default_rng([seed, 7])
    if rng.random() < 0.3:
        photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.3, 0.9)).astype(np.uint8)
    if rng.random() < 0.2:
        return photo
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=int(rng.integers(45, 97)))
    return np.asarray(Image.open(buffer))


def _generate(seed: int, config: SceneConfig) -> tuple[NDArray[np.uint8], NDArray[np.float16], str]:
    """Photo (3,H,W), coefficients (K,4,h,w) and kind of one scene."""
    scene = generate_scene(seed, config)
    photo = np.ascontiguousarray(degrade(scene.photo, seed).transpose(2, 0, 1))
    return photo, scene.volume.real.numpy().astype(np.float16), scene.kind


def _single_threaded() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def shard_path(out_dir: str | Path, first_seed: int, count: int) -> Path:
    """File of the shard with ``count`` scenes from ``first_seed`` on."""
    return Path(out_dir) / f"scenes-{first_seed:09d}-{count:05d}.safetensors"


def write_shards(
    out_dir: str | Path,
    num_scenes: int,
    config: SceneConfig | None = None,
    seed: int = 0,
    shard_size: int = 256,
    workers: int = 2,
    machine: int = 0,
    machines: int = 1,
    cutouts: Path | None = None,
    kinds: tuple[str, ...] = (),
) -> list[Path]:
    """Generate ``num_scenes`` scenes from ``seed`` on; finished shards are skipped, so a broken run resumes.

    With ``machines`` > 1 this call makes only the shards whose number modulo ``machines`` is ``machine``.

    Args:
        out_dir: folder of the shards.
        num_scenes: scenes in all.
        config: of the scenes.
        seed: of the first scene.
        shard_size: scenes a shard.
        workers: processes.
        machine: number of this machine.
        machines: how many share the work.
        cutouts: folder of photographic cut-outs to paste scenes together from; drawn scenes without.
        kinds: only these kinds of scenes; all, by their weights, without.

    Returns:
        The files of this machine's shards, whether made now or found.

    Raises:
        ValueError: for counts below one, a machine number out of range, or a shard made with another configuration.
    """
    config = config or SceneConfig()
    if cutouts is not None:
        config = replace(config, cutouts=str(cutouts))
    if kinds:
        config = replace(config, kinds=tuple(kinds))
    for name, value in (
        ("num_scenes", num_scenes),
        ("shard_size", shard_size),
        ("workers", workers),
        ("machines", machines),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if not 0 <= machine < machines:
        raise ValueError(f"machine is {machine}; with {machines} machines it must lie between 0 and {machines - 1}")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    starts = list(range(seed, seed + num_scenes, shard_size))[machine::machines]
    jobs = [
        (shard_path(folder, start, count), start, count)
        for start in starts
        if (count := min(shard_size, seed + num_scenes - start))
    ]
    missing = [job for job in jobs if not _finished(job[0], config)]
    if missing:
        with tqdm(total=sum(count for _, _, count in missing), desc="scenes", unit="scene") as bar:
            if workers == 1:
                for path, start, count in missing:
                    _save(path, start, map(_generate, range(start, start + count), [config] * count), config, bar)
            else:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(workers, mp_context=context, initializer=_single_threaded) as pool:
                    for path, start, count in missing:
                        made = pool.map(_generate, range(start, start + count), [config] * count, chunksize=4)
                        _save(path, start, made, config, bar)
    return [path for path, _, _ in jobs]


def _finished(path: Path, config: SceneConfig) -> bool:
    """Whether a shard is there and whole."""
    if not path.exists():
        return False
    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {}).get("config", "")
    except SafetensorError:
        logger.warning("%s is damaged and will be made again", path)
        return False
    if found != _describe(config):
        raise ValueError(f"{path} was made with {found}, not {_describe(config)}; choose another folder or delete it")
    return True


def _describe(config: SceneConfig) -> str:
    fields = asdict(config)
    if not config.cutouts:  # as before there were any, so that older shards stay valid
        fields.pop("cutouts")
    return json.dumps(fields, sort_keys=True)


def _save(
    path: Path,
    start: int,
    made: Iterator[tuple[NDArray[np.uint8], NDArray[np.float16], str]],
    config: SceneConfig,
    bar: tqdm,
) -> None:
    """Write one shard beside its place, then rename, so that a killed run leaves no half shard."""
    photos, coefficients, kinds = [], [], []
    for photo, coefficient, kind in made:
        photos.append(torch.from_numpy(photo))
        coefficients.append(torch.from_numpy(coefficient))
        kinds.append(kind)
        bar.update()
    tensors = {
        "photos": torch.stack(photos),
        "coefficients": torch.stack(coefficients),
        "seeds": torch.arange(start, start + len(kinds)),
    }
    metadata = {"format": FORMAT, "kinds": json.dumps(kinds), "config": _describe(config)}
    with replacing(path) as partial:
        save_file(tensors, str(partial), metadata)


def read_shards(folder: str | Path) -> Iterator[Shard]:
    """Read the shards of a folder in the order of their seeds.

    Raises:
        ValueError: if the folder holds no shards, or one is damaged or of another format.
    """
    paths = sorted(Path(folder).glob("scenes-*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no scenes-*.safetensors; make some with write_shards")
    for path in paths:
        yield read_shard(path)


def read_shard(path: str | Path) -> Shard:
    """Read one shard.

    Raises:
        ValueError: if the file is damaged or not a shard of scenes.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}; make it with write_shards"
                )
            tensors = {name: file.get_tensor(name) for name in ("photos", "coefficients", "seeds")}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run write_shards again") from error
    options = json.loads(metadata["config"])
    options["kinds"] = tuple(options["kinds"])
    return Shard(**tensors, kinds=json.loads(metadata["kinds"]), config=SceneConfig(**options))
