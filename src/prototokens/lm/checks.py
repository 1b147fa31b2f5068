"""What is asked of a model before it is used.

Its parts, a trial run of four positions, and the hash of its weights.

The engine rests on three facts that no configuration states: a position's output depends on no
later input, the logits are one linear map of the last hidden states (with a scale and a soft cap at
most), and gradients reach the inputs. Each is tried here rather than believed, so that a model of
an unknown family either works or is refused in a sentence. Nothing here loads a model: that is
`frozen_lm`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prototokens.errors import ModelError

PROBE_POSITIONS = 4
HASH_THREADS = 4
# What configurations call the numbers that a head applies after its linear map; the trial run says
# which are really used.
SOFTCAP_NAMES = ("final_logit_softcapping", "output_logit_soft_cap", "logits_soft_cap")
SCALE_NAMES = ("logit_scale", "logits_scaling", "lm_head_multiplier")


# What they call a factor that some bodies apply to the embeddings of ids, and not to vectors that
# stand in for them.
EMBED_SCALE_NAMES = (
    "embedding_multiplier",
    "embedding_scale",
    "scale_emb",
    "embed_scale",
    "input_scale",
)
FREE_NOISE = 0.5  # of the embeddings' size: vectors of the trial run that are in no table


class Probed(NamedTuple):
    """What the trial run found.

    Attributes:
        embed: the number of the way from ids to input vectors that the model itself takes.
        head: the number of the head that gives the model's own logits.
        dtype: of these logits.
    """

    embed: int
    head: int
    dtype: torch.dtype


class Parts(NamedTuple):
    """Where a causal LM keeps what is needed of it.

    Attributes:
        body: from input vectors to the hidden states after the final norm.
        table: from ids to input vectors.
        readout: from hidden states to logits: has a `weight` `[vocab, hidden]` and perhaps a `bias`
            `[vocab]`.
    """

    body: nn.Module
    table: nn.Module
    readout: nn.Module


def one_line(error: BaseException) -> str:
    """The first line of an error's own words, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def parts(model: Any, name: str) -> Parts:
    """Find body, embedding table and head of a causal LM.

    Args:
        model: any transformers model.
        name: what the user called it, for the message.

    Raises:
        ModelError: an encoder-decoder, or a model without an embedding table or without a head over
            the vocabulary.
    """
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name!r} is an encoder-decoder ({kind}): a causal language model is needed"
        )
    try:
        table, readout, body = (
            model.get_input_embeddings(),
            model.get_output_embeddings(),
            model.base_model,
        )
    except (AttributeError, NotImplementedError) as error:
        raise ModelError(
            f"{name!r} ({kind}) has no table of token embeddings: a causal language model is needed"
        ) from error
    if readout is None or body is model or getattr(readout, "weight", None) is None:
        raise ModelError(
            f"{name!r} ({kind}) has no head over its vocabulary: a causal language model is needed"
        )
    return Parts(body, table, readout)


def head_candidates(config: object) -> Iterator[tuple[float, float | None]]:
    """What the head may do after its linear map.

    Pairs of scale and soft cap, the ones that the configuration names first.

    A number called `logits_scaling` is a divisor in one family and a factor in another, so each is
    offered both ways.
    """
    named = [_number(config, name) for name in SCALE_NAMES]
    scales = [scale for value in named if value for scale in (value, 1 / value)]
    softcaps = [value for value in (_number(config, name) for name in SOFTCAP_NAMES) if value]
    return product([*scales, 1.0], [*softcaps, None])


def embed_scales(config: object) -> list[float]:
    """Factors on the rows of the embedding table that a body may apply to ids alone.

    1, which most models take, comes first.
    """
    named = [value for name in EMBED_SCALE_NAMES if (value := _number(config, name))]
    width = _number(config, "hidden_size")
    return list(dict.fromkeys([1.0, *named, *([width**0.5] if width else [])]))


def probe(
    model: Any,
    name: str,
    embeds: list[Callable[[Tensor], Tensor]],
    hidden: Callable[[Tensor], Tensor],
    heads: list[Callable[[Tensor], Tensor]],
) -> Probed:
    """Run the model on four positions, its own way and ours, and compare.

    Args:
        model: the whole model.
        name: what the user called it, for the messages.
        embeds: ways to get from ids `[rows, seq]` to input vectors `[rows, seq, d_model]`, the
            likeliest first.
        hidden: input vectors to hidden states `[rows, seq, hidden]`.
        heads: ways to get from hidden states to logits `[rows, seq, vocab]`, the likeliest first.

    Raises:
        ModelError: the model is not causal, cannot be run on vectors, does more than its parts say,
            or passes no gradient on.
    """
    ids = _probe_ids(model)
    with torch.no_grad():
        own = _logits(model, name, input_ids=ids)
        vectors = embeds[0](ids)
    if not own.isfinite().all():
        dtype = str(vectors.dtype).removeprefix("torch.")
        raise ModelError(
            f"{name!r} gives numbers that are not finite in {dtype}: ask for another dtype or check"
            " its weights"
        )
    tolerance = _tolerance(own, vectors.dtype)
    if (own[0, :-1] - own[1, :-1]).abs().max() > tolerance:
        raise _not_causal(name)
    # First of all: a body that searches its table for the ids of vectors takes gigabytes to do so
    # (Gemma 4 E2B).
    if table := _second_table(model, name, ids, own, tolerance):
        raise ModelError(
            f"{name!r} looks ids up in a second table ({table}), beside its input embeddings:"
            " vectors cannot stand in for"
            " its tokens"
        )
    number, which = _same_logits(model, name, ids, embeds, hidden, heads, own)
    vectors = _in_no_table(embeds[number](ids)).requires_grad_()
    with torch.enable_grad():
        states = _run_on_vectors(name, hidden, vectors)
        _check_gradient(vectors, heads[which](states), name)
    return Probed(number, which, own.dtype)


def _same_logits(
    model: Any,
    name: str,
    ids: Tensor,
    embeds: list[Callable[[Tensor], Tensor]],
    hidden: Callable[[Tensor], Tensor],
    heads: list[Callable[[Tensor], Tensor]],
    own: Tensor,
) -> tuple[int, int]:
    """The numbers of the first way to embed and the first head that together give the model's own logits.

    Raises:
        ModelError: there are none.
    """
    for number, embed in enumerate(embeds):
        with torch.no_grad():
            vectors = embed(ids)
            states = _run_on_vectors(name, hidden, vectors)
        which = _agreeing(heads, states, own, _tolerance(own, vectors.dtype))
        if which is not None:
            return number, which
    with torch.no_grad():
        vectors = embeds[0](ids)
        states = _run_on_vectors(name, hidden, vectors)
        on_vectors = _logits(model, name, inputs_embeds=vectors)
    if _agreeing(heads, states, on_vectors, _tolerance(own, vectors.dtype)) is not None:
        raise ModelError(
            f"{name!r} does more with ids than look up embeddings: vectors cannot stand in for its"
            " tokens"
        )
    raise ModelError(
        f"{name!r} cannot be used here: its head does more than a linear map of the last hidden"
        " states"
    )


def _run_on_vectors(name: str, hidden: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    try:
        return hidden(vectors)
    except Exception as error:
        raise ModelError(
            f"{name!r} cannot be run on vectors in place of tokens (inputs_embeds):"
            f" {one_line(error)}"
        ) from error


def _in_no_table(vectors: Tensor) -> Tensor:
    """Vectors near these, that belong to no token: what a fit will give the model."""
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0)).to(vectors)
    return vectors + FREE_NOISE * vectors.float().square().mean().sqrt().to(vectors.dtype) * noise


@torch.no_grad()
def _second_table(model: Any, name: str, ids: Tensor, own: Tensor, tolerance: float) -> str | None:
    """The name of a table, other than that of the input embeddings, in which the model looks ids up, if that counts.

    It counts where other rows of it give other logits.
    """
    first, seen = model.get_input_embeddings(), {}

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if (
            given
            and isinstance(given[0], Tensor)
            and given[0].shape == ids.shape
            and torch.equal(given[0], ids)
        ):
            seen[module] = True

    tables = {
        module: path for path, module in model.named_modules() if isinstance(module, nn.Embedding)
    }
    tables.pop(first, None)
    hooks = [table.register_forward_pre_hook(note) for table in tables]
    try:
        if not hooks:
            return None
        _logits(model, name, input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    for table in seen:
        hook = table.register_forward_hook(lambda module, given, rows: rows.roll(1, 1))
        try:
            other = _logits(model, name, input_ids=ids)
        finally:
            hook.remove()
        if (other - own).abs().max() > tolerance:
            return tables[table]
    return None


def state_hash(model: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every entry of a model's state, in the order of the names.

    Entries that share memory (tied weights) are read once and named each, so it does not matter
    which of them is tied to which.

    Returns:
        64 hexadecimal digits.
    """
    state = sorted(model.state_dict().items())
    shared = {_memory(tensor): tensor for _, tensor in state}
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = dict(zip(shared, pool.map(_digest, shared.values()), strict=True))
    whole = hashlib.sha256(b"prototokens state 1\n")
    for name, tensor in state:
        dtype, shape = str(tensor.dtype).removeprefix("torch."), "x".join(map(str, tensor.shape))
        whole.update(f"{name}\t{dtype}\t{shape}\t{digests[_memory(tensor)]}\n".encode())
    return whole.hexdigest()


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two tensors that are one and the same stretch of memory read the same way."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _digest(tensor: Tensor) -> str:
    # A view of the memory as bytes; only a tensor elsewhere than in main memory, or one with gaps,
    # is copied.
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().data).hexdigest()


def _number(config: object, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _probe_ids(model: Any) -> Int[Tensor, "rows seq"]:
    """Two rows of four ids that differ in the last alone.

    From all over the vocabulary, but not the padding id.
    """
    table = model.get_input_embeddings().weight
    padding = getattr(model.config, "pad_token_id", None)
    ids = [index for index in range(table.shape[0]) if index != padding]
    if len(ids) <= PROBE_POSITIONS:
        raise ModelError(
            f"a vocabulary of {table.shape[0]} tokens is too small for a language model"
        )
    spread = [ids[(len(ids) - 1) * k // PROBE_POSITIONS] for k in range(PROBE_POSITIONS + 1)]
    return torch.tensor([spread[:-1], [*spread[:-2], spread[-1]]], device=table.device)


def _logits(model: Any, name: str, **inputs: Tensor) -> Float[Tensor, "rows seq vocab"]:
    try:
        return model(**inputs, use_cache=False, return_dict=True).logits
    except Exception as error:
        raise ModelError(
            f"{name!r} cannot be run as a causal language model: {one_line(error)}"
        ) from error


def _tolerance(logits: Float[Tensor, "rows seq vocab"], dtype: torch.dtype) -> float:
    """How far two ways to the same logits may differ by rounding: a share of the largest."""
    share = 2**-6 if dtype in (torch.bfloat16, torch.float16) else 1e-5
    return share * logits.abs().max().item()


def _agreeing(
    heads: list[Callable[[Tensor], Tensor]],
    states: Tensor,
    logits: Float[Tensor, "rows seq vocab"],
    tolerance: float,
) -> int | None:
    """The number of the first head that gives these logits, or None."""
    with torch.no_grad():
        for number, head in enumerate(heads):
            ours = head(states)
            if ours.shape == logits.shape and (ours - logits).abs().max() <= tolerance:
                return number
    return None


def _check_gradient(
    vectors: Float[Tensor, "rows seq d_model"], logits: Float[Tensor, "rows seq vocab"], name: str
) -> None:
    """Outputs before the last position must pass a gradient to each input before it, and exactly none to the last."""
    no_gradient = (
        f"{name!r} passes no usable gradient to its input vectors, so they cannot be trained"
    )
    if not logits.requires_grad:
        raise ModelError(no_gradient)
    # Weights that differ from output to output: a plain sum can cancel in the final norm.
    weights = torch.linspace(-1, 2, logits.shape[-1], device=logits.device)
    (gradient,) = torch.autograd.grad(
        (logits[:, :-1].float() * weights).sum(), vectors, allow_unused=True
    )
    if (
        gradient is None
        or not gradient.isfinite().all()
        or not (gradient[:, :-1] != 0).any(-1).all()
    ):
        raise ModelError(no_gradient)
    if (gradient[:, -1] != 0).any():
        raise _not_causal(name)


def _not_causal(name: str) -> ModelError:
    why = "what it gives at one position depends on later ones, as in a masked language model"
    return ModelError(f"{name!r} is not causal: {why}; a causal language model is needed")
