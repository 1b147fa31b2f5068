"""A frozen Llama model as an ONNX graph in float32, for onnxruntime-web.

The graph is written here, operator by operator, and not traced: so it takes what one-step decoding
feeds, and a cache of keys and values for token-by-token generation beside it. Its weights are
exactly those of the model. WebGPU and float16 give other tokens, so the graph is for a CPU.

Inputs, with B rows of P cached, S prefix and T vector positions; S and T may be 0:
- `ids` `[B, S]` int64: token ids, which come before the vectors;
- `vectors` `[B, T, d_model]` float32: vectors in place of embeddings;
- `key.i`, `value.i` `[B, heads, P, head width]`: the cache of layer i.

Outputs: `logits` `[B, S + T, vocabulary]`, and the longer cache `new.key.i`, `new.value.i`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prototokens._util.extras import need
from prototokens.errors import ModelError
from prototokens.lm.frozen_lm import FrozenLM

EXTRA, PURPOSE = "html", "writing a model as ONNX"
OPSET, IR = 17, 8  # operators and container that onnxruntime-web has had for years
FAMILY = "llama"


class Graph:
    """Nodes and initializers of a graph, while it is written."""

    def __init__(self) -> None:
        self._helper: Any = need("onnx.helper", EXTRA, PURPOSE)
        self._numpy: Any = need("onnx.numpy_helper", EXTRA, PURPOSE)
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output; gives the output's name."""
        output = name or f"{kind.lower()}.{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def split(self, tensor: str, axis: int) -> tuple[str, str]:
        """Two halves of a tensor."""
        names = [f"split.{len(self.nodes)}.{half}" for half in range(2)]
        self.nodes.append(self._helper.make_node("Split", [tensor], names, axis=axis))
        return names[0], names[1]

    def weight(self, name: str, values: torch.Tensor) -> str:
        """A tensor of the model, in float32."""
        self.constants[name] = self._numpy.from_array(values.detach().float().cpu().numpy(), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant list of integers."""
        name = "integers." + ".".join(map(str, values))
        self.constants[name] = self._numpy.from_array(np.array(values, np.int64), name)
        return name

    def number(self, value: float) -> str:
        """A constant number."""
        name = f"number.{value}"
        self.constants[name] = self._numpy.from_array(np.array(value, np.float32), name)
        return name

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> bytes:
        """The file. Shapes are lists of numbers and of names of free dimensions."""

        def info(name: str, shape: list[Any]) -> Any:
            return self._helper.make_tensor_value_info(name, 7 if name == "ids" else 1, shape)

        graph = self._helper.make_graph(
            self.nodes,
            "prototokens",
            [info(*one) for one in inputs.items()],
            [info(*one) for one in outputs.items()],
            list(self.constants.values()),
        )
        opset = self._helper.make_opsetid("", OPSET)
        made = self._helper.make_model(graph, opset_imports=[opset], ir_version=IR)
        made.producer_name = "prototokens"
        return made.SerializeToString()


def onnx_model(lm: FrozenLM) -> bytes:
    """The model as the bytes of an ONNX file.

    Args:
        lm: a Llama model without biases and without grouped keys, as the built-in one; in float32,
            as the weights are cast to it.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: the model is of another kind.
    """
    config, model = lm.model.config, lm.model
    plain = config.model_type == FAMILY and not (config.attention_bias or config.mlp_bias)
    if not plain or config.num_key_value_heads != config.num_attention_heads:
        raise ModelError(
            f"{lm.name!r} cannot be written as ONNX here: only a Llama model without biases and"
            " without grouped keys can, as the built-in one"
        )
    graph = Graph()
    weights = model.state_dict()
    heads, width = config.num_attention_heads, config.head_dim
    table = graph.weight("embeddings", weights["model.embed_tokens.weight"])
    states = graph.op("Concat", graph.op("Gather", table, "ids"), "vectors", axis=1)
    cosine, sine, mask = _positions(graph, lm, states)
    caches = {}
    for layer in range(config.num_hidden_layers):
        own = f"model.layers.{layer}."
        part = {
            name[len(own) : -len(".weight")]: tensor
            for name, tensor in weights.items()
            if name.startswith(own)
        }
        normed = _norm(graph, states, part["input_layernorm"], f"{layer}.norm", config.rms_norm_eps)
        mixed = _attention(graph, normed, part, layer, (heads, width), (cosine, sine, mask))
        states = graph.op("Add", states, mixed)
        normed = _norm(
            graph, states, part["post_attention_layernorm"], f"{layer}.after", config.rms_norm_eps
        )
        states = graph.op("Add", states, _feed_forward(graph, normed, part, layer))
        for name in (f"key.{layer}", f"value.{layer}"):
            caches[name] = ["B", heads, "P", width]
    final = _norm(graph, states, weights["model.norm.weight"], "norm", config.rms_norm_eps)
    if torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]):
        head = graph.op("Transpose", table, perm=[1, 0])  # onnxruntime does it once, when it loads
    else:
        head = graph.weight("head", weights["lm_head.weight"].T.contiguous())
    graph.op("MatMul", final, head, name="logits")
    inputs = {"ids": ["B", "S"], "vectors": ["B", "T", lm.d_model], **caches}
    outputs = {"logits": ["B", "N", lm.vocab_size]}
    outputs |= {f"new.{name}": ["B", heads, "M", width] for name in caches}
    return graph.model(inputs, outputs)


def _linear(graph: Graph, states: str, matrix: torch.Tensor, name: str) -> str:
    """States times a matrix `[out, in]` of PyTorch."""
    return graph.op("MatMul", states, graph.weight(name, matrix.T.contiguous()))


def _norm(graph: Graph, states: str, scale: torch.Tensor, name: str, epsilon: float) -> str:
    """RMS normalization, in the order of operations of transformers."""
    square = graph.op("Pow", states, graph.number(2.0))
    mean = graph.op("ReduceMean", square, axes=[-1], keepdims=1)
    root = graph.op("Sqrt", graph.op("Add", mean, graph.number(epsilon)))
    return graph.op("Mul", graph.op("Div", states, root), graph.weight(name, scale))


def _positions(graph: Graph, lm: FrozenLM, states: str) -> tuple[str, str, str]:
    """Cosines and sines of the rotary embedding `[N, width]`, and the causal mask `[N, P + N]`."""
    longest = lm.model.config.max_position_embeddings
    rotary: Any = lm.model.model.rotary_emb
    with torch.no_grad():
        cosines, sines = rotary(torch.zeros(1, 1), torch.arange(longest)[None])
    zero, one = graph.integers(0), graph.integers(1)
    new = graph.op("Gather", graph.op("Shape", states), one)
    cached = graph.op("Gather", graph.op("Shape", "key.0"), graph.integers(2))
    count = graph.op("Add", cached, new)
    cosine = graph.op("Slice", graph.weight("cosines", cosines[0]), cached, count, zero)
    sine = graph.op("Slice", graph.weight("sines", sines[0]), cached, count, zero)
    every = graph.weight("positions", torch.arange(longest))
    row = graph.op("Unsqueeze", graph.op("Slice", every, cached, count, zero), one)
    column = graph.op("Slice", every, zero, count, zero)
    later = graph.op("Greater", column, row)
    lowest = graph.number(float(np.finfo(np.float32).min))
    return cosine, sine, graph.op("Where", later, lowest, graph.number(0.0))


def _attention(
    graph: Graph,
    states: str,
    part: dict[str, torch.Tensor],
    layer: int,
    shape: tuple[int, int],
    positions: tuple[str, str, str],
) -> str:
    """Causal attention of a layer, whose cache is lengthened."""
    heads, width = shape
    cosine, sine, mask = positions

    def heads_of(letter: str) -> str:
        name = f"self_attn.{letter}_proj"
        flat = _linear(graph, states, part[name], f"{layer}.{letter}")
        return graph.op("Reshape", flat, graph.integers(0, 0, heads, width))

    def turned(letter: str) -> str:
        straight = graph.op("Transpose", heads_of(letter), perm=[0, 2, 1, 3])
        first, second = graph.split(straight, 3)
        across = graph.op("Concat", graph.op("Neg", second), first, axis=3)
        return graph.op("Add", graph.op("Mul", straight, cosine), graph.op("Mul", across, sine))

    def lengthened(name: str, new: str) -> str:
        return graph.op("Concat", name, new, name=f"new.{name}", axis=2)

    query, key = turned("q"), lengthened(f"key.{layer}", turned("k"))
    value = graph.op("Transpose", heads_of("v"), perm=[0, 2, 1, 3])
    value = lengthened(f"value.{layer}", value)
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    scores = graph.op("Add", graph.op("Mul", scores, graph.number(width**-0.5)), mask)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.op("Reshape", mixed, graph.integers(0, 0, heads * width))
    return _linear(graph, mixed, part["self_attn.o_proj"], f"{layer}.o")


def _feed_forward(graph: Graph, states: str, part: dict[str, torch.Tensor], layer: int) -> str:
    """The gated feed-forward network of a layer."""
    gate = _linear(graph, states, part["mlp.gate_proj"], f"{layer}.gate")
    up = _linear(graph, states, part["mlp.up_proj"], f"{layer}.up")
    active = graph.op("Mul", gate, graph.op("Sigmoid", gate))
    return _linear(graph, graph.op("Mul", active, up), part["mlp.down_proj"], f"{layer}.down")
