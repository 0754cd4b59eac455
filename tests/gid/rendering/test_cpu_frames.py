"""The compiled frames against the renderer's own torch operations, which they repeat pixel by pixel."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gid.motion.upsampling import PhotoGuide
from gid.rendering.animate import animate
from gid.rendering.cpu import frames as cpu_frames
from gid.rendering.cpu.frames import CpuFrames, GuidedFlow, compiled_rendering, decoder_type, drawing_threads
from gid.rendering.projection import fill, smoothstep
from gid.rendering.renderer import Renderer, RendererConfig
from tests.gid.rendering.test_animate import volume_of

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(not compiled_rendering(), reason="numba is not installed")


def trained(config: RendererConfig | None = None) -> Renderer:
    """A renderer whose decoder does something everywhere it may."""
    torch.manual_seed(0)
    renderer = Renderer.from_preset(config or RendererConfig()).eval()
    torch.nn.init.normal_(renderer.decoder.last.weight, std=0.05)
    return renderer


def photo_of(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def motions(height: int, width: int) -> dict[str, Tensor]:
    """Flow fields (2, H, W) of every kind that matters: tears, layers, edges, nothing, nonsense."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    disc = ((x * x + y * y) < 0.2).float()
    small = ((x + 0.6).square() + (y - 0.5).square() < 0.02).float()
    smooth = torch.nn.functional.interpolate(
        4 * torch.randn(1, 2, 4, 5, generator=generator), (height, width), mode="bicubic"
    )[0]
    broken = smooth.clone()
    broken[0, height // 2, width // 2], broken[1, 3, 3], broken[0, 5, 5] = float("nan"), float("inf"), 1e20
    return {
        "a small thing jumps": torch.stack([7.3 * small, -4.6 * small]),
        "a disc tears": torch.stack([5.5 * disc, 2.25 * disc]),
        "everything sways": smooth,
        "across the edges": torch.stack([torch.full_like(x, 3.4), torch.full_like(x, -60.0)]),
        "growing": torch.stack([12 * x * disc, 12 * y * disc]),
        "still": torch.zeros(2, height, width),
        "not finite": broken,
        "white noise": 3 * torch.randn(2, height, width, generator=generator),
    }


@torch.no_grad()
def both_ways(renderer: Renderer, height: int, width: int) -> tuple[list[str], Tensor, Tensor, Tensor]:
    photo, flows = photo_of(height, width), motions(height, width)
    importance = torch.stack([flow.nan_to_num(0, 0, 0).clamp(-50, 50).norm(dim=0) for flow in flows.values()]).mean(0)
    importance = importance[None, None]
    frames = CpuFrames(renderer, photo[0], importance, torch.float32)
    with drawing_threads() as executor:
        ours = frames.render(torch.stack(list(flows.values())), executor)
    features = renderer.encode(photo)
    theirs = torch.cat([renderer.render(photo, features, flow[None], importance) for flow in flows.values()])
    return list(flows), photo, ours, theirs


@pytest.mark.parametrize(("height", "width"), [(45, 60), (203, 310)])
def test_frames_equal_the_torch_renderer(height, width):
    names, photo, ours, theirs = both_ways(trained(), height, width)
    for name, mine, other in zip(names, ours, theirs, strict=True):
        difference = (mine - other).abs()
        # Rounding may decide a threshold here and there; nowhere may a picture differ.
        assert difference.mean() < 2e-5, name
        assert (difference > 2e-3).float().mean() < 1e-3, name
        still = (other == photo[0]).all(0) if name != "still" else torch.ones(height, width, dtype=torch.bool)
        assert torch.equal((mine == photo[0])[:, still].all(), torch.tensor(True)), name
    assert (ours[1] - photo[0]).abs().max() > 0.1


def test_a_deep_pyramid_decodes_the_whole_picture():
    config = RendererConfig((8, 8, 16, 16, 24), (1, 1, 1, 1, 1), 3, (8, 8, 16, 16, 16))
    _, _, ours, theirs = both_ways(trained(config), 70, 133)
    assert (ours - theirs).abs().mean() < 2e-5


def test_a_frame_does_not_depend_on_its_company():
    renderer, photo = trained(), photo_of(45, 60)
    flows = torch.stack(list(motions(45, 60).values()))
    frames = CpuFrames(renderer, photo[0], torch.ones(1, 1, 45, 60), torch.float32)
    with drawing_threads() as executor:
        together = frames.render(flows, executor)
        alone = torch.cat([frames.render(flow[None], executor) for flow in flows])
        again = frames.render(flows, executor)
    assert torch.equal(together, again)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_long_video_decodes_in_few_shapes():
    """The convolution library keeps memory for every shape it meets, so frames must not each bring their own."""
    height, width = 320, 448
    frames = CpuFrames(trained(), photo_of(height, width)[0], torch.full((1, 1, height, width), 2.0))
    shapes: list[torch.Size] = []
    frames.decoder.last.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    wanted = []
    with drawing_threads() as executor:
        for count in range(1, 12):  # things that jump apart from each other, so that each leaves holes of its own
            flow = torch.zeros(1, 2, height, width)
            for thing in range(count):
                y, x = 20 + 100 * (thing // 4), 20 + 100 * (thing % 4)
                flow[:, :, y : y + 9, x : x + 9] = 6.5
            before = len(shapes)
            frames.render(flow, executor)
            wanted.append(sum(shape[0] for shape in shapes[before:]))
    assert len(set(wanted)) > 5
    assert len(set(shapes)) <= 5  # 1, 2, 4 or 8 tiles, or the whole picture


def test_guided_flow_is_upsampling_with_the_dead_zone():
    photo = photo_of(50, 71)
    guide = PhotoGuide(photo, 9, 13)
    fields = 0.05 * torch.randn(3, 2, 9, 13, generator=torch.Generator().manual_seed(5))
    freedom = smoothstep(0.2, 0.6, photo[:, :1])
    with drawing_threads() as executor:
        flows = GuidedFlow(guide, freedom)(fields, executor)
    expected = guide(fields) * torch.tensor([71.0, 50.0]).view(1, 2, 1, 1) * freedom
    torch.testing.assert_close(flows, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(flows == 0, expected == 0)


def test_fill_equals_pull_and_push():
    generator = torch.Generator().manual_seed(6)
    image, known = torch.rand(1, 3, 37, 50, generator=generator), torch.rand(1, 1, 37, 50, generator=generator)
    known[..., 10:30, 12:20] = 0
    interleaved = np.zeros((37, 50, 4), np.float32)
    interleaved[..., :3] = image[0].permute(1, 2, 0).numpy()
    filled = np.empty_like(interleaved)
    from gid.rendering.cpu import hole_kernels

    hole_kernels.fill(interleaved, known[0, 0].numpy(), 5, filled)
    torch.testing.assert_close(torch.from_numpy(filled[..., :3]).permute(2, 0, 1)[None], fill(image, known))


def test_bfloat16_stays_close_to_float32():
    renderer, photo, flows = trained(), photo_of(90, 120), torch.stack(list(motions(90, 120).values()))
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        frames = CpuFrames(renderer, photo[0], torch.full((1, 1, 90, 120), 2.0), dtype)
        with drawing_threads() as executor:
            results.append(frames.render(flows, executor))
    error = (results[0] - results[1]).square().mean()
    assert error > 0
    assert -10 * math.log10(float(error)) > 50


def test_the_decoder_type_is_one_of_two():
    assert decoder_type() in (torch.bfloat16, torch.float32)


def test_without_numba_torch_draws_the_same(monkeypatch):
    renderer, photo, volume = trained(), photo_of(45, 60)[0], volume_of()
    monkeypatch.setattr(cpu_frames, "decoder_type", lambda: torch.float32)
    ours = torch.cat(list(animate(photo, volume, renderer, num_frames=6)))
    monkeypatch.setattr("gid.rendering.animate.compiled_rendering", lambda: False)
    theirs = torch.cat(list(animate(photo, volume, renderer, num_frames=6)))
    assert (ours - theirs).abs().max() < 2e-3
    assert (ours - theirs).abs().mean() < 1e-5


def test_compiling_reaches_every_loop():
    """After it, drawing compiles nothing more."""
    from gid.rendering.cpu import frame_kernels, hole_kernels, mending_kernels

    cpu_frames.compile_loops(trained())
    loops = [
        value
        for module in (frame_kernels, hole_kernels, mending_kernels)
        for value in vars(module).values()
        if hasattr(value, "signatures") and value.__module__ == module.__name__
    ]
    # Loops inside others count for nothing where those come from disk.
    before = {loop.__name__: len(loop.signatures) for loop in loops}
    assert min(before[name] for name in ("compose", "_add_coarser", "mend", "guided_flow")) >= 1
    both_ways(trained(), 45, 60)
    assert {loop.__name__: len(loop.signatures) for loop in loops} == before


def test_compiling_survives_the_end_of_the_program():
    """A short command may end while its loops are still being compiled beside it."""
    program = """
import threading
go = threading.Event()
threading._register_atexit(go.set)  # called last: thread pools are closed by then
from gid.rendering.cpu.frames import compile_loops
from gid.rendering.renderer import Renderer, RendererConfig
renderer = Renderer.from_preset(RendererConfig((8, 8), (1, 1), 3, (8, 8))).eval()
def late():
    go.wait()
    compile_loops(renderer)
    print("compiled")
threading.Thread(target=late).start()
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stdout == "compiled\n", run.stderr
    assert "Error" not in run.stderr
