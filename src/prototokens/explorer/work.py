"""What the tabs share.

The limits, the loaded models, the shelf of encoded texts, and errors as sentences.
"""

from __future__ import annotations

import atexit
import hashlib
import inspect
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, RLock
from typing import Any, NamedTuple, TypeVar

from prototokens.errors import PrototokensError, UsageError
from prototokens.explorer import show
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.solution import Chunk

T = TypeVar("T")
# All that computes with a model waits in one line: a fit has the processor to itself, and hooks see
# no stranger's pass.
LINE = "model"
SHELF = 8  # encoded texts that a visitor keeps at hand


@dataclass(frozen=True)
class Settings:
    """Settings of the page, given at its start.

    Attributes:
        models: what can be chosen: "builtin", folders, hub ids. Nothing else is ever loaded.
        revision: of a hub model; only where one model is named.
        device: as `FrozenLM.from_pretrained` takes it; so `dtype`.
        results: the folders whose rows can be read. No other file can.
        max_characters: of a text.
        max_upload: bytes of a file that is sent up.
    """

    models: tuple[str, ...] = ("builtin",)
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    results: tuple[Path, ...] = ()
    max_characters: int = 2000
    max_upload: int = 8 << 20


class ShelvedText(NamedTuple):
    """A text on the shelf.

    Attributes:
        title: its beginning.
        model: the model's name, as it is chosen.
        encoded: its vectors.
    """

    title: str
    model: str
    encoded: EncodedText


@dataclass
class Desk:
    """The state of a page.

    Its settings, the models that are loaded, which visitors asked to stop, and their files.

    Attributes:
        kept: what was computed once for all visitors, by its name.
        stops: the event that a visitor's running fit watches.
        stopped: when each visitor last pressed Stop, by their own browser's clock.
    """

    settings: Settings
    loaded: dict[str, FrozenLM] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)
    stops: dict[str, Event] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    files: Path | None = None

    def model(self, name: str) -> FrozenLM:
        """One of the models that the page was started with, loaded at its first use.

        Raises:
            ModelError: it cannot be loaded.
            UsageError: the page was not started with it.
        """
        if name not in self.settings.models:
            raise UsageError(
                f"{name!r} is not among the models of this page: start it with --model {name}"
            )
        if name not in self.loaded:
            settings = self.settings
            self.loaded[name] = FrozenLM.from_pretrained(
                name, revision=settings.revision, device=settings.device, dtype=settings.dtype
            )
        return self.loaded[name]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, computed when it is first asked for and then kept for everybody."""
        with self.lock:
            if name not in self.kept:
                self.kept[name] = make()
            return self.kept[name]

    def file_of(self, visitor: str) -> Path:
        """Where a visitor's last encoded text lies; what a browser calls itself names no path."""
        if self.files is None:
            self.files = Path(mkdtemp(prefix="prototokens-"))
            atexit.register(shutil.rmtree, self.files, ignore_errors=True)
        folder = self.files / hashlib.sha256(visitor.encode()).hexdigest()[:32]
        folder.mkdir(exist_ok=True)
        return folder / "text.ptok"

    def begin(self, visitor: str, pressed: float) -> Event:
        """The event that a visitor's fit has to watch.

        Already set where they pressed Stop after Encode, while it waited in the line.

        Args:
            pressed: when they pressed Encode, in milliseconds by their browser's clock.
        """
        stopping = self.stops[visitor] = Event()  # first this, so that a Stop from now on sets it
        if self.stopped.get(visitor, -math.inf) >= pressed:
            stopping.set()
        return stopping

    def stop(self, visitor: str, pressed: float = math.inf) -> None:
        """Stop what a visitor is fitting, and what still waits in the line for them."""
        self.stopped[visitor] = pressed
        if visitor in self.stops:
            self.stops[visitor].set()

    def forget(self, visitor: str) -> None:
        """Stop what a visitor who has left is fitting, and delete their file."""
        self.stop(visitor)
        self.stops.pop(visitor, None)
        self.stopped.pop(visitor, None)
        shutil.rmtree(self.file_of(visitor).parent)

    def check_text(self, text: str) -> None:
        """Refuse what is longer than this page takes.

        Raises:
            UsageError: so many characters.
        """
        most = self.settings.max_characters
        if len(text) > most:
            raise UsageError(
                f"the text has {len(text):,} characters, and this page takes {most:,}: shorten it,"
                " or start the page with a higher --max-characters"
            )


def show_errors_in(message: Any, *emptied: Any) -> Callable[[Callable], Callable]:
    """Let a handler's errors appear in `message`, as sentences; it is emptied where all is well.

    The handler gives a dictionary from components to values, or several, one after another.

    Args:
        emptied: what shows nothing where there is an error.
    """

    def wrap(handler: Callable) -> Callable:
        if inspect.isgeneratorfunction(
            inspect.unwrap(handler)
        ):  # the tests wrap every function, to check shapes

            @wraps(handler)
            def many(*values: Any) -> Any:
                try:
                    for update in handler(*values):
                        yield {message: "", **update}
                except Exception as error:
                    yield {message: _sentence(error), **dict.fromkeys(emptied, "")}

            return many

        @wraps(handler)
        def once(*values: Any) -> Any:
            try:
                return {message: "", **handler(*values)}
            except Exception as error:
                return {message: _sentence(error), **dict.fromkeys(emptied, "")}

        return once

    return wrap


def _sentence(error: Exception) -> str:
    """A user's error in its own words.

    Of any other the page says that it is ours, and the terminal all of it.
    """
    if isinstance(error, PrototokensError):
        return show.problem(str(error))
    logging.getLogger(__name__).error("a handler of the page failed", exc_info=error)
    return show.problem(
        "this went wrong in the program, not in what you did: the terminal that it was started from"
        " says where"
    )


def put_on_shelf(
    shelf: list[ShelvedText], lm: FrozenLM, encoded: EncodedText, text: str
) -> list[ShelvedText]:
    """The shelf with one more, newest first."""
    title = " ".join(text.split())[:48] or "(blank)"
    names = {shelved.title for shelved in shelf}
    number = next(
        count
        for count in range(1, SHELF + 2)
        if (title if count == 1 else f"{title} ({count})") not in names
    )
    return [ShelvedText(title if number == 1 else f"{title} ({number})", lm.name, encoded), *shelf][
        :SHELF
    ]


def from_shelf(shelf: list[ShelvedText], title: str | None) -> ShelvedText:
    """The text of that title.

    Raises:
        UsageError: there is none.
    """
    for shelved in shelf:
        if shelved.title == title:
            return shelved
    raise UsageError("there is no such text yet: encode one, or open a file, in the first two tabs")


def chunk_of(encoded: EncodedText, number: float | None) -> Chunk:
    """A chunk by its number, from 1.

    Raises:
        UsageError: there is none, or no vectors hold it.
    """
    return encoded.chunk(0 if number is None else int(number))
