"""Rendered answers: the library, the command line and the tab's service, on tiny real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from typer.testing import CliRunner, Result

from foundation.pictures import to_uint8
from foundation.video import write_video
from gid.cli.main import app
from gid.limits import MotionOptions
from gid.poking.responses import Response, gesture_at, render_response
from gid.poking.simulation import Gesture
from gid.poking.wind import Wind
from tests.swaying import CENTRE, swaying_volume, textured_photo
from tests.tiny import tiny_pipeline
from ui.animate.service import AnimationService
from ui.poke.service import PokeService, read_gesture

SIZE = (96, 64)
GESTURE = {"kind": "drag", "at": [0.4, 0.5], "force": [0.05, 0.0], "key": "abc", "duration": 0.4}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def test_a_rendered_answer_goes_from_the_photo_to_the_photo(pipeline: Any) -> None:
    photo, volume = textured_photo(SIZE), swaying_volume(32, 48, 8, SIZE)
    response = Response((Gesture(CENTRE, (0.08, 0.0)),), seconds=1, fps=10)
    frames = torch.cat(list(render_response(photo, volume, pipeline.renderer, response)))
    assert frames.shape == (10, 3, 64, 96)
    assert torch.equal(frames[0], photo)
    assert torch.equal(frames[-1], photo)
    change = (frames[5] - photo).abs().mean(dim=0)
    assert float(change[20:44, 25:50].mean()) > 0.02
    assert not change[:, 80:].any()  # what stands still stays as it is


def test_a_gust_alone_is_enough(pipeline: Any) -> None:
    response = Response(wind=Wind(seed=1), seconds=3, fps=5)
    frames = torch.cat(
        list(render_response(textured_photo(SIZE), swaying_volume(32, 48, 8, SIZE), pipeline.renderer, response))
    )
    assert float((frames[6] - frames[0]).abs().max()) > 0.02


def test_the_wrong_motion_is_explained(pipeline: Any) -> None:
    response = Response((Gesture(CENTRE, (0.1, 0)),))
    with pytest.raises(ValueError, match="was made for a photo"):
        list(render_response(textured_photo((64, 64)), swaying_volume(), pipeline.renderer, response))
    still = swaying_volume().magnify(0)
    with pytest.raises(ValueError, match="does not move"):
        list(render_response(textured_photo(), still, pipeline.renderer, response))


@pytest.mark.parametrize(
    ("at", "force", "message"),
    [
        ((96, 10), (5, 0), "outside the photo"),
        ((10, 10), (500, 0), "longer than the photo"),
        ((10, 10), (0, 0), "zero"),
    ],
)
def test_pixels_are_checked(at: Any, force: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gesture_at(at, force, SIZE)


def test_pixels_become_fractions() -> None:
    gesture = gesture_at((47.5, 31.5), (9.6, -6.4), SIZE)
    assert gesture.at == (0.5, 0.5)
    assert gesture.force == pytest.approx((0.1, -0.1))


# -- command line -----------------------------------------------------------------------------------------------------


def gid(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pipeline: Any) -> Path:
    """Tiny weights, a photo, its motion, and a clip in which it moves."""
    from PIL import Image

    place = tmp_path_factory.mktemp("poke")
    pipeline.save_pretrained(place / "weights")
    pixels = to_uint8(textured_photo(SIZE)[None])[0]
    Image.fromarray(pixels).save(place / "photo.png")
    swaying_volume(32, 48, 8, SIZE).save(place / "motion.safetensors")
    clip = (160, 96)
    noise = np.random.default_rng(0).uniform(-3, 4, (96, 160, 3)).astype(np.float32)
    frame = np.clip(cv2.GaussianBlur(noise, (0, 0), 1.5) * 255, 0, 255).astype(np.uint8)  # flow needs some texture
    motion = swaying_volume(96, 160, 8, clip).magnify(3).displacement(torch.arange(180.0)).permute(0, 2, 3, 1).numpy()
    grid = np.stack(np.meshgrid(np.arange(160), np.arange(96)), axis=-1).astype(np.float32)
    moved = [cv2.remap(frame, grid - d * np.float32(clip), np.empty(0), cv2.INTER_LINEAR) for d in motion]
    write_video(place / "clip.mp4", [np.stack(moved)], 30)
    return place


def test_gid_poke_writes_a_video(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "answer.mp4"
    known = ["--motion-in", folder / "motion.safetensors", "--weights", folder / "weights", "--device", "cpu"]
    result = gid(
        "poke",
        folder / "photo.png",
        "--at",
        "38,32",
        "--force",
        "8,0",
        "--seconds",
        1,
        "--fps",
        10,
        "-o",
        target,
        *known,
    )
    assert result.exit_code == 0, result.output
    with av.open(str(target)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 10
    assert np.abs(frames[5] - frames[0]).mean() > 2 * np.abs(frames[-1] - frames[0]).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "10,10"], "both --at"),
        (["--at", "here", "--force", "1,1"], "two numbers"),
        (["--at", "500,10", "--force", "1,1"], "outside the photo"),
        (["--at", "10,10", "--force", "0,0"], "for example 40,-10"),
        (["--at", "10,10", "--force", "1,1", "--hold", "0"], "--hold is 0"),
        (["--gust", "nan"], "got strength nan"),
        ([], "nothing acts on the photo: give --at"),
    ],
)
def test_gid_poke_explains_mistakes(folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = gid("poke", folder / "photo.png", "-o", tmp_path / "x.mp4", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_gid_export_takes_a_clip(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    result = gid("export", folder / "clip.mp4", "-o", target)
    assert result.exit_code == 0, result.output
    assert target.stat().st_size > 50_000
    assert "GIDPOKE1" in target.read_text()


# -- the tab ----------------------------------------------------------------------------------------------------------


def test_service_renders_what_the_browser_reports(folder: Path, pipeline: Any) -> None:
    service = PokeService(AnimationService(pipeline, "tiny"))
    key = service.clip(str(folder / "clip.mp4"))
    assert service.subject(key).page.stat().st_size > 50_000
    _, response = read_gesture({**GESTURE, "key": key}, seconds=0.5)
    video = service.video(key, response)
    assert video.stat().st_size > 1000
    assert service.video(key, response) == video
    with pytest.raises(ValueError, match="no longer remembered"):
        service.video("another", response)


def test_service_knows_a_photo_whose_motion_is_known(folder: Path, pipeline: Any) -> None:
    animation = AnimationService(pipeline, "tiny")
    service, photo, options = PokeService(animation), str(folder / "photo.png"), MotionOptions(steps=1)
    assert service.known_photo(photo, options) is None
    animation.motion(photo, options)
    assert service.known_photo(photo, options) == service.photo(photo, options)


@pytest.mark.parametrize(
    "damage",
    [{"at": None}, {"at": ["x", 1]}, {"force": [0, 0]}, {"at": [3, 0.5]}, {"force": [float("nan"), 0]}, {"knobs": [1]}],
)
def test_nothing_from_the_browser_is_trusted(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"gesture|force|point"):
        read_gesture({**GESTURE, **damage})


def test_poke_endpoint(app_url: str, picture: Path, tmp_path: Path) -> None:
    client = Client(app_url, verbose=False, download_files=str(tmp_path))
    call: dict[str, Any] = {"photo": handle_file(picture), "x": 40, "y": 30, "seconds": 0.5, "api_name": "/poke"}
    video = client.predict(dx=6, dy=0, **call)
    path = video["video"] if isinstance(video, dict) else video
    with av.open(path) as container:
        assert sum(1 for _ in container.decode(video=0)) == 15
    with pytest.raises(AppError, match="nothing acts"):
        client.predict(dx=0, dy=0, **call)
    with pytest.raises(AppError, match="outside the photo"):
        client.predict(dx=5, dy=0, **{**call, "x": 4000})
    with pytest.raises(AppError, match="no photo yet"):
        client.predict(dx=5, dy=0, **{**call, "photo": None})
