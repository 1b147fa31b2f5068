"""JSON from untrusted files and requests.

An object names each of its keys once.

JSON leaves open what a repeated key means, and readers differ: some take the first value, some the
last. A file that says a thing twice would be two files to two readers, so it is refused.
"""

from __future__ import annotations

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object of a JSON document names one of its keys twice; the message says which."""


def loads(text: str | bytes, **options: Any) -> Any:
    """As `json.loads`, but a document with a repeated key is refused.

    Args:
        text: one JSON document.
        options: as `json.loads` takes them, but for `object_pairs_hook`.

    Raises:
        RepeatedKeyError: an object names a key twice.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object, **options)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RepeatedKeyError(f"names the key {key[:40]!r} twice")
    return made
