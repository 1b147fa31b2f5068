"""Memory vectors of the autoregressive baseline as a prompt-tuning adapter of PEFT, and back.

The two are the same thing: trained vectors in front of the text, from which the frozen model goes
on token by token. Vectors of one-step layouts are not: there every position of the text is an
input, and no adapter feeds that. PEFT is not needed here: an adapter is two small files.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens._util.strict_json import loads
from prototokens._util.tensor_files import read_tensors, write_tensors
from prototokens.engine.inputs import MAX_MEMORY
from prototokens.errors import FileError, UsageError
from prototokens.layout import MEMORY, memory
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
VECTORS = "prompt_embeddings"
MAX_CONFIG = 1 << 20  # bytes


def write_adapter(lm: FrozenLM, solution: Solution, folder: Path) -> list[Path]:
    """Write the adapter of one text.

    Args:
        lm: the model that the vectors were fitted to.
        solution: of `fit(..., method=Cramming(K))`. A prefix becomes vectors of the adapter, before
            the memory vectors: PEFT puts an adapter before every token.
        folder: it is made where it does not exist.

    Returns:
        The files.

    Raises:
        UsageError: the vectors are not memory vectors, or of another model.
        FileError: the folder cannot be written.
    """
    if not solution.layout.name.startswith(MEMORY):
        raise UsageError(
            f"vectors of layout {solution.layout.name!r} stand at every position of the text, and"
            " an adapter only stands before it: fit with method=Cramming(K)"
        )
    if solution.fingerprint and solution.fingerprint != lm.fingerprint:
        raise UsageError(f"these vectors were not fitted to {lm.name!r}: name their model")
    prefix = torch.tensor(solution.layout.prefix, dtype=torch.int64, device=lm.device)
    vectors = torch.cat([lm.embed(prefix).float().cpu(), solution.protos.float().cpu()])
    config = lm.model.config.get_text_config()
    values = {
        "auto_mapping": None,
        "base_model_name_or_path": lm.name,
        "inference_mode": True,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(vectors),
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": lm.revision,
        "task_type": "CAUSAL_LM",
        "token_dim": lm.d_model,
        "tokenizer_name_or_path": None,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder} cannot be written ({error.strerror or error})") from error
    write_atomically(folder / CONFIG, (json.dumps(values, indent=2) + "\n").encode())
    write_tensors(folder / WEIGHTS, {VECTORS: vectors}, {"format": "pt"})
    return [folder / CONFIG, folder / WEIGHTS]


def read_adapter(lm: FrozenLM, folder: Path, tokens: int) -> Solution:
    """The vectors of a prompt-tuning adapter, and the text that they generate greedily.

    Args:
        lm: the base model.
        tokens: how many to generate; they are the ids of the solution.

    Raises:
        FileError: there is no such adapter, it is damaged, or of another kind.
        UsageError: its vectors are not as wide as the model's, or too many.
    """
    values = _config(folder / CONFIG)
    kind = values.get("peft_type")
    if kind != "PROMPT_TUNING":
        raise FileError(f"{folder} is an adapter of kind {str(kind)[:40]!r}, not PROMPT_TUNING")
    tensors, _ = read_tensors(folder / WEIGHTS)
    vectors = tensors.get(VECTORS)
    if vectors is None or vectors.ndim != 2 or not bool(vectors.float().isfinite().all()):
        raise FileError(f"{folder / WEIGHTS} has no finite matrix {VECTORS!r}")
    if vectors.shape[1] != lm.d_model or not 1 <= len(vectors) <= MAX_MEMORY:
        raise UsageError(
            f"{folder} has {len(vectors)} vectors of width {vectors.shape[1]}, and {lm.name!r}"
            f" takes 1 to {MAX_MEMORY} of width {lm.d_model}"
        )
    return _generated(lm, vectors.float(), tokens)


def _generated(lm: FrozenLM, vectors: Tensor, tokens: int) -> Solution:
    if tokens < 1:
        raise UsageError(f"at least one token is generated, not {tokens}")
    (ids,) = lm.generate(vectors[None].to(lm.device, lm.dtype), tokens).tolist()
    return Solution(
        protos=vectors,
        layout=memory(len(vectors)),
        ids=tuple(ids),
        correct=None,
        margin=math.nan,
        steps=0,
        row_steps=0,
        restarts=0,
        seed=0,
        fingerprint=lm.fingerprint,
    )


def _config(path: Path) -> dict[str, Any]:
    """The configuration of an adapter: an untrusted file.

    Raises:
        FileError: it is missing, too long, or no JSON object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise FileError(f"{path} has more than {MAX_CONFIG:,} bytes: it is no configuration")
        values = loads(path.read_bytes().decode())
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON") from error
    if not isinstance(values, dict):
        raise FileError(f"{path} is no JSON object")
    return values
