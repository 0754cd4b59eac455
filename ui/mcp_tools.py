"""The page's documented tasks as tools of the Model Context Protocol, where gradio's `mcp` extra is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to offer the tools: as GRADIO_MCP_SERVER says, and without it, if they can be offered."""
    said = environment.get("GRADIO_MCP_SERVER", "").lower()
    if said in ("true", "false"):
        return said == "true"
    try:
        return version("mcp").startswith("1.")  # the one that gradio speaks
    except PackageNotFoundError:
        return False


def keep_files_in(folder: Path) -> None:
    """Pictures that assistants send as base64 text go where uploads go, so that they are cleared away with them."""
    if wanted():
        from gradio import mcp

        mcp.DEFAULT_TEMP_DIR = str(folder)
