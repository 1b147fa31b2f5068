"""Settings: frozen dataclasses of plain values, to and from JSON, and the check of their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar, cast

from prototokens.errors import UsageError

Kind = TypeVar("Kind")


def as_json(values: Any) -> dict[str, Any]:
    """The settings as a JSON object; `from_json` is the inverse."""
    return asdict(values)


def from_json(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """The settings of a JSON object; keys unknown to this version are left out.

    Raises:
        UsageError: a value out of range.
        TypeError: a value of another kind.
    """
    known = {field.name for field in fields(cast(Any, kind))}
    kept = {key: _tuples(value) for key, value in values.items() if key in known}
    return kind(**kept)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def require(what: str, rules: Mapping[str, bool]) -> None:
    """Refuse settings that break a rule.

    Args:
        what: is being made, to open the sentence.
        rules: each rule in words, and whether it holds.

    Raises:
        UsageError: the first rule that does not hold.
    """
    for rule, holds in rules.items():
        if not holds:
            raise UsageError(f"{what} cannot be made so: {rule}")
