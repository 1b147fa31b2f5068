"""Checks of a model before it is used: its parts, a run on four positions, a hash of its weights.

The engine relies on three facts that no configuration states: a position's output does not depend
on later inputs, the logits are a linear map of the last hidden states (with at most a scale and a
soft cap), and gradients reach the inputs. Each is tested here, so that a model of an unknown family
either works or is rejected with a clear message. Models are loaded in `lm.loading`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prototokens.errors import ModelError

PROBE_POSITIONS = 4
HASH_THREADS = 4
PERTURBATION = 0.5  # noise on the probe's input vectors, as a share of their root mean square


class Probed(NamedTuple):
    """Which of the candidates passed to `probe` reproduce the model's own logits.

    Attributes:
        embed: index of the function from ids to input vectors.
        head: index of the head.
        dtype: dtype of the model's own logits.
    """

    embed: int
    head: int
    dtype: torch.dtype


class Parts(NamedTuple):
    """The three modules of a causal LM.

    Attributes:
        body: from input vectors to the hidden states after the final norm.
        embedding: from ids to input vectors.
        head: from hidden states to logits; it has a `weight` `[vocab, hidden]` and perhaps a `bias`
            `[vocab]`.
    """

    body: nn.Module
    embedding: nn.Module
    head: nn.Module


def one_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters of it."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def parts(model: Any, name: str) -> Parts:
    """Find the body, the embedding table and the head of a causal LM.

    Args:
        model: any transformers model.
        name: what the user called the model, for messages.

    Raises:
        ModelError: the model is an encoder-decoder, or lacks an embedding table or a head over the
            vocabulary.
    """
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name!r} is an encoder-decoder ({kind}): a causal language model is needed"
        )
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        body = model.base_model
    except (AttributeError, NotImplementedError) as error:
        raise ModelError(
            f"{name!r} ({kind}) has no table of token embeddings: a causal language model is needed"
        ) from error
    if head is None or body is model or getattr(head, "weight", None) is None:
        raise ModelError(
            f"{name!r} ({kind}) has no head over its vocabulary: a causal language model is needed"
        )
    return Parts(body, embedding, head)


def probe(
    model: Any,
    name: str,
    embeds: list[Callable[[Tensor], Tensor]],
    hidden: Callable[[Tensor], Tensor],
    heads: list[Callable[[Tensor], Tensor]],
) -> Probed:
    """Find the functions that reproduce the model's own logits, on four positions.

    Args:
        model: the whole model.
        name: what the user called the model, for messages.
        embeds: candidates for the function from ids `[rows, seq]` to input vectors
            `[rows, seq, d_model]`, the likeliest first.
        hidden: from input vectors to hidden states `[rows, seq, hidden]`.
        heads: candidates for the function from hidden states to logits `[rows, seq, vocab]`, the
            likeliest first.

    Raises:
        ModelError: the model is not causal, does not accept input vectors, computes something that
            no candidates reproduce, or passes no gradient to its inputs.
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
    # This comes before any run on vectors: a body that searches its embedding table for the ids of
    # vectors needs gigabytes to do so (Gemma 4 E2B).
    if table := _second_table(model, name, ids, own, tolerance):
        raise ModelError(
            f"{name!r} looks ids up in a second table ({table}), beside its input embeddings:"
            " vectors cannot stand in for"
            " its tokens"
        )
    embed, head = _matching_pair(model, name, ids, embeds, hidden, heads, own)
    vectors = _perturbed(embeds[embed](ids)).requires_grad_()
    with torch.enable_grad():
        states = _run_on_vectors(name, hidden, vectors)
        _check_gradient(vectors, heads[head](states), name)
    return Probed(embed, head, own.dtype)


def _matching_pair(
    model: Any,
    name: str,
    ids: Tensor,
    embeds: list[Callable[[Tensor], Tensor]],
    hidden: Callable[[Tensor], Tensor],
    heads: list[Callable[[Tensor], Tensor]],
    own: Tensor,
) -> tuple[int, int]:
    """Indices of the first embedding function and head that reproduce the model's own logits.

    Raises:
        ModelError: no pair of them does.
    """
    for index, embed in enumerate(embeds):
        with torch.no_grad():
            vectors = embed(ids)
            states = _run_on_vectors(name, hidden, vectors)
        head = _matching_head(heads, states, own, _tolerance(own, vectors.dtype))
        if head is not None:
            return index, head
    with torch.no_grad():
        vectors = embeds[0](ids)
        states = _run_on_vectors(name, hidden, vectors)
        on_vectors = _logits(model, name, inputs_embeds=vectors)
    if _matching_head(heads, states, on_vectors, _tolerance(own, vectors.dtype)) is not None:
        raise ModelError(
            f"{name!r} does more with ids than look up embeddings: vectors cannot stand in for its"
            " tokens"
        )
    raise ModelError(
        f"{name!r} cannot be used here: its head does more than a linear map of the last hidden"
        " states"
    )


def _run_on_vectors(name: str, hidden: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """Hidden states of input vectors.

    Raises:
        ModelError: the model does not accept input vectors.
    """
    try:
        return hidden(vectors)
    except Exception as error:
        raise ModelError(
            f"{name!r} cannot be run on vectors in place of tokens (inputs_embeds):"
            f" {one_line(error)}"
        ) from error


def _perturbed(vectors: Tensor) -> Tensor:
    """The vectors plus noise: like the vectors of a fit, they are in no embedding table."""
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0)).to(vectors)
    return vectors + PERTURBATION * vectors.float().square().mean().sqrt().to(vectors.dtype) * noise


@torch.no_grad()
def _second_table(model: Any, name: str, ids: Tensor, own: Tensor, tolerance: float) -> str | None:
    """The name of an embedding table, besides the input embeddings, that affects the logits.

    A table affects the logits if the model looks ids up in it and other rows give other logits.
    """
    first, looked_up = model.get_input_embeddings(), {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if (
            args
            and isinstance(args[0], Tensor)
            and args[0].shape == ids.shape
            and torch.equal(args[0], ids)
        ):
            looked_up[module] = True

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
    for table in looked_up:
        hook = table.register_forward_hook(lambda module, args, rows: rows.roll(1, 1))
        try:
            other = _logits(model, name, input_ids=ids)
        finally:
            hook.remove()
        if (other - own).abs().max() > tolerance:
            return tables[table]
    return None


def state_hash(model: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every entry of a model's state, sorted by name.

    Entries that share memory (tied weights) are read once but listed under each of their names, so
    the hash does not depend on how weights are tied.

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
    """A key that is equal for two tensors if they view the same memory in the same way."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _digest(tensor: Tensor) -> str:
    # A view of the memory as bytes: only a tensor on another device, or one that is not contiguous,
    # is copied.
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().data).hexdigest()


def _probe_ids(model: Any) -> Int[Tensor, "rows seq"]:
    """Two rows of four ids, from all over the vocabulary, that differ in the last id alone.

    The padding id is left out.
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
    """The model's own logits.

    Raises:
        ModelError: the model cannot be run.
    """
    try:
        return model(**inputs, use_cache=False, return_dict=True).logits
    except Exception as error:
        raise ModelError(
            f"{name!r} cannot be run as a causal language model: {one_line(error)}"
        ) from error


def _tolerance(logits: Float[Tensor, "rows seq vocab"], dtype: torch.dtype) -> float:
    """How far two computations of the same logits may differ by rounding."""
    share = 2**-6 if dtype in (torch.bfloat16, torch.float16) else 1e-5
    return share * logits.abs().max().item()


def _matching_head(
    heads: list[Callable[[Tensor], Tensor]],
    states: Tensor,
    logits: Float[Tensor, "rows seq vocab"],
    tolerance: float,
) -> int | None:
    """The index of the first head that gives these logits, or None."""
    with torch.no_grad():
        for index, head in enumerate(heads):
            found = head(states)
            if found.shape == logits.shape and (found - logits).abs().max() <= tolerance:
                return index
    return None


def _check_gradient(
    vectors: Float[Tensor, "rows seq d_model"], logits: Float[Tensor, "rows seq vocab"], name: str
) -> None:
    """Check the gradient of the outputs before the last position with respect to the inputs.

    Raises:
        ModelError: an input before the last position gets no gradient, or the last one gets any.
    """
    no_gradient = (
        f"{name!r} passes no usable gradient to its input vectors, so they cannot be trained"
    )
    if not logits.requires_grad:
        raise ModelError(no_gradient)
    # The weights differ from output to output because a plain sum can cancel in the final norm.
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
