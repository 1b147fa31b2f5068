"""What a fit tells while it runs."""

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
    time_left: Callable[[Progress], str] | None = None,
) -> Iterator[Callable[[Progress], None]]:
    """A bar on standard error inside a `with` block: targets done, accuracy, row-steps a second.

    Args:
        time_left: what to say of the time that is left, if anything.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, left="")

        def show(now: Progress) -> None:
            rate = now.row_steps / max(now.seconds, 1e-9)
            left = time_left(now) if time_left else ""
            line = (
                f"{now.solved} solved, {now.accuracy:4.0%} of the tokens in work right,"
                f" {rate:,.0f} steps/s"
            )
            bar.update(task, total=now.total, completed=now.done, description=line, left=left)

        yield show
