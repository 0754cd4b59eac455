"""The tree that a Space is made of: assemble it, start it from a clean copy, check it in a fresh environment.

    python tools/space.py assemble build/space
    python tools/space.py start build/space
    python tools/space.py check --python python3.12 --torch "torch==2.13.0"

`start` and `check` ask the app what a visitor would, through gradio_client, with the network to the Hub off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from foundation.files import new_folder

logger = logging.getLogger("space")
ROOT = Path(__file__).resolve().parent.parent

# What the app, its libraries and the links of its pages need; tests, tools and benchmark programs stay behind.
PARTS = (
    "README.md",
    "LICENSE",
    "weights.md",
    "app.py",
    "requirements.txt",
    "packages.txt",
    "foundation",
    "gid",
    "rahf",
    "ui",
    "examples",
    "docs",
    "studies/*.md",
)
LIMIT = 10_000_000  # bytes a file; the Hub's limit for files outside of large-file storage
NEEDED = ("README.md", "app.py", "requirements.txt", "gid/weights/model_index.json")

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__)


def tracked(root: Path = ROOT) -> list[Path]:
    """Paths under ``root``, relative, that git knows and a Space needs, sorted.

    Raises ValueError where there is no git checkout.
    """
    try:
        done = subprocess.run(["git", "ls-files", "-z", "--", *PARTS], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{root} is no git checkout, so there is no telling what belongs to it") from error
    names = sorted(name for name in done.stdout.decode().split("\0") if name)
    return [Path(name) for name in names if (root / name).is_file()]


def assemble_tree(target: Path, root: Path = ROOT) -> list[Path]:
    """Copy the tree of a Space into a new folder and return the paths in it; written whole or not at all.

    Raises:
        ValueError: if ``target`` exists, a file is a link or too large for a plain push, or something is missing.
    """
    if target.exists():
        raise ValueError(f"{target} exists already; name a folder that does not, or delete it first")
    paths = tracked(root)
    problems = [f"{name} is missing" for name in NEEDED if Path(name) not in paths]
    problems += [f"{path} is a link" for path in paths if (root / path).is_symlink()]
    large = [path for path in paths if (root / path).stat().st_size > LIMIT]
    problems += [f"{path} has {(root / path).stat().st_size} bytes, over {LIMIT}" for path in large]
    if problems:
        raise ValueError("this is no tree for a Space: " + "; ".join(problems))
    with new_folder(target) as partial:
        for path in paths:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, partial / path)
    return paths


# -- a running app -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(tree: Path, python: str, seconds: float = 600.0) -> Iterator[str]:
    """Start ``app.py`` of a tree with a Python, with an empty home and no Hub, and give its address.

    Raises RuntimeError, with what it printed last, if it ends or does not answer in time.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="space-") as home:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": home,
            "HF_HOME": str(Path(home) / "hf"),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_SSR_MODE": "False",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
        }
        log = Path(home) / "log"
        with open(log, "wb") as output:
            process = subprocess.Popen([python, "app.py"], cwd=tree, env=environment, stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url, process, log, seconds)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Return when the app answers. Raises RuntimeError if it ends before, or takes longer than ``seconds``."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{url}config", timeout=5).close()
            return
        time.sleep(0.3)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
    raise RuntimeError(f"app.py did not answer (exit code {process.poll()}); it printed last:\n{tail}")


def ask_app(url: str, photo: Path, feedback: bool = True) -> dict[str, float]:
    """Ask every task of a running app once, through gradio_client, and return the seconds each took.

    The picture's folder holds another one to compare it with. ``feedback`` is off where a tree holds no weights for
    it: then the app says so instead of answering.

    Raises RuntimeError if an answer is not what it should be.
    """
    from gradio_client import Client, handle_file

    with tempfile.TemporaryDirectory(prefix="answers-") as folder:
        client = Client(url, verbose=False, download_files=folder)
        seconds: dict[str, float] = {}

        def ask(name: str, **values: object) -> Any:
            start = time.monotonic()
            answer = client.predict(api_name=name, **values)
            seconds[name] = round(time.monotonic() - start, 2)
            return answer

        picture = handle_file(photo)
        video, motion = ask("/animate", photo=picture, seconds=1, steps=2, size=128)
        check_video(video)
        if not Path(str(motion)).stat().st_size:
            raise RuntimeError("/animate returned an empty motion file")
        check_video(ask("/poke", photo=picture, x=60, y=60, dx=20, dy=0, seconds=1))
        if feedback:
            prompt = "a yellow flower"
            found, *pictures = ask("/feedback", image=picture, prompt=prompt)
            check_feedback(found, prompt)
            if len(pictures) != 3 or not all(Path(str(path)).stat().st_size for path in pictures):
                raise RuntimeError(f"/feedback returned {pictures} for the report and two heatmaps")
            pair = [handle_file(path) for path in sorted(photo.parent.glob("*.jpg"))[:2]]
            ranked = ask("/rank", images=pair, prompt=prompt)
            if [row["place"] for row in ranked] != [1, 2] or ranked[0]["value"] < ranked[1]["value"]:
                raise RuntimeError(f"/rank returned no order of two pictures: {ranked}")
            for row in ranked:
                check_feedback(row, prompt)
            check_repair(ask, photo, Path(folder))
        client.close()
    return seconds


def check_repair(ask: Callable[..., Any], photo: Path, folder: Path) -> None:
    """Raise RuntimeError unless `/repair` draws in a mask and nowhere else."""
    import numpy as np
    from gradio_client import handle_file
    from PIL import Image, ImageOps

    with Image.open(photo) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB").resize((192, 128))
    where = np.zeros((128, 192), np.uint8)
    where[40:90, 60:120] = 255
    picture.save(folder / "picture.png")
    Image.fromarray(where).save(folder / "mask.png")
    files = {name: handle_file(folder / f"{name}.png") for name in ("picture", "mask")}
    asked = {"image": files["picture"], "mask": files["mask"], "prompt": "a yellow flower"}
    mended, told, _ = ask("/repair", candidates=1, rounds=1, **asked)
    with Image.open(mended) as made:
        after = np.asarray(made.convert("RGB"))
    if not np.array_equal(after[where == 0], np.asarray(picture)[where == 0]):
        raise RuntimeError("/repair changed what was not masked")
    if len(told["tried"]) != 1 or not all(0 <= value <= 1 for value in told["after"].values()):
        raise RuntimeError(f"/repair tells of no picture: {told}")


def check_video(value: object) -> None:
    """Raise RuntimeError unless ``value`` names an mp4 file."""
    path = Path(str(value["video"] if isinstance(value, dict) else value))
    if path.read_bytes()[4:8] != b"ftyp":
        raise RuntimeError(f"{path} is no mp4 video")


def check_feedback(found: Any, prompt: str) -> None:
    """Raise RuntimeError unless ``found`` says something of four scores and of every word of the prompt."""
    told = isinstance(found, dict) and len(found["scores"]) == 4 and len(found["words"]) == len(prompt.split())
    if not told or not all(0 <= value <= 1 for value in found["scores"].values()):
        raise RuntimeError(f"that is no feedback: {found}")


# -- a fresh environment -----------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What a check found. Times in seconds, sizes in megabytes."""

    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    environment_mb: int = 0
    install_s: float = 0.0
    start_s: float = 0.0
    answers_s: dict[str, float] = field(default_factory=dict)


SHOWN = ("torch", "gradio", "gradio_client", "diffusers", "transformers", "numpy", "numba", "huggingface_hub")


def install(python: str, environment: Path, tree: Path, torch: str | None) -> Measured:
    """Make a virtual environment and install requirements.txt of a tree into it, and nothing else.

    ``torch`` names a build to install first, for instance one without CUDA packages; requirements.txt then has to be
    content with it. Raises CalledProcessError if pip fails or finds requirements that do not go together.
    """
    start = time.monotonic()
    subprocess.run([python, "-m", "venv", environment], check=True)
    own = str(environment / "bin" / "python")
    pip = [own, "-m", "pip", "--disable-pip-version-check", "install", "--no-cache-dir", "--no-compile", "-q"]
    if torch:
        subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "-r", tree / "requirements.txt"], check=True)
    subprocess.run([own, "-m", "pip", "--disable-pip-version-check", "check"], check=True, stdout=sys.stderr)
    return describe(own, environment, time.monotonic() - start)


def describe(python: str, environment: Path, seconds: float) -> Measured:
    """Which Python, which packages and how large."""
    code = "import json, sys; from importlib.metadata import version as v; " + (
        f"print(json.dumps([sys.version.split()[0], {{n: v(n) for n in {SHOWN!r}}}]))"
    )
    name, packages = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True).stdout)
    size = sum(path.lstat().st_size for path in environment.rglob("*") if not path.is_symlink())
    return Measured(name, packages, size // 1_000_000, round(seconds, 1))


def visit(tree: Path, python: str, measured: Measured) -> Measured:
    """Start the app of a tree and ask it everything once, with that Python's own gradio_client."""
    start = time.monotonic()
    with running(tree, python) as url:
        measured.start_s = round(time.monotonic() - start, 1)
        photo = sorted((tree / "examples").glob("*.jpg"))[0]
        judges = any((tree / "rahf" / "weights").glob("*.safetensors"))
        environment = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(
            [python, Path(__file__).resolve(), "ask", url, photo, "--feedback" if judges else "--no-feedback"],
            capture_output=True,
            env=environment,
            cwd=tree,
        )
        if done.returncode:
            raise RuntimeError(f"the app did not answer as it should:\n{done.stderr.decode(errors='replace')[-2000:]}")
        measured.answers_s = json.loads(done.stdout)
    return measured


# -- commands ----------------------------------------------------------------------------------------------------------


@cli.command()
def assemble(target: Annotated[Path, typer.Argument(help="Folder to write; must not exist yet.")]) -> None:
    """Copy what a Space needs into a folder."""
    paths = assemble_tree(target)
    size = sum((target / path).stat().st_size for path in paths)
    largest = max(paths, key=lambda path: (target / path).stat().st_size)
    typer.echo(
        f"{target}: {len(paths)} files, {size / 1e6:.1f} MB; "
        f"the largest is {largest} with {(target / largest).stat().st_size / 1e6:.1f} MB"
    )


@cli.command()
def start(
    tree: Annotated[Path, typer.Argument(help="An assembled folder.")],
    python: Annotated[str, typer.Option(help="The Python to run it with.")] = sys.executable,
) -> None:
    """Start the app of an assembled folder, ask every task once, and stop it."""
    with tempfile.TemporaryDirectory(prefix="space-") as folder:
        copy = shutil.copytree(tree, Path(folder) / "app")
        typer.echo(json.dumps(asdict(visit(copy, python, Measured(python=python))), indent=2))


@cli.command()
def check(
    python: Annotated[str, typer.Option(help="The Python to make the environment with.")] = sys.executable,
    torch: Annotated[str | None, typer.Option(help="A build of torch to install first.")] = None,
    environment: Annotated[
        Path | None, typer.Option(help="Keep the environment in this new folder instead of deleting it.")
    ] = None,
) -> None:
    """Assemble, install requirements.txt alone into a fresh environment, start the app there and ask everything."""
    with tempfile.TemporaryDirectory(prefix="space-") as folder:
        tree = Path(folder) / "app"
        assemble_tree(tree)
        place = environment or Path(folder) / "environment"
        measured = install(python, place, tree, torch)
        typer.echo(json.dumps(asdict(visit(tree, str(place / "bin" / "python"), measured)), indent=2))


@cli.command()
def ask(url: str, photo: Path, feedback: Annotated[bool, typer.Option(help="Also ask for feedback.")] = True) -> None:
    """Ask a running app every task once; prints the seconds of each."""
    typer.echo(json.dumps(ask_app(url, photo, feedback)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        cli(standalone_mode=True)
    except (ValueError, RuntimeError, subprocess.CalledProcessError) as mistake:
        logger.error("%s", mistake)
        sys.exit(1)
