"""Load a model and its tokenizer from a GGUF file, the most common format of local models.

transformers converts a GGUF file into one of its models. This module adds two things. The file is
validated first (`lm.gguf_header`), because transformers trusts its header. And two slow functions
of the `gguf` library are replaced during loading, with the same results: the library makes three
arrays for every token of the vocabulary, and dequantises weights 16 short rows at a time.

Weights are dequantised to the dtype of an ordinary checkpoint: that of the file if it is not
quantised, else bfloat16.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prototokens._util.extras import need
from prototokens.errors import ModelError
from prototokens.lm.checks import one_line
from prototokens.lm.gguf_header import ARRAY, NUMBERS, STRING, TOKENS, Header, Value, read_header

BYTE = 0  # the kind of a value that is an unsigned byte
FLOAT32, FLOAT16 = 0, 1  # GGML's codes of these formats
ROPE_FACTORS = "rope_freqs.weight"
# Bytes of the rows that are dequantised. The library processes 16 rows at a time, and with rows of
# this size these fit into a processor's cache.
GROUP_BYTES = 1 << 15
_patch_lock = threading.Lock()


def load(path: Path, name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model with dense weights, and the tokenizer of the same file.

    Args:
        path: the file.
        name: what the user called the model, for messages.

    Raises:
        MissingExtraError: the extra `gguf` is not installed.
        ModelError: the file is damaged, or transformers cannot read a model of its architecture.
    """
    library = need("gguf", "gguf", "reading a GGUF file")
    need("accelerate", "gguf", "reading a GGUF file")
    blocks = {int(kind): sizes for kind, sizes in library.GGML_QUANT_SIZES.items()}
    header = read_header(path, name, blocks)
    # transformers also reads other files of the folder, so it gets a folder with this file alone.
    with tempfile.TemporaryDirectory() as folder, _faster_library(library, header):
        os.symlink(path.resolve(), Path(folder) / "model.gguf")
        config = _config(header, folder, name)
        model = _weights(header, config, folder, name)
        tokenizer = _tokenizer(header, folder, name)
    _apply_rope_factors(library, header, model, name)
    return _unmark_quantised(model), tokenizer


def checkpoint_dtype(header: Header) -> torch.dtype:
    """The dtype of an ordinary checkpoint with these weights: 16 bits for quantised ones."""
    if header.kinds == {FLOAT32}:
        return torch.float32
    return torch.float16 if header.kinds <= {FLOAT32, FLOAT16} else torch.bfloat16


def _config(header: Header, folder: str, name: str) -> Any:
    """The configuration in the metadata, compared with the size of the weights in the file.

    Raises:
        ModelError: transformers cannot read it, it is no causal LM, or the file has fewer weights
            than it describes.
    """
    architecture = f"{name!r} is of the architecture {header.architecture!r}"
    try:
        config = AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
    except Exception as error:
        raise ModelError(
            f"{architecture}, which transformers does not read from this file: {one_line(error)}"
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(
        config, "is_encoder_decoder", False
    ):
        raise ModelError(f"{architecture}, which is no causal language model ({config.model_type})")
    scaling = header.metadata.get(f"{header.architecture}.rope.scaling.type")
    if scaling is not None and scaling.content != "none" and _rotary_kinds(config) <= {"default"}:
        scaled = f"rotary positions scaled as {scaling.content!r}, which transformers leaves out"
        raise ModelError(f"{architecture} with {scaled}")
    try:
        with torch.device("meta"):
            announced = sum(
                part.numel() for part in AutoModelForCausalLM.from_config(config).parameters()
            )
    except Exception as error:
        raise ModelError(
            f"{architecture}, and its sizes do not fit together: {one_line(error)}"
        ) from error
    if announced > header.elements:
        sizes = f"it announces {announced:,} weights and holds {header.elements:,}"
        raise ModelError(f"{name!r} is incomplete: {sizes}")
    return config


def _rotary_kinds(config: Any) -> set[str]:
    """The types of rotary scaling that the configuration states, over all types of layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = all(isinstance(value, dict) for value in parameters.values())
    settings = parameters.values() if by_layer_type else [parameters]
    return {setting.get("rope_type", "default") for setting in settings}


def _weights(header: Header, config: Any, folder: str, name: str) -> PreTrainedModel:
    """The model, with every weight dequantised.

    Raises:
        ModelError: transformers cannot load it, or weights are missing.
    """
    options: dict[str, Any] = {"dtype": checkpoint_dtype(header), "output_loading_info": True}
    try:
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    except ImportError:  # older versions of transformers always dequantise
        pass
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, gguf_file="model.gguf", **options
        )
    except Exception as error:
        raise ModelError(f"{name!r} could not be loaded: {one_line(error)}") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        example = f"{len(missing)} weights of a causal LM, {missing[0]} for one"
        raise ModelError(f"{name!r} is incomplete: it lacks {example}")
    return model


def _tokenizer(header: Header, folder: str, name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    except Exception as error:
        raise ModelError(
            f"the tokenizer in {name!r} could not be loaded: {one_line(error)}"
        ) from error
    # transformers may add a token of its own, but no token of the file may be lost.
    if len(tokenizer) < header.vocabulary:
        read = f"{header.vocabulary:,} tokens, and transformers makes {len(tokenizer):,} of them"
        raise ModelError(f"the tokenizer in {name!r} could not be loaded: the file lists {read}")
    return tokenizer


def _apply_rope_factors(library: ModuleType, header: Header, model: Any, name: str) -> None:
    """Divide the rotary frequencies by the factors in the file (Llama 3.1 and later).

    transformers ignores these factors.

    Raises:
        ModelError: the factors do not fit the model's rotary embedding.
    """
    stored = next((tensor for tensor in header.tensors if tensor.name == ROPE_FACTORS), None)
    if stored is None:
        return
    factors = torch.from_numpy(
        np.fromfile(header.path, np.float32, math.prod(stored.shape), offset=stored.offset)
    )
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if stored.kind != FLOAT32 or getattr(rotary, "inv_freq", torch.empty(0)).shape != factors.shape:
        raise ModelError(
            f"{name!r} scales its rotary positions ({ROPE_FACTORS}) in a way that is not known here"
        )
    rotary.inv_freq.div_(factors)
    rotary.original_inv_freq = rotary.inv_freq.clone()


def _unmark_quantised(model: Any) -> PreTrainedModel:
    """Remove the attributes of a quantised model, so that the dequantised model can be saved."""
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, attribute in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, attribute):
            delattr(owner, attribute)
    return model


@contextmanager
def _faster_library(library: ModuleType, header: Header) -> Iterator[None]:
    """Replace slow functions of the `gguf` library inside a `with` block, and its progress bar.

    If a later version of transformers does not use these functions, loading only takes longer.
    """
    patches: list[tuple[ModuleType, dict[str, Any]]] = [
        (
            library,
            {
                "GGUFReader": lambda _: _Reader(library, header),
                "dequantize": _in_longer_rows(library.dequantize),
                "get_tensor_name_map": cache(library.get_tensor_name_map),
            },
        ),
        (
            import_module("transformers.modeling_gguf_pytorch_utils"),
            {"tqdm": lambda items, **_: items},
        ),
    ]
    with _patch_lock:
        originals = [
            (module, key, getattr(module, key))
            for module, new in patches
            for key in new
            if hasattr(module, key)
        ]
        try:
            for module, new in patches:
                for key, value in new.items():
                    setattr(module, key, value)
            yield
        finally:
            for module, key, value in originals:
                setattr(module, key, value)


def _in_longer_rows(dequantize: Any) -> Any:
    """The library's `dequantize`, applied to fewer and longer rows; blocks are independent."""

    def dequantize_joined(data: np.ndarray, kind: Any) -> np.ndarray:
        if data.dtype != np.uint8 or data.ndim < 2:
            return dequantize(data, kind)
        rows, width = math.prod(data.shape[:-1]), data.shape[-1]
        joined = next(
            count for count in range(max(1, GROUP_BYTES // width), 0, -1) if rows % count == 0
        )
        return dequantize(data.reshape(rows // joined, joined * width), kind).reshape(
            *data.shape[:-1], -1
        )

    return dequantize_joined


class _Reader:
    """The part of `gguf.GGUFReader` that transformers uses, made from a validated header.

    Only the number of tokens is kept of the vocabulary, because transformers reads the tokenizer
    from the file by other means.
    """

    def __init__(self, library: ModuleType, header: Header) -> None:
        reader = import_module("gguf.gguf_reader")
        kinds, types = library.GGUFValueType, library.GGMLQuantizationType
        self.fields = {
            key: reader.ReaderField(
                0, key, *_parts(key, value), [kinds(kind) for kind in _kinds(value)]
            )
            for key, value in header.metadata.items()
        }
        content = np.asarray(np.memmap(header.path, mode="r"))
        self.tensors = []
        for tensor in header.tensors:
            stored = _as_stored(content[tensor.offset : tensor.offset + tensor.size], tensor)
            shape, numbers = np.array(tensor.shape[::-1]), math.prod(tensor.shape)
            entry = (
                tensor.name,
                types(tensor.kind),
                shape,
                numbers,
                tensor.size,
                tensor.offset,
                stored,
                None,
            )
            self.tensors.append(reader.ReaderTensor(*entry))


def _kinds(value: Value) -> list[int]:
    if value.kind != ARRAY:
        return [value.kind]
    return [ARRAY, BYTE if value.content is None else value.item or 0]


def _parts(key: str, value: Value) -> tuple[list[np.ndarray], list[int]]:
    """The arrays of an entry of the metadata, and the indices of those that hold its items."""
    if value.kind == ARRAY and value.content is None:
        return [np.zeros(1, np.uint8)], [0] * (value.count if key == TOKENS else 0)
    items = value.content if value.kind == ARRAY else [value.content]
    return [_item_array(_kinds(value)[-1], item) for item in items], list(range(len(items)))


def _item_array(kind: int, item: Any) -> np.ndarray:
    return (
        np.frombuffer(item.encode(), np.uint8)
        if kind == STRING
        else np.array([item], "<" + NUMBERS[kind])
    )


def _as_stored(content: np.ndarray, tensor: Any) -> np.ndarray:
    """A tensor as the library returns it: numbers, or the bytes of its quantised blocks."""
    dtype = {FLOAT32: np.float32, FLOAT16: np.float16}.get(tensor.kind)
    if dtype is not None:
        return content.view(dtype).reshape(tensor.shape)
    return content.reshape(*tensor.shape[:-1], -1)
