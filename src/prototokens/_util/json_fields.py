"""JSON objects from untrusted files, read key by key: each value is checked, or refused by name.

A refusal says which key, what was expected there and what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_NUMBER = 2**63  # what is larger can be neither counted nor divided
MAX_STRING = 4096  # characters: the longest path of a folder
MAX_SHOWN = 60  # characters of a value in a message
ABSENT: Any = object()

Check = Callable[[Any, str], Any]  # (value, path of its key) -> the value as it is used


class MismatchError(ValueError):
    """A key of a JSON object is missing or has a value of another kind; the message says which."""

    def __init__(self, path: str, expected: str, found: Any) -> None:
        if found is ABSENT:
            super().__init__(f"lacks {path!r}, {expected}")
        else:
            super().__init__(f"has {_described(found)} as {path!r}, and not {expected}")


class Fields:
    """The members of a JSON object, taken one by one.

    Attributes:
        rest: the members that have not been taken.
    """

    def __init__(self, values: Any, path: str = "") -> None:
        """Begin to read.

        Args:
            values: a value of a JSON document.
            path: of the key that it belongs to; "" for the whole document.

        Raises:
            MismatchError: it is no object.
        """
        if not isinstance(values, dict):
            raise MismatchError(path or "its content", "an object", values)
        self.rest: dict[str, Any] = dict(values)
        self.path = path

    def take(self, key: str, check: Check, default: Any = ABSENT) -> Any:
        """The value of a key, checked.

        Args:
            check: one of those below.
            default: where the key is missing; by default it must be there.

        Raises:
            MismatchError: it is missing, or of another kind.
        """
        path = f"{self.path}.{key}" if self.path else key
        if key not in self.rest:
            return default if default is not ABSENT else check(ABSENT, path)
        return check(self.rest.pop(key), path)


def count(least: int = 0, most: int = MAX_NUMBER - 1) -> Check:
    """A whole number in a range."""

    def check(value: Any, path: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise MismatchError(path, f"a whole number from {least} to {most}", value)
        return value

    return check


def number(value: Any, path: str) -> float:
    """A number that can be calculated with."""
    if type(value) not in (int, float) or not abs(value) < MAX_NUMBER:
        raise MismatchError(path, "a number below 2^63", value)
    return value


def flag(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise MismatchError(path, "true or false", value)
    return value


def string(value: Any, path: str) -> str:
    """A string of bounded length."""
    if not isinstance(value, str) or len(value) > MAX_STRING:
        raise MismatchError(path, f"a string of at most {MAX_STRING} characters", value)
    return value


def an_object(value: Any, path: str) -> dict[str, Any]:
    """An object, with any members."""
    if not isinstance(value, dict):
        raise MismatchError(path, "an object", value)
    return value


def nullable(check: Check) -> Check:
    """Null, or what passes another check."""

    def either(value: Any, path: str) -> Any:
        return None if value is None else check(value, path)

    return either


def list_of(each: Check, most: int | None = None) -> Check:
    """A list whose members pass a check, as a tuple.

    Args:
        most: members that it may have.
    """

    def check(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise MismatchError(path, "a list", value)
        if most is not None and len(value) > most:
            raise MismatchError(path, f"a list of at most {most}", value)
        return tuple(each(member, f"{path}[{index}]") for index, member in enumerate(value))

    return check


def object_of(each: Check) -> Check:
    """An object whose members pass a check."""

    def check(value: Any, path: str) -> dict[str, Any]:
        return {
            key: each(member, f"{path}.{key[:40]}")
            for key, member in an_object(value, path).items()
        }

    return check


def _described(value: Any) -> str:
    """A value in a message: in one line, and short whatever it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    try:
        text = json.dumps(value)
    except ValueError:
        return "a number of too many digits"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
