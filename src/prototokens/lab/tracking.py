"""Rows to a tracker of experiments as they are known: trackio or wandb, through one small protocol.

None by default.

The rows on disk stay the record. A tracker gets, of each row, its numbers; what is no number goes
with the run's description.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from prototokens._util.extras import need
from prototokens.errors import UsageError
from prototokens.lab.job import Job, Row

TRACKERS = ("trackio", "wandb")
PROJECT = "prototokens"


@runtime_checkable
class Tracker(Protocol):
    """What a sweep tells of each job that ends."""

    def __call__(self, job: Job, rows: list[Row]) -> None: ...

    def finish(self) -> None: ...


class Remote:
    """Either of the two libraries: they share `init`, `log` and `finish`."""

    def __init__(self, name: str, config: dict[str, Any]):
        """Open a run.

        Raises:
            UsageError: no such tracker.
            MissingExtraError: it is not installed.
        """
        if name not in TRACKERS:
            raise UsageError(f"there is no tracker {name!r}: choose one of {', '.join(TRACKERS)}")
        self.library: Any = need(name, name, f"tracking with {name}")
        self.library.init(project=PROJECT, config=config)

    def __call__(self, job: Job, rows: list[Row]) -> None:
        for row in rows:
            numbers = {
                f"{job.experiment}/{name}": value
                for name, value in row.items()
                if isinstance(value, (int, float)) and not isinstance(value, bool)
            }
            self.library.log(numbers)

    def finish(self) -> None:
        self.library.finish()
