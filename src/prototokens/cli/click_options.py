"""Options of commands, made from the fields of dataclasses: one place for defaults and help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from prototokens._util.option_fields import Help, help_of


class GroupedCommand(click.Command):
    """A command whose help lists its options in groups, each under a heading.

    Args:
        groups: the names of the options under each heading; those in none join the last.
    """

    def __init__(self, *arguments: Any, groups: Mapping[str, Sequence[str]], **options: Any):
        super().__init__(*arguments, **options)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, as `click.Command.format_options` would under one heading."""
        records = {
            str(parameter.name): record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        grouped = {name for names in self.groups.values() for name in names}
        others = [name for name in records if name not in grouped]
        last = list(self.groups)[-1]
        for heading, names in self.groups.items():
            listed = [*names, *others] if heading == last else names
            with formatter.section(heading):
                formatter.write_dl([records[name] for name in listed if name in records])


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
