"""What several commands of `gid` share: loading a pipeline quietly, and bars of progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gid.diffusion.loading import resolve_device

if TYPE_CHECKING:
    from gid.diffusion.pipeline import GIDPipeline


def load(weights: str, device: str) -> GIDPipeline:
    """The pipeline, on its device. Raises ValueError for an unknown device or weights that are not there."""
    resolve_device(device)  # a wrong one is told before weights are fetched
    from gid.diffusion.pipeline import load_pipeline

    quiet()
    pipeline = load_pipeline(weights, device)
    if pipeline.notice:
        typer.echo(pipeline.notice, err=True)
    return pipeline


def quiet() -> None:
    """Silence the loading of models; the commands show bars of their own."""
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


class Bar:
    """A progress bar that is called with (done, total), and ends its line whatever happens within ``with``."""

    def __init__(self, text: str) -> None:
        from tqdm.auto import tqdm

        self._bar: Any = tqdm(desc=text, leave=True)

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
