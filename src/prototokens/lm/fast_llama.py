"""A hand-written forward and backward pass of Llama-like bodies in bfloat16 on a CPU.

Where fits spend their time.

Llama, Mistral, Qwen 2 and 3, and Gemma 3 are built of the same parts: RMS norms, rotary positions,
grouped attention and a gated feed-forward. The forward pass gives the bits that the model's own
gives (with `attention`): the same operations on the same numbers. The backward pass is where time
is saved. Autograd takes a hundred and more small operations a layer; here the gradient of each part
is written out in a few, no weight ever gets one, and what a position hands back is summed in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import BFloat16, Float, Float32
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from prototokens.lm.attention import LONGEST, PLAIN

ATTENTION_MAPS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
FEED_FORWARD_MAPS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")  # Qwen 3, Gemma 3
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
# Gemma 3 norms what attention and feed-forward give as well as what they take.
GEMMA_NORMS = (
    "input_layernorm",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)
TRIED = (2, 5)  # rows and positions on which a body is compared with the model's own
# Of the gradient's norm: autograd rounds every step of its way to bfloat16, which adds up over the
# layers (30 of SmolLM2's: 0.04; 6 of the built-in model's: 0.01).
GRADIENT_TOLERANCE = 2**-3


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


class FastLlama:
    """A stand-in for a model's body in fits.

    From input vectors to the hidden states after the final norm.

    Args:
        body: as `checks.parts` found it; its weights are used where they lie.
        config: the model's.
    """

    def __init__(self, body: Any, config: Any):
        self.rotary, self.norm = body.rotary_emb, _norm(body.norm)
        kinds = (
            config.layer_types
            if hasattr(body.rotary_emb, "layer_types")
            else [None] * len(body.layers)
        )
        self.layers = [_layer(block, kind) for block, kind in zip(body.layers, kinds, strict=True)]
        self._places: dict[tuple[int, int, str | None], Places] = {}

    def __call__(
        self,
        inputs_embeds: BFloat16[Tensor, "rows seq d_model"],
        past: Sequence[KeyValue] | None = None,
    ) -> BFloat16[Tensor, "rows seq d_model"]:
        """Hidden states; differentiable once, with respect to the inputs.

        Args:
            past: of a prefix, as `past` gives it.
        """
        return _Through.apply(inputs_embeds, self, past)

    @torch.no_grad()
    def past(self, prefix: BFloat16[Tensor, "1 prefix d_model"]) -> list[KeyValue]:
        """Keys and values of every layer for the input vectors of a prefix."""
        x, kept = prefix.reshape(-1, prefix.shape[-1]), []
        for layer in self.layers:
            x, own, _ = layer.forward(x, 1, self.places(prefix, 0, layer.kind), None)
            kept.append(own)
        return kept

    def places(self, like: Tensor, before: int, kind: str | None) -> Places:
        """Of rows as long as these, behind `before` positions of a prefix, for layers of this kind."""
        seq = like.shape[1]
        key = (seq, before, kind)
        if key not in self._places:
            numbers = torch.arange(before, before + seq, device=like.device)[None]
            cos, sin = (
                self.rotary(like, numbers) if kind is None else self.rotary(like, numbers, kind)
            )
            half = sin.shape[-1] // 2
            sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
            mask = torch.ones(seq, before + seq, dtype=torch.bool, device=like.device).triu(
                before + 1
            )
            self._places[key] = Places(cos[0].clone(), sin, mask)
        return self._places[key]


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, body: FastLlama, past: Sequence[KeyValue] | None
    ) -> Tensor:
        before = 0 if past is None else past[0].key.shape[2]
        x, kept, placed = inputs.reshape(-1, inputs.shape[-1]), [], []
        for number, layer in enumerate(body.layers):
            places = body.places(inputs, before, layer.kind)
            x, _, saved = layer.forward(
                x, len(inputs), places, None if past is None else past[number]
            )
            kept += saved
            placed.append(places)
        out, inverse = body.norm.forward(x)
        ctx.body, ctx.placed = body, placed
        ctx.save_for_backward(*kept, x, inverse)
        return out.view_as(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        *kept, x, inverse = ctx.saved_tensors
        layers, width = ctx.body.layers, len(Saved._fields)
        at = ctx.body.norm.add_gradient(
            gradient.reshape(x.shape), x, inverse, torch.zeros(x.shape, dtype=torch.float32)
        )
        for number in reversed(range(len(layers))):
            layers[number].backward(
                at, Saved(*kept[number * width : (number + 1) * width]), ctx.placed[number]
            )
        return at.to(gradient.dtype).view_as(gradient), None, None


def _layer(block: Any, kind: str | None) -> Layer:
    """The parts of a transformers block.

    Raises:
        AttributeError: it has not these parts.
    """
    maps = [block.get_submodule(name) for name in (*ATTENTION_MAPS, *FEED_FORWARD_MAPS)]
    query, key, value, out, gate, up, down = (Linear(one.weight.detach(), one.bias) for one in maps)
    norms: list[Norm | None] = [_norm(block.get_submodule(name)) for name in _norm_names(block)]
    heads: list[Norm | None] = [
        _norm(block.get_submodule(name)) for name in _head_norm_names(block)
    ]
    before_attention, before_feed_forward, after_attention, after_feed_forward = [
        *norms,
        None,
        None,
    ][:4]
    of_query, of_key = heads or [None, None]
    assert before_attention is not None
    assert before_feed_forward is not None
    return Layer(
        query=query,
        key=key,
        value=value,
        out=out,
        gate=gate,
        up=up,
        down=down,
        before_attention=before_attention,
        before_feed_forward=before_feed_forward,
        after_attention=after_attention,
        after_feed_forward=after_feed_forward,
        of_query=of_query,
        of_key=of_key,
        activation=ACTIVATIONS[_activation_name(block)],
        kind=kind,
        head_dim=block.self_attn.head_dim,
        scaling=block.self_attn.scaling,
    )


def _norm_names(block: Any) -> Sequence[str]:
    return GEMMA_NORMS if hasattr(block, "pre_feedforward_layernorm") else LLAMA_NORMS


def _head_norm_names(block: Any) -> Sequence[str]:
    return HEAD_NORMS if hasattr(block.self_attn, "q_norm") else ()


def _activation_name(block: Any) -> str:
    """Of the gate; `silu` where it is not known, which the comparison with the model's own body then finds out."""
    config = getattr(block.self_attn, "config", None)
    name = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    return name if name in ACTIVATIONS else "silu"


def _norm(module: Any) -> Norm:
    """An RMS norm, of the kind that gives the module's own bits for a vector at random.

    Else of Llama's kind.
    """
    weight = module.weight.detach()
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    gemma = Norm(1.0 + weight.float(), None, eps)
    x = torch.randn(2, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    if torch.equal(module(x), gemma.forward(x)[0]):
        return gemma
    return Norm(weight.float(), weight, eps)


def fast_llama(body: Any, config: Any) -> FastLlama | None:
    """The hand-written body, where it is of a kind known here and gives the very bits that the model's own gives; else None.

    Args:
        body: of a causal LM, as `checks.parts` finds it.
        config: the model's.
    """
    if config._attn_implementation != PLAIN:  # which is so in bfloat16 on a CPU alone
        return None
    # A window that some layers see no further than: the mask that it takes is not made here.
    if (getattr(config, "sliding_window", None) or LONGEST) < LONGEST:
        return None
    try:
        made = FastLlama(body, config)
        if {id(one) for one in body.parameters()} != _weights_of(body):
            return None
    except AttributeError:  # another family: it has no such parts
        return None
    try:
        return made if _agrees(made, body, config.hidden_size) else None
    except (
        RuntimeError
    ):  # its parts are of other sizes than this way of putting them together needs
        return None


def _weights_of(body: Any) -> set[int]:
    """The parameters that are used here.

    A body with others does something that is not known here.
    """
    known: list[nn.Module] = [body.norm, body.embed_tokens]
    for block in body.layers:
        names = (*ATTENTION_MAPS, *FEED_FORWARD_MAPS, *_norm_names(block), *_head_norm_names(block))
        known += [block.get_submodule(name) for name in names]
    return {id(one) for module in known for one in module.parameters()}


def _agrees(made: FastLlama, body: Any, width: int) -> bool:
    """Whether both give the same bits, and nearly the same gradients, for some vectors of the model's own scale."""
    drawn = torch.randn(*TRIED, width, generator=torch.Generator().manual_seed(0))
    inputs = (drawn * body.embed_tokens.weight.float().std()).bfloat16().requires_grad_()
    with torch.enable_grad():
        own: Float[Tensor, "rows seq hidden"] = body(
            inputs_embeds=inputs, use_cache=False, return_dict=True
        ).last_hidden_state
        ours = made(inputs)
    if not torch.equal(own, ours):
        return False
    (theirs,) = torch.autograd.grad(own, inputs, drawn.bfloat16())
    (gradient,) = torch.autograd.grad(ours, inputs, drawn.bfloat16())
    return bool((theirs - gradient).float().norm() <= GRADIENT_TOLERANCE * theirs.float().norm())
