"""Motion files of strangers: concurrent use, absurd numbers, huge claims, and whatever bytes hypothesis thinks of."""

from __future__ import annotations

import json
import struct
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gid.motion.motion_file import MAX_DISPLACEMENT, read_motion_file
from gid.motion.spectrum import SpectralVolume

METADATA = {
    "format": "gid-motion/1",
    "fps": "30.0",
    "num_frames": "150",
    "image_width": "480",
    "image_height": "320",
    "model": "",
    "seed": "0",
}


def swaying(size: float = 0.01, bands: int = 4) -> torch.Tensor:
    """Real coefficients (K, 4, 6, 9); every point's root mean square displacement is `size`."""
    angles = torch.rand(bands, 4, 6, 9, generator=torch.Generator().manual_seed(0)) * 6
    power = torch.cos(angles).square()
    power[0] = 0
    return (
        torch.cos(angles) * (size / (2 * power.sum(dim=(0, 1))).sqrt()) * (torch.arange(bands) > 0)[:, None, None, None]
    )


def write(path: Path, coefficients: torch.Tensor, key: str = "coefficients", **changes: str | None) -> Path:
    metadata = {name: text for name, text in (METADATA | changes).items() if text is not None}
    save_file({key: coefficients.contiguous()}, path, metadata)
    return path


def outcome(path: Path) -> SpectralVolume | str:
    """The volume of a file, or the sentence why there is none; anything but a sentence fails the test."""
    try:
        return SpectralVolume.load(path)
    except ValueError as error:
        return str(error)


def test_any_number_of_saves_and_reads_at_once(tmp_path: Path) -> None:
    path, found = tmp_path / "race.safetensors", Counter[str]()
    one = SpectralVolume.from_real(swaying(0.01), image_size=(480, 320))
    volumes = [one, one.magnify(2.0), one.magnify(3.0), one.magnify(4.0)]
    one.save(path)

    def save(volume: SpectralVolume) -> None:
        for _ in range(60):
            try:
                volume.save(path)
                found["saved"] += 1
            except Exception as error:
                found[f"save: {error}"] += 1

    def read() -> None:
        for _ in range(120):
            try:
                seen = SpectralVolume.load(path)
                whole = any(torch.equal(seen.real, volume.real) for volume in volumes)
                found["read whole" if whole else "read a mixture"] += 1
            except Exception as error:
                found[f"read: {error}"] += 1

    workers = [threading.Thread(target=save, args=(volume,)) for volume in volumes]
    workers += [threading.Thread(target=read) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == {"saved": 240, "read whole": 240}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a.safetensors", "a.SAFETENSORS", "x" * 243 + ".safetensors"])
def test_every_legal_name_is_saved_and_read(tmp_path: Path, name: str) -> None:
    volume = SpectralVolume.from_real(swaying(), model="m", seed=3)
    volume.save(tmp_path / name)
    torch.testing.assert_close(SpectralVolume.load(tmp_path / name).real, volume.real)
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_the_limit_of_motion_is_that_of_its_trajectories(tmp_path: Path) -> None:
    """The root mean square is taken over frames, not from the coefficients."""
    real = swaying(0.99 * MAX_DISPLACEMENT)
    volume = SpectralVolume.load(write(tmp_path / "a.safetensors", real))
    trajectories = volume.trajectories(pin_first=False)
    assert trajectories.square().sum(dim=1).mean(dim=0).sqrt().max().item() == pytest.approx(0.99, abs=1e-3)
    with pytest.raises(ValueError, match=r"moves a point by 1.01 times the picture's size; the limit is 1"):
        SpectralVolume.load(write(tmp_path / "a.safetensors", real * (1.01 / 0.99)))


NOTHING = torch.zeros(4, 4, 6, 9)


@pytest.mark.parametrize(
    ("coefficients", "changes", "says"),
    [
        (swaying(1e32), {}, "moves a point by 1e\\+32 times the picture's size"),
        (torch.full((4, 4, 6, 9), 3e38), {}, "moves a point by"),
        (torch.full((4, 4, 6, 9), 1e300, dtype=torch.float64), {}, "NaN or infinity"),
        (torch.full((4, 4, 6, 9), torch.inf), {}, "NaN or infinity"),
        (NOTHING.to(torch.int8), {}, "type I8; they must be floating-point"),
        (NOTHING > 0, {}, "type BOOL; they must be floating-point"),
        (NOTHING[0], {}, r"shape \(4, 6, 9\); they must be \(K, 4, H, W\)"),
        (NOTHING[:, :3], {}, r"shape \(4, 3, 6, 9\)"),
        (NOTHING[:0], {}, r"shape \(0, 4, 6, 9\)"),
        (NOTHING, {"key": "x"}, "holds no tensor `coefficients`"),
        (NOTHING, {"fps": "0"}, "fps of 0; it must be from 0.1 to 1000"),
        (NOTHING, {"fps": "nan"}, "fps of nan"),
        (NOTHING, {"fps": "1e308"}, "fps of 1e308"),
        (NOTHING, {"fps": "1e-300"}, "fps of 1e-300"),
        (NOTHING, {"fps": None}, "states no fps"),
        (NOTHING, {"num_frames": "2"}, "4 bands do not fit 2 frames"),
        (NOTHING, {"num_frames": str(10**18)}, "num_frames of 1000000000000000000; it must be from 2 to 100000"),
        (NOTHING, {"num_frames": "9" * 5000}, "its num_frames is '9999999999999999999999999999999999999999'"),
        (NOTHING, {"num_frames": "-5"}, "num_frames of -5"),
        (NOTHING, {"image_width": "-4"}, "image_width of -4"),
        (NOTHING, {"image_width": "9" * 400}, "image_width of 99999"),
        (NOTHING, {"seed": "<script>"}, "its seed is '<script>'"),
        (NOTHING, {"seed": "1.5"}, "its seed is '1.5'"),
        (NOTHING, {"model": "m" * 1001}, "names a model of 1001 letters"),
        (NOTHING, {"format": None}, "no format at all"),
    ],
)
def test_what_no_motion_has_is_refused(tmp_path: Path, coefficients: torch.Tensor, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        SpectralVolume.load(write(tmp_path / "a.safetensors", coefficients, **changes))
    assert len(str(caught.value)) < 250
    assert "a.safetensors" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_point_type_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    volume = SpectralVolume.load(write(tmp_path / "a.safetensors", swaying().to(dtype)))
    torch.testing.assert_close(volume.real, swaying(), atol=1e-4, rtol=1e-2)


def claim(shape: list[int], header: dict | None = None) -> bytes:
    size = 4
    for side in shape:
        size *= side
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"coefficients": tensor, "__metadata__": METADATA} | (header or {})).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        claim([16, 4, 100_000, 100_000]) + bytes(100),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{" + b" " * 100,
        struct.pack("<Q", 2) + b"{}",
        b"",
        b"hello",
        claim([2**40, 2**40, 4, 4]),
    ],
)
def test_claims_are_not_believed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        read_motion_file(tmp_path / "a.safetensors")


def test_a_file_with_too_many_numbers_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """It takes no room on disk: what it holds was never written."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(claim([16, 4, 4096, 4096]))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 16 * 4 * 4096 * 4096 * 4)
    with pytest.raises(ValueError, match="holds 1073741824 numbers; the limit is 67108864"):
        read_motion_file(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_a_volume_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "a.safetensors", swaying())
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(whole), 600) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = outcome(path)
    if isinstance(found, SpectralVolume):
        assert found.coefficients.isfinite().all()
    else:
        assert found.startswith("a.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(st.sampled_from(sorted(METADATA)), st.text(max_size=30)), scale=st.floats(0, 1e9))
def test_any_metadata_gives_a_volume_or_a_sentence(tmp_path: Path, entries: dict[str, str], scale: float) -> None:
    path = write(tmp_path / "a.safetensors", swaying(scale), **entries)
    found = outcome(path)
    if isinstance(found, SpectralVolume):
        assert scale <= 1.001 * MAX_DISPLACEMENT
        assert 0 < found.fps <= 1000
    else:
        assert found.startswith("a.safetensors")
