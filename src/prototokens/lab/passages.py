"""A passage: a stretch of text as ids of one model, with a name and a hash that stay the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value, 32 hexadecimal digits of it.

    Enough to tell apart any number of jobs.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def without_folders(source: str) -> str:
    """The value of `--texts`, for rows that are published.

    A file's own name, and nothing of where it lies on this machine.
    """
    kind, colon, rest = source.partition(":")
    if kind == "generated":
        return kind + colon + without_folders(rest)
    return (
        kind + colon + rest.rstrip("/").split("/")[-1]
        if kind in ("file", "random-words")
        else source
    )


# Kinds of sources as reports list them: running text, what the model writes itself, what no one
# wrote.
_ORDER = ("sample", "file", "hub", "generated", "random-words", "random-tokens")


def sources_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The sources that rows name, in an order that does not depend on theirs.

    Rows come in as they are done.
    """
    found = {row["source"] for row in rows}
    kinds = {source: source.partition(":")[0] for source in found}
    return sorted(
        found,
        key=lambda source: (
            _ORDER.index(kinds[source]) if kinds[source] in _ORDER else len(_ORDER),
            source,
        ),
    )


def labels_of(sources: Sequence[str]) -> dict[str, str]:
    """What pictures, which have little room, call sources.

    Their kinds, or where two are of a kind, their names' ends too.
    """
    kinds = {source: source.partition(":")[0] for source in sources}
    twice = {kind for kind in kinds.values() if list(kinds.values()).count(kind) > 1}
    return {
        source: kind
        if kind not in twice
        else source
        if len(source) < 24
        else f"{source[:10]}...{source[-10:]}"
        for source, kind in kinds.items()
    }


@dataclass(frozen=True)
class Passage:
    """A stretch of text that begins at a sentence, as ids of one model.

    Attributes:
        id: source and position, the same whenever the source is read again.
        ids: the tokens to be reproduced.
        context: the tokens before them, where the source has any; empty otherwise.
        source: the value of `--texts`, `without_folders`.
    """

    id: str
    ids: tuple[int, ...]
    context: tuple[int, ...] = ()
    source: str = ""

    @cached_property
    def ids_hash(self) -> str:
        """Hash of the ids: rows name a passage by it."""
        return content_hash(self.ids)

    def prefix(self, length: int) -> Passage:
        """The same passage, cut to its first tokens."""
        return Passage(self.id, self.ids[:length], self.context, self.source)
