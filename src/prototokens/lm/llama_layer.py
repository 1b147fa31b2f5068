"""One layer of a Llama-like body in bfloat16 on a CPU: its weights, forward pass and backward pass.

`lm.fast_llama` builds the layers from a transformers model and runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float32
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Norm:
    """RMS norm: y = gain * x / rms(x).

    Attributes:
        gain: `[width]`, in float32.
        weight: the same in bfloat16 where the quotient is rounded before the product (Llama); None
            where only the product is rounded (Gemma, whose gain is 1 + weight).
        eps: added to the mean square.
    """

    gain: Float32[Tensor, " width"]
    weight: BFloat16[Tensor, " width"] | None
    eps: float

    def forward(
        self, x: BFloat16[Tensor, "*positions width"]
    ) -> tuple[Tensor, Float32[Tensor, "*positions 1"]]:
        """The normed x, and 1 / rms(x)."""
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is None:
            return (wide * inverse).mul_(self.gain).to(x.dtype), inverse
        return self.weight * torch.mul(wide, inverse, out=torch.empty_like(x)), inverse

    def add_gradient(
        self, gradient: Tensor, x: Tensor, inverse: Tensor, to: Float32[Tensor, "*positions width"]
    ) -> Float32[Tensor, "*positions width"]:
        """Add to `to` the gradient at x that a gradient at y makes.

        (g - x mean(g x) / rms^2) / rms, g = gain * gradient.
        """
        g, wide = gradient.float() * self.gain, x.float()
        along = torch.linalg.vecdot(g, wide)[..., None] * inverse.square() / -x.shape[-1]
        return to.addcmul_(g.addcmul_(wide, along), inverse)


class Linear(NamedTuple):
    """A frozen map."""

    weight: BFloat16[Tensor, "out inner"]
    bias: BFloat16[Tensor, " out"] | None

    def __call__(self, x: BFloat16[Tensor, "positions inner"]) -> BFloat16[Tensor, "positions out"]:
        return functional.linear(x, self.weight, self.bias)


class Activation(NamedTuple):
    """Of the gate, with its gradient."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "silu": Activation(functional.silu, torch.ops.aten.silu_backward),
    "gelu_pytorch_tanh": Activation(
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda gradient, x: torch.ops.aten.gelu_backward(gradient, x, approximate="tanh"),
    ),
}


class KeyValue(NamedTuple):
    """Keys and values of some positions, keys turned already."""

    key: BFloat16[Tensor, "rows heads seq head_dim"]
    value: BFloat16[Tensor, "rows heads seq head_dim"]


class Places(NamedTuple):
    """Where rows stand: cosines and sines of their positions, and which keys each position must not see.

    Attributes:
        cos, sin: `[seq, head_dim]`; the first half of `sin` is negated.
        causal_mask: True where a key lies behind the position.
    """

    cos: Tensor
    sin: Tensor
    causal_mask: Tensor


class Saved(NamedTuple):
    """What the backward pass of a layer needs; None where the family has no such part."""

    x: Tensor
    inverse: Tensor
    raw_query: Tensor | None
    query_inverse: Tensor | None
    raw_key: Tensor | None
    key_inverse: Tensor | None
    query: Tensor
    key: Tensor
    value: Tensor
    shares: Tensor
    attended: Tensor | None
    attended_inverse: Tensor | None
    middle: Tensor
    middle_inverse: Tensor
    gate: Tensor
    up: Tensor
    opened: Tensor
    fed: Tensor | None
    fed_inverse: Tensor | None


@dataclass(frozen=True)
class Layer:
    """One block."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    gate: Linear
    up: Linear
    down: Linear
    before_attention: Norm
    before_feed_forward: Norm
    after_attention: Norm | None
    after_feed_forward: Norm | None
    of_query: Norm | None
    of_key: Norm | None
    activation: Activation
    kind: str | None  # of its positions, where layers differ in them
    head_dim: int
    scaling: float

    def forward(
        self, x: Tensor, rows: int, places: Places, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue, Saved]:
        """What comes out, the keys and values of these positions, and what the backward pass needs.

        Args:
            x: `[rows * seq, d_model]`.
            past: of the prefix, `[1, heads, prefix, head_dim]`.
        """
        positions, shape = x.shape[0], (rows, len(places.cos), -1, self.head_dim)
        normed, inverse = self.before_attention.forward(x)
        raw_query, query_inverse, query = self._head(
            self.query(normed), shape, self.of_query, places
        )
        raw_key, key_inverse, key = self._head(self.key(normed), shape, self.of_key, places)
        own = KeyValue(key, self.value(normed).view(shape).transpose(1, 2).contiguous())
        key, value = own if past is None else _behind(past, own)
        query = query * self.scaling
        shares = (
            (query @ self._repeated(key).mT)
            .masked_fill_(places.causal_mask, -torch.inf)
            .softmax(-1)
        )
        mixed = (shares @ self._repeated(value)).transpose(1, 2).reshape(positions, -1)
        attended = self.out(mixed)
        added, attended_inverse = _maybe(self.after_attention, attended)
        middle = x + added
        normed, middle_inverse = self.before_feed_forward.forward(middle)
        gate, up = self.gate(normed), self.up(normed)
        opened = self.activation.forward(gate)
        fed = self.down(opened * up)
        added, fed_inverse = _maybe(self.after_feed_forward, fed)
        return (
            middle + added,
            own,
            Saved(
                x,
                inverse,
                raw_query,
                query_inverse,
                raw_key,
                key_inverse,
                query,
                key,
                value,
                shares,
                attended if self.after_attention else None,
                attended_inverse,
                middle,
                middle_inverse,
                gate,
                up,
                opened,
                fed if self.after_feed_forward else None,
                fed_inverse,
            ),
        )

    def backward(
        self, gradient: Float32[Tensor, "positions d_model"], saved: Saved, places: Places
    ) -> None:
        """Turn the gradient with respect to what came out into the one with respect to x, in place."""
        fed = _maybe_gradient(self.after_feed_forward, gradient, saved.fed, saved.fed_inverse)
        inner = fed.bfloat16() @ self.down.weight
        to_gate = self.activation.backward(inner * saved.up, saved.gate)
        normed = (to_gate @ self.gate.weight).addmm_(inner.mul_(saved.opened), self.up.weight)
        self.before_feed_forward.add_gradient(normed, saved.middle, saved.middle_inverse, gradient)

        rows, heads, seq, _ = saved.query.shape
        attended = _maybe_gradient(
            self.after_attention, gradient, saved.attended, saved.attended_inverse
        )
        mixed = (
            (attended.bfloat16() @ self.out.weight)
            .view(rows, seq, heads, self.head_dim)
            .transpose(1, 2)
            .contiguous()
        )
        own = slice(
            saved.key.shape[2] - seq, None
        )  # a prefix stands before it, and gets no gradient
        to_value = self._gathered(saved.shares[..., own].mT @ mixed)
        to_shares = mixed @ self._repeated(saved.value).mT
        to_scores = torch.ops.aten._softmax_backward_data(
            to_shares, saved.shares, -1, saved.shares.dtype
        )
        to_query = _turned_back((to_scores @ self._repeated(saved.key)).mul_(self.scaling), places)
        to_key = _turned_back(self._gathered(to_scores[..., own].mT @ saved.query), places)
        to_query = _head_gradient(self.of_query, to_query, saved.raw_query, saved.query_inverse)
        to_key = _head_gradient(self.of_key, to_key, saved.raw_key, saved.key_inverse)
        parts = [
            part.transpose(1, 2).reshape(rows * seq, -1) for part in (to_query, to_key, to_value)
        ]
        normed = (
            (parts[0] @ self.query.weight)
            .addmm_(parts[1], self.key.weight)
            .addmm_(parts[2], self.value.weight)
        )
        self.before_attention.add_gradient(normed, saved.x, saved.inverse, gradient)

    def _head(
        self, mapped: Tensor, shape: tuple[int, ...], norm: Norm | None, places: Places
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Queries or keys `[rows, heads, seq, head_dim]`.

        Before their norm, 1 / rms of that, and normed and turned.
        """
        split = mapped.view(shape).transpose(1, 2)
        if norm is None:
            return None, None, _turned(split, places)
        normed, inverse = norm.forward(split)
        return split, inverse, _turned(normed, places)

    def _repeated(self, part: Tensor) -> Tensor:
        """Keys or values for every query head."""
        times = self.query.weight.shape[0] // self.head_dim // part.shape[1]
        return part if times == 1 else part.repeat_interleave(times, 1)

    def _gathered(self, gradient: Tensor) -> Tensor:
        """The gradient of `_repeated`."""
        times = self.query.weight.shape[0] // self.key.weight.shape[0]
        return gradient if times == 1 else gradient.unflatten(1, (-1, times)).sum(2)


def _maybe(norm: Norm | None, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return (x, None) if norm is None else norm.forward(x)


def _maybe_gradient(
    norm: Norm | None, gradient: Tensor, x: Tensor | None, inverse: Tensor | None
) -> Tensor:
    if norm is None or x is None or inverse is None:
        return gradient
    return norm.add_gradient(gradient, x, inverse, torch.zeros_like(gradient))


def _head_gradient(
    norm: Norm | None, gradient: Tensor, x: Tensor | None, inverse: Tensor | None
) -> Tensor:
    if norm is None or x is None or inverse is None:
        return gradient
    return norm.add_gradient(gradient, x, inverse, torch.zeros(x.shape, dtype=torch.float32)).to(
        gradient.dtype
    )


def _behind(past: KeyValue, own: KeyValue) -> KeyValue:
    """Keys and values of a prefix, the same for every row, and then a row's own."""
    rows = own.key.shape[0]
    key, value = (
        torch.cat([old.expand(rows, -1, -1, -1), new], 2)
        for old, new in zip(past, own, strict=True)
    )
    return KeyValue(key, value)


def _turned(x: Tensor, places: Places) -> Tensor:
    """Rotary positions: x cos + swapped(x) sin, with the first half of `sin` negated beforehand."""
    return (x * places.cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(places.sin))


def _turned_back(gradient: Tensor, places: Places) -> Tensor:
    return (gradient * places.cos).add_((gradient * places.sin).roll(gradient.shape[-1] // 2, -1))
