"""The command line: one file a command; each parses, calls the library, and prints."""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import shell_complete

from prototokens._version import __version__
from prototokens.cli import standard_streams
from prototokens.cli.bench import bench
from prototokens.cli.capacity import capacity
from prototokens.cli.corpus import corpus
from prototokens.cli.decode import decode
from prototokens.cli.demo import demo
from prototokens.cli.doctor import doctor
from prototokens.cli.encode import encode
from prototokens.cli.explore import explore
from prototokens.cli.export import export
from prototokens.cli.inspect import inspect
from prototokens.cli.models import models
from prototokens.cli.reproduce import reproduce
from prototokens.cli.trace import trace
from prototokens.cli.train_encoder import train_encoder
from prototokens.cli.verify import verify
from prototokens.errors import PrototokensError, UsageError

NAME = "prototokens"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="prototokens")
def cli() -> None:
    """Turn text into a few input vectors of a frozen language model, and back in one forward pass.

    Data goes to standard output, progress and warnings to standard error. Exit status: 0 done, 1
    done but not as asked (not exact), 2 wrong usage or bad input, 130 stopped.
    """


for command in (
    encode,
    decode,
    inspect,
    verify,
    models,
    demo,
    bench,
    trace,
    doctor,
    explore,
    export,
    reproduce,
    capacity,
    corpus,
    train_encoder,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its status.

    An error that a user can act on is one line, without a traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    standard_streams.open_closed()
    try:
        _check_folder()
        # Not `cli.main`: click would end a command whose output's reader has gone with status 1,
        # "not exact" here.
        _complete_for_shell()
        with cli.make_context(NAME, list(arguments)) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as leaving:
        status = leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = 2
    except click.ClickException as error:
        click.echo(f"prototokens: {_sentence(error)}", err=True)
        status = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("prototokens: stopped", err=True)
        status = 130
    except (PrototokensError, OSError) as error:
        status = error.exit_status if isinstance(error, PrototokensError) else 2
        if standard_streams.reader_has_gone(error):
            status = standard_streams.BROKEN_PIPE
        elif debug:
            raise
        else:
            click.echo(f"prototokens: {standard_streams.describe(error)}", err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _check_folder() -> None:
    """Refuse to work in a folder that has been removed.

    Libraries look for themselves from there, and fail without a word.

    Raises:
        UsageError: it has been.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the folder that this shell is in does not exist any more: change to another"
        ) from error


def _complete_for_shell() -> None:
    """Answer a shell that asks for completions, as `cli.main` would, and end the process."""
    variable = f"_{NAME.upper()}_COMPLETE"
    if instruction := os.environ.get(variable):
        sys.exit(shell_complete(cli, {}, NAME, variable, instruction))


def _sentence(error: click.ClickException) -> str:
    """What click says of wrong usage, and where help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"; see '{context.command_path} --help'" if context else ""
    return error.format_message().rstrip(".") + hint
