"""Whether a model is the one that the vectors of an encoded text were fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototokens._util.versions import versions
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.local import GGUF_SUFFIX
from prototokens.lm.response import differ

if TYPE_CHECKING:
    from prototokens.ptok.encoded import EncodedText


def check_model(encoded: EncodedText, lm: FrozenLM, any_model: bool = False) -> None:
    """Refuse a model that is not the one the vectors were fitted to.

    Args:
        any_model: let other weights and another tokenizer pass; that the text comes out is then for
            its hash to say.

    Raises:
        FileError: another model, or another tokenizer.
    """
    made_for, this = encoded.header.model, encoded.path or "the encoded text"
    if not any_model and made_for.fingerprint != lm.fingerprint:
        raise FileError(
            f"{this} was made for the model {made_for.name!r} (fingerprint"
            f" {made_for.fingerprint[:12]!r}), and"
            f" {lm.name!r} has fingerprint {lm.fingerprint[:12]!r}: vectors mean nothing to"
            " other weights;"
            f" {_advice(made_for.name, lm)}"
        )
    if not any_model and encoded.header.tokenizer != lm.tokenizer_hash:
        raise FileError(
            f"{this} was made with another tokenizer than that of {lm.name!r} (hash"
            f" {encoded.header.tokenizer[:12]!r}"
            f" against {lm.tokenizer_hash[:12]!r}): the ids would be read as other text"
        )
    if not any_model and made_for.response and differ(list(made_for.response), lm.response):
        made_with, here = (
            encoded.header.versions.get("transformers"),
            versions()["transformers"],
        )
        raise FileError(
            f"{this} was made with the weights of {lm.name!r}, but the code of transformers"
            f" {made_with!s:.20} took input"
            f" vectors otherwise than that of transformers {here} here: decode it with that"
            " version, or encode the text"
            " again"
        )
    lengths = [encoded.header.chunks[number] for number in encoded.in_vectors()]
    longest, most = max(lengths, default=1), lm.longest_target(encoded.layout)
    if made_for.d_model != lm.d_model or longest > most:
        raise FileError(
            f"{this} is damaged: it holds vectors of width {made_for.d_model} and chunks of"
            f" up to {longest} tokens, and"
            f" {lm.name!r} takes width {lm.d_model} and at most {most} tokens"
        )
    if max(encoded.layout.prefix, default=0) >= lm.known_ids:
        raise FileError(f"{this} is damaged: its prefix has tokens that {lm.name!r} does not know")
    if max(encoded.extras.tokens(), default=0) >= lm.vocab_size:
        raise FileError(f"{this} is damaged: it patches in tokens that {lm.name!r} does not have")


def _advice(made_for: str, lm: FrozenLM) -> str:
    """What to do about a model of other weights than a file was made for."""
    if made_for.lower().endswith(GGUF_SUFFIX) and lm.recorded_name.lower().endswith(GGUF_SUFFIX):
        return (
            "the quantisation of the two GGUF files may differ: name the very file that the vectors"
            " were made for"
        )
    return (
        "that model has changed since"
        if made_for == lm.recorded_name
        else "name the model they were made for"
    )
