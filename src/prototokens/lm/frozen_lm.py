"""FrozenLM: a causal language model, loaded, frozen and proved unchanged.

Ids to vectors to hidden states to logits.

The rest of the package sees `embed`, `hidden`, `logits` and the tokenizer, whatever the family:
only this file and `lm.gguf_model`, which reads GGUF files, import transformers' models. Where a
model is found is settled in `lm.locate`, what it must be able to do is tried in `lm.checks`;
fitting, and any loss, belong to `engine`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prototokens.layout import Layout
from prototokens.lm import (
    attention,
    autoregressive,
    checks,
    compiling,
    loading,
    response,
    tokenization,
)
from prototokens.lm.fast_llama import FastLlama, fast_llama
from prototokens.lm.head import EmbeddingScale, Head
from prototokens.lm.llama_layer import KeyValue
from prototokens.lm.locate import BUILTIN, quiet, recorded_name
from prototokens.lm.prefix import (
    AUTO,
    OfPrefixes,
    PrefixedBody,
    fed,
    first_position_response,
    prefix_ids,
)

UNLIMITED = 1 << 20  # longest target, in tokens, for a model that states no maximum context


class FrozenLM:
    """A causal LM whose weights never change, with its tokenizer.

    Attributes:
        name: as it was given: "builtin", a folder, a GGUF file, a hub id.
        revision: the commit on the hub that was loaded, or None.
        model: the transformers model itself: frozen, in evaluation mode.
        tokenizer: the transformers tokenizer, or None for a model made in memory without one.
        head: from hidden states to logits.
        fingerprint: hash of the weights in the checkpoint's own dtype: the same whatever dtype they
            were cast to here.
        tokenizer_hash: hash of the tokenizer's serialised form, truncation and padding apart; empty
            without a tokenizer.
        d_model: width of an input embedding, so of a proto-token.
        hidden_size: width of what the head takes; differs from `d_model` in a few models (OPT-350M
            has two widths).
        vocab_size: number of logits.
        max_context: most positions the model takes, or None where it states no limit (Mamba).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        name: str = "in-memory",
        revision: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Wrap a model that is in memory already.

        The model is not copied: it is frozen, put into evaluation mode, and, in bfloat16 on a CPU,
        attends as `attention` says.

        Args:
            model: a causal LM of transformers.
            tokenizer: its tokenizer; without one, `tokenize` and `detokenize` raise an error.
            name: what messages and files call it.
            revision: commit on the hub, where there is one.
            fingerprint: hash of the weights before they were cast; None: they were not, and are
                hashed as they are.

        Raises:
            ModelError: the model cannot be used this way.
        """
        self.name, self.revision, self.model, self.tokenizer = name, revision, model, tokenizer
        self.recorded_name = recorded_name(name)
        model.eval().requires_grad_(False)
        attention.use_plain(model)
        self._body, self._table, readout = checks.parts(model, name)
        config = model.config.get_text_config()
        linear = Head(
            cast(Tensor, readout.weight), cast("Tensor | None", getattr(readout, "bias", None))
        )
        heads = [
            replace(linear, scale=scale, softcap=softcap)
            for scale, softcap in checks.head_candidates(config)
        ]
        self._embed_scale = 1.0
        scales = checks.embed_scales(config)
        embeds = [partial(self._scaled, scale=scale) for scale in scales]
        with quiet():
            found = checks.probe(model, name, embeds, self.hidden, list(heads))
        self._embed_scale, self.head = (
            scales[found.embed],
            replace(heads[found.head], dtype=found.dtype),
        )
        self.fingerprint = fingerprint or self.weights_hash()
        self._compiled: Any = None
        self._pasts = OfPrefixes[list[KeyValue]]()
        self.tokenizer_hash = "" if tokenizer is None else tokenization.tokenizer_hash(tokenizer)
        self.vocab_size, self.hidden_size = self.head.weight.shape
        self.d_model: int = cast(Tensor, self._table.weight).shape[1]
        stated = (
            getattr(config, key, None)
            for key in ("max_position_embeddings", "n_positions", "max_seq_len")
        )
        self.max_context: int | None = next(
            (value for value in stated if isinstance(value, int) and value > 0), None
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = BUILTIN,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> FrozenLM:
        """Load a model and its tokenizer.

        Args:
            name_or_path: "builtin", a folder, a GGUF file, or the id of a model on the Hugging Face
                hub.
            revision: branch, tag or commit, for a hub id.
            dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the checkpoint has 16
                bits (a quantised GGUF file counts as such) and the device multiplies bfloat16
                clearly faster than float32 (a CPU is tried, in milliseconds), else float32.
            device: None: a GPU if there is one, else the CPU.
            trust_remote_code: whether Python code that comes with a model may be run.

        Raises:
            ModelError: not found, out of reach, incomplete, or not a model that can be used this
                way.
            UsageError: a dtype or a device that cannot be had, or a revision of something that has
                none.
            MissingExtraError: a GGUF file, and the extra `gguf` is not installed.
        """
        name = os.fspath(name_or_path)
        loaded = loading.load(
            name,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        return cls(
            loaded.model,
            loaded.tokenizer,
            name=name,
            revision=loaded.revision,
            fingerprint=loaded.fingerprint,
        )

    def __repr__(self) -> str:
        size = (
            f"d_model={self.d_model}, vocab_size={self.vocab_size}, max_context={self.max_context}"
        )
        return f"FrozenLM({self.name!r}, {size}, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the input vectors that the model computes with; `hidden` casts to it."""
        return cast(Tensor, self._table.weight).dtype

    @cached_property
    def embedding_weight(self) -> Float[Tensor, "ids d_model"]:
        """The input vector of every id, as `embed` gives it.

        The model's own table where that is the same; a scaled copy, made at the first use, where it
        is not (Gemma, Falcon-H1).
        """
        table = cast(Tensor, self._table.weight).detach()
        ids = torch.arange(table.shape[0], device=table.device)
        return table if torch.equal(self.embed(ids[:4]), table[:4]) else self.embed(ids)

    @cached_property
    def embedding_scale(self) -> EmbeddingScale:
        """On what scale the model's input vectors lie; the table is read once for all fits."""
        table = self.embedding_weight.float().cpu()
        return EmbeddingScale(table.mean(0), table.std(0), table.square().mean().sqrt().item())

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_model"]:
        """The vectors that the model's own forward pass takes as `inputs_embeds` for these ids."""
        with torch.no_grad():
            return self._scaled(ids, self._embed_scale)

    def _scaled(self, ids: Int[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape d_model"]:
        """Rows of the embedding table, times a factor that some bodies apply to ids alone (Falcon-H1)."""
        vectors = self._table(ids)
        return vectors if scale == 1.0 else vectors * scale

    @cached_property
    def response(self) -> list[float]:
        """How the model's code answers to fixed vectors (`lm.response`).

        What files are held against, beside the weights.
        """
        return response.respond(self.hidden, cast(Tensor, self._table.weight).detach())

    def compile(self) -> None:
        """Compile the body for fits, which then pad their rows to few shapes.

        About a minute for each, and faster steps.

        All else, decoding among it, runs the body as it is; the compiled one's numbers may differ
        from its in their last bits.
        """
        if self._compiled is None:
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self._compiled = torch.compile(self._body, dynamic=False, mode=mode)

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None

    def hidden(
        self, inputs_embeds: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """Hidden states after the final norm, by the model's own body.

        Differentiable with respect to the inputs.

        No attention mask: under causal attention, what stands to the right of a row's end cannot
        touch the row.

        Args:
            prefix: token ids that stand before every row; their keys and values are computed once
                and kept.
        """
        return self._prefixed(inputs_embeds.to(self.dtype), prefix)

    def hidden_lean(
        self, inputs_embeds: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """As `hidden`, to the bit, in less time where the model is of a kind that has a hand-written body (`fast_llama`).

        Nothing that hooks into the model's own modules sees it; it is differentiable once.
        """
        plain = self.model.config._attn_implementation == attention.PLAIN
        length = inputs_embeds.shape[1] + len(prefix)
        if not plain or length > attention.LONGEST or self._fast is None:
            return self.hidden(inputs_embeds, prefix)
        return self._fast(inputs_embeds.to(self.dtype), self._past(prefix) if prefix else None)

    def hidden_static(
        self, inputs_embeds: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """As `hidden_lean`, or by the compiled body where there is one, which is compiled anew for every shape it meets."""
        if self._compiled is None:
            return self.hidden_lean(inputs_embeds, prefix)
        with compiling.in_words():
            return fed(self._compiled, self.embed, inputs_embeds.to(self.dtype), prefix)

    @cached_property
    def _fast(self) -> FastLlama | None:
        return fast_llama(self._body, self.model.config.get_text_config())

    @cached_property
    def _prefixed(self) -> PrefixedBody:
        return PrefixedBody(self._body, self.embed)

    def _past(self, prefix: tuple[int, ...]) -> list[KeyValue]:
        """Keys and values of a prefix in the hand-written body."""
        fast, ids = self._fast, torch.tensor([prefix], device=self.device)
        assert fast is not None
        return self._pasts.of(prefix, lambda: fast.past(self.embed(ids).to(self.dtype)))

    @property
    def bos(self) -> int | None:
        """The id of the beginning-of-sequence token, or None where the tokenizer has none that the model can read."""
        token = None if self.tokenizer is None else self.tokenizer.bos_token_id
        return token if isinstance(token, int) and 0 <= token < self.known_ids else None

    @cached_property
    def sink_response(self) -> float:
        """How strongly the first position's output responds to its input, as a share of that behind BOS; 1.0 without a BOS.

        Near zero where the first position is an attention sink (`prefix.first_position_response`).
        """
        if self.bos is None:
            return 1.0
        scale = self.embedding_scale
        return first_position_response(
            self.hidden, (scale.mean.to(self.device), scale.std.to(self.device)), (self.bos,)
        )

    def prefix_ids(self, prefix: str | Sequence[int] = AUTO) -> tuple[int, ...]:
        """The token ids of a prefix (`lm.prefix.prefix_ids`).

        `auto`, `none`, `bos`, `text:...`, or ids.
        """
        return prefix_ids(self, prefix)

    @property
    def known_ids(self) -> int:
        """Number of ids that have an input vector: those below it."""
        return cast(Tensor, self._table.weight).shape[0]

    def logits(
        self, hidden: Float[Tensor, "*positions hidden"]
    ) -> Float[Tensor, "*positions vocab"]:
        """Logits of hidden states, as the model itself gives them."""
        return self.head(hidden)

    def longest_target(self, layout: Layout) -> int:
        """The longest target, in tokens, whose input the model's context holds behind the layout's prefix."""
        if self.max_context is None:
            return UNLIMITED
        return self.max_context - len(layout.prefix) - (layout.positions(1) - 1)

    def flops_per_position(self) -> float:
        """Floating-point operations of a forward pass and a backward pass to the inputs, for each position.

        The matrices of the body and the head are counted; the attention's own products are left
        out.
        """
        tables = (module for module in self.model.modules() if isinstance(module, nn.Embedding))
        ends = {
            id(self.head.weight),
            *(id(weight) for table in tables for weight in table.parameters()),
        }
        body = sum(
            weight.numel()
            for weight in self.model.parameters()
            if weight.ndim == 2 and id(weight) not in ends
        )
        return 4.0 * (body + self.head.weight.numel())

    def weights_hash(self) -> str:
        """Hash of the weights as they are in memory now.

        Equal before and after: not one bit has changed.
        """
        return checks.state_hash(self.model)

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, without any special token around it.

        Raises:
            ModelError: there is no tokenizer, or it returns ids that the model has no output for.
            TextError: the text holds half of a surrogate pair, which no encoding of Unicode can
                store.
        """
        return tokenization.tokenize(
            self.tokenizer, text, name=self.name, vocab_size=self.vocab_size
        )

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest entry of the vocabulary, as the tokenizer spells it.

        No token of a text is longer.
        """
        return tokenization.longest_token(self.tokenizer, name=self.name)

    def detokenize(self, ids: Sequence[int] | Int[Tensor, " tokens"]) -> str:
        """The text of ids: special tokens are spelled out, and no space is cleaned up."""
        return tokenization.detokenize(self.tokenizer, ids, name=self.name)

    def generate(
        self, prompt: Int[Tensor, "rows tokens"] | Float[Tensor, "rows vectors d_model"], count: int
    ) -> Int[Tensor, "rows count"]:
        """The `count` tokens that greedy decoding appends to a prompt, with a key-value cache.

        This is ordinary autoregressive decoding: one forward pass for each token.

        Args:
            prompt: ids, or input vectors in their place.
        """
        return autoregressive.generate(self, prompt, count)

    def surprisal(self, ids: Sequence[int] | Int[Tensor, " tokens"]) -> Float32[Tensor, " tokens"]:
        """Surprisal of each token given the tokens before it: -log p, in nats.

        The first token is predicted from the tokenizer's beginning-of-sequence token, or, where it
        has none, counts as one of `vocab_size` equally likely tokens. A text longer than a window
        (the context, 4096 at most; 1024 where the context is unlimited) is read in windows that
        overlap by half, each behind a beginning-of-sequence token of its own, so that every token
        has at least half a window of text before it.
        """
        return autoregressive.surprisal(self, ids)

    def predictions(
        self, tokens: Int64[Tensor, " tokens"]
    ) -> Iterator[tuple[int, Float32[Tensor, "positions vocab"]]]:
        """Next-token logits for every token of a text, given the tokens before it.

        A long text is read in windows, as `surprisal` reads it.

        Returns:
            Pairs of the index of the first token of a chunk and the logits for all its tokens; the
            chunks are consecutive and cover the text.
        """
        return autoregressive.predictions(self, tokens)
