"""ZeroGPU when the platform provides it, nothing otherwise: the one place that knows about ``spaces``.

On ZeroGPU a decorated function runs in a forked process that owns a GPU for a while. Its arguments and results are
pickled, what it changes outside of them is lost, and models have to be on the (emulated) GPU before the launch. An
exception other than ``gr.Error`` arrives as its class name alone, so mistakes of a visitor are carried across.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import gradio as gr

# The platform says so in this variable; elsewhere its package, if it is installed, would do nothing.
AVAILABLE = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true") and find_spec("spaces") is not None
if AVAILABLE:  # before anything that touches CUDA
    import spaces

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class GpuCost:
    """Seconds of one call on a GPU, by what is asked for; :func:`gpu_seconds` adds the margin.

    Not measured on ZeroGPU: reckoned from counted work, rounded up. `benchmarks/gpu_seconds.py` measures them on a GPU.

    Attributes:
        start: fork, first use of CUDA, moving the weights.
        step: kernel launches of one diffusion step: about 700 operations of 20 microseconds, twice that.
        flops: floating-point operations a second that are counted on; an H200 slice does ten times that.
        frame: kernel launches of one rendered frame: about 300 operations of 20 microseconds.
        megapixel: copying a million rendered pixels back and encoding them, on slow processor cores.
    """

    start: float = 4.0
    step: float = 0.03
    flops: float = 1e13
    frame: float = 0.006
    megapixel: float = 0.08


MARGIN = 1.4
COST = GpuCost()


def gpu_seconds(
    steps: int = 0, flops_a_step: float = 0.0, frames: int = 0, pixels: int = 0, cost: GpuCost = COST
) -> int:
    """How long to borrow a GPU: diffusion steps and rendered frames of so many pixels, times 1.4, in whole seconds."""
    diffusion = steps * (cost.step + flops_a_step / cost.flops)
    rendering = frames * (cost.frame + pixels / 1e6 * cost.megapixel)
    return math.ceil(MARGIN * (cost.start + diffusion + rendering))


class Refused(gr.Error):
    """A visitor's mistake, or a full disk, on its way back from the GPU process; on arrival it is itself again."""

    def __init__(self, message: str = "", number: int | None = None) -> None:
        super().__init__(message, print_exception=False)
        self.args = (message, number)  # what pickle hands to this function

    @classmethod
    def of(cls, error: ValueError | OSError) -> Refused:
        """What travels in place of the error."""
        if isinstance(error, OSError):
            return cls(error.strerror or str(error), error.errno or 0)
        return cls(str(error))

    def original(self) -> ValueError | OSError:
        """What was raised there."""
        message, number = self.args
        return ValueError(message) if number is None else OSError(number, message)


def on_gpu(duration: int | Callable[..., int]) -> Callable[[Function], Function]:
    """Runs the decorated function on a borrowed GPU for at most ``duration`` seconds, on ZeroGPU; elsewhere as it is.

    ``duration`` may be a function of the decorated function's own arguments. Arguments and results must survive
    pickling and live on the CPU; generators are for results that are worth showing before the others.
    """

    def decorate(function: Function) -> Function:
        return cast(Function, borrowed(function, spaces.GPU(duration=duration))) if AVAILABLE else function

    return decorate


def borrowed(function: Callable[..., Any], gpu: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """``gpu(function)``, with ``ValueError`` and ``OSError`` carried across; a generator stays one."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def there_step_by_step(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except (ValueError, OSError) as error:
                raise Refused.of(error) from error

        away = gpu(there_step_by_step)

        @functools.wraps(function)
        def here_step_by_step(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from away(*args, **kwargs)
            except Refused as error:
                raise error.original() from error

        return here_step_by_step

    @functools.wraps(function)
    def there(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            raise Refused.of(error) from error

    whole = gpu(there)

    @functools.wraps(function)
    def here(*args: Any, **kwargs: Any) -> Any:
        try:
            return whole(*args, **kwargs)
        except Refused as error:
            raise error.original() from error

    return here
