"""Photos as the visitor gave them: no conversion on the way, so that one loader handles and explains every format."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.data_classes import FileData, GradioRootModel, ImageData


class PhotoInput(gr.Image):
    """``gr.Image`` that hands over the path of the uploaded file untouched.

    The stock component opens the file first, which hides what is wrong with a damaged one and converts the others.
    """

    is_template = True  # drawn by the stock component's own code in the browser

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The path of the uploaded file, or None."""
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            return str(super().preprocess(payload))
        return payload.path


class PictureList(GradioRootModel):
    """Files as the page and clients send them, or addresses as assistants do."""

    root: list[FileData | str]


class PicturesInput(gr.File):
    """Several pictures, as the paths of their files.

    The stock component describes them by references that lead nowhere in the schema of an assistant's tool, which then
    refuses every call; and in a list the addresses and base64 texts that assistants send stay what they are.
    """

    is_template = True

    def __init__(self, label: str | None = None, visible: bool = True) -> None:
        """Named one by one: the page is told those settings only that stand in this signature."""
        super().__init__(file_count="multiple", type="filepath", label=label, visible=visible)
        self.data_model = PictureList  # the stock one is chosen by the count

    def preprocess(self, payload: PictureList | None) -> list[str]:  # type: ignore[override]
        """The paths of the files; what is only named is fetched, from public addresses alone."""
        return (
            [item.path if isinstance(item, FileData) else self._fetched(item) for item in payload.root]
            if payload
            else []
        )

    def _fetched(self, said: str) -> str:
        try:
            if said.startswith("data:"):
                return processing_utils.save_base64_to_cache(said, self.GRADIO_CACHE)
            if said.startswith(("http://", "https://")):
                return processing_utils.ssrf_protected_download(said, self.GRADIO_CACHE)
        except Exception as error:  # the download raises a plain one
            raise gr.Error(
                f"A picture could not be had ({str(error)[:200]}); send it as a public address or as base64 data",
                print_exception=False,
            ) from error
        raise gr.Error(f"{said[:80]!r} is no address of a picture; send one that begins with https:// or data:")

    def api_info(self) -> dict[str, Any]:
        """A list of files, described in place."""
        return {"type": "array", "title": "Pictures", "items": ImageData.model_json_schema()}
