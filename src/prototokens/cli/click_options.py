"""Options of commands, made from the fields of dataclasses: one place for defaults and help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from prototokens._util.option_fields import Help, help_of


def options_of(kind: type, *names: str) -> Callable[[Callable], Callable]:
    """The options of these fields, in this order.

    Args:
        kind: a dataclass, whose fields have help (`_util.option_fields.described`).
        names: of the fields.
    """
    known = help_of(kind)

    def decorate(command: Callable) -> Callable:
        for name in reversed(names):
            command = _option(name, *known[name])(command)
        return command

    return decorate


def _option(name: str, default: Any, shown: Help) -> Callable[[Callable], Callable]:
    return click.option(
        f"--{name.replace('_', '-')}",
        type=_type(default, shown),
        default=_default(default, shown),
        metavar=shown.metavar,
        show_default=shown.default_text or default not in (None, ""),
        help=shown.text,
    )


def _default(default: Any, shown: Help) -> Any:
    """The default as click takes it; None where it is in words, as something else decides it."""
    if shown.default_text:
        return None
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default) if shown.metavar and default is not None else default


def _type(default: Any, shown: Help) -> Any:
    """What click takes: a choice, a whole number from a minimum, a number, or text."""
    if shown.choices:
        return click.Choice(list(shown.choices))
    if shown.minimum is not None:
        return click.IntRange(min=shown.minimum)
    if isinstance(default, int | float) and not shown.metavar:
        return type(default)
    return str
