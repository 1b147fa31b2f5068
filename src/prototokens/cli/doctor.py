"""`prototokens doctor`: what is installed, what this machine is fast at, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common
from prototokens.errors import PrototokensError

if TYPE_CHECKING:
    import torch

LIBRARIES = (
    "prototokens",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "jaxtyping",
)
# of the square matrices whose product is timed: the size that a small model's products have
SIDE = 512
TRIES = 4  # for each device and dtype; the best counts
FAST = 0.75  # of the best rate on that device: what is called fast


@click.command(short_help="Say what is installed and fast here.")
@common.output_options
def doctor(as_json: bool, quiet: bool, debug: bool) -> int:
    """Report what is installed, which devices there are, and which dtypes are fast on them.

    The report also names the extras that are missing.

    The rates are measured, in a second or so; on a busy machine they are lower. The exit status is
    1 where the built-in model cannot be used.
    """
    from prototokens._util.extras import missing

    result: dict[str, Any] = {
        "versions": _versions(),
        "platform": _platform(),
        "devices": _devices(),
        "builtin": _builtin(),
        "missing": missing(),
    }
    if as_json:
        common.print_json(result)
    else:
        _show(result)
    return 0 if result["builtin"]["usable"] else 1


def _versions() -> dict[str, str | None]:
    import platform
    from importlib import metadata

    found: dict[str, str | None] = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = None
    return found


def _platform() -> dict[str, Any]:
    import os
    import platform

    import torch

    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _devices() -> list[dict[str, Any]]:
    import torch

    found = [("cpu", torch.backends.cpu.get_cpu_capability(), None)]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found.append((f"cuda:{number}", about.name, about.total_memory))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU", None))
    devices = []
    for name, kind, memory in found:
        rates = {
            dtype: _rate(torch.device(name), getattr(torch, dtype))
            for dtype in common.DTYPES
            if dtype != "auto"
        }
        best = max(rates.values())
        fast = [dtype for dtype, rate in rates.items() if rate >= FAST * best]
        devices.append(
            {"name": name, "kind": kind, "memory_bytes": memory, "gflops": rates, "fast": fast}
        )
    return devices


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """10^9 operations a second of a matrix product; 0 where the device does not know the dtype."""
    from prototokens.lm.devices import matrix_product_rate

    try:
        return round(matrix_product_rate(device, dtype, SIDE, TRIES) / 1e9, 1)
    except (RuntimeError, TypeError):
        return 0.0


def _builtin() -> dict[str, Any]:
    from prototokens.lm.frozen_lm import FrozenLM

    try:
        lm = FrozenLM.from_pretrained("builtin")
    except (PrototokensError, OSError) as error:
        return {"usable": False, "why": str(error)}
    dtype = str(lm.dtype).removeprefix("torch.")
    return {"usable": True, "device": str(lm.device), "dtype": dtype, "fingerprint": lm.fingerprint}


def _show(result: dict[str, Any]) -> None:
    for library, version in result["versions"].items():
        click.echo(f"{library:>16}  {version or 'not installed'}")
    host = result["platform"]
    click.echo(
        f"{'system':>16}  {host['system']}, {host['processors']} processors, {host['threads']}"
        " threads in use"
    )
    for device in result["devices"]:
        memory = f", {device['memory_bytes'] / 2**30:.0f} GiB" if device["memory_bytes"] else ""
        rates = ", ".join(
            f"{dtype} {rate:,.0f}{' (fast)' * (dtype in device['fast'])}"
            for dtype, rate in device["gflops"].items()
        )
        click.echo(f"{device['name']:>16}  {device['kind']}{memory}; GFLOP/s: {rates}")
    model = result["builtin"]
    words = (
        f"usable, takes {model['dtype']} on {model['device']}"
        if model["usable"]
        else f"NOT usable: {model['why']}"
    )
    click.echo(f"{'built-in model':>16}  {words}")
    for extra, packages in result["missing"].items():
        lacking = (
            f"missing {', '.join(packages)}: pip install 'prototokens[{extra}]'"
            if packages
            else "complete"
        )
        click.echo(f"{'[' + extra + ']':>16}  {lacking}")
