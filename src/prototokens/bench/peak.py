"""The peak memory of a piece of work, by the operating system or the GPU's allocator."""

from __future__ import annotations

import torch

from prototokens.lm.devices import wait


class PeakMemory:
    """The peak memory within a block.

    On a GPU by PyTorch's allocator, else resident in this process, whose high-water mark Linux
    resets when asked to. What an allocator kept from earlier work and gives out again is no new
    memory and is not seen: where that matters, measure in a fresh process.

    Attributes:
        peak: the most bytes used within the block; None where it cannot be known.
        extra: how much that is above what was used at its beginning; None where it cannot be known.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.peak: int | None = None
        self.extra: int | None = None

    def __enter__(self) -> PeakMemory:
        wait(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self._before = _resident("VmRSS") if _forget_peak() else None
        return self

    def __exit__(self, *_: object) -> None:
        wait(self.device)
        if self._before is not None:
            on_gpu = self.device.type == "cuda"
            self.peak = (
                torch.cuda.max_memory_allocated(self.device) if on_gpu else _resident("VmHWM")
            )
        if self.peak is not None and self._before is not None:
            self.extra = max(0, self.peak - self._before)


def _forget_peak() -> bool:
    """Set the high-water mark of this process to what it holds now; whether that was possible."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as knob:
            knob.write("5")
    except OSError:
        return False
    return True


def _resident(which: str) -> int | None:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at most.

    None where /proc does not say.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            known = dict(line.split(":", 1) for line in lines)
        return 1024 * int(known[which].split()[0])
    except (OSError, KeyError, ValueError):
        return None
