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

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from prototokens.lm.attention import LONGEST, PLAIN
from prototokens.lm.llama_layer import (
    ACTIVATIONS,
    KeyValue,
    Layer,
    Linear,
    Norm,
    Places,
    Saved,
)

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
