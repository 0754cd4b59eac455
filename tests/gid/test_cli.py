"""The command line as a user types it, on tiny weights in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image, ImageSequence
from typer.testing import CliRunner, Result

from foundation.commands.options import LazyGroup, attribute_help
from foundation.weights import checks
from gid.cli.main import app
from gid.cli.stages import DataGroup, TrainGroup
from gid.limits import LIMITS, PAGE, RenderOptions
from gid.motion.spectrum import SpectralVolume
from tests.tiny import photo


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    photo().save(path)
    return path


def gid(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def small(weights: Path) -> list[object]:
    return ["--weights", weights, "--steps", 2, "--device", "cpu"]


def frames_of(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return len(frames), frames[0].shape[1], frames[0].shape[0]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_animate_writes_a_video(weights: Path, picture: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"loop{suffix}"
    result = gid("animate", picture, "-o", target, "--frames", 6, *small(weights))
    assert result.exit_code == 0, result.output
    assert str(target) in result.stdout
    assert frames_of(target) == (6, 96, 64)


def test_animate_writes_a_gif(weights: Path, picture: Path, tmp_path: Path) -> None:
    target = tmp_path / "loop.gif"
    result = gid("animate", picture, "-o", target, "--frames", 6, *small(weights))
    assert result.exit_code == 0, result.output
    with Image.open(target) as image:
        assert image.size == (96, 64)
        # Frames that came out equal are stored once, so time is counted: 6 frames at 30 a second.
        length = sum(frame.info["duration"] for frame in ImageSequence.Iterator(image))
    assert length == 200


def test_animate_writes_a_png_sequence(weights: Path, picture: Path, tmp_path: Path) -> None:
    result = gid("animate", picture, "-o", tmp_path / "walk.png", "--frames", 4, *small(weights))
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("walk_*.png"))) == 4


def test_motion_can_be_written_and_used_again(weights: Path, picture: Path, tmp_path: Path) -> None:
    first, second, motion = tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "m.safetensors"
    written = gid("animate", picture, "-o", first, "--frames", 5, "--seed", 3, "--motion-out", motion, *small(weights))
    assert written.exit_code == 0, written.output
    volume = SpectralVolume.load(motion)
    assert volume.seed == 3
    assert volume.image_size == (96, 64)
    again = gid("animate", picture, "-o", second, "--frames", 5, "--motion-in", motion, *small(weights))
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()


POKE = ["--at", "40,30", "--force", "8,0", "--seconds", 0.5, "--fps", 6]


@pytest.mark.parametrize(("command", "options"), [("animate", ["--frames", 4]), ("poke", POKE)])
def test_known_motion_needs_the_renderer_alone(
    weights: Path, picture: Path, tmp_path: Path, command: str, options: list[object]
) -> None:
    """Of weights whose other parts cannot be read."""
    bare, motion = tmp_path / "bare", tmp_path / "m.safetensors"
    assert gid("motion", picture, "-o", motion, *small(weights)).exit_code == 0
    shutil.copytree(weights, bare)
    for part in ("autoencoder", "denoiser", "photo_encoder"):
        (bare / part / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    known = ["--motion-in", motion, "--weights", bare, "--device", "cpu"]
    result = gid(command, picture, "-o", tmp_path / "out.mp4", *options, *known)
    assert result.exit_code == 0, result.output
    assert frames_of(tmp_path / "out.mp4")[1:] == (96, 64)
    assert gid(command, picture, "-o", tmp_path / "x.mp4", *options, "--weights", bare).exit_code == 2


@pytest.mark.parametrize(("command", "options"), [("animate", ["--frames", 4]), ("poke", POKE)])
def test_each_file_of_weights_is_read_once(
    weights: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: list[object],
) -> None:
    opened: list[str] = []

    def counting(path: Path, *args: object, **kwargs: object) -> object:
        opened.append(str(path))
        return safetensors.safe_open(path, *args, **kwargs)

    for module in (safetensors.torch, checks):  # the former's load_file reads by it
        monkeypatch.setattr(module, "safe_open", counting)
    result = gid(command, picture, "-o", tmp_path / "out.mp4", *options, *small(weights))
    assert result.exit_code == 0, result.output
    assert sorted(opened) == sorted(str(path) for path in weights.rglob("*.safetensors"))


def test_motion_alone_is_the_same_motion(weights: Path, picture: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for target in (one, two):
        assert gid("motion", picture, "-o", target, "--seed", 5, *small(weights)).exit_code == 0
    torch.testing.assert_close(SpectralVolume.load(one).real, SpectralVolume.load(two).real)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--strength", 9], "strength is 9; it must be from 0 to 5"),
        (["--speed", 0], "speed is 0; it must be from 0.1 to 4"),
        (["--frames", 1], "frames is 1; it must be from 2 to 900"),
        (["--fps", 500], "fps is 500"),
        (["--seed", -1], "seed is -1; it must be from 0 to 4294967295"),
        (["--steps", 0], "steps is 0"),
        (["--guidance", 0], "guidance is 0"),
        (["--size", 5000], "size is 5000; it must be from 64 to 1920"),
        (["--strength", "nan"], "not a number"),
        (["--solver", "euler"], "it must be one of dpm, ddim"),
        (["--loop-guidance", 100], "use solver ddim"),
        (["--weights", "nowhere/at/all"], "nowhere/at/all"),
        (["--device", "toaster"], "toaster"),
        (["--motion-in", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_a_mistake_is_one_sentence(picture: Path, tmp_path: Path, options: list[object], says: str) -> None:
    target = tmp_path / "out.mp4"
    result = gid("animate", picture, "-o", target, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not target.exists()


def test_a_mistake_found_late_has_a_line_of_its_own(weights: Path, picture: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.safetensors"
    SpectralVolume(torch.zeros(3, 2, 4, 6, dtype=torch.complex64)).save(still)
    options = ["--at", "10,10", "--force", "5,0", "--motion-in", still, "--weights", weights, "--device", "cpu"]
    result = gid("poke", picture, "-o", tmp_path / "out.mp4", *options)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: this motion does not move anything")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("output", "says"),
    [("missing/out.mp4", "does not exist"), ("out.avi", "use one of"), ("out", "use one of")],
)
def test_output_is_checked_before_any_work(picture: Path, tmp_path: Path, output: str, says: str) -> None:
    result = gid("animate", picture, "-o", tmp_path / output, "--weights", "not/loaded/yet")
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_photo_that_is_none(tmp_path: Path) -> None:
    text = tmp_path / "photo.jpg"
    text.write_text("not a picture")
    result = gid("animate", text, "-o", tmp_path / "out.mp4")
    assert result.exit_code == 2
    assert "photo.jpg" in result.stderr
    assert list(tmp_path.iterdir()) == [text]


def test_motion_of_another_photo_is_refused(weights: Path, picture: Path, tmp_path: Path) -> None:
    motion = tmp_path / "m.safetensors"
    SpectralVolume(torch.zeros(16, 2, 8, 8, dtype=torch.complex64), image_size=(64, 64)).save(motion)
    result = gid("animate", picture, "-o", tmp_path / "out.mp4", "--motion-in", motion, *small(weights))
    assert result.exit_code == 2
    assert "64x64" in result.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_damaged_motion_is_refused(picture: Path, tmp_path: Path) -> None:
    motion = tmp_path / "m.safetensors"
    motion.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    result = gid("animate", picture, "-o", tmp_path / "out.mp4", "--motion-in", motion)
    assert result.exit_code == 2
    assert "m.safetensors" in result.stderr


def test_extract_measures_a_clip(tmp_path: Path) -> None:
    clip, motion = tmp_path / "clip.mp4", tmp_path / "m.safetensors"
    write_swaying_clip(clip)
    result = gid("extract", clip, "-o", motion)
    assert result.exit_code == 0, result.output
    assert SpectralVolume.load(motion).motion_energy().max() > 0


def test_extract_says_that_nothing_moves(tmp_path: Path) -> None:
    clip, motion = tmp_path / "clip.mp4", tmp_path / "m.safetensors"
    write_swaying_clip(clip, sway=0)
    result = gid("extract", clip, "-o", motion)
    assert result.exit_code == 2
    assert "moves" in result.stderr
    assert not motion.exists()


def write_swaying_clip(path: Path, sway: float = 4, frames: int = 45) -> None:
    """A textured patch that swings sideways once over a textured background."""
    generator = torch.Generator().manual_seed(1)
    background = Image.fromarray((torch.rand(96, 128, 3, generator=generator) * 255).byte().numpy()).convert("RGB")
    patch = Image.fromarray((torch.rand(48, 40, 3, generator=generator) * 255).byte().numpy())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(frames):
            picture = background.resize((128, 96)).copy()
            offset = sway * float(torch.sin(torch.tensor(6.2832 * index / frames)))
            moved = patch.transform(
                (56, 48), Image.Transform.AFFINE, (1, 0, -8 - offset, 0, 1, 0), Image.Resampling.BICUBIC
            )
            picture.paste(moved.crop((8, 0, 48, 48)), (44, 24))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


@pytest.mark.parametrize("group", [TrainGroup, DataGroup])
def test_every_stage_has_options_from_its_configuration(group: type[LazyGroup]) -> None:
    name = "train" if group is TrainGroup else "data"
    listed = gid(name, "--help")
    assert listed.exit_code == 0
    for stage in group.stages:
        assert stage in listed.output
        result = gid(name, stage, "--help")
        assert result.exit_code == 0, result.output
        assert "--" in result.output


def test_stage_options_reach_the_configuration(tmp_path: Path) -> None:
    result = gid("train", "autoencoder", "--out", tmp_path / "run", "--data", tmp_path / "nothing")
    assert result.exit_code == 2
    assert str(tmp_path / "nothing") in result.stderr.replace("\n", "")


def test_help_of_an_option_comes_from_the_docstring() -> None:
    from gid.training.autoencoder import AutoencoderTrainingConfig

    described = attribute_help(AutoencoderTrainingConfig)
    assert described["slices"].startswith("random frequency slices")
    assert described["ema_decay"].startswith("of the exponential moving average")


def test_the_page_offers_nothing_beyond_the_limits() -> None:
    RenderOptions(frames=round(PAGE["seconds"].high * RenderOptions.fps))
    for name, offered in PAGE.items():
        if name in LIMITS:
            assert LIMITS[name].low <= offered.low < offered.high <= LIMITS[name].high, name
