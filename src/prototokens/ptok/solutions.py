"""Solutions as safetensors: the vectors as tensors, the rest as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from safetensors.torch import save
from torch import Tensor

from prototokens._util import strict_json
from prototokens.layout import Layout
from prototokens.solution import Solution

FIELDS = (
    "correct",
    "margin",
    "steps",
    "row_steps",
    "restarts",
    "seed",
    "failure",
    "excluded",
    "fingerprint",
    "margins",
)
LISTS = ("excluded", "margins")  # files of earlier versions have neither these nor a fingerprint


def pack_solutions(solutions: Sequence[Solution], **metadata: str) -> bytes:
    """The content of a safetensors file; layout and target are left to the reader.

    Args:
        metadata: further entries. The header of a safetensors file has strings alone, by name.
    """
    tensors = {str(number): one.protos.contiguous() for number, one in enumerate(solutions)}
    values = [{name: getattr(one, name) for name in FIELDS} for one in solutions]
    return save(tensors, metadata={"solutions": json.dumps(values), **metadata})


def unpack_solutions(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    layout: Layout,
    targets: Sequence[Sequence[int]],
) -> tuple[Solution, ...]:
    """The inverse of `pack_solutions`, from what was read of the file.

    Args:
        layout: of all of them.
        targets: of each.

    Raises:
        KeyError, TypeError, ValueError: the content is not that of such a file.
    """
    values = strict_json.loads(metadata["solutions"])
    return tuple(
        Solution(
            protos=tensors[str(number)],
            layout=layout,
            ids=tuple(ids),
            **{**one, **{name: tuple(one.get(name, ())) for name in LISTS}},
        )
        for number, (ids, one) in enumerate(zip(targets, values, strict=True))
    )
