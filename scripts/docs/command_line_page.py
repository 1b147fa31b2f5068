"""Write docs/command-line.md from the commands themselves and the documented keys of their JSON.

With --check nothing is written: the exit status is 1 where the page is not what the commands say.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import click

from prototokens.cli import cli
from prototokens.cli.keys import KEYS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
INTRODUCTION = """\
# Command line

<!-- Written by scripts/docs/command_line_page.py from the commands themselves: \
change those, then run it again. -->

`python -m prototokens` is the same as `prototokens`. With `-h` or `--help`, it and each of its
commands print their help. Every command takes `--json`: then standard output is one JSON object,
in UTF-8, with the keys listed here. Keys may be added, and none is removed or changes its
meaning. Data goes to standard output; progress, summaries, warnings and errors go to standard
error.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | done, but not as asked: the vectors do not decode to the text exactly |
| 2 | wrong usage or bad input; one line on standard error says what to do |
| 130 | stopped with Ctrl-C; `encode` ends with it after SIGTERM too, and saves what it has solved |
"""


def page() -> str:
    """The page as the commands stand."""
    commands = sorted(cli.commands.items())
    listed = [
        f"- [`{name}`](#prototokens-{name}): {command.get_short_help_str(limit=200)}"
        for name, command in commands
    ]
    return "\n".join(
        [
            INTRODUCTION,
            *listed,
            "",
            *(line for name, command in commands for line in _section(name, command)),
        ]
    )


def _section(name: str, command: click.Command) -> list[str]:
    arguments = [
        parameter.make_metavar(click.Context(command))
        for parameter in command.params
        if _is_argument(parameter)
    ]
    lines = [
        f"## prototokens {name}",
        "",
        f"`{' '.join(['prototokens', name, *arguments, '[OPTIONS]'])}`",
        "",
    ]
    lines += [inspect.cleandoc(command.help or ""), ""]
    if command.epilog:
        lines += ["```text", *command.epilog.strip("\b\n").splitlines(), "```", ""]
    lines += ["| option | meaning |", "|---|---|"]
    lines += [
        _option(parameter) for parameter in command.params if isinstance(parameter, click.Option)
    ]
    lines += ["", "With `--json`:", "", "| key | meaning |", "|---|---|"]
    return [*lines, *(f"| `{key}` | {meaning} |" for key, meaning in KEYS[name].items()), ""]


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def _option(option: click.Option) -> str:
    """A row of the table.

    It is written here and not by click, whose own wording changes with its version.
    """
    words = (option.help or "").replace("|", "\\|")
    kind = option.type.name.split()[0].upper()
    if isinstance(option.type, click.Choice):
        words += f" One of {', '.join(f'`{choice}`' for choice in option.type.choices)}."
        kind = "NAME"
    if isinstance(option.type, click.IntRange):
        words += f" At least {option.type.min}."
    if option.show_default:
        named = isinstance(option.show_default, str)
        words += f" Default: {option.show_default if named else f'`{option.default}`'}."
    return f"| `{', '.join(option.opts)}{'' if option.is_flag else f' {kind}'}` | {words} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 where the page is out of date",
    )
    check = parser.parse_args().check
    wanted = page()
    if check:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write(
            f"docs/{PAGE.name} is out of date: run python scripts/docs/{Path(__file__).name}\n"
        )
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
