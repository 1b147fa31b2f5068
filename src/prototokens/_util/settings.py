"""Settings: frozen dataclasses of plain values, to and from JSON, and the check of their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from prototokens.errors import UsageError

Kind = TypeVar("Kind")


def as_json(values: Any) -> dict[str, Any]:
    """For JSON; `from_json` is the way back."""
    return asdict(values)


def from_json(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """From JSON, values unknown to this version left out.

    Raises:
        UsageError: a value out of range.
        TypeError: a value of another kind.
    """
    known = {field.name for field in fields(kind)}
    kept = {key: _tuples(value) for key, value in values.items() if key in known}
    return kind(**kept)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def require(what: str, rules: Mapping[str, bool]) -> None:
    for rule, kept in rules.items():
        if not kept:
            raise UsageError(f"{what} cannot be made so: {rule}")
