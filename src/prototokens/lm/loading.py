"""Load a model and its tokenizer with transformers, or refuse them with a clear message.

`lm.locate` decides where a model is loaded from, `lm.gguf_model` reads GGUF files, and
`FrozenLM.from_pretrained` is the public entry point.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prototokens.errors import ModelError, UsageError
from prototokens.lm import checkpoint, checks, gguf_model
from prototokens.lm.devices import bfloat16_pays
from prototokens.lm.local import Source
from prototokens.lm.locate import find, quiet


class Loaded(NamedTuple):
    """A model in memory.

    Attributes:
        model: cast to the requested dtype, on the requested device.
        tokenizer: the tokenizer that comes with it.
        revision: the commit on the hub that was loaded, or None.
        fingerprint: hash of the weights in the checkpoint's own dtype (`checks.state_hash`).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str | None
    fingerprint: str


def load(
    name: str,
    revision: str | None,
    dtype: str | torch.dtype,
    device: str | torch.device | None,
    trust_remote_code: bool,
) -> Loaded:
    """Load a model and its tokenizer; arguments and errors are those of `from_pretrained`."""
    requested_dtype, target = _parsed_dtype(dtype), _usable_device(device)
    with quiet():
        source = find(name, revision)
        if source.gguf:
            model, tokenizer = gguf_model.load(Path(source.location), name)
        else:
            model, tokenizer = _load_checkpoint(name, source, trust_remote_code)
        fingerprint = checks.state_hash(model)
        if requested_dtype is None:
            requested_dtype = _auto_dtype(model.dtype, target)
        cast_weights(model, requested_dtype)
        cast(nn.Module, model).to(target)
    return Loaded(model, tokenizer, source.revision, fingerprint)


def _load_checkpoint(
    name: str, source: Source, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the config, the weights in the checkpoint's own dtype, and the tokenizer.

    They are loaded in this order, so that the cheapest reasons to refuse a model come first.
    """
    options: dict[str, Any] = {
        "local_files_only": source.offline,
        "trust_remote_code": trust_remote_code,
    }
    if source.revision is not None:
        options["revision"] = source.revision
    try:
        config = AutoConfig.from_pretrained(source.location, **options)
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                f"{name!r} is an encoder-decoder ({config.model_type}): a causal language model is"
                " needed"
            )
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"{name!r} is a quantised checkpoint: its weights are not plain numbers; give the"
                " original one"
            )
        own_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not own_code:
            raise ModelError(
                f"{name!r} is no causal language model ({config.model_type}), so it cannot be used"
                " here"
            )
        checkpoint.refuse_adapter(name, source.location, options)
        # Weights of another shape are listed in `info` and refused below: transformers' own error
        # says less about them.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            config=config,
            dtype="auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{name!r} could not be loaded: {checks.one_line(error)}") from error
    model, info = loaded
    checkpoint.refuse_incomplete(name, info)
    return model, _load_tokenizer(name, source, options)


def _load_tokenizer(name: str, source: Source, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    advice = "put its tokenizer.json and tokenizer_config.json beside the weights"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
    except Exception as error:
        reason = checks.one_line(error)
        raise ModelError(
            f"{name!r} comes without a tokenizer that can be loaded ({reason}): {advice}"
        ) from error
    # For some families transformers replaces missing files by an empty tokenizer, which turns
    # every text into nothing.
    if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()):
        raise ModelError(f"{name!r} comes without a tokenizer: {advice}")
    return tokenizer


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Change the dtype of the weights and of nothing else.

    `model.to(dtype)` would round the rotary frequencies too.
    """
    keep = (
        set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
        if dtype != torch.float32
        else set()
    )
    if dtype == torch.float16:
        keep |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(
                torch.float32 if any(part in name for part in keep) else dtype
            )


def _parsed_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype that a user asked for; None for "auto".

    Raises:
        UsageError: another dtype than the weights can have.
    """
    names = {
        "auto": None,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    key = str(dtype).removeprefix("torch.")
    if key not in names:
        raise UsageError(f"dtype {key!r} is not one of {', '.join(names)}")
    return names[key]


def _auto_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    return torch.bfloat16 if stored.itemsize == 2 and bfloat16_pays(device) else torch.float32


def _usable_device(device: str | torch.device | None) -> torch.device:
    """The device that a user asked for; for None, a GPU if there is one, else the CPU.

    Raises:
        UsageError: PyTorch cannot use the device on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"device {str(device)!r} cannot be used on this machine: {checks.one_line(error)}"
        ) from error
