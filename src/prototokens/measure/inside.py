"""What happens between the vectors and the text.

Attention to e and the m's, what each depth already decodes to, knocked-out e.

Each is a function of a frozen model and of what a fit gave (a `Solution`, or a chunk of a file),
and gives numbers alone; the pictures of them are drawn elsewhere. No name of a family's modules is
used: the blocks are the one list of modules that is as long as the model is deep, and what follows
the last block (a norm, or a norm and a projection) is run, not rebuilt. So it works for every
decoder whose blocks take `[rows, positions, width]` one after another: Llama, GPT-NeoX, GPT-2, OPT,
Gemma.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from prototokens.engine.forward import HasVectors, inputs_of
from prototokens.errors import ModelError, TextError, UsageError
from prototokens.lm.frozen_lm import FrozenLM

# Attention keeps a number for each pair of positions, in each head of each layer; beyond this it is
# no picture any more.
MAX_POSITIONS = 512


class Lens(NamedTuple):
    """What each depth decodes to.

    Depth 0 is the input, depth k what the k-th block gives, the last the model's own output.

    Attributes:
        ids: the most likely token of each scored position, were this depth the last.
        nats: how unlikely the token that is really there is at this depth: -log p, in nats.
        rank: how many tokens are more likely than it; 0 where it is the argmax.
    """

    ids: Int64[Tensor, "depths tokens"]
    nats: Float[Tensor, "depths tokens"]
    rank: Int64[Tensor, "depths tokens"]


class Knockout(NamedTuple):
    """Results where no position may attend to a vector's positions from a block on.

    Attributes:
        ids: entry k: the decoded tokens where the first k blocks see the vector and the others do
            not; the last is untouched.
        margin: the lead of the token that is really there over the best other one, in logits;
            negative where it is lost.
    """

    ids: Int64[Tensor, "seen tokens"]
    margin: Float[Tensor, "seen tokens"]


class Inside(NamedTuple):
    """All measurements of one row.

    Attributes:
        ids: the tokens that are read, by the untouched model.
        attention: as `attention` gives it.
        lens: as `logit_lens` gives it.
        knockout: as `knockout` gives it, for e.
    """

    ids: Int64[Tensor, " tokens"]
    attention: Float[Tensor, "layers heads positions vectors"]
    lens: Lens
    knockout: Knockout


def look(lm: FrozenLM, chunk: HasVectors) -> Inside:
    """Attention, logit lens and knocked-out e of one row.

    Raises:
        ModelError: the model does not expose its states.
        TextError: more than `MAX_POSITIONS` positions.
    """
    shares, lens = attention(lm, chunk).cpu(), logit_lens(lm, chunk)
    return Inside(lens.ids[-1], shares, lens, knockout(lm, chunk, ids=lens.ids[-1]))


@torch.no_grad()
def attention(lm: FrozenLM, chunk: HasVectors) -> Float[Tensor, "layers heads positions vectors"]:
    """The share of each position's attention that goes to e and to each m.

    It is given for every head of every layer.

    A vector that stands at many positions gets what they get together. For each layer, head and
    position they add up to 1: there is nothing but the vectors to attend to.

    Raises:
        ModelError: a model without attention weights (Mamba), or whose blocks cannot be found.
        TextError: more than `MAX_POSITIONS` positions.
    """
    inputs, index = _inputs(lm, chunk)
    weights = attention_weights(lm, inputs)
    share = (index[:, None] == torch.arange(chunk.protos.shape[0], device=index.device)).to(weights)
    return (weights @ share)[:, :, len(chunk.layout.prefix) :]


@torch.no_grad()
def attention_weights(
    lm: FrozenLM, inputs: Float[Tensor, "positions d_model"]
) -> Float[Tensor, "layers heads positions positions"]:
    """The attention of each position to each, in float32.

    It is what the model's plain implementation gives.

    Raises:
        ModelError: the model has no attention weights to give.
    """
    body: Any = lm.model.base_model
    with _plain(lm):
        given = body(
            inputs_embeds=inputs[None].to(lm.dtype),
            use_cache=False,
            output_attentions=True,
            return_dict=True,
        )
    weights = getattr(given, "attentions", None)
    if not weights or any(layer is None or layer.dim() != 4 for layer in weights):
        raise ModelError(
            f"{lm.name!r} gives no attention weights: it does not attend, or not in a way that can"
            " be read"
        )
    return torch.stack([layer[0].float() for layer in weights])


@torch.no_grad()
def hidden_states(
    lm: FrozenLM, inputs: Float[Tensor, "positions d_model"]
) -> Float[Tensor, "depths positions width"]:
    """The input of the first block, and the output of each block.

    Nothing that follows the last block is applied.

    Raises:
        ModelError: the blocks cannot be found.
    """
    layers, seen = blocks(lm), []
    with ExitStack() as hooks:
        hooks.callback(
            layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0])).remove
        )
        for layer in layers:
            hooks.callback(
                layer.register_forward_hook(lambda _, given, made: seen.append(_first(made))).remove
            )
        lm.hidden(inputs[None])
    return torch.cat(seen)


@torch.no_grad()
def read_out(
    lm: FrozenLM, states: Float[Tensor, "depths positions width"]
) -> Float[Tensor, "depths positions hidden"]:
    """Hidden states between blocks as the head would read them.

    Through all that the model does after its last block.

    The states are put in place of the last block's output while the model runs, each depth as a row
    of its own, so whatever a family has there (a norm, none, a projection to another width) is done
    by the model itself.
    """
    last = blocks(lm)[-1]
    inputs = torch.zeros(*states.shape[:2], lm.d_model, device=lm.device, dtype=lm.dtype)
    hook = last.register_forward_hook(
        lambda _, given, made: states if isinstance(made, Tensor) else (states, *made[1:])
    )
    try:
        return lm.hidden(inputs)
    finally:
        hook.remove()


@torch.no_grad()
def logit_lens(
    lm: FrozenLM, chunk: HasVectors, ids: Int64[Tensor, " tokens"] | None = None
) -> Lens:
    """What the hidden states of each depth would decode to, were it the last.

    Args:
        ids: the tokens that are really there; by default those that the model gives at its full
            depth.

    Raises:
        ModelError: the blocks cannot be found.
        TextError: more than `MAX_POSITIONS` positions.
    """
    inputs, _ = _inputs(lm, chunk)
    scored = _scored(lm, chunk)
    states = read_out(lm, hidden_states(lm, inputs))[:, scored]
    made = [
        lm.logits(depth).float() for depth in states
    ]  # one depth at a time: [tokens, vocabulary] each
    target = made[-1].argmax(-1) if ids is None else ids.to(lm.device)
    nats = torch.stack(
        [torch.nn.functional.cross_entropy(logits, target, reduction="none") for logits in made]
    )
    rank = torch.stack([(logits > logits.gather(1, target[:, None])).sum(1) for logits in made])
    return Lens(torch.stack([logits.argmax(-1) for logits in made]).cpu(), nats.cpu(), rank.cpu())


def appears(lens: Lens) -> Int64[Tensor, " tokens"]:
    """The depth from which on a position decodes right.

    It is the number of depths where a position never does.
    """
    wrong = (lens.rank > 0).int()
    depths = lens.rank.shape[0]
    last_wrong = depths - 1 - wrong.flip(0).argmax(0)
    return torch.where(wrong.any(0), last_wrong + 1, torch.zeros_like(last_wrong))


@torch.no_grad()
def knockout(
    lm: FrozenLM, chunk: HasVectors, vector: int = 0, ids: Int64[Tensor, " tokens"] | None = None
) -> Knockout:
    """Mask a vector for the other positions, from each block on in turn.

    Where a block does not see it, no position attends to the positions where the vector stands, but
    each of these still attends to itself; what earlier blocks have carried over is left. All cases
    are rows of one forward pass.

    Args:
        vector: 0 is e, k is m_k.
        ids: the tokens that are really there; by default those that the untouched model gives.

    Raises:
        ModelError: the blocks or their masks cannot be found.
        UsageError: there is no such vector.
        TextError: more than `MAX_POSITIONS` positions.
    """
    last = chunk.protos.shape[0] - 1
    if not 0 <= vector <= last:
        raise UsageError(
            f"there is no vector {vector} to knock out: layout {chunk.layout.name} has 0 to {last}"
        )
    inputs, index = _inputs(lm, chunk)
    hidden = _with_hidden_keys(lm, inputs, index == vector)
    scored = _scored(lm, chunk)
    made = [lm.logits(row[scored]).float() for row in hidden]
    target = made[-1].argmax(-1) if ids is None else ids.to(lm.device)
    return Knockout(
        torch.stack([logits.argmax(-1) for logits in made]).cpu(), _margins(made, target).cpu()
    )


def blocks(lm: FrozenLM) -> list[nn.Module]:
    """The model's blocks, in order: the list of modules that is as long as the model is deep.

    Raises:
        ModelError: there is none.
    """
    config = lm.model.config.get_text_config()
    depth = next(
        (
            value
            for key in ("num_hidden_layers", "n_layer")
            if isinstance(value := getattr(config, key, None), int)
        ),
        0,
    )
    for module in lm.model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth > 0:
            return list(module)
    raise ModelError(
        f"the blocks of {lm.name!r} ({type(lm.model).__name__}) cannot be found, so it cannot be"
        " looked into"
    )


def _inputs(lm: FrozenLM, chunk: HasVectors) -> tuple[Tensor, Tensor]:
    """The input vectors `[positions, d_model]`, and the vector at each position.

    Vectors are numbered; the number is -1 in the prefix.
    """
    if chunk.protos.shape[1] != lm.d_model:
        raise UsageError(
            f"vectors of width {chunk.protos.shape[1]} given, and {lm.name} takes {lm.d_model}"
        )
    prefix = torch.full((len(chunk.layout.prefix),), -1)
    index = torch.cat([prefix, chunk.layout.index(chunk.length)])
    if len(index) > MAX_POSITIONS:
        raise TextError(
            f"{len(index)} positions to look into, and at most {MAX_POSITIONS} are drawn: choose a"
            " shorter chunk"
        )
    return inputs_of(lm, chunk), index.to(lm.device)


def _scored(lm: FrozenLM, chunk: HasVectors) -> Int64[Tensor, " tokens"]:
    """The scored positions of a row whose prefix is fed."""
    return len(chunk.layout.prefix) + chunk.layout.scored(chunk.length).to(lm.device)


@contextmanager
def _plain(lm: FrozenLM) -> Iterator[None]:
    """Within it the model attends by matrix products whose weights and masks can be seen.

    Then as before.
    """
    model: Any = lm.model
    chosen = model.config._attn_implementation
    if chosen == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)


def _with_hidden_keys(
    lm: FrozenLM, inputs: Tensor, keys: Bool[Tensor, " positions"]
) -> Float[Tensor, "seen positions hidden"]:
    """Hidden states of one forward pass.

    In row k, the blocks from the k-th on do not see the positions `keys`.
    """
    layers, length = blocks(lm), len(inputs)
    rows = len(layers) + 1
    cut = keys[None, :] & ~torch.eye(length, dtype=torch.bool, device=lm.device)
    masked = [False] * len(layers)

    def hide(number: int) -> Callable:
        # Row k is cut in this block if the block is the k-th or a later one.
        here = (torch.arange(rows, device=lm.device) <= number)[:, None, None, None] & cut

        def change(mask: Any) -> Any:
            if (
                not isinstance(mask, Tensor)
                or mask.dim() != 4
                or mask.shape[-2:] != (length, length)
            ):
                return mask
            masked[number] = True
            if mask.dtype == torch.bool:  # where True is what may be seen
                return mask & ~here
            return mask.expand(rows, *mask.shape[1:]).masked_fill(here, torch.finfo(mask.dtype).min)

        def hook(_: nn.Module, given: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return tuple(change(value) for value in given), {
                key: change(value) for key, value in named.items()
            }

        return hook

    with _plain(lm), ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.callback(layer.register_forward_pre_hook(hide(number), with_kwargs=True).remove)
        hidden = lm.hidden(inputs.expand(rows, -1, -1))
    if not all(masked):
        raise ModelError(
            f"the blocks of {lm.name!r} take no attention mask, so nothing can be hidden from them"
        )
    return hidden


def _margins(made: list[Tensor], target: Tensor) -> Tensor:
    """The target's logit minus the best other one, for each row of logits."""
    margins = []
    for logits in made:
        true = logits.gather(1, target[:, None])
        others = logits.scatter(1, target[:, None], -torch.inf)
        margins.append(true[:, 0] - others.max(1).values)
    return torch.stack(margins)


def _first(made: Any) -> Tensor:
    """A block's hidden states: some give them alone, some as the first of several."""
    return made if isinstance(made, Tensor) else made[0]
