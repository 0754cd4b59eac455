"""The app as a program sees it: a live server and gradio_client."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import shutil
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from gid.limits import MotionOptions, RenderOptions
from gid.motion.spectrum import SpectralVolume
from tests.tiny import photo, tiny_pipeline
from ui import zerogpu
from ui.animate.overlays import band_chart, motion_energy_picture
from ui.animate.service import AnimationService
from ui.memory import Recent
from ui.photos import open_photo
from ui.progress import show
from ui.visit import Visit

QUICK = {"seconds": 1, "steps": 1, "size": 128}


@pytest.fixture(scope="module")
def client(app_url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(app_url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def frames_of(path: str) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def video_path(value: Any) -> str:
    return value["video"] if isinstance(value, dict) else value


def test_animate_endpoint_returns_video_and_motion(client: Client, picture: Path) -> None:
    video, motion = client.predict(photo=handle_file(picture), seed=7, api_name="/animate", **QUICK)
    assert frames_of(video_path(video)) == 30
    volume = SpectralVolume.load(motion)
    assert volume.seed == 7
    assert volume.image_size == (96, 64)


def test_only_documented_endpoints_are_public(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/animate", "/poke"}
    parameters = {entry["parameter_name"]: entry for entry in endpoints["/animate"]["parameters"]}
    assert list(parameters) == [
        "photo",
        "strength",
        "speed",
        "seconds",
        "loop",
        "seed",
        "steps",
        "guidance",
        "size",
        "hold_still",
    ]
    assert parameters["strength"]["parameter_default"] is None, "left out, the natural strength is chosen"
    assert parameters["strength"]["parameter_has_default"]
    assert parameters["seconds"]["parameter_default"] == 5
    assert parameters["loop"]["parameter_default"] is True
    assert not parameters["photo"]["parameter_has_default"]


def bad_photos(folder: Path) -> dict[str, tuple[Path, str]]:
    text, cut, tiny, wide = (folder / name for name in ("text.jpg", "cut.png", "tiny.png", "wide.png"))
    text.write_text("no picture")
    photo(400, 300).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    Image.new("RGB", (1, 1)).save(tiny)
    Image.new("RGB", (500, 100)).save(wide)
    return {"text": (text, "text.jpg"), "cut": (cut, "cut.png"), "tiny": (tiny, "16"), "wide": (wide, "4")}


@pytest.mark.parametrize("kind", ["text", "cut", "tiny", "wide"])
def test_a_bad_photo_gets_a_message(client: Client, tmp_path: Path, kind: str) -> None:
    path, says = bad_photos(tmp_path)[kind]
    with pytest.raises(AppError, match=says):
        client.predict(photo=handle_file(path), api_name="/animate", **QUICK)


def test_no_photo_gets_a_message(client: Client) -> None:
    with pytest.raises(AppError, match="no photo yet"):
        client.predict(photo=None, api_name="/animate", **QUICK)


@pytest.mark.parametrize("name", ["cmyk.jpg", "palette.png", "alpha.png", "deep.png", "turned.jpg", "moving.gif"])
def test_uncommon_photos_are_handled(client: Client, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    picture = photo()
    if name == "cmyk.jpg":
        picture.convert("CMYK").save(path)
    elif name == "palette.png":
        picture.convert("P").save(path)
    elif name == "alpha.png":
        picture.convert("RGBA").save(path)
    elif name == "deep.png":
        Image.fromarray((torch.rand(64, 96) * 65535).to(torch.int32).numpy().astype("uint16")).save(path)
    elif name == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        picture.save(path, exif=exif)
    else:
        picture.save(path, save_all=True, append_images=[photo(seed=1)])
    video, motion = client.predict(photo=handle_file(path), api_name="/animate", **QUICK)
    assert frames_of(video_path(video)) == 30
    size = SpectralVolume.load(motion).image_size
    assert size == ((64, 96) if name == "turned.jpg" else (96, 64))


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("strength", 50, "strength is 50; it must be from 0 to 5|maximum"),
        ("seconds", 1000, "frames is 30000; it must be from 2 to 900|maximum"),
        ("seed", -3, "seed is -3|minimum"),
        ("size", 9000, "size is 9000|maximum"),
    ],
)
def test_options_out_of_range_get_a_message(
    client: Client, picture: Path, option: str, value: float, says: str
) -> None:
    with pytest.raises(AppError, match=says):
        client.predict(photo=handle_file(picture), api_name="/animate", **{**QUICK, option: value})


@pytest.fixture(scope="module")
def service() -> AnimationService:
    return AnimationService(tiny_pipeline(), "tiny", motions=2, videos=2)


def counted(service: AnimationService, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the diffusion model really runs; it still does."""
    calls: list[int] = []
    original = type(service.pipeline).__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(service.pipeline), "__call__", count)
    return calls


def test_strength_only_renders_again(service: AnimationService, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(service, monkeypatch)
    motion = MotionOptions(steps=1)
    for strength in (1.0, 0.5):
        volume, video = list(service.animate(str(picture), motion, RenderOptions(frames=4, strength=strength)))
        assert isinstance(volume, SpectralVolume)
        assert frames_of(str(video)) == 4
    assert len(calls) == 1
    list(service.animate(str(picture), MotionOptions(seed=1, steps=1), RenderOptions(frames=4)))
    assert len(calls) == 2


def test_the_same_request_is_answered_from_the_cache(service: AnimationService, picture: Path) -> None:
    options = MotionOptions(seed=4, steps=1), RenderOptions(frames=4)
    *_, first = service.animate(str(picture), *options)
    changed = Path(str(first)).stat().st_mtime_ns
    *_, second = service.animate(str(picture), *options)
    assert first == second
    assert Path(str(second)).stat().st_mtime_ns == changed


def test_equal_options_share_a_motion_file_however_they_are_written(service: AnimationService, picture: Path) -> None:
    whole, point = MotionOptions(steps=1, guidance=1), MotionOptions(steps=1, guidance=1.0)
    assert whole == point
    paths = [service.motion_file(picture, options) for options in (whole, point)]
    assert paths[0] == paths[1]
    assert paths[0].is_file()


def test_the_cache_is_bounded_and_cleans_up(service: AnimationService, picture: Path) -> None:
    for frames in (4, 5, 6, 7):
        list(service.animate(str(picture), MotionOptions(steps=1), RenderOptions(frames=frames)))
    assert len(list(service.folder.glob("*.mp4"))) <= 2


def test_a_photo_of_the_same_name_is_another_photo(service: AnimationService, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(seed=1).save(path)
    first = service.key(str(path), MotionOptions())
    photo(seed=2).save(path)
    assert service.key(str(path), MotionOptions()) != first
    shutil.copy(path, tmp_path / "copy.png")
    assert service.key(str(tmp_path / "copy.png"), MotionOptions()) == service.key(str(path), MotionOptions())


def test_recent_forgets_what_was_used_longest_ago() -> None:
    dropped: list[int] = []
    recent: Recent[str, int] = Recent(2, dropped.append)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert dropped == [2]
    assert recent.get("b") is None
    assert recent.get("a") == 1


def test_a_visit_knows_whether_its_photo_is_still_there(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.visit.PATIENCE", 0.1)
    other = tmp_path / "other.png"
    other.write_bytes(picture.read_bytes() + b"another")
    visit = Visit()
    visit.look_at(str(picture))
    assert visit.begin(str(picture))
    assert visit.goes_on
    assert not visit.look_at(str(picture))  # an example: its result was begun before the page told of the photo
    assert visit.look_at(str(other))
    assert not visit.goes_on
    assert not visit.begin(str(picture))  # asked for before, come up after
    assert visit.begin(str(other))
    assert visit.goes_on
    assert visit.look_at(None)
    assert not visit.goes_on


def test_what_goes_to_a_gpu_worker_can_be_pickled(service: AnimationService, picture: Path) -> None:
    volume = service.motion(str(picture), MotionOptions(steps=1))
    arguments = (open_photo(picture), volume, MotionOptions(), RenderOptions(), "/target.mp4", show)
    again = pickle.loads(pickle.dumps(arguments))
    assert (again[0].array() == arguments[0].array()).all()
    assert again[5] is show
    torch.testing.assert_close(again[1].real, volume.real)
    assert volume.coefficients.device.type == "cpu"
    assert service.compute_seconds(*arguments) > 0
    unknown = (arguments[0], None, MotionOptions(steps=250), *arguments[3:])
    assert service.compute_seconds(*unknown, "more") > service.compute_seconds(*arguments)


def test_the_app_does_without_the_platforms_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zerogpu.on_gpu(8)(len) is len  # installed or not, elsewhere it has no part in this
    found = importlib.util.find_spec
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "spaces" else found(name, *rest)
    )
    without = importlib.reload(zerogpu)
    try:
        assert not without.AVAILABLE
        assert without.on_gpu(8)(len) is len
    finally:
        monkeypatch.undo()
        importlib.reload(zerogpu)


def test_energy_picture_is_bright_where_it_moves() -> None:
    coefficients = torch.zeros(4, 2, 16, 24, dtype=torch.complex64)
    coefficients[1:, :, 4:8, 4:8] = 0.01
    picture = motion_energy_picture(torch.full((3, 32, 48), 0.5), SpectralVolume(coefficients))
    assert picture.shape == (32, 48, 3)
    assert picture[12, 12].max() > picture[28, 40].max() + 50
    still = motion_energy_picture(torch.full((3, 32, 48), 0.5), SpectralVolume(coefficients * 0))
    assert (still == still[0, 0]).all()


def test_band_chart_draws_each_moving_band_to_scale() -> None:
    coefficients = torch.zeros(4, 2, 2, 2, dtype=torch.complex64)
    coefficients[0] = 1
    coefficients[1, 0], coefficients[2, 0], coefficients[3, 1] = 0.02, 0.01, 0.005
    chart = band_chart(SpectralVolume(coefficients))
    assert chart.count("<rect") == 3
    assert "2.00% of the photo" in chart
    assert 'height="112.0"' in chart
    assert 'height="56.0"' in chart
    assert 'height="28.0"' in chart
