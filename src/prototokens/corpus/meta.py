"""`meta.json`: what a corpus was made from and with, and its totals once it is complete."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from prototokens._util import strict_json
from prototokens._util.files import write_atomically
from prototokens._util.json_fields import Fields, MismatchError, an_object, count, list_of, string
from prototokens._util.versions import versions
from prototokens.corpus.options import VALUES
from prototokens.corpus.schema import VERSION, Shape, check_version
from prototokens.errors import FileError
from prototokens.layout import Layout, recorded

FILE = "meta.json"


@dataclass(frozen=True)
class Totals:
    """Sums over rows.

    Attributes:
        rows, tokens: their number and that of their tokens.
        exact: rows whose vectors, as they are stored, decode to their ids.
        certified: rows that passed the certificate of the run's level.
        row_steps: forward and backward passes, each counted once for each row that was fitted.
        position_steps: the same, times the tokens of the row.
        duplicates: rows with the ids of an earlier row of their shard, which were not fitted again.
        empty: texts without a token, which have no row.
        seconds: that workers took.
    """

    rows: int = 0
    tokens: int = 0
    exact: int = 0
    certified: int = 0
    row_steps: int = 0
    position_steps: int = 0
    duplicates: int = 0
    empty: int = 0
    seconds: float = 0.0

    def plus(self, other: Totals) -> Totals:
        """The sums of both."""
        names = [one.name for one in fields(self)]
        return Totals(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @staticmethod
    def from_json(values: Any) -> Totals:
        """From a shard's facts; what is missing is 0.

        Raises:
            MismatchError: a value is no number.
        """
        given = Fields(values, "totals")
        names = [one.name for one in fields(Totals) if one.name != "seconds"]
        whole = {name: given.take(name, count(), 0) for name in names}
        return Totals(**whole, seconds=float(given.rest.get("seconds", 0.0)))


@dataclass(frozen=True)
class Meta:
    """The content of `meta.json`.

    Attributes:
        settings: of the run, as `Settings.as_json` gives them.
        versions: of the libraries that made the first shard.
        complete: totals, and the number of shards, of a run that came to its end; else None.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    complete: dict[str, Any] | None = None

    @staticmethod
    def of(settings: dict[str, Any]) -> Meta:
        """Of a new run."""
        return Meta(settings, versions())

    @property
    def layout(self) -> Layout:
        """The layout of every row, with its prefix.

        Raises:
            UsageError: this version has no such layout.
        """
        return recorded(self.settings["layout"], self.settings["prefix"])

    @property
    def shape(self) -> Shape:
        """Of a row's vectors."""
        settings = self.settings
        return Shape(settings["vectors"], settings["model"]["d_model"], settings["values"])

    def save(self, folder: Path) -> None:
        """Write it.

        Raises:
            FileError: it cannot be written.
        """
        content = json.dumps({"schema": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)
        write_atomically(folder / FILE, (content + "\n").encode())

    @staticmethod
    def load(folder: Path) -> Meta | None:
        """Read it; None where there is none.

        Raises:
            FileError: it is damaged.
            UsageError: it is of a newer form.
        """
        path = folder / FILE
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
        try:
            given = Fields(strict_json.loads(content))
            check_version(given.take("schema", count(1)), folder)
            settings = given.take("settings", an_object)
            _check(settings)
            made_with = given.take("versions", an_object)
            complete = given.rest.get("complete")
            if complete is not None:
                complete = an_object(complete, "complete")
                Totals.from_json(complete)
                Fields(complete, "complete").take("shards", count())
            return Meta(settings, made_with, complete)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path} is damaged: it {error!s:.200}") from error

    def check_same(self, settings: dict[str, Any], folder: Path) -> None:
        """Refuse to go on with other settings than the folder was begun with.

        Raises:
            FileError: the first one that differs.
        """
        before = json.loads(json.dumps(self.settings))
        now = json.loads(json.dumps(settings))
        for name in [*now, *before]:
            if before.get(name) != now.get(name):
                old, new = before.get(name), now.get(name)
                if isinstance(old, dict) and isinstance(new, dict):
                    key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
                    name, old, new = f"{name} {key}", old.get(key), new.get(key)
                raise FileError(
                    f"{folder} holds another run: its {name} is {old!r:.80}, and {new!r:.80} is"
                    " asked for; name another folder with -o, or give the options of that run"
                )


def _check(settings: dict[str, Any]) -> None:
    """Refuse settings that a reader cannot use.

    Raises:
        MismatchError: a value that is missing, or of another kind.
    """
    given = Fields(settings, "settings")
    model = Fields(given.take("model", an_object), "settings.model")
    for name in ("name", "fingerprint", "tokenizer", "dtype"):
        model.take(name, string)
    model.take("d_model", count(1))
    given.take("layout", string)
    vectors = given.take("vectors", count(1))
    given.take("prefix", list_of(count()))
    given.take("shard_rows", count(1))
    if given.take("values", string) not in VALUES:
        raise MismatchError("settings.values", f"one of {', '.join(VALUES)}", settings["values"])
    layout = recorded(settings["layout"], settings["prefix"])
    if layout.vectors != vectors or layout.key_version != settings.get("key_version"):
        raise MismatchError(
            "settings.layout", f"an arrangement of {vectors} vectors", settings["layout"]
        )
