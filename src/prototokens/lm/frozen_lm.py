"""FrozenLM: a frozen causal language model, from ids to input vectors to hidden states to logits.

The rest of the package uses `embed`, `hidden`, `logits` and the tokenizer, and is independent of
the model's family. The work behind the methods is in the other modules of `lm`: `locate` finds a
model, `loading` loads it, `checks` tests that it can be used, `prefix` and `fast_llama` run its
body, `tokenization` and `autoregressive` do what their names say. Losses and fitting belong to
`engine`.
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
    config_values,
    loading,
    release,
    response,
    tokenization,
)
from prototokens.lm.fast_llama import FastLlama, fast_llama
from prototokens.lm.head import EmbeddingScale, Head
from prototokens.lm.llama_layer import KeyValue
from prototokens.lm.local import BUILTIN
from prototokens.lm.locate import quiet, recorded_name
from prototokens.lm.prefix import (
    AUTO,
    PrefixedBody,
    RecentPrefixes,
    first_position_response,
    prefix_ids,
    run_with_prefix,
)

UNLIMITED = 1 << 20  # longest target, in tokens, for a model that states no maximum context


class FrozenLM(release.Releasable):
    """A causal LM whose weights never change, with its tokenizer.

    Attributes:
        name: what the user called the model: "builtin", a folder, a GGUF file or a hub id.
        recorded_name: what files call the model (`locate.recorded_name`).
        revision: the commit on the hub that was loaded, or None.
        model: the transformers model: frozen, in evaluation mode.
        tokenizer: the transformers tokenizer, or None for a model made in memory without one.
        head: from hidden states to logits.
        fingerprint: hash of the weights in the checkpoint's own dtype, which does not depend on the
            dtype they are cast to.
        tokenizer_hash: hash of the tokenizer's serialised form without truncation and padding;
            empty without a tokenizer.
        d_model: width of an input embedding, and so of a proto-token.
        hidden_size: width of the head's input; in a few models (OPT-350M) not `d_model`.
        vocab_size: number of logits.
        max_context: largest number of positions, or None where the model states no limit (Mamba).
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

        It is not copied but frozen itself, and switched to evaluation mode; `release()`, or the
        end of `with FrozenLM(model) as lm:`, gives it back as it was.

        Args:
            model: a causal LM of transformers.
            tokenizer: its tokenizer; without one, `tokenize` and `detokenize` raise an error.
            name: what messages and files call the model.
            revision: commit on the hub, if the model came from there.
            fingerprint: hash of the weights before they were cast; None if they were not cast, in
                which case they are hashed now.

        Raises:
            ModelError: the model cannot be used this way.
        """
        self.name, self.revision, self.model, self.tokenizer = name, revision, model, tokenizer
        self.recorded_name = recorded_name(name)
        self._before = release.freeze(model)
        attention.use_plain(model)
        self._body, self._embedding, head = checks.parts(model, name)
        config = model.config.get_text_config()
        linear = Head(cast(Tensor, head.weight), cast("Tensor | None", getattr(head, "bias", None)))
        heads = [
            replace(linear, scale=scale, softcap=softcap)
            for scale, softcap in config_values.head_candidates(config)
        ]
        self._embed_scale = 1.0
        scales = config_values.embed_scales(config)
        embeds = [partial(self._look_up, scale=scale) for scale in scales]
        with quiet():
            found = checks.probe(model, name, embeds, self.hidden, list(heads))
        self._embed_scale = scales[found.embed]
        self.head = replace(heads[found.head], dtype=found.dtype)
        self.fingerprint = fingerprint or self.weights_hash()
        self._compiled: Any = None
        self._prefix_caches = RecentPrefixes[list[KeyValue]]()
        self.tokenizer_hash = "" if tokenizer is None else tokenization.tokenizer_hash(tokenizer)
        self.vocab_size, self.hidden_size = self.head.weight.shape
        self.d_model: int = cast(Tensor, self._embedding.weight).shape[1]
        self.max_context = config_values.max_context(config)

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
            dtype: "float32", "bfloat16", "float16", or "auto". With "auto" it is bfloat16 if the
                checkpoint has 16 bits (a quantised GGUF file counts as such) and the device
                multiplies bfloat16 clearly faster than float32 (on a CPU this is measured, in
                milliseconds), else float32.
            device: by default a GPU if there is one, else the CPU.
            trust_remote_code: whether Python code that comes with a model may be run.

        Raises:
            ModelError: the model is not found, out of reach, incomplete, or cannot be used this
                way.
            UsageError: the dtype or the device is not available, or a revision is given for
                something that has none.
            MissingExtraError: the extra `gguf`, which GGUF files need, is not installed.
        """
        name = os.fspath(name_or_path)
        loaded = loading.load(name, revision, dtype, device, trust_remote_code)
        return cls(**loaded._asdict(), name=name)

    def __repr__(self) -> str:
        size = (
            f"d_model={self.d_model}, vocab_size={self.vocab_size}, max_context={self.max_context}"
        )
        return f"FrozenLM({self.name!r}, {size}, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the input embeddings; `hidden` casts its inputs to it."""
        return cast(Tensor, self._embedding.weight).dtype

    @cached_property
    def embedding_weight(self) -> Float[Tensor, "ids d_model"]:
        """The input vector of every id, as `embed` gives it.

        This is the model's own embedding table, or a scaled copy of it in families that scale
        embeddings (Gemma, Falcon-H1).
        """
        table = cast(Tensor, self._embedding.weight).detach()
        ids = torch.arange(table.shape[0], device=table.device)
        return table if torch.equal(self.embed(ids[:4]), table[:4]) else self.embed(ids)

    @cached_property
    def embedding_scale(self) -> EmbeddingScale:
        """Mean, standard deviation and root mean square of the input embeddings."""
        table = self.embedding_weight.float().cpu()
        return EmbeddingScale(table.mean(0), table.std(0), table.square().mean().sqrt().item())

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_model"]:
        """The vectors that the model's own forward pass takes as `inputs_embeds` for these ids."""
        with torch.no_grad():
            return self._look_up(ids, self._embed_scale)

    def _look_up(self, ids: Int[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape d_model"]:
        """Embeddings of ids, times the factor that some bodies apply to ids alone (Falcon-H1)."""
        vectors = self._embedding(ids)
        return vectors if scale == 1.0 else vectors * scale

    @cached_property
    def response(self) -> list[float]:
        """Hidden state after fixed input vectors (`lm.response`); files record it.

        It detects a change in the model's code, which the fingerprint of the weights does not.
        """
        return response.respond(self.hidden, cast(Tensor, self._embedding.weight).detach())

    def compile(self) -> None:
        """Compile the body for fits, which then pad their rows to few shapes.

        Compilation takes about a minute for each shape and makes steps faster. Everything else,
        decoding included, still runs the original body: the hidden states of the two may differ in
        their last bits.
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

        They are differentiable with respect to the inputs. There is no attention mask: under causal
        attention, padding after the end of a row cannot change the row.

        Args:
            prefix: token ids that stand before every row; their keys and values are computed once
                and kept.
        """
        return self._prefixed_body(inputs_embeds.to(self.dtype), prefix)

    def hidden_lean(
        self, inputs_embeds: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """Bit-identical to `hidden`, and faster for models with a hand-written body (`fast_llama`).

        Hooks on the model's modules do not run, and there are no second derivatives.
        """
        plain = self.model.config._attn_implementation == attention.PLAIN
        length = inputs_embeds.shape[1] + len(prefix)
        if not plain or length > attention.MAX_LENGTH or self._fast_body is None:
            return self.hidden(inputs_embeds, prefix)
        cache = self._prefix_cache(prefix) if prefix else None
        return self._fast_body(inputs_embeds.to(self.dtype), cache)

    def hidden_static(
        self, inputs_embeds: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """By the compiled body after `compile`, else as `hidden_lean`.

        The first call for a shape compiles the body for it.
        """
        if self._compiled is None:
            return self.hidden_lean(inputs_embeds, prefix)
        with compiling.readable_errors():
            return run_with_prefix(self._compiled, self.embed, inputs_embeds.to(self.dtype), prefix)

    @cached_property
    def _fast_body(self) -> FastLlama | None:
        return fast_llama(self._body, self.model.config.get_text_config())

    @cached_property
    def _prefixed_body(self) -> PrefixedBody:
        return PrefixedBody(self._body, self.embed)

    def _prefix_cache(self, prefix: tuple[int, ...]) -> list[KeyValue]:
        """Keys and values of a prefix in the hand-written body."""
        body, ids = self._fast_body, torch.tensor([prefix], device=self.device)
        assert body is not None
        return self._prefix_caches.get_or_make(
            prefix, lambda: body.prefix_cache(self.embed(ids).to(self.dtype))
        )

    @property
    def bos(self) -> int | None:
        """The id of the beginning-of-sequence token; None without one that the model can embed."""
        token = None if self.tokenizer is None else self.tokenizer.bos_token_id
        return token if isinstance(token, int) and 0 <= token < self.known_ids else None

    @cached_property
    def sink_response(self) -> float:
        """How strongly the first position's output responds to its input, relative to behind BOS.

        It is near zero where the first position is an attention sink
        (`prefix.first_position_response`), and 1.0 for a model without a BOS token.
        """
        if self.bos is None:
            return 1.0
        scale = self.embedding_scale
        return first_position_response(
            self.hidden, (scale.mean.to(self.device), scale.std.to(self.device)), (self.bos,)
        )

    def prefix_ids(self, prefix: str | Sequence[int] = AUTO) -> tuple[int, ...]:
        """The token ids of a prefix: `auto`, `none`, `bos`, `text:...` or ids (`lm.prefix`)."""
        return prefix_ids(self, prefix)

    @property
    def known_ids(self) -> int:
        """Number of rows of the embedding table: every id below it has an input vector."""
        return cast(Tensor, self._embedding.weight).shape[0]

    def logits(
        self, hidden: Float[Tensor, "*positions hidden"]
    ) -> Float[Tensor, "*positions vocab"]:
        """Logits of hidden states, as the model itself computes them."""
        return self.head(hidden)

    def longest_target(self, layout: Layout) -> int:
        """The longest target, in tokens, whose input and prefix fit into the model's context."""
        if self.max_context is None:
            return UNLIMITED
        return self.max_context - len(layout.prefix) - (layout.positions(1) - 1)

    def flops_per_position(self) -> float:
        """Floating-point operations of a forward and a backward pass, for each position.

        The backward pass is that to the inputs. Products with the matrices of the body and the head
        are counted; products of queries, keys and values are not.
        """
        tables = (module for module in self.model.modules() if isinstance(module, nn.Embedding))
        excluded = {id(self.head.weight), *(id(w) for table in tables for w in table.parameters())}
        body = sum(
            weight.numel()
            for weight in self.model.parameters()
            if weight.ndim == 2 and id(weight) not in excluded
        )
        return 4.0 * (body + self.head.weight.numel())

    def weights_hash(self) -> str:
        """Hash of the weights as they are in memory now; it changes with any bit of them."""
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

    encode, decode = tokenize, detokenize  # the former names, for scripts that use them

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
