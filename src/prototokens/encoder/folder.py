"""The files of an encoder's folder, read from untrusted input: checked values, and the network.

A folder holds `config.json` (all that is known of the encoder), `encoder.safetensors` (its weights,
bfloat16) and a card for people.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prototokens._util import strict_json
from prototokens._util.json_fields import MismatchError
from prototokens._util.settings import from_json
from prototokens.encoder.config import EncoderManifest, Shape
from prototokens.encoder.network import Network
from prototokens.errors import FileError, UsageError

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "encoder.safetensors", "README.md"
MAX_RESPONSE = 256  # numbers of a model's response that are read from a file
MAX_REFINEMENTS = 1 << 16  # of a text, that a file may ask for before a fit
MAX_NUMBERS = 1 << 31  # of a network that a file may ask for


def read_config(folder: Path) -> dict[str, Any]:
    """The values of `config.json`, checked.

    Raises:
        FileError: damaged, of a newer format, or of something else.
        OSError: it cannot be read.
    """
    path = folder / CONFIG
    try:
        config = strict_json.loads(path.read_text(encoding="utf-8"))
    except strict_json.RepeatedKeyError as error:
        raise FileError(f"{path} is damaged: it {error}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged: it is no JSON") from error
    version = config.get("format") if isinstance(config, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise FileError(
            f"{path} has format {version}, and this version reads up to {FORMAT}: update"
            " prototokens"
        )
    rates = config.get("rates", []) if isinstance(config, dict) else []
    if not isinstance(rates, list) or not all(
        _has_number(row, "rate") and row["rate"] > 0 and _is_limit(row.get("refinements"))
        for row in rates
    ):
        raise FileError(f"{path} is damaged: its rates are not shares of a recipe's")
    try:
        EncoderManifest.parse(config)
    except MismatchError as error:
        raise FileError(f"{path} is damaged, or of no encoder: it {error}") from error
    if not _is_response(config["model"].get("response", [])):
        raise FileError(f"{path} is damaged: the model's response is no list of numbers")
    measured = config["held_out"].get("rows", [])
    if not isinstance(measured, list) or not all(
        _has_number(row, "accuracy") and row["accuracy"] <= 1 for row in measured
    ):
        raise FileError(f"{path} is damaged: its held_out tells of no shares of tokens by length")
    return config


def _has_number(row: Any, name: str) -> bool:
    """Whether a row has a length, in tokens, and a number of that name, finite and not negative."""
    if not isinstance(row, dict) or not isinstance(row.get("length"), int):
        return False
    return _is_number(row.get(name)) and row[name] >= 0


def _is_limit(value: Any) -> bool:
    """Whether it is a number of refinements, or None."""
    return value is None or (type(value) is int and 0 <= value <= MAX_REFINEMENTS)


def _is_response(values: Any) -> bool:
    """Whether it can be compared with a model's response (`lm.response`)."""
    return (
        isinstance(values, list)
        and len(values) <= MAX_RESPONSE
        and all(_is_number(value) for value in values)
    )


def _is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < math.inf


def network_of(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Network:
    """The network that the config describes, with these tensors.

    Raises:
        FileError: there is no such network, or the tensors are of another one.
    """
    try:
        shape = from_json(Shape, config["shape"])
        a_block = shape.width * (4 * shape.width + 2 * shape.feed_forward)
        around = (
            shape.width * (shape.features + 2 * shape.max_length + shape.d_model)
            + shape.vectors * shape.d_model
        )
        around += shape.direct * (shape.width + shape.max_length * shape.vectors * shape.d_model)
        around += (shape.refinements > 0) * (
            shape.refine_layers * a_block + shape.width * (3 * shape.d_model + 2 * shape.hidden)
        )
        least = min(shape.d_model, shape.features, shape.hidden if shape.refinements else 1)
        if least < 1 or shape.layers * a_block + around > MAX_NUMBERS:
            raise FileError(
                f"{folder / CONFIG} is damaged: no encoder has the shape that it tells of"
            )
        with torch.device("meta"):
            network = Network(shape, torch.zeros(shape.d_model), torch.zeros(shape.d_model))
    except (TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise FileError(
            f"{folder / CONFIG} is damaged: no encoder can be made of its shape ({error})"
        ) from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if expected != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise FileError(
            f"{folder / WEIGHTS} is damaged: its tensors are not those of the shape in {CONFIG}"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise FileError(
            f"{folder / WEIGHTS} holds numbers that are not finite: no vectors can be made with it"
        )
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)
