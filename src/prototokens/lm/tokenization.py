"""The tokenizer of a frozen model: text to ids, ids to text, and the hash that files record.

Every function takes the tokenizer of transformers, or None for a model that was made without one,
and `name`, what the user called the model, for messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prototokens.errors import ModelError, TextError


@runtime_checkable
class Vocabulary(Protocol):
    """The tokenizer's side of a model, which is all that reading texts takes."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None: ...
    @property
    def vocab_size(self) -> int: ...
    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class TokenizerOnly:
    """A `Vocabulary` without the model's weights: it can be sent to another process.

    Attributes:
        name: what the user called the model.
        tokenizer: of transformers, or None.
        vocab_size: number of logits of the model.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase | None
    vocab_size: int

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, as `FrozenLM.tokenize` gives them."""
        return tokenize(self.tokenizer, text, name=self.name, vocab_size=self.vocab_size)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, as `FrozenLM.detokenize` gives it."""
        return detokenize(self.tokenizer, ids, name=self.name)


def tokenize(
    tokenizer: PreTrainedTokenizerBase | None, text: str, *, name: str, vocab_size: int
) -> list[int]:
    """The ids of a text, without any special token around it.

    Args:
        vocab_size: number of logits of the model; every id must be below it.

    Raises:
        ModelError: there is no tokenizer, or it returns ids that the model has no output for.
        TextError: the text holds half of a surrogate pair, which no encoding of Unicode can store.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"character {error.start} of the text is half of a surrogate pair: save it as UTF-8"
        ) from error
    ids = require(tokenizer, name)(
        text, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    if ids and max(ids) >= vocab_size:
        given = f"{max(ids)}, and the model has {vocab_size} outputs"
        raise ModelError(
            f"the tokenizer that comes with {name!r} is not its own: it gives the id {given}"
        )
    return ids


def detokenize(
    tokenizer: PreTrainedTokenizerBase | None,
    ids: Sequence[int] | Int[Tensor, " tokens"],
    *,
    name: str,
) -> str:
    """The text of ids: special tokens are spelled out, and no space is cleaned up.

    Raises:
        ModelError: there is no tokenizer.
    """
    numbers = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    return require(tokenizer, name).decode(
        numbers, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def token_texts(
    tokenizer: PreTrainedTokenizerBase | None, ids: Iterable[int], *, known: int
) -> dict[int, str]:
    """The text of single tokens, for display; empty without a tokenizer.

    A token of part of a character is shown as U+FFFD.

    Args:
        known: ids from here on have no text.
    """
    if tokenizer is None:
        return {}
    found = {}
    for token in ids:
        if not 0 <= token < known:
            found[token] = ""
            continue
        text = detokenize(tokenizer, [token], name="")
        # Tokenizers of SentencePiece drop the space at the beginning of a text.
        piece = str(cast(Any, tokenizer).convert_ids_to_tokens(token))
        found[token] = f" {text}" if piece.startswith("\u2581") and text[:1] != " " else text
    return found


def longest_token(tokenizer: PreTrainedTokenizerBase | None, *, name: str) -> int:
    """Bytes of the longest entry of the vocabulary, as the tokenizer spells it.

    Raises:
        ModelError: there is no tokenizer.
    """
    return max(
        len(token.encode("utf-8", "surrogatepass"))
        for token in require(tokenizer, name).get_vocab()
    )


def require(tokenizer: PreTrainedTokenizerBase | None, name: str) -> Any:
    """The tokenizer.

    Raises:
        ModelError: the model was made without one.
    """
    if tokenizer is None:
        raise ModelError(
            f"{name!r} has no tokenizer: give ids in place of text, or load it from a folder with"
            " one"
        )
    return tokenizer


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides how text becomes ids and ids become text.

    Truncation and padding are left out, because a mere call of the tokenizer changes them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    form = (
        json.loads(backend.to_str())
        if backend is not None
        else {"vocabulary": sorted(tokenizer.get_vocab().items())}
    )
    form = {key: value for key, value in form.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(form, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
