"""One layer of a Llama-like body in bfloat16 on a CPU: its weights, forward pass and backward pass.

The names of projections and norms are those of transformers' Llama. `lm.fast_llama` builds the
layers from a transformers model and runs them. Gradients are with respect to the layer's input
alone: the weights are frozen.
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
class RMSNorm:
    """RMS norm: y = gain * x / rms(x).

    Attributes:
        gain: `[width]`, in float32.
        weight: the gain in bfloat16, for families that round x / rms(x) before they multiply
            (Llama); None for families that round only the product (Gemma, whose gain is
            1 + weight).
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
        inverse_rms = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is None:
            return (wide * inverse_rms).mul_(self.gain).to(x.dtype), inverse_rms
        return self.weight * torch.mul(wide, inverse_rms, out=torch.empty_like(x)), inverse_rms

    def add_gradient(
        self,
        gradient: Tensor,
        x: Tensor,
        inverse_rms: Tensor,
        total: Float32[Tensor, "*positions width"],
    ) -> Float32[Tensor, "*positions width"]:
        """Add the gradient with respect to x to `total`, in place, and return `total`.

        With g = gain * gradient, the gradient is (g - x mean(g x) / rms^2) / rms.

        Args:
            gradient: the gradient with respect to y.
            x: the input of `forward`.
            inverse_rms: 1 / rms(x), as `forward` returned it.
        """
        g, wide = gradient.float() * self.gain, x.float()
        coefficient = torch.linalg.vecdot(g, wide)[..., None] * inverse_rms.square() / -x.shape[-1]
        return total.addcmul_(g.addcmul_(wide, coefficient), inverse_rms)


class Linear(NamedTuple):
    """A frozen linear map, with or without a bias."""

    weight: BFloat16[Tensor, "out inner"]
    bias: BFloat16[Tensor, " out"] | None

    def __call__(self, x: BFloat16[Tensor, "positions inner"]) -> BFloat16[Tensor, "positions out"]:
        return functional.linear(x, self.weight, self.bias)


class Activation(NamedTuple):
    """The activation function of the MLP's gate.

    Attributes:
        forward: x to y.
        backward: the gradient with respect to y, and x, to the gradient with respect to x.
    """

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
    """Keys, after the rotary embedding, and values of some positions in one layer."""

    key: BFloat16[Tensor, "rows heads seq head_dim"]
    value: BFloat16[Tensor, "rows heads seq head_dim"]


class PositionTables(NamedTuple):
    """What a layer needs to know about positions: the rotary embedding and the causal mask.

    Attributes:
        cos, sin: `[seq, head_dim]`, for each position; the first half of `sin` is negated.
        causal_mask: `[seq, prefix + seq]`, True where a query must not attend to a key.
    """

    cos: Tensor
    sin: Tensor
    causal_mask: Tensor


class Saved(NamedTuple):
    """Activations of a layer that its backward pass needs; None for parts that it does not have.

    Each `*_inverse_rms` is 1 / rms of the input of a norm.
    """

    x: Tensor
    x_inverse_rms: Tensor
    query_before_norm: Tensor | None
    query_inverse_rms: Tensor | None
    key_before_norm: Tensor | None
    key_inverse_rms: Tensor | None
    query: Tensor
    key: Tensor
    value: Tensor
    attention_weights: Tensor
    attention_out: Tensor | None
    attention_out_inverse_rms: Tensor | None
    residual: Tensor
    residual_inverse_rms: Tensor
    gate: Tensor
    up: Tensor
    activated: Tensor
    mlp_out: Tensor | None
    mlp_out_inverse_rms: Tensor | None


@dataclass(frozen=True)
class Layer:
    """Attention and MLP of one layer, each with a residual connection.

    Attributes:
        post_attention_norm, post_mlp_norm: norms of the outputs of attention and MLP (Gemma 3);
            None in families without them.
        q_norm, k_norm: norms of queries and keys (Qwen 3, Gemma 3), or None.
        layer_type: which rotary embedding the layer uses, in families with several; else None.
        scaling: factor on the attention scores.
    """

    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    o_proj: Linear
    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear
    pre_attention_norm: RMSNorm
    pre_mlp_norm: RMSNorm
    post_attention_norm: RMSNorm | None
    post_mlp_norm: RMSNorm | None
    q_norm: RMSNorm | None
    k_norm: RMSNorm | None
    activation: Activation
    layer_type: str | None
    head_dim: int
    scaling: float

    def forward(
        self, x: Tensor, rows: int, tables: PositionTables, prefix: KeyValue | None
    ) -> tuple[Tensor, KeyValue, Saved]:
        """The layer's output, the keys and values of these positions, and the saved activations.

        Args:
            x: `[rows * seq, d_model]`.
            rows: number of rows.
            tables: for the positions of a row.
            prefix: keys and values of the prefix, `[1, heads, prefix, head_dim]`.
        """
        positions, shape = x.shape[0], (rows, len(tables.cos), -1, self.head_dim)
        normed, x_inverse_rms = self.pre_attention_norm.forward(x)
        query_before_norm, query_inverse_rms, query = _heads(
            self.q_proj(normed), shape, self.q_norm, tables
        )
        key_before_norm, key_inverse_rms, key = _heads(
            self.k_proj(normed), shape, self.k_norm, tables
        )
        own = KeyValue(key, self.v_proj(normed).view(shape).transpose(1, 2).contiguous())
        key, value = own if prefix is None else _prepended(prefix, own)
        query = query * self.scaling
        attention_weights = (
            (query @ self._repeat_heads(key).mT)
            .masked_fill_(tables.causal_mask, -torch.inf)
            .softmax(-1)
        )
        mixed = (attention_weights @ self._repeat_heads(value)).transpose(1, 2)
        attention_out = self.o_proj(mixed.reshape(positions, -1))
        added, attention_out_inverse_rms = _optional_norm(self.post_attention_norm, attention_out)
        residual = x + added
        normed, residual_inverse_rms = self.pre_mlp_norm.forward(residual)
        gate, up = self.gate_proj(normed), self.up_proj(normed)
        activated = self.activation.forward(gate)
        mlp_out = self.down_proj(activated * up)
        added, mlp_out_inverse_rms = _optional_norm(self.post_mlp_norm, mlp_out)
        saved = Saved(
            x=x,
            x_inverse_rms=x_inverse_rms,
            query_before_norm=query_before_norm,
            query_inverse_rms=query_inverse_rms,
            key_before_norm=key_before_norm,
            key_inverse_rms=key_inverse_rms,
            query=query,
            key=key,
            value=value,
            attention_weights=attention_weights,
            attention_out=attention_out if self.post_attention_norm else None,
            attention_out_inverse_rms=attention_out_inverse_rms,
            residual=residual,
            residual_inverse_rms=residual_inverse_rms,
            gate=gate,
            up=up,
            activated=activated,
            mlp_out=mlp_out if self.post_mlp_norm else None,
            mlp_out_inverse_rms=mlp_out_inverse_rms,
        )
        return residual + added, own, saved

    def backward(
        self,
        gradient: Float32[Tensor, "positions d_model"],
        saved: Saved,
        tables: PositionTables,
    ) -> None:
        """Replace the gradient with respect to the output by that with respect to x, in place."""
        self._mlp_backward(gradient, saved)
        self._attention_backward(gradient, saved, tables)

    def _mlp_backward(self, gradient: Float32[Tensor, "positions d_model"], saved: Saved) -> None:
        """From the gradient with respect to the output to that with respect to `residual`."""
        to_mlp_out = _optional_norm_gradient(
            self.post_mlp_norm, gradient, saved.mlp_out, saved.mlp_out_inverse_rms
        )
        to_product = to_mlp_out.bfloat16() @ self.down_proj.weight
        to_gate = self.activation.backward(to_product * saved.up, saved.gate)
        to_up = to_product.mul_(saved.activated)
        to_normed = (to_gate @ self.gate_proj.weight).addmm_(to_up, self.up_proj.weight)
        self.pre_mlp_norm.add_gradient(
            to_normed, saved.residual, saved.residual_inverse_rms, gradient
        )

    def _attention_backward(
        self,
        gradient: Float32[Tensor, "positions d_model"],
        saved: Saved,
        tables: PositionTables,
    ) -> None:
        """From the gradient with respect to `residual` to that with respect to `x`."""
        rows, heads, seq, _ = saved.query.shape
        to_attention_out = _optional_norm_gradient(
            self.post_attention_norm,
            gradient,
            saved.attention_out,
            saved.attention_out_inverse_rms,
        )
        to_mixed = (
            (to_attention_out.bfloat16() @ self.o_proj.weight)
            .view(rows, seq, heads, self.head_dim)
            .transpose(1, 2)
            .contiguous()
        )
        # The keys and values of a prefix come first, and get no gradient.
        own = slice(saved.key.shape[2] - seq, None)
        to_value = self._sum_repeated(saved.attention_weights[..., own].mT @ to_mixed)
        to_weights = to_mixed @ self._repeat_heads(saved.value).mT
        to_scores = torch.ops.aten._softmax_backward_data(
            to_weights, saved.attention_weights, -1, saved.attention_weights.dtype
        )
        to_query = (to_scores @ self._repeat_heads(saved.key)).mul_(self.scaling)
        to_key = self._sum_repeated(to_scores[..., own].mT @ saved.query)
        to_query = _heads_gradient(
            self.q_norm, to_query, saved.query_before_norm, saved.query_inverse_rms, tables
        )
        to_key = _heads_gradient(
            self.k_norm, to_key, saved.key_before_norm, saved.key_inverse_rms, tables
        )
        to_query, to_key, to_value = (
            part.transpose(1, 2).reshape(rows * seq, -1) for part in (to_query, to_key, to_value)
        )
        to_normed = (
            (to_query @ self.q_proj.weight)
            .addmm_(to_key, self.k_proj.weight)
            .addmm_(to_value, self.v_proj.weight)
        )
        self.pre_attention_norm.add_gradient(to_normed, saved.x, saved.x_inverse_rms, gradient)

    def _repeat_heads(self, part: Tensor) -> Tensor:
        """Keys or values `[rows, kv_heads, seq, head_dim]`, repeated for every query head."""
        groups = self.q_proj.weight.shape[0] // self.head_dim // part.shape[1]
        return part if groups == 1 else part.repeat_interleave(groups, 1)

    def _sum_repeated(self, gradient: Tensor) -> Tensor:
        """The gradient of `_repeat_heads`: sums over the query heads that share a key head."""
        groups = self.q_proj.weight.shape[0] // self.k_proj.weight.shape[0]
        return gradient if groups == 1 else gradient.unflatten(1, (-1, groups)).sum(2)


def _optional_norm(norm: RMSNorm | None, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The normed x and 1 / rms(x); x and None where a family has no such norm."""
    return (x, None) if norm is None else norm.forward(x)


def _optional_norm_gradient(
    norm: RMSNorm | None, gradient: Tensor, x: Tensor | None, inverse_rms: Tensor | None
) -> Tensor:
    """The gradient of `_optional_norm` with respect to x, in float32."""
    if norm is None or x is None or inverse_rms is None:
        return gradient
    zeros = torch.zeros(x.shape, dtype=torch.float32)
    return norm.add_gradient(gradient, x, inverse_rms, zeros)


def _heads(
    projected: Tensor, shape: tuple[int, ...], norm: RMSNorm | None, tables: PositionTables
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Queries or keys `[rows, heads, seq, head_dim]`, normed and rotated.

    Args:
        projected: `[rows * seq, heads * head_dim]`.
        shape: `(rows, seq, -1, head_dim)`.

    Returns:
        The queries or keys before their norm and 1 / rms of these, both None without a norm; and
        the normed and rotated ones.
    """
    split = projected.view(shape).transpose(1, 2)
    if norm is None:
        return None, None, _rotate(split, tables)
    normed, inverse_rms = norm.forward(split)
    return split, inverse_rms, _rotate(normed, tables)


def _heads_gradient(
    norm: RMSNorm | None,
    gradient: Tensor,
    before_norm: Tensor | None,
    inverse_rms: Tensor | None,
    tables: PositionTables,
) -> Tensor:
    """The gradient of `_heads` with respect to the projected queries or keys, in bfloat16."""
    to_normed = _rotate_gradient(gradient, tables)
    return _optional_norm_gradient(norm, to_normed, before_norm, inverse_rms).to(gradient.dtype)


def _prepended(prefix: KeyValue, own: KeyValue) -> KeyValue:
    """Keys and values of the prefix, expanded to every row, in front of the rows' own."""
    rows = own.key.shape[0]
    key, value = (
        torch.cat([shared.expand(rows, -1, -1, -1), new], 2)
        for shared, new in zip(prefix, own, strict=True)
    )
    return KeyValue(key, value)


def _rotate(x: Tensor, tables: PositionTables) -> Tensor:
    """Rotary embedding: x cos + x' sin, where x' has the halves of x swapped.

    The first half of `tables.sin` is negated already.
    """
    return (x * tables.cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(tables.sin))


def _rotate_gradient(gradient: Tensor, tables: PositionTables) -> Tensor:
    """The gradient of `_rotate` with respect to x."""
    return (gradient * tables.cos).add_((gradient * tables.sin).roll(gradient.shape[-1] // 2, -1))
