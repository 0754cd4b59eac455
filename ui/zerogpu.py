"""ZeroGPU when the platform provides it, nothing otherwise: the one place that knows about ``spaces``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

if find_spec("spaces") is not None:  # must come before anything that touches CUDA
    import spaces

    AVAILABLE = True
else:
    AVAILABLE = False


def on_gpu(duration: int | Callable[..., int]) -> Callable[[Function], Function]:
    """Runs the decorated function on a borrowed GPU for at most ``duration`` seconds, on ZeroGPU; elsewhere as it is.

    ``duration`` may be a function of the decorated function's own arguments.
    """

    def decorate(function: Function) -> Function:
        return spaces.GPU(duration=duration)(function) if AVAILABLE else function

    return decorate
