"""Versions of this package and of what its numbers depend on."""

from __future__ import annotations

import platform

from prototokens._version import __version__


def versions() -> dict[str, str]:
    """Name to version."""
    import safetensors
    import torch
    import transformers

    return {
        "prototokens": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
    }
