"""Where a row comes from: machine, versions, and the state of the source that made it."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from prototokens._util.versions import versions

PACKAGE = Path(__file__).resolve().parents[1]
GIT_SECONDS = 10


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, as far as times depend on it; no host names, since rows are published."""
    found = {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def git() -> dict[str, Any]:
    """The revision of the source, and whether it differs from it.

    Empty where the package is not a checkout's own.
    """
    return dict(_git())


@lru_cache(maxsize=1)
def _git() -> tuple[tuple[str, Any], ...]:
    top = _ask("rev-parse", "--show-toplevel")
    # A checkout that merely surrounds an installed copy says nothing about it.
    if top is None or PACKAGE != Path(top).resolve() / "src" / PACKAGE.name:
        return ()
    return ("revision", _ask("rev-parse", "HEAD")), (
        "dirty",
        bool(_ask("status", "--porcelain", "--", "src")),
    )


def _ask(*arguments: str) -> str | None:
    """What git answers; None where it does not, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def stamp(device: torch.device) -> dict[str, Any]:
    """Machine, versions and source revision, for a row."""
    return {"machine": machine(device), "versions": versions(), "git": git()}
