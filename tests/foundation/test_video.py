"""Frames to files and back, and what stays on the disk when writing fails."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundation.video import read_video, write_video


def _frames(count: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    """A smooth picture that moves, so that lossy codecs keep it well."""
    time, rows, columns = np.mgrid[:count, :height, :width].astype(np.float64)
    wave = 127 + 100 * np.sin(2 * np.pi * (columns / width + time / count))
    return np.stack([wave, rows * 255 / height, 0 * wave + 90], -1).astype(np.uint8)


def _chunks(frames: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(frames), 5):
        yield frames[first : first + 5]


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("fps", [30.0, 24.0, 29.97])
def test_round_trip(tmp_path: Path, suffix: str, fps: float) -> None:
    frames = _frames()
    write_video(tmp_path / f"a.{suffix}", _chunks(frames), fps)
    back, rate = read_video(tmp_path / f"a.{suffix}")
    assert back.shape == frames.shape
    assert rate == pytest.approx(fps, rel=2e-3)
    assert np.abs(back.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_odd_sizes_gain_a_line(tmp_path: Path, suffix: str) -> None:
    frames = _frames(height=31, width=47)
    write_video(tmp_path / f"a.{suffix}", [frames])
    back, _ = read_video(tmp_path / f"a.{suffix}")
    assert back.shape == (12, 32, 48, 3)
    assert np.abs(back[:, :31, :47].astype(int) - frames).mean() < 4


def test_mp4_plays_everywhere(tmp_path: Path) -> None:
    import av

    write_video(tmp_path / "a.mp4", [_frames()])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a browser starts before the whole file has come"


def test_gif_loops_forever_at_the_right_rate(tmp_path: Path) -> None:
    frames = _frames(count=15)
    write_video(tmp_path / "a.gif", _chunks(frames), 30)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        assert image.n_frames == 15
        durations = []
        for index in range(15):
            image.seek(index)
            durations.append(image.info["duration"])
    assert sum(durations) == pytest.approx(500, abs=10)
    assert np.abs(read_video(tmp_path / "a.gif")[0].astype(int) - frames).mean() < 12


def test_gif_still_pixels_do_not_shimmer(tmp_path: Path) -> None:
    frames = _frames()
    frames[:, :16] = frames[0, :16]
    write_video(tmp_path / "a.gif", [frames])
    back, _ = read_video(tmp_path / "a.gif")
    assert (back[:, :16] == back[0, :16]).all()


def test_png_sequence(tmp_path: Path) -> None:
    frames = _frames()
    folder = write_video(tmp_path / "walk.png", _chunks(frames))
    assert folder == tmp_path
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"walk_{i:04d}.png" for i in range(12)]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "walk_0007.png")), frames[7])

    folder = write_video(tmp_path / "new", [frames])
    assert sorted(file.name for file in folder.iterdir()) == [f"frame_{i:04d}.png" for i in range(12)]
    (tmp_path / "there").mkdir()
    assert len(list(write_video(tmp_path / "there", [frames]).iterdir())) == 12


def test_reading_some_frames_at_another_size(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [_frames()])
    back, _ = read_video(tmp_path / "a.mp4", max_frames=5, size=(24, 16))
    assert back.shape == (5, 16, 24, 3)


# -- refusals -----------------------------------------------------------------------------------------------------


def test_reading_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no video at"):
        read_video(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(ValueError, match=r"text\.mp4"):
        read_video(tmp_path / "text.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ValueError, match=r"empty\.mp4"):
        read_video(tmp_path / "empty.mp4")
    write_video(tmp_path / "a.mp4", [_frames()])
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[:200])
    with pytest.raises(ValueError, match=r"cut\.mp4"):
        read_video(tmp_path / "cut.mp4")
    with pytest.raises(ValueError, match="max_frames"):
        read_video(tmp_path / "a.mp4", max_frames=0)


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.avi", [_frames()], 30, "suffix"),
        ("a.mp4", [], 30, "no frames"),
        ("a.mp4", [_frames()], 0, "fps"),
        ("a.mp4", [_frames()], 1000, "fps"),
        ("a.mp4", [_frames().astype(np.float32)], 30, "float32"),
        ("a.mp4", [_frames()[0]], 30, "shape"),
        ("a.mp4", [_frames(), _frames(height=20)], 30, "one size"),
        ("absent/a.mp4", [_frames()], 30, "does not exist"),
        ("absent/a.gif", [_frames()], 30, "does not exist"),
        ("absent/a.png", [_frames()], 30, "does not exist"),
        ("absent/folder", [_frames()], 30, "does not exist"),
    ],
)
def test_refused_and_nothing_left(
    tmp_path: Path, name: str, frames: list[np.ndarray], fps: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow past 4 kB: the system call fails as it does on a full disk.

    Only around the call under test: the limit holds for the test report, too, where that goes to a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "folder"])
def test_full_disk_leaves_nothing(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="cannot write"), small_disk():
        write_video(tmp_path / name, [noise])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_failing_renderer_keeps_the_older_file(tmp_path: Path, name: str) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield _frames()
        raise RuntimeError("renderer stopped")

    (tmp_path / name).write_bytes(b"older")
    with pytest.raises(RuntimeError, match="renderer stopped"):
        write_video(tmp_path / name, broken())
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"older"


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_folder_named_like_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="it is a folder; name a file"):
        write_video(tmp_path / name, [_frames()])
    assert list((tmp_path / name).iterdir()) == []


def test_a_shorter_sequence_leaves_no_older_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "walk.png", [_frames(8)])
    for name in ("walk_0009.png", "walk_notes.txt", "walker_0001.png"):  # not of that sequence
        (tmp_path / name).touch()
    write_video(tmp_path / "walk.png", [_frames(3)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "walk_0000.png",
        "walk_0001.png",
        "walk_0002.png",
        "walk_0009.png",
        "walk_notes.txt",
        "walker_0001.png",
    ]


def test_a_failing_sequence_keeps_the_older_one(tmp_path: Path) -> None:
    write_video(tmp_path / "frames", [_frames(4)])
    before = {path.name: path.read_bytes() for path in (tmp_path / "frames").iterdir()}

    def broken() -> Iterator[np.ndarray]:
        yield 255 - _frames(2)
        raise RuntimeError("renderer stopped")

    with pytest.raises(RuntimeError, match="renderer stopped"):
        write_video(tmp_path / "frames", broken())
    assert {path.name: path.read_bytes() for path in (tmp_path / "frames").iterdir()} == before
