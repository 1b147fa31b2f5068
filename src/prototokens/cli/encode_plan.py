"""What `prototokens encode` settles before it fits: its options, its output, and its text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from prototokens._util.numerals import whole_number
from prototokens.cli import common
from prototokens.cli.reading import Given, open_text
from prototokens.encoder.start_option import start_of
from prototokens.errors import TextError, UsageError
from prototokens.options import EncodeOptions

if TYPE_CHECKING:
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.ptok.source import Source

# More than a usual text has: that many characters for each allowed token show that a text is too
# long.
CHARACTERS_PER_TOKEN = 8


def encode_options(values: Mapping[str, Any], context: Path | None) -> EncodeOptions:
    """The options of the library from those of the command, with its layout and recipe.

    Args:
        values: for each field of `EncodeOptions`, as click gives it.
        context: a file whose text is the prefix.

    Raises:
        UsageError: a value that does not exist, or two options for one thing.
        FileError: a start that is no encoder's folder.
        TextError: the context cannot be read, or is not UTF-8.
    """
    random = values["share"] and values["start"] == "auto"
    options = EncodeOptions(
        **{
            **values,
            "bits": _bits(values["bits"]),
            "start": start_of("random" if random else values["start"]),
            "vectors": _vectors(values["vectors"]),
            "prefix": _prefix(values["prefix"], context),
        }
    )
    return replace(
        options, recipe=options.resolve_recipe(), layout=options.resolve_layout() or "auto"
    )


def _prefix(given: str, context: Path | None) -> str:
    """The prefix by its name, or the text of a file.

    Raises:
        UsageError: both are given.
        TextError: the file cannot be read, or is not UTF-8.
    """
    if context is None:
        return given
    if given != "auto":
        raise UsageError("give either --prefix or --context: both stand before the vectors")
    return "text:" + common.read_text(str(context), None)


def _vectors(given: str | None) -> int | Literal["auto"] | None:
    """The number of vectors, or auto.

    Raises:
        UsageError: neither.
    """
    if given is None or given == "auto":
        return given
    count = whole_number(given)
    if count is None:
        raise UsageError(f"--vectors takes a number of vectors or auto, not {given!r}")
    return count


def _bits(given: str) -> int | Literal["auto"]:
    """The number of bits, or auto.

    Raises:
        UsageError: no such number.
    """
    from prototokens.engine.widths import check_bits

    number = whole_number(given)
    return check_bits(given if number is None else number)


def output_and_text(
    output: Path | None, source: str | None, text: str | None, force: bool
) -> tuple[Path, Given]:
    """The output file, found writable, and the text.

    Raises:
        UsageError: no output can be derived, or it is the text's own file.
        FileError: the output cannot be written.
        TextError: the text is missing or empty.
    """
    if output is not None:
        # Before the text is read: nobody should type one and then learn that it cannot be saved.
        common.check_output(output, force)
        given = _open(source, text)
        if source not in (None, "-") and output.exists() and os.path.samefile(source, output):
            raise UsageError(
                f"{output} is the text itself, which the vectors would replace: name another output"
            )
    else:
        given = _open(source, text)
        if source in (None, "-"):
            raise UsageError(
                "name the file to write with -o: there is no input file to name it after"
            )
        output = Path(source).with_suffix(".ptok")
        if output == Path(source):
            raise UsageError(
                f"{source} has the suffix of an output already: decode it, or name the file to"
                " write with -o"
            )
        common.check_output(output, force)
    if not given.head:
        raise TextError("the text is empty: there is nothing to encode")
    return output, given


def _open(source: str | None, text: str | None) -> Given:
    """The text; of a file that does not exist, the error names the option for texts.

    Raises:
        UsageError, TextError: as `open_text`.
    """
    try:
        return open_text(source, text)
    except TextError as error:
        if source in (None, "-") or os.path.lexists(str(source)):
            raise
        raise TextError(
            f"{error}; if these words are the text itself, give them with --text"
        ) from error


def source_of(lm: FrozenLM, given: Given, max_tokens: int, quiet: bool) -> Source:
    """The text and its ids, unless they are too many.

    Of a text far too long, only the first part is read.

    Raises:
        TextError: more tokens than allowed, or none at all.
    """
    from prototokens.ptok.patches import MAX_UNPACKED
    from prototokens.ptok.source import read_source

    head = given.head[: CHARACTERS_PER_TOKEN * max_tokens]
    if len(head) < len(given.head):
        count = len(lm.tokenize(head.decode("utf-8", "ignore")))
        _check_count(count, max_tokens, len(head), given)
    # The most bytes that so many tokens can stand for, and that a file may hold besides.
    limit = max_tokens * lm.longest_token + MAX_UNPACKED
    content = given.read(limit)
    if content is None:
        raise TextError(
            f"{given.name} holds more than {limit:,} bytes, and {max_tokens:,} tokens"
            " (--max-tokens) stand for fewer: give a shorter text"
        )
    source = read_source(lm, content)
    _check_count(len(source.ids), max_tokens, len(content), given)
    if source.edited and not quiet:
        why = "are no UTF-8 text, or are changed by the tokenizer,"
        click.echo(
            f"{source.edited:,} of {len(content):,} bytes {why} and are stored as they are",
            err=True,
        )
    return source


def _check_count(count: int, max_tokens: int, read: int, given: Given) -> None:
    """Refuse a text with too many tokens.

    Args:
        count: the tokens of its first `read` bytes.

    Raises:
        TextError: they are more than `max_tokens`.
    """
    if count <= max_tokens:
        return
    size = given.size or len(given.head)
    if given.rest is not None and given.size is None:
        counted = f"more than {count:,}"
    else:
        counted = f"{count:,}" if read == size else f"about {count * size // read:,}"
    raise TextError(
        f"the text has {counted} tokens, more than the {max_tokens:,} of --max-tokens: a fit of"
        " that size takes hours on a CPU; pass a larger --max-tokens to insist, or a shorter text"
    )
