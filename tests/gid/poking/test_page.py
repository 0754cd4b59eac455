"""The canvas's motion file and the page to take home."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from gid.poking.modes import ModalModel
from gid.poking.page import (
    MODULES,
    SHADERS,
    canvas_assets,
    decode_motion,
    encode_motion,
    encode_photo,
    export_page,
    inline_modules,
)
from tests.swaying import swaying_volume, textured_photo


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (16, 4e-5)])
def test_quantization_error_is_what_the_header_states(bits: int, most: float) -> None:
    volume = swaying_volume(90, 160, 16)
    exact = ModalModel.from_volume(volume, 160)
    model, header = decode_motion(encode_motion(volume, bits))
    off = np.abs(model.shapes.real - exact.shapes.real), np.abs(model.shapes.imag - exact.shapes.imag)
    for j, scale in enumerate(header["scales"]):
        assert max(off[0][j].max(), off[1][j].max()) <= scale / (2**bits - 2) * (1 + 1e-9)
    strongest = np.sqrt((np.abs(exact.shapes) ** 2).sum(axis=(0, 1)).max())
    error = np.sqrt((np.abs(model.shapes - exact.shapes) ** 2).sum(axis=(0, 1)).max()) / strongest
    assert error == pytest.approx(header["error"], rel=1e-6)
    assert error < most
    assert model.aspect == exact.aspect
    assert model.tempo == exact.tempo
    assert np.array_equal(model.frequencies, exact.frequencies)


def test_still_pixels_stay_exactly_still() -> None:
    model, _ = decode_motion(encode_motion(swaying_volume()))
    assert not model.shapes[:, :, :, -10:].any()


def test_the_grid_is_reduced_and_keeps_its_shape() -> None:
    model, header = decode_motion(encode_motion(swaying_volume(96, 160), max_side=40))
    assert (header["width"], header["height"]) == (40, 24)
    assert model.shapes.shape == (7, 2, 24, 40)


@pytest.mark.parametrize("damage", [lambda d: b"not that" + d[8:], lambda d: d[:-5], lambda d: d[:6]])
def test_a_damaged_file_is_refused(damage: object) -> None:
    with pytest.raises(ValueError, match="motion file"):
        decode_motion(damage(encode_motion(swaying_volume(8, 10))))  # type: ignore[operator]


def test_bits_are_checked() -> None:
    with pytest.raises(ValueError, match="8 or 16"):
        encode_motion(swaying_volume(8, 10), bits=4)


@pytest.fixture(scope="module")
def page() -> str:
    photo = torch.rand(3, 288, 512, generator=torch.Generator().manual_seed(0))  # noise: the worst case for JPEG
    volume = replace(swaying_volume(144, 256, 16), image_size=(512, 288))
    noise = torch.view_as_complex(torch.randn(16, 2, 144, 256, 2, generator=torch.Generator().manual_seed(1)))
    return export_page(photo, volume.with_coefficients(volume.coefficients + 1e-3 * noise), "Tulips & <co>")


def test_the_page_is_small_and_stands_alone(page: str) -> None:
    assert len(page.encode()) < 3e6
    outside = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", outside)
    assert not re.findall(r"\b(src|href)\s*=\s*[\"'](?!data:)", outside)
    assert "@import" not in outside
    assert "%%" not in outside
    assert "<title>Tulips &amp; &lt;co&gt;</title>" in page


def test_the_page_carries_the_motion_and_the_same_modules(page: str) -> None:
    data = re.search(r'const motion = "([\w+/=]+)"', page)
    assert data is not None
    model, header = decode_motion(base64.b64decode(data[1]))
    assert header["bits"] == 8
    assert len(model.frequencies) == 15
    for name in MODULES:
        for line in (canvas_assets() / f"{name}.js").read_text().splitlines():
            if "function" in line and not line.startswith("import"):
                assert line.removeprefix("export ") in page


def test_every_module_and_shader_is_listed() -> None:
    files = {path.name for path in canvas_assets().iterdir()}
    assert {f"{name}.js" for name in MODULES} == {name for name in files if name.endswith(".js")}
    assert set(SHADERS) == {name for name in files if name.endswith((".vert", ".frag"))}


def test_inlined_modules_declare_no_name_twice() -> None:
    script = inline_modules(canvas_assets())
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, flags=re.MULTILINE)
    assert len(names) == len(set(names))
    assert not re.search(r"^(import|export)\b", script, flags=re.MULTILINE)


def test_photo_is_reduced() -> None:
    from io import BytesIO

    from PIL import Image

    assert Image.open(BytesIO(encode_photo(torch.rand(3, 300, 500), 250))).size == (250, 150)


def test_export_of_the_wrong_things_is_explained() -> None:
    volume = swaying_volume()
    with pytest.raises(ValueError, match="was made for a photo"):
        export_page(textured_photo((100, 100)), volume)
    with pytest.raises(ValueError, match="does not move"):
        export_page(textured_photo(), volume.magnify(0))
