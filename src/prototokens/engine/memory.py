"""How many input positions may run side by side: what the processor gains from, and what fits.

The memory of a position is measured: one forward pass is run, and everything that it keeps for the
backward pass is counted. Where memory runs out all the same, half of the groups are preempted
(`Scheduler.preempt`).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from prototokens.lm.frozen_lm import FrozenLM

# Input positions of one pass beyond which nothing is gained: matrix products are as fast as they
# get (measured: dev/LOG.md).
USEFUL_POSITIONS = {"cpu": 1024, "cuda": 1 << 16}
# Share of the free memory that rows may take: the rest is for temporary tensors, and for others.
SHARE = 0.5


def max_positions(lm: FrozenLM, width: int, row_bytes: int = 0) -> int:
    """Most input positions of one pass, padding included, for rows of this width.

    Where memory does not hold the trial of a single row, it is the width of one.

    Args:
        row_bytes: state of a row between the passes, in bytes.
    """
    useful = USEFUL_POSITIONS.get(lm.device.type, USEFUL_POSITIONS["cpu"])
    try:
        each = bytes_per_position(lm, width) + row_bytes / width
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return width
    return max(width, min(useful, int(SHARE * free_bytes(lm.device) / each)))


def bytes_per_position(lm: FrozenLM, width: int) -> float:
    """Bytes that a forward pass of one row keeps for its backward pass, for each position."""
    kept: dict[int, Tensor] = {}
    weights = {p.untyped_storage().data_ptr() for p in lm.model.parameters()}

    def count(tensor: Tensor) -> None:
        # The storage is kept, so that no later tensor takes its address, and the graph is
        # not: one that holds what it has computed is never freed.
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor.detach()

    inputs = torch.zeros(1, width, lm.d_model, device=lm.device, dtype=lm.dtype, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing),
        torch.enable_grad(),
    ):
        lm.hidden(inputs)
    return max(1.0, sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / width)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            known = dict(line.split(":", 1) for line in lines)
        return 1024 * int(known["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        # No Linux: half of the machine's memory is taken to be free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out (PyTorch raises a RuntimeError on a CPU)."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
