"""What a fit reports while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """What a progress callback is given after every step.

    Attributes:
        done: targets that are finished; `solved`: those of them that are exact by the recipe's
            margin.
        total: targets in all.
        accuracy: share of right tokens among the rows in the batch just now, in [0, 1].
        loss: mean cross-entropy of their tokens at the recipe's temperature, in nats.
        row_steps: forward and backward passes so far, each counted once per row; `seconds`: since
            the start.
        vectors_of: order of a target -> its vectors as just scored, or None where it is not in the
            batch.
    """

    done: int
    solved: int
    total: int
    accuracy: float
    loss: float
    row_steps: int
    seconds: float
    vectors_of: Callable[[int], Tensor | None]


@contextmanager
def progress_bar(
    time_left: Callable[[Progress], str] | None = None, noun: str = "target"
) -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error inside a `with` block, which fits into 80 columns.

    It shows targets done, those of them that are not exact, accuracy, row-steps a second, and the
    time that is left.

    Args:
        time_left: what to say of the time that is left; an empty string says nothing.
        noun: what a target is called.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=None), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("", total=None)

        def show(now: Progress) -> None:
            line = _line(now, noun, time_left(now) if time_left else "")
            bar.update(task, total=now.total, completed=now.done, description=line)

        yield show


def _line(now: Progress, noun: str, left: str) -> str:
    """What stands beside the bar: at most 65 characters, so that 80 columns leave a bar."""
    parts = [f"{now.done}/{now.total} {noun}{'s' * (now.total != 1)}"]
    if now.solved < now.done:
        parts.append(f"{now.done - now.solved} not exact")
    parts.append(f"{now.accuracy:.0%} right")
    parts.append(f"{now.row_steps / max(now.seconds, 1e-9):,.0f} steps/s")
    return ", ".join([*parts, left] if left else parts)
