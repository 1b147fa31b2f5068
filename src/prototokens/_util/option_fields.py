"""Fields of options: a default with its help, from which the command line makes its options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

Kind = TypeVar("Kind")
HELP = "help"


@dataclass(frozen=True)
class Help:
    """How the command line presents a field.

    Attributes:
        text: what the option means.
        choices: the values that it takes; none: any.
        minimum: of a whole number.
        metavar: what the value is called in the help; by default the name of its type.
        default_text: the default in words, where the value does not explain itself.
    """

    text: str
    choices: Sequence[str] = ()
    minimum: int | None = None
    metavar: str | None = None
    default_text: str | None = None


def described(text: str, *, in_key: bool = False, **presented: Any) -> dict[str, Any]:
    """The metadata of a field that is an option.

    Args:
        text: what the option means.
        in_key: whether work that was interrupted is only resumed with the same value.
        presented: further attributes of `Help`.
    """
    return {HELP: Help(text, **presented), "in_key": in_key}


def help_of(kind: type) -> dict[str, tuple[Any, Help]]:
    """The default of each field that has help, and the help."""
    return {
        one.name: (one.default, one.metadata[HELP])
        for one in fields(cast(Any, kind))
        if HELP in one.metadata
    }


def from_keywords(kind: type[Kind], function: str, given: Mapping[str, Any]) -> Kind:
    """The options in the keyword arguments of a function.

    Args:
        function: its name, for the message.

    Raises:
        TypeError: a keyword that is none of the options.
    """
    known = [one.name for one in fields(cast(Any, kind))]
    if unknown := [name for name in given if name not in known]:
        raise TypeError(
            f"{function}() has no option {_quoted(unknown)}: its options are {', '.join(known)}"
        )
    return kind(**given)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
