"""The shape and the training that `prototokens train-encoder` makes of its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prototokens.encoder.config import Shape
from prototokens.errors import FileError, UsageError
from prototokens.training.config import Training

if TYPE_CHECKING:
    from prototokens.lm.frozen_lm import FrozenLM


def check_output_folder(output: Path, force: bool) -> None:
    """Refuse an output that would fail, or be lost, after hours of work.

    Raises:
        FileError: it is no folder, is not empty, or its parent does not exist.
    """
    if output.exists() and not output.is_dir():
        raise FileError(f"{output} is no folder: name another with -o")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise FileError(
            f"{output} exists and is not empty: pass --force to write over it, or name another"
            " output"
        )
    if not output.parent.is_dir():
        raise FileError(
            f"the folder {output.parent} does not exist: make it first, or name another output"
        )


def values_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a dataclass's fields, those left out that the user leaves to its defaults."""
    names = [field.name for field in fields(cast(Any, kind))]
    return {name: values[name] for name in names if values.get(name) is not None}


def shape_of(values: Mapping[str, Any]) -> Shape:
    """The shape that the options ask for.

    Raises:
        UsageError: a value out of range, or two options for one thing.
    """
    count = values["vectors"]
    if values["layout"] and count:
        raise UsageError("give either --layout or --vectors")
    given = {"feed_forward": 4 * values["width"], **values_of(Shape, values)}
    given["depths"] = _depths(values["depths"])
    if count:
        given["layout"] = f"keyed:{count}"
    shape = Shape(**given)
    if "bound" in given:
        return shape
    keyed = shape.arrangement.key_version > 0
    return replace(shape, bound=keyed and shape.predict == "all")


def _depths(given: str) -> tuple[int, ...]:
    """Depths of the model as a user writes them.

    Raises:
        UsageError: they are not whole numbers with commas between them.
    """
    try:
        return tuple(int(part) for part in given.split(","))
    except ValueError as error:
        raise UsageError(
            f"depths {given!r} are no numbers with commas between them, such as 0,3,6"
        ) from error


def training_of(lm: FrozenLM, values: Mapping[str, Any]) -> Training:
    """The training that the options ask for, in bfloat16 where this machine is fast at it.

    Raises:
        UsageError: a value out of range.
    """
    from prototokens.lm.devices import bfloat16_pays

    dtype = "bfloat16" if bfloat16_pays(lm.device) else "float32"
    return Training(**{**values_of(Training, values), "dtype": dtype})
