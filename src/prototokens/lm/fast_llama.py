"""A hand-written forward and backward pass of Llama-like bodies, for fits in bfloat16 on a CPU.

Fits spend most of their time in the body. Llama, Mistral, Qwen 2 and 3, and Gemma 3 consist of the
same parts: RMS norms, a rotary embedding, grouped-query attention and a gated MLP. The forward pass
here is bit-identical to the model's own (with `lm.attention`), as it applies the same operations to
the same numbers. The backward pass saves the time: autograd runs more than a hundred small
operations a layer, while here the gradient of each part is written out in a few, weights get no
gradient, and the gradient with respect to the hidden states is accumulated in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from prototokens.lm.attention import MAX_LENGTH, PLAIN
from prototokens.lm.llama_layer import (
    ACTIVATIONS,
    KeyValue,
    Layer,
    Linear,
    PositionTables,
    RMSNorm,
    Saved,
)

ATTENTION_PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
)
MLP_PROJECTIONS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")  # Qwen 3, Gemma 3
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
# Gemma 3 norms the outputs of attention and MLP as well as their inputs.
GEMMA_NORMS = (
    "input_layernorm",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
)
TRIAL_SHAPE = (2, 5)  # rows and positions on which the two bodies are compared
# As a share of the gradient's norm. Autograd rounds every intermediate gradient to bfloat16, and
# the errors add up over the layers (0.04 for the 30 layers of SmolLM2, 0.01 for the 6 of the
# built-in model).
GRADIENT_TOLERANCE = 2**-3


class FastLlama:
    """The body of a model, from input vectors to the hidden states after the final norm.

    Args:
        body: the body as `checks.parts` finds it; its weights are shared, not copied.
        config: the model's configuration.
    """

    def __init__(self, body: Any, config: Any):
        self.rotary, self.norm = body.rotary_emb, _norm(body.norm)
        layer_types = (
            config.layer_types
            if hasattr(body.rotary_emb, "layer_types")
            else [None] * len(body.layers)
        )
        self.layers = [
            _layer(block, layer_type)
            for block, layer_type in zip(body.layers, layer_types, strict=True)
        ]
        self._tables: dict[tuple[int, int, str | None], PositionTables] = {}

    def __call__(
        self,
        inputs_embeds: BFloat16[Tensor, "rows seq d_model"],
        prefix: Sequence[KeyValue] | None = None,
    ) -> BFloat16[Tensor, "rows seq d_model"]:
        """Hidden states; differentiable once, with respect to the inputs.

        Args:
            prefix: keys and values of a prefix in every layer, as `prefix_cache` returns them.
        """
        return _FastLlamaFunction.apply(inputs_embeds, self, prefix)

    @torch.no_grad()
    def prefix_cache(self, prefix: BFloat16[Tensor, "1 prefix d_model"]) -> list[KeyValue]:
        """Keys and values of every layer for the input vectors of a prefix."""
        x, cache = prefix.reshape(-1, prefix.shape[-1]), []
        for layer in self.layers:
            tables = self.position_tables(prefix, 0, layer.layer_type)
            x, own, _ = layer.forward(x, 1, tables, None)
            cache.append(own)
        return cache

    def position_tables(
        self, inputs: Tensor, prefix_length: int, layer_type: str | None
    ) -> PositionTables:
        """Position tables for rows of this length behind a prefix, made once for each length.

        Args:
            inputs: `[rows, seq, d_model]`.
            prefix_length: tokens of the prefix.
            layer_type: which rotary embedding is used, in families with several.
        """
        seq = inputs.shape[1]
        key = (seq, prefix_length, layer_type)
        if key not in self._tables:
            end = prefix_length + seq
            numbers = torch.arange(prefix_length, end, device=inputs.device)[None]
            cos, sin = (
                self.rotary(inputs, numbers)
                if layer_type is None
                else self.rotary(inputs, numbers, layer_type)
            )
            half = sin.shape[-1] // 2
            sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
            mask = torch.ones(seq, end, dtype=torch.bool, device=inputs.device)
            self._tables[key] = PositionTables(cos[0].clone(), sin, mask.triu(prefix_length + 1))
        return self._tables[key]


class _FastLlamaFunction(torch.autograd.Function):
    """All layers and the final norm as one operation of autograd."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, body: FastLlama, prefix: Sequence[KeyValue] | None
    ) -> Tensor:
        prefix_length = 0 if prefix is None else prefix[0].key.shape[2]
        x, saved_tensors, layer_tables = inputs.reshape(-1, inputs.shape[-1]), [], []
        for number, layer in enumerate(body.layers):
            tables = body.position_tables(inputs, prefix_length, layer.layer_type)
            x, _, saved = layer.forward(
                x, len(inputs), tables, None if prefix is None else prefix[number]
            )
            saved_tensors += saved
            layer_tables.append(tables)
        out, inverse_rms = body.norm.forward(x)
        ctx.body, ctx.layer_tables = body, layer_tables
        ctx.save_for_backward(*saved_tensors, x, inverse_rms)
        return out.view_as(inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        *saved_tensors, x, inverse_rms = ctx.saved_tensors
        layers, width = ctx.body.layers, len(Saved._fields)
        to_x = ctx.body.norm.add_gradient(
            gradient.reshape(x.shape), x, inverse_rms, torch.zeros(x.shape, dtype=torch.float32)
        )
        for number in reversed(range(len(layers))):
            saved = Saved(*saved_tensors[number * width : (number + 1) * width])
            layers[number].backward(to_x, saved, ctx.layer_tables[number])
        return to_x.to(gradient.dtype).view_as(gradient), None, None


def _layer(block: Any, layer_type: str | None) -> Layer:
    """A layer with the weights of a transformers block.

    Raises:
        AttributeError: the block lacks one of the parts.
    """
    projections = [block.get_submodule(name) for name in (*ATTENTION_PROJECTIONS, *MLP_PROJECTIONS)]
    q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj = (
        Linear(projection.weight.detach(), projection.bias) for projection in projections
    )
    pre_attention_norm, pre_mlp_norm, *post_norms = (
        _norm(block.get_submodule(name)) for name in _norm_names(block)
    )
    post_attention_norm, post_mlp_norm = post_norms or (None, None)
    head_norms = [_norm(block.get_submodule(name)) for name in _head_norm_names(block)]
    q_norm, k_norm = head_norms or (None, None)
    return Layer(
        q_proj=q_proj,
        k_proj=k_proj,
        v_proj=v_proj,
        o_proj=o_proj,
        gate_proj=gate_proj,
        up_proj=up_proj,
        down_proj=down_proj,
        pre_attention_norm=pre_attention_norm,
        pre_mlp_norm=pre_mlp_norm,
        post_attention_norm=post_attention_norm,
        post_mlp_norm=post_mlp_norm,
        q_norm=q_norm,
        k_norm=k_norm,
        activation=ACTIVATIONS[_activation_name(block)],
        layer_type=layer_type,
        head_dim=block.self_attn.head_dim,
        scaling=block.self_attn.scaling,
    )


def _norm_names(block: Any) -> Sequence[str]:
    """The norms of a block: before attention, before the MLP, and in Gemma 3 after each."""
    return GEMMA_NORMS if hasattr(block, "pre_feedforward_layernorm") else LLAMA_NORMS


def _head_norm_names(block: Any) -> Sequence[str]:
    return HEAD_NORMS if hasattr(block.self_attn, "q_norm") else ()


def _activation_name(block: Any) -> str:
    """The activation function of the MLP's gate.

    An unknown one is taken for `silu`; the comparison with the model's own body then fails.
    """
    config = getattr(block.self_attn, "config", None)
    name = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    return name if name in ACTIVATIONS else "silu"


def _norm(module: Any) -> RMSNorm:
    """The RMS norm of a transformers module.

    Gemma's kind if that gives bit-identical output for random vectors, else Llama's kind.
    """
    weight = module.weight.detach()
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    gemma = RMSNorm(1.0 + weight.float(), None, eps)
    x = torch.randn(2, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    if torch.equal(module(x), gemma.forward(x)[0]):
        return gemma
    return RMSNorm(weight.float(), weight, eps)


def fast_llama(body: Any, config: Any) -> FastLlama | None:
    """The hand-written body of a model; None where it cannot replace the model's own body.

    It replaces it only if the family is supported and a trial gives bit-identical hidden states.

    Args:
        body: the body of a causal LM, as `checks.parts` finds it.
        config: the model's configuration.
    """
    if config._attn_implementation != PLAIN:  # it is PLAIN only in bfloat16 on a CPU
        return None
    # The mask of a sliding window is not implemented here.
    if (getattr(config, "sliding_window", None) or MAX_LENGTH) < MAX_LENGTH:
        return None
    try:
        fast = FastLlama(body, config)
        if {id(parameter) for parameter in body.parameters()} != _supported_parameters(body):
            return None
    except AttributeError:  # another family, which lacks one of the parts
        return None
    try:
        return fast if _matches(fast, body, config.hidden_size) else None
    except RuntimeError:  # the parts are of shapes that do not fit together in this way
        return None


def _supported_parameters(body: Any) -> set[int]:
    """The `id` of every parameter that the hand-written body uses.

    A body with other parameters computes something that is not implemented here.
    """
    modules: list[nn.Module] = [body.norm, body.embed_tokens]
    for block in body.layers:
        names = (
            *ATTENTION_PROJECTIONS,
            *MLP_PROJECTIONS,
            *_norm_names(block),
            *_head_norm_names(block),
        )
        modules += [block.get_submodule(name) for name in names]
    return {id(parameter) for module in modules for parameter in module.parameters()}


def _matches(fast: FastLlama, body: Any, width: int) -> bool:
    """Whether both bodies give bit-identical hidden states, and gradients within the tolerance.

    They are compared on random vectors on the scale of the model's embeddings.
    """
    random = torch.randn(*TRIAL_SHAPE, width, generator=torch.Generator().manual_seed(0))
    inputs = (random * body.embed_tokens.weight.float().std()).bfloat16().requires_grad_()
    with torch.enable_grad():
        expected: Float[Tensor, "rows seq hidden"] = body(
            inputs_embeds=inputs, use_cache=False, return_dict=True
        ).last_hidden_state
        states = fast(inputs)
    if not torch.equal(expected, states):
        return False
    (expected_gradient,) = torch.autograd.grad(expected, inputs, random.bfloat16())
    (gradient,) = torch.autograd.grad(states, inputs, random.bfloat16())
    error = (expected_gradient - gradient).float().norm()
    return bool(error <= GRADIENT_TOLERANCE * expected_gradient.float().norm())
