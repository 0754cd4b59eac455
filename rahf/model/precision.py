"""Which number format a model runs in, and whether the machine is fast in it."""

from pathlib import Path

import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# What processors call their bfloat16 multiplication: x86, x86 with tiles, Arm. Without it bfloat16 is emulated slowly.
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# Models below this many bytes on disk are quick in float32 on anything; the embedded one is.
LARGE = 200_000_000


def has_fast_bf16(device: str | torch.device = "cpu") -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(found.get(name, False) for name in CPU_BF16)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())  # torch before 2.12 or so


def resolve_precision(precision: str, device: str, folder: str | Path) -> torch.dtype:
    """The number format for the weights in `folder` on `device`.

    `auto` is bfloat16 for large models where the device is fast in it, else float32. Scores and heatmaps in bfloat16
    differ from those in float32 by half a hundredth (root mean square); single pixels where a heatmap is undecided by
    up to a few hundredths. `benchmarks/rahf_cost.py public` measures both.
    Raises ValueError for an unknown name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return getattr(torch, precision)
    size = sum(path.stat().st_size for path in Path(folder).glob("model*.safetensors"))
    return torch.bfloat16 if size > LARGE and has_fast_bf16(device) else torch.float32
