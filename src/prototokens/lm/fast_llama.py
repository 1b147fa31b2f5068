"""The body of the Llama family in bfloat16 on a CPU, forward and backward by hand: what fits spend their time on.

The forward pass gives the bits that the model's own gives (with `attention`): the same operations on the same numbers. The
backward pass is where time is saved. Autograd takes a hundred and more small operations a layer; here the slope of each part
is written out in a few, no weight ever gets one, and what a position hands back is summed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import BFloat16, Bool, Float32
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from prototokens.lm.attention import LONGEST, PLAIN

MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MAPS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
TRIED = (2, 5)  # rows and positions on which a body is compared with the model's own
SLOPE_TOLERANCE = 2**-5  # of the largest slope: autograd rounds every step of its way to bfloat16


@dataclass(frozen=True)
class Norm:
    """y = weight * x / rms(x), the quotient rounded before the product."""

    weight: BFloat16[Tensor, " d_model"]
    eps: float

    def forward(self, x: BFloat16[Tensor, "positions d_model"]) -> tuple[Tensor, Float32[Tensor, "positions 1"]]:
        """The normed x, and 1 / rms(x)."""
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * torch.mul(wide, inverse, out=torch.empty_like(x)), inverse

    def add_slope(self, slope: Tensor, x: Tensor, inverse: Tensor, to: Float32[Tensor, "positions d_model"]) -> None:
        """Add to `to` the slope at x that a slope at y makes: (g - x mean(g x) / rms^2) / rms, with g = weight slope."""
        g, wide = slope.float().mul_(self.weight.float()), x.float()
        along = torch.linalg.vecdot(g, wide)[:, None] * inverse.square() / -x.shape[-1]
        to.addcmul_(g.addcmul_(wide, along), inverse)


@dataclass(frozen=True)
class Layer:
    """One block: its maps (weights, and biases or None) and norms."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    norms: tuple[Norm, Norm]
    head_dim: int
    scaling: float

    def linear(self, number: int, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[number], self.biases[number])

    def forward(self, x: Tensor, rows: int, turn: Sequence[Tensor], hidden: Bool[Tensor, "seq seq"]) -> tuple[Tensor, ...]:
        """What comes out, and what the way back needs."""
        positions, shape = x.shape[0], (rows, len(hidden), -1, self.head_dim)
        normed, inverse = self.norms[0].forward(x)
        query, key = (_turned(self.linear(number, normed).view(shape).transpose(1, 2), *turn) for number in (0, 1))
        value = self.linear(2, normed).view(shape).transpose(1, 2).contiguous()
        query = query * self.scaling
        shares = (query @ self._repeated(key).mT).masked_fill_(hidden, -torch.inf).softmax(-1)
        mixed = (shares @ self._repeated(value)).transpose(1, 2).reshape(positions, -1)
        middle = x + self.linear(3, mixed)
        normed, inverse_middle = self.norms[1].forward(middle)
        gate, up = self.linear(4, normed), self.linear(5, normed)
        open_gate = functional.silu(gate)
        out = middle + self.linear(6, open_gate * up)
        return out, x, inverse, query, key, value, shares, middle, inverse_middle, gate, up, open_gate

    def backward(self, slope: Float32[Tensor, "positions d_model"], saved: Sequence[Tensor], turn: Sequence[Tensor]) -> None:
        """Turn the slope with respect to what came out into the one with respect to x, in place."""
        x, inverse, query, key, value, shares, middle, inverse_middle, gate, up, open_gate = saved
        inner = slope.bfloat16() @ self.weights[6]
        to_gate = torch.ops.aten.silu_backward(inner * up, gate)
        normed = (to_gate @ self.weights[4]).addmm_(inner.mul_(open_gate), self.weights[5])
        self.norms[1].add_slope(normed, middle, inverse_middle, slope)

        rows, heads, seq, _ = query.shape
        mixed = (slope.bfloat16() @ self.weights[3]).view(rows, seq, heads, self.head_dim).transpose(1, 2).contiguous()
        to_value = self._gathered(shares.mT @ mixed)
        to_scores = torch.ops.aten._softmax_backward_data(mixed @ self._repeated(value).mT, shares, -1, shares.dtype)
        to_query = (to_scores @ self._repeated(key)).mul_(self.scaling)
        to_key = self._gathered(to_scores.mT @ query)
        turned = (_turned_back(to_query, *turn), _turned_back(to_key, *turn), to_value)
        parts = [part.transpose(1, 2).reshape(rows * seq, -1) for part in turned]
        normed = parts[0] @ self.weights[0]
        for part, weight in zip(parts[1:], self.weights[1:3], strict=True):
            normed.addmm_(part, weight)
        self.norms[0].add_slope(normed, x, inverse, slope)

    def _repeated(self, part: Tensor) -> Tensor:
        """Keys or values for every query head."""
        times = self.weights[0].shape[0] // self.head_dim // part.shape[1]
        return part if times == 1 else part.repeat_interleave(times, 1)

    def _gathered(self, slope: Tensor) -> Tensor:
        """The way back from `_repeated`."""
        times = self.weights[0].shape[0] // self.weights[1].shape[0]
        return slope if times == 1 else slope.unflatten(1, (-1, times)).sum(2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x cos + swapped(x) sin, with the first half of `sin` negated beforehand."""
    return (x * cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(sin))


def _turned_back(slope: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (slope * cos).add_((slope * sin).roll(slope.shape[-1] // 2, -1))


class LlamaBody:
    """A stand-in for a model's body in fits: from input vectors to the hidden states after the final norm.

    Args:
        body: as `lm.checks.parts` found it; its weights are used where they lie.
    """

    def __init__(self, body: Any):
        self.rotary, (self.norm,) = body.rotary_emb, _norms(body, ["norm"])
        self.layers = [_layer(block) for block in body.layers]
        self._turns: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, inputs_embeds: BFloat16[Tensor, "rows seq d_model"]) -> BFloat16[Tensor, "rows seq d_model"]:
        """Hidden states; differentiable once, with respect to the inputs."""
        return _Through.apply(inputs_embeds, self)

    def turn(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines, sines (the first half negated) and what is not to be seen, for rows as long as these."""
        seq = like.shape[1]
        if seq not in self._turns:
            cos, sin = self.rotary(like, torch.arange(seq, device=like.device)[None])
            half = sin.shape[-1] // 2
            sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
            self._turns[seq] = cos[0].clone(), sin, torch.ones(seq, seq, dtype=torch.bool, device=like.device).triu(1)
        return self._turns[seq]


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, body: LlamaBody) -> Tensor:
        *turn, hidden = body.turn(inputs)
        x, kept = inputs.reshape(-1, inputs.shape[-1]), []
        for layer in body.layers:
            x, *saved = layer.forward(x, len(inputs), turn, hidden)
            kept += saved
        out, inverse = body.norm.forward(x)
        ctx.body, ctx.turn = body, turn
        ctx.save_for_backward(*kept, x, inverse)
        return out.view_as(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        *kept, x, inverse = ctx.saved_tensors
        at = x.new_zeros(x.shape, dtype=torch.float32)
        ctx.body.norm.add_slope(slope.reshape(x.shape), x, inverse, at)
        count = len(kept) // len(ctx.body.layers)
        for number in reversed(range(len(ctx.body.layers))):
            ctx.body.layers[number].backward(at, kept[number * count : (number + 1) * count], ctx.turn)
        return at.to(slope.dtype).view_as(slope), None


def _layer(block: Any) -> Layer:
    maps = [block.get_submodule(name) for name in MAPS]
    first, second = _norms(block, NORMS)
    weights, biases = tuple(one.weight.detach() for one in maps), tuple(one.bias for one in maps)
    return Layer(weights, biases, (first, second), block.self_attn.head_dim, block.self_attn.scaling)


def _norms(module: Any, names: Sequence[str]) -> list[Norm]:
    found = [module.get_submodule(name) for name in names]
    return [Norm(one.weight.detach(), one.variance_epsilon) for one in found]


def by_hand(body: Any, config: Any) -> LlamaBody | None:
    """The body by hand, where it is of a kind known here and gives the very bits that the model's own gives; else None.

    Args:
        body: of a causal LM, as `lm.checks.parts` finds it; `config`: the model's.
    """
    if config._attn_implementation != PLAIN:  # which is so in bfloat16 on a CPU alone
        return None
    # A window that some layers see no further than: the mask that it takes is not made here.
    if (getattr(config, "sliding_window", None) or LONGEST) < LONGEST:
        return None
    try:
        made = LlamaBody(body)
        if {id(one) for one in body.parameters()} != _weights_of(body):
            return None
    except AttributeError:  # another family: it has no such parts
        return None
    try:
        return made if _agrees(made, body, config.hidden_size) else None
    except RuntimeError:  # its parts are of other sizes than this way of putting them together needs
        return None


def _weights_of(body: Any) -> set[int]:
    """The parameters that are used by hand: a body with others does something that is not known here."""
    known: list[nn.Module] = [body.norm, body.embed_tokens]
    for block in body.layers:
        known += [block.get_submodule(name) for name in (*MAPS, *NORMS)]
    return {id(one) for module in known for one in module.parameters()}


def _agrees(made: LlamaBody, body: Any, width: int) -> bool:
    """Whether both give the same bits, and nearly the same slopes, for some vectors of the model's own scale."""
    drawn = torch.randn(*TRIED, width, generator=torch.Generator().manual_seed(0))
    inputs = (drawn * body.embed_tokens.weight.float().std()).bfloat16().requires_grad_()
    with torch.enable_grad():
        own = body(inputs_embeds=inputs, use_cache=False, return_dict=True).last_hidden_state
        ours = made(inputs)
    if not torch.equal(own, ours):
        return False
    (theirs,) = torch.autograd.grad(own, inputs, drawn.bfloat16())
    (slope,) = torch.autograd.grad(ours, inputs, drawn.bfloat16())
    return bool((theirs - slope).abs().max() <= SLOPE_TOLERANCE * theirs.abs().max())
