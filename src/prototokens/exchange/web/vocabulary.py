"""The tokens of a byte-level tokenizer as bytes: all that decoding ids takes in a page."""

from __future__ import annotations

from typing import cast

from tokenizers.decoders import ByteLevel
from tokenizers.pre_tokenizers import ByteLevel as Letters
from transformers import PreTrainedTokenizerBase

from prototokens.errors import ModelError


def token_bytes(tokenizer: PreTrainedTokenizerBase, count: int, name: str) -> list[bytes]:
    """The bytes of each id from 0 on.

    Args:
        count: number of ids.
        name: of the model, for the message.

    Raises:
        ModelError: its tokenizer is not a byte-level one, so that ids are decoded by another rule.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(getattr(backend, "decoder", None), ByteLevel):
        raise ModelError(f"the tokenizer of {name!r} does not decode ids byte by byte")
    values = _bytes_of_letters()
    letters = [cast(str | None, tokenizer.convert_ids_to_tokens(number)) for number in range(count)]
    return [_bytes_of(one, values) for one in letters]


def _bytes_of(token: str | None, values: dict[str, int]) -> bytes:
    """A token with a letter that stands for no byte is spelled out, as the decoder does."""
    letters = token or ""
    if all(letter in values for letter in letters):
        return bytes(values[letter] for letter in letters)
    return letters.encode()


def _bytes_of_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for.

    Bytes that are printable in Latin-1 stand for themselves; the others have the letters from
    U+0100 on, in order.
    """
    alphabet = set(Letters.alphabet())
    others = sorted(letter for letter in alphabet if ord(letter) > 255)
    rest = [byte for byte in range(256) if chr(byte) not in alphabet]
    plain = {letter: ord(letter) for letter in alphabet if ord(letter) < 256}
    return plain | dict(zip(others, rest, strict=True))
