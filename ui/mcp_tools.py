"""The page's documented tasks as tools of the Model Context Protocol, where gradio's `mcp` extra is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to offer the tools: as GRADIO_MCP_SERVER says, and without it, if they can be offered."""
    said = environment.get("GRADIO_MCP_SERVER", "").lower()
    if said in ("true", "false"):
        return said == "true"
    try:
        return version("mcp").startswith("1.")  # the one that gradio speaks
    except PackageNotFoundError:
        return False
