"""Colours of videos: as a real browser shows what we write, and as the standards say for clips that we read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from foundation.video import read_video, write_video
from gid.poking.responses import first_frame
from tests.browsing import needs_browser

PATCHES = np.array(
    [(220, 30, 30), (30, 200, 40), (30, 30, 220), (225, 172, 150), (70, 120, 40), (255, 255, 255), (128,) * 3, (0,) * 3]
)
"""Red, green, blue, skin, leaf, white, grey, black."""
BAND = 48  # pixels a patch is wide: whole macroblocks, so that chroma does not bleed into the middle

# Opens a clip and gives the colour in the middle of each patch, as the page would draw it.
SHOWN = """async ([source, count]) => {
  const video = document.createElement('video');
  video.muted = true;
  video.src = source;
  await new Promise((done, fail) => {
    video.onloadeddata = done;
    video.onerror = () => fail(new Error('cannot play: ' + video.error.message));
  });
  const drawn = new Promise(done => video.requestVideoFrameCallback(done));
  video.currentTime = 0.1;
  await drawn;
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  return Array.from({length: count}, (_, i) => Array.from(
    context.getImageData(Math.floor((i + .5) * canvas.width / count), canvas.height >> 1, 1, 1).data).slice(0, 3));
}"""


def _patches(rows: int) -> np.ndarray:
    """One frame (rows, 384, 3): the patches side by side."""
    return np.repeat(np.repeat(PATCHES[None].astype(np.uint8), BAND, axis=1), rows, axis=0)


@needs_browser
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("rows", [320, 719, 720, 1080])
def test_a_browser_shows_the_colours_of_the_frames(tmp_path: Path, browser: Any, suffix: str, rows: int) -> None:
    """A browser that composes on a graphics card, here a simulated one."""
    file = write_video(tmp_path / f"a.{suffix}", [np.stack([_patches(rows)] * 10)], 30)
    source = f"data:video/{suffix};base64,{base64.b64encode(file.read_bytes()).decode()}"
    page = browser.new_page()
    shown = np.array(page.evaluate(SHOWN, [source, len(PATCHES)]))
    page.close()
    assert np.abs(shown - PATCHES).max() <= 4, shown.tolist()


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("rows", [64, 720])
def test_written_clips_state_their_colours(tmp_path: Path, suffix: str, rows: int) -> None:
    write_video(tmp_path / f"a.{suffix}", [_patches(rows)[None]], 30)
    with av.open(str(tmp_path / f"a.{suffix}")) as container:
        frame = next(container.decode(video=0))
    stated = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    assert stated == (1, 1, 1, 1), "matrix, primaries and transfer are BT.709 (1); the range is limited (1)"


# -- clips of others ----------------------------------------------------------------------------------------------

LUMA = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
"""Weights of red and blue in luma: ITU-R BT.601-7, BT.709-6 and BT.2020-2."""
TAGS = {"601": 6, "709": 1, "2020": 9, None: 2}
"""How H.264 numbers the matrices (ITU-T H.273, table 4); 2 is "not stated"."""


def _encoded(matrix: str, full: bool) -> np.ndarray:
    """The patches in luma and chroma, (8, 3), by the standards' formulas."""
    red, blue = LUMA[matrix]
    r, g, b = PATCHES.T / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)], 1)
    if full:
        return np.round(np.column_stack([255 * luma, 255 * chroma + 128])).clip(0, 255)
    return np.round(np.column_stack([16 + 219 * luma, 224 * chroma + 128]))


def _clip(path: Path, rows: int, matrix: str, tag: str | None, full: bool = False, pixels: str = "yuv420p") -> Path:
    """A lossless H.264 clip of the patches, written without any conversion of colours."""
    y, u, v = (np.repeat(channel, BAND).astype(np.uint8) for channel in _encoded(matrix, full).T)
    planes = [np.repeat(y[None], rows, 0)] + [np.repeat(c[None, ::2], rows // 2, 0) for c in (u, v)]
    stacked = np.concatenate([plane.ravel() for plane in planes]).reshape(-1, len(PATCHES) * BAND)
    frame = av.VideoFrame.from_ndarray(stacked, format=pixels)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = len(PATCHES) * BAND, rows, pixels
        stream.codec_context.colorspace = TAGS[tag]
        stream.codec_context.color_range = ColorRange.JPEG if full else ColorRange.UNSPECIFIED
        frame.color_range = stream.codec_context.color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("rows", "matrix", "tag", "full", "pixels"),
    [
        (96, "601", None, False, "yuv420p"),
        (718, "601", None, False, "yuv420p"),
        (720, "709", None, False, "yuv420p"),
        (1080, "709", None, False, "yuv420p"),
        (96, "709", "709", False, "yuv420p"),
        (720, "601", "601", False, "yuv420p"),
        (720, "2020", "2020", False, "yuv420p"),
        (96, "601", "601", True, "yuv420p"),
        (720, "709", "709", True, "yuv420p"),
        (96, "601", None, True, "yuv420p"),
        (720, "709", None, True, "yuv420p"),
        (96, "601", None, True, "yuvj420p"),
        (720, "709", None, True, "yuvj420p"),
    ],
)
def test_clips_are_read_as_players_show_them(
    tmp_path: Path, rows: int, matrix: str, tag: str | None, full: bool, pixels: str
) -> None:
    file = _clip(tmp_path / "a.mp4", rows, matrix, tag, full, pixels)
    with av.open(str(file)) as container:
        assert next(container.decode(video=0)).colorspace == TAGS[tag], "the clip is not the one that was asked for"
    frames, _ = read_video(file)
    middles = frames[0, rows // 2, BAND // 2 :: BAND].astype(int)
    assert np.abs(middles - PATCHES).max() <= 4, middles.tolist()
    photo = first_frame(file).numpy()[:, rows // 2, BAND // 2 :: BAND].T * 255
    assert np.abs(photo - middles).max() <= 0.51


@pytest.mark.parametrize(("suffix", "limit"), [("gif", 0), ("png", 0)])
def test_pictures_keep_their_colours_exactly(tmp_path: Path, suffix: str, limit: int) -> None:
    """Eight colours fit a palette, and no matrix for videos may touch them at any height."""
    write_video(tmp_path / f"a.{suffix}", [_patches(720)[None]], 30)
    file = tmp_path / ("a.gif" if suffix == "gif" else "a_0000.png")
    middles = read_video(file)[0][0, 360, BAND // 2 :: BAND].astype(int)
    assert np.abs(middles - PATCHES).max() <= limit, middles.tolist()
