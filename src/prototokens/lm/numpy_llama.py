"""A small Llama checkpoint in NumPy: one forward pass over input vectors, without PyTorch.

Importing PyTorch and transformers takes longer than decoding a short text with a small model. This
is the same body as transformers' Llama, in float32. It only takes checkpoints of which it knows
every part; `NumpyLlama.read` says None for all others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from prototokens._util import strict_json

MAX_BYTES = 64 << 20  # of a checkpoint
DTYPES = {"BF16": "bfloat16", "F32": "float32", "F16": "float16"}  # as PyTorch names them
TIED = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
# What the configuration must say, and what it may leave out.
FIXED = {"model_type": "llama", "hidden_act": "silu"}
ABSENT = ("attention_bias", "mlp_bias", "rope_scaling", "quantization_config", "auto_map")


class Shape(NamedTuple):
    """What the configuration says of the body."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    theta: float


class NumpyLlama:
    """A body and a head.

    Attributes:
        fingerprint: as `FrozenLM.fingerprint`.
        parameters: how many numbers the weights have.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, np.ndarray], fingerprint: str):
        self.shape, self.fingerprint = shape, fingerprint
        self._weights = weights
        self.parameters = sum(weight.size for weight in weights.values())

    @staticmethod
    def read(folder: Path) -> NumpyLlama | None:
        """The model of a folder, or None where it is not of the kind that is known here."""
        weights = folder / "model.safetensors"
        try:
            if not weights.is_file() or weights.stat().st_size > MAX_BYTES:
                return None
            config = strict_json.loads((folder / "config.json").read_bytes())
            shape = _shape(config)
            return None if shape is None else _load(weights, config, shape)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # whoever loads it with transformers says what is wrong

    @property
    def width(self) -> int:
        return self._weights[EMBEDDING].shape[1]

    @property
    def vocab_size(self) -> int:
        return len(self._weights[EMBEDDING])

    def embed(self, ids: Sequence[int]) -> Float32[np.ndarray, "tokens d_model"]:
        """The input vectors of ids."""
        return self._weights[EMBEDDING][list(ids)]

    def argmax(
        self,
        inputs: Float32[np.ndarray, "rows seq d_model"],
        rows: Sequence[int],
        positions: Sequence[int],
    ) -> Int64[np.ndarray, " tokens"]:
        """The most likely token at each of these positions, from one forward pass.

        Args:
            inputs: rows may be padded on the right: no position sees what comes behind it.
            rows, positions: of each output that is read.
        """
        weights, shape = self._weights, self.shape
        cos, sin = _rotary(inputs.shape[1], shape)
        future = np.triu(np.full((inputs.shape[1],) * 2, -np.inf, np.float32), 1)
        x = inputs.astype(np.float32)
        for number in range(shape.layers):
            name = f"model.layers.{number}."
            normed = _rms_norm(x, weights[name + "input_layernorm.weight"], shape.eps)
            query, key, value = (
                self._heads(normed, f"{name}self_attn.{part}_proj.weight") for part in "qkv"
            )
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
            groups = shape.heads // shape.kv_heads
            key, value = key.repeat(groups, axis=1), value.repeat(groups, axis=1)
            scores = query @ key.swapaxes(-1, -2) * np.float32(shape.head_dim**-0.5) + future
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ value
            mixed = mixed.swapaxes(1, 2).reshape(*x.shape[:2], -1)
            x = x + mixed @ weights[name + "self_attn.o_proj.weight"].T
            normed = _rms_norm(x, weights[name + "post_attention_layernorm.weight"], shape.eps)
            gate, up = (normed @ weights[f"{name}mlp.{part}_proj.weight"].T for part in _GATE_UP)
            activated = gate / (1 + np.exp(-gate)) * up
            x = x + activated @ weights[name + "mlp.down_proj.weight"].T
        hidden = _rms_norm(x[list(rows), list(positions)], weights["model.norm.weight"], shape.eps)
        return (hidden @ weights[TIED].T).argmax(-1)

    def _heads(self, x: np.ndarray, weight: str) -> Float32[np.ndarray, "rows heads seq head_dim"]:
        projected = x @ self._weights[weight].T
        return projected.reshape(*x.shape[:2], -1, self.shape.head_dim).swapaxes(1, 2)


_GATE_UP = ("gate", "up")


def _shape(config: dict[str, Any]) -> Shape | None:
    """What the configuration says, or None where it says anything that is not known here."""
    rope = config.get("rope_parameters") or {"rope_theta": config["rope_theta"]}
    if (
        any(config.get(key) != value for key, value in FIXED.items())
        or any(config.get(key) for key in ABSENT)
        or rope.get("rope_type", "default") != "default"
        or set(rope) - {"rope_theta", "rope_type"}
    ):
        return None
    heads = config["num_attention_heads"]
    return Shape(
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        eps=config["rms_norm_eps"],
        theta=float(rope["rope_theta"]),
    )


def _load(path: Path, config: dict[str, Any], shape: Shape) -> NumpyLlama | None:
    import safetensors

    try:
        stored = dict(safetensors.deserialize(path.read_bytes()))
    except safetensors.SafetensorError:
        return None
    if {entry["dtype"] for entry in stored.values()} - set(DTYPES):
        return None
    if config.get("tie_word_embeddings"):
        stored.setdefault(TIED, stored[EMBEDDING])
    # A name that is not known stands for a part that would be left out.
    if {name: tuple(entry["shape"]) for name, entry in stored.items()} != _shapes(config, shape):
        return None
    arrays: dict[int, np.ndarray] = {}
    for entry in stored.values():
        arrays.setdefault(id(entry), _array(entry))
    weights = {name: arrays[id(entry)] for name, entry in stored.items()}
    return NumpyLlama(shape, weights, _fingerprint(stored))


def _shapes(config: dict[str, Any], shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every weight that such a model has, and its shape."""
    width, between = config["hidden_size"], config["intermediate_size"]
    table, inner = (config["vocab_size"], width), shape.heads * shape.head_dim
    layer = {
        "self_attn.q_proj": (inner, width),
        "self_attn.k_proj": (shape.kv_heads * shape.head_dim, width),
        "self_attn.v_proj": (shape.kv_heads * shape.head_dim, width),
        "self_attn.o_proj": (width, inner),
        "mlp.gate_proj": (between, width),
        "mlp.up_proj": (between, width),
        "mlp.down_proj": (width, between),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    layers = {
        f"model.layers.{number}.{part}.weight": size
        for number in range(shape.layers)
        for part, size in layer.items()
    }
    return {EMBEDDING: table, TIED: table, "model.norm.weight": (width,), **layers}


def _array(entry: Mapping[str, Any]) -> Float32[np.ndarray, "..."]:
    """A stored tensor in float32."""
    shape, data = entry["shape"], entry["data"]
    if entry["dtype"] == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    kind = "<f4" if entry["dtype"] == "F32" else "<f2"
    return np.frombuffer(data, kind).astype(np.float32).reshape(shape)


def _fingerprint(stored: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash that `lm.checks.state_hash` gives for these weights."""
    digests: dict[int, str] = {}
    whole = hashlib.sha256(b"prototokens state 1\n")
    for name, entry in sorted(stored.items()):
        if id(entry) not in digests:
            digests[id(entry)] = hashlib.sha256(entry["data"]).hexdigest()
        dtype, shape = DTYPES[entry["dtype"]], "x".join(map(str, entry["shape"]))
        whole.update(f"{name}\t{dtype}\t{shape}\t{digests[id(entry)]}\n".encode())
    return whole.hexdigest()


def _rms_norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(eps)) * gain


def _rotary(positions: int, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the rotary embedding, `[positions, head_dim]`."""
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    frequencies = 1 / np.float32(shape.theta) ** exponents
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    angles = np.concatenate([angles, angles], -1)
    return np.cos(angles), np.sin(angles)


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def tokenizer_hash(form: str) -> str:
    """The hash that `lm.tokenization.tokenizer_hash` gives for a tokenizer of this JSON."""
    kept = {key: value for key, value in json.loads(form).items() if key not in PASSING}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


PASSING = ("truncation", "padding")
