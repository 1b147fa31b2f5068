"""Tokens that a model never learned to tell from others ("glitch tokens").

A token's logit is the product of the final hidden state h with its row w of the output matrix. The
lead of token t over token s is (w_t - w_s) h, at most ||w_t - w_s|| ||h|| (Cauchy and Schwarz). So
where the rows of two tokens nearly coincide, no hidden state gives one of them more than a small
lead over the other, whatever vectors are fed in. Tokens that never occurred in training are such:
the softmax pushes all their rows in the same direction (Land and Bartolo, arXiv 2405.05417).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from prototokens.lm.frozen_lm import FrozenLM

# Whatever lead is asked for, only tokens whose output row is nearer to another one than this share
# of the usual distance are untrained.
UNTRAINED_SHARE = 0.2
# Tokens whose final hidden states tell how large such states are, and whose output rows tell the
# usual distance of a row to the nearest other one.
SAMPLE = 128
ROWS = 1 << 15  # of the output matrix that are converted to float32 at a time
CHUNK = 1 << 25  # distances that are computed at a time
SCREEN = 48  # directions of the first search of a whole vocabulary


class Nearest(NamedTuple):
    """For each of some tokens, the other token whose output row is nearest.

    Attributes:
        distance: Euclidean distance between the two rows.
        token: the id of that other token.
    """

    distance: Float32[Tensor, "tokens"]
    token: Int64[Tensor, "tokens"]


class _Known:
    """What was found out about a model: the norm of its states, and distances of its tokens."""

    def __init__(self) -> None:
        self.state_norm: float | None = None
        self.usual_distance: float | None = None
        self.distance: dict[int, float] = {}
        self.of_vocabulary: dict[float, list[int]] = {}  # by the lead


_KNOWN: WeakKeyDictionary[FrozenLM, _Known] = WeakKeyDictionary()


def nearest(lm: FrozenLM, ids: Int64[Tensor, "tokens"]) -> Nearest:
    """The nearest other output row of each token.

    Args:
        ids: distinct tokens.
    """
    return _nearest(lm.head.weight, ids.to(lm.device))


@torch.no_grad()
def state_norm(lm: FrozenLM) -> float:
    """The largest Euclidean norm of a final hidden state.

    It is that of the states behind `SAMPLE` tokens, drawn with a fixed seed. Final states are
    normalised, so that their norms differ little.
    """
    known = _KNOWN.setdefault(lm, _Known())
    if known.state_norm is None:
        drawn = torch.randperm(lm.known_ids, generator=torch.Generator().manual_seed(0))[:SAMPLE]
        drawn = drawn[: lm.max_context].to(lm.device)
        states = lm.hidden(lm.embed(drawn)[None].to(lm.dtype))
        known.state_norm = float(states.float().norm(dim=-1).max())
    return known.state_norm


def usual_distance(lm: FrozenLM) -> float:
    """The median distance of a token's output row to the nearest other one.

    It is estimated from `SAMPLE` tokens, drawn with a fixed seed.
    """
    known = _KNOWN.setdefault(lm, _Known())
    if known.usual_distance is None:
        drawn = torch.randperm(lm.vocab_size, generator=torch.Generator().manual_seed(1))[:SAMPLE]
        known.usual_distance = float(nearest(lm, drawn).distance.median())
    return known.usual_distance


def untrained(lm: FrozenLM, ids: Iterable[int], lead: float) -> frozenset[int]:
    """Those of the tokens that no hidden state can give such a lead over all others.

    Only tokens that were not asked for before are looked at: the cost of a text is one product of
    the output matrix with the rows of its new tokens.

    Args:
        lead: true logit minus the best other one, in logits; with 0 there are no such tokens.
    """
    wanted = frozenset(ids)
    if lead <= 0:
        return frozenset()
    known = _KNOWN.setdefault(lm, _Known())
    if new := sorted(wanted - known.distance.keys()):
        known.distance.update(
            zip(new, nearest(lm, torch.tensor(new)).distance.tolist(), strict=True)
        )
    least = lead / state_norm(lm)
    if all(known.distance[token] >= least for token in wanted):
        return frozenset()  # as for nearly all texts; the usual distance is not needed
    least = _least_distance(lm, lead)
    return frozenset(token for token in wanted if known.distance[token] < least)


def untrained_positions(lm: FrozenLM, ids: Iterable[int], lead: float) -> tuple[int, ...]:
    """The positions of a text whose tokens are untrained, in ascending order."""
    ids = list(ids)
    found = untrained(lm, ids, lead)
    return tuple(place for place, token in enumerate(ids) if token in found)


def all_untrained(lm: FrozenLM, lead: float) -> list[int]:
    """All untrained tokens of the vocabulary, in ascending order.

    Distances in a subspace are never larger than those in the whole space. So the tokens whose
    nearest row is far in the space of the `SCREEN` leading directions are ruled out there, at a
    fraction of the cost, and the others are looked at in full. The search is done once for each
    lead.
    """
    known = _KNOWN.setdefault(lm, _Known())
    if lead not in known.of_vocabulary:
        known.of_vocabulary[lead] = _searched(lm, lead)
    return list(known.of_vocabulary[lead])


@torch.no_grad()
def _searched(lm: FrozenLM, lead: float) -> list[int]:
    """The search of `all_untrained`."""
    weight = lm.head.weight
    sample = weight[:: max(1, len(weight) // 4096)].float()
    _, directions = torch.linalg.eigh(sample.T @ sample)
    screened = torch.cat([part.float() @ directions[:, -SCREEN:] for part in weight.split(ROWS)])
    every = torch.arange(len(weight), device=weight.device)
    # Rounding may move a distance that is nearly zero.
    near = _nearest(screened, every).distance < 2 * _least_distance(lm, lead) + 1e-2
    return sorted(untrained(lm, every.cpu()[near].tolist(), lead))


def _least_distance(lm: FrozenLM, lead: float) -> float:
    """The distance to the nearest other output row from which on a token is not untrained."""
    return min(lead / state_norm(lm), UNTRAINED_SHARE * usual_distance(lm))


@torch.no_grad()
def _nearest(rows: Tensor, ids: Tensor) -> Nearest:
    """The nearest other row of each of these rows."""
    squares = torch.cat([part.float().square().sum(1) for part in rows.split(ROWS)])
    distances, tokens = [], []
    for part in ids.split(max(1, CHUNK // len(rows))):
        own = rows[part].float()
        products = torch.cat([own @ some.float().T for some in rows.split(ROWS)], 1)
        squared = products.mul_(-2).add_(squares).add_(squares[part, None])
        squared.scatter_(1, part[:, None], torch.inf)  # a row is not its own neighbour
        found = squared.min(1).indices
        tokens.append(found)
        # Once more from the difference: that of two large squares has lost its last digits.
        distances.append((own - rows[found].float()).norm(dim=1))
    empty = torch.empty(0)
    return Nearest(torch.cat([empty, *distances]).cpu(), torch.cat([ids[:0], *tokens]).cpu())
