"""The decode matrix: the same vectors decoded under every condition that another machine may have.

A cell names one way: how many rows to a pass, how much padding, which dtype, which attention
kernel, how many threads, compiled or not, with the instructions of which processor, and with the
weights rounded to how many bits. A row is
right in a cell where its true logits lead there too. What follows from that is `certify`'s.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from prototokens.engine.forward import Backend, scored_hidden, stacked
from prototokens.engine.head import score
from prototokens.engine.inputs import OneStep, arrange
from prototokens.engine.instruction_sets import SETTINGS, Decoded, decode_under
from prototokens.errors import ModelError
from prototokens.layout import Layout
from prototokens.lm import attention, compiling
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.ggml_rounding import (
    FORMATS,
    HEAD,
    NotRoundedError,
    rounded_as_file,
    rounded_input,
    rounding_inputs,
)
from prototokens.lm.loading import cast_weights
from prototokens.lm.prefix import run_with_prefix

BATCHES = (1, 2, 3, 7, 16, 64)
PADDINGS = (0, 5, 32)  # positions behind the longest row of a pass
DTYPES = (torch.float32, torch.bfloat16)
KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}
DEFAULT = "default"  # the kernel that the model takes by itself
# Input positions of one pass, whatever the number of rows: bounds memory.
POSITIONS = 8192
# Bytes of a model whose copies with rounded weights, one for each format, stay in memory.
MAX_KEPT = 1 << 28


@runtime_checkable
class Row(Protocol):
    """Vectors, how they are arranged, and the ids they should give: a `Solution` has them."""

    @property
    def protos(self) -> Float32[Tensor, "vectors d_model"]: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def ids(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Cell:
    """One way of decoding.

    Attributes:
        batch: rows to a pass.
        padding: positions behind the longest row of a pass.
        dtype: what the model computes in.
        kernel: of attention: `default`, or one of `KERNELS`.
        threads: of the processor; 0 leaves their number unchanged.
        compiled: whether the body is compiled by `torch.compile`.
        setting: of `instruction_sets.SETTINGS`, under which a child process decodes; empty: this
            process does.
        weights: a format of `ggml_rounding.FORMATS` that the weights are rounded to; empty: none.
    """

    batch: int
    padding: int
    dtype: str
    kernel: str = DEFAULT
    threads: int = 0
    compiled: bool = False
    setting: str = ""
    weights: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """For people."""
        words = [f"{self.dtype}, {self.batch} to a pass, {self.padding} padded"]
        words += [f"kernel {self.kernel}"] * (self.kernel != DEFAULT)
        words += [f"{self.threads} thread{'s' * (self.threads > 1)}"] * (self.threads > 0)
        words += ["compiled"] * self.compiled
        words += [self.setting] * bool(self.setting)
        words += [f"weights rounded to {self.weights}"] * bool(self.weights)
        return ", ".join(words)


class Tried(NamedTuple):
    """What a cell gave.

    Attributes:
        cell: the way of decoding.
        margins: for each row, the margin of each of its positions; None where the way does not
            exist here.
        seconds: it took; `reason`: why there is nothing, in words.
    """

    cell: Cell
    margins: list[Float32[Tensor, " tokens"]] | None
    seconds: float
    reason: str = ""


def short_name(dtype: torch.dtype) -> str:
    """As files and options call it: `float32`."""
    return str(dtype).removeprefix("torch.")


def few_cells(lm: FrozenLM) -> list[Cell]:
    """The cells that differ most, few enough for every encoding.

    Alone, in a batch, another kernel, the other dtypes.
    """
    own = short_name(lm.dtype)
    cells = [Cell(1, 0, own), Cell(7, 5, own), Cell(7, 0, own, "math")]
    return cells + [Cell(7, 0, short_name(dtype)) for dtype in DTYPES if dtype != lm.dtype]


def all_cells(lm: FrozenLM) -> list[Cell]:
    """Every batch size with every padding in every dtype.

    Then each other way, in every dtype, alone and in a batch, and on a CPU each setting of the
    instruction set.
    """
    names = [
        short_name(dtype) for dtype in (lm.dtype, *(dtype for dtype in DTYPES if dtype != lm.dtype))
    ]
    cells = [
        Cell(batch, padding, name) for name in names for batch in BATCHES for padding in PADDINGS
    ]
    for name in names:
        ways: list[dict[str, Any]] = [{"kernel": kernel} for kernel in KERNELS]
        ways += [{"threads": count} for count in (1, 2) if lm.device.type == "cpu"]
        ways += [{"compiled": True}]
        cells += [Cell(batch, 0, name, **way) for way in ways for batch in (1, 16)]
    settings = SETTINGS if lm.device.type == "cpu" else ()
    return cells + [Cell(16, 0, name, setting=setting) for setting in settings for name in names]


def rounded_cells() -> list[Cell]:
    """The weights in each precision that a GGUF file may have."""
    return [Cell(7, 0, "float32", weights=name) for name in FORMATS]


def run_cells(
    lm: FrozenLM,
    rows: Sequence[Row],
    cells: Sequence[Cell],
    progress: Callable[[Tried], None] | None = None,
) -> Iterator[Tried]:
    """Decode the rows in each cell.

    All cells of one setting of the instruction set share a child process, started at the first.

    Args:
        progress: called with each cell's outcome.
    """
    in_children: dict[Cell, Decoded] = {}
    for cell in cells:
        began = time.perf_counter()
        if cell.setting:
            if cell not in in_children:
                together = [one for one in cells if one.setting == cell.setting]
                answers = decode_under(cell.setting, lm, rows, together)
                in_children.update(zip(together, answers, strict=True))
            margins, reason = in_children[cell]
        else:
            try:
                margins, reason = cell_margins(lm, rows, cell), ""
            except _Absent as absent:
                margins, reason = None, str(absent)
        tried = Tried(cell, margins, time.perf_counter() - began, reason)
        if progress:
            progress(tried)
        yield tried


class _Absent(Exception):
    """A way of decoding that does not exist on this machine or for this model."""


@torch.no_grad()
def cell_margins(lm: FrozenLM, rows: Sequence[Row], cell: Cell) -> list[Tensor]:
    """For each row, the margin of every position when decoded as the cell says, on the CPU."""
    model = in_dtype(lm, cell.dtype)
    if model is None:
        raise _Absent(
            f"{lm.name} was rounded when it was loaded, and its weights as stored, for"
            f" {cell.dtype}, cannot be had"
        )
    if cell.weights:
        model = _with_rounded_weights(model, cell.weights)
    with _as_the_cell_says(model, cell) as hidden:
        return _margins(model, rows, hidden, cell.batch, cell.padding)


@torch.no_grad()
def margins(lm: FrozenLM, rows: Sequence[Row]) -> list[Tensor]:
    """For each row, the margins of all positions under this model's own settings, on the CPU."""
    return _margins(lm, rows, lm.hidden, POSITIONS, 0)


def _margins(
    lm: FrozenLM, rows: Sequence[Row], backend: Backend, batch: int, padding: int
) -> list[Tensor]:
    found: list[Tensor] = []
    for part in passes(rows, batch, padding):
        protos = stacked([row.protos for row in part], lm.device)
        plans = [OneStep(row.layout).plan(row.ids) for row in part]
        width = max(len(plan.index) for plan in plans) + padding
        if lm.max_context is not None:
            width = min(width, lm.max_context - len(plans[0].prefix))
        arranged = arrange(lm, plans, protos.shape[1], width)
        targets = torch.tensor([token for row in part for token in row.ids], device=lm.device)
        scores = score(lm, scored_hidden(lm, arranged, protos, backend), targets, gradient=False)
        # NaN margins count as failures.
        flat = scores.margin.nan_to_num(nan=-math.inf).cpu()
        found += list(flat.split([len(row.ids) for row in part]))
    return found


def passes(rows: Sequence[Row], batch: int, padding: int) -> Iterator[Sequence[Row]]:
    """The rows in order, `batch` to a pass; fewer where they are long or another prefix begins."""
    start = 0
    while start < len(rows):
        end, widest, prefix = start, 0, rows[start].layout.prefix
        while end < len(rows) and end - start < batch and rows[end].layout.prefix == prefix:
            widest = max(
                widest, len(prefix) + rows[end].layout.positions(len(rows[end].ids)) + padding
            )
            if end > start and (end + 1 - start) * widest > POSITIONS:
                break
            end += 1
        yield rows[start:end]
        start = end


_TWINS: weakref.WeakKeyDictionary[FrozenLM, dict[str, FrozenLM | None]] = (
    weakref.WeakKeyDictionary()
)
_ROUNDED: weakref.WeakKeyDictionary[FrozenLM, dict[str, FrozenLM]] = weakref.WeakKeyDictionary()
_COMPILED: weakref.WeakKeyDictionary[FrozenLM, Any] = weakref.WeakKeyDictionary()
_NOT_COMPILED: weakref.WeakKeyDictionary[FrozenLM, str] = weakref.WeakKeyDictionary()  # why not


def in_dtype(lm: FrozenLM, dtype: str) -> FrozenLM | None:
    """The same model computing in another dtype, made once.

    None where its weights as stored are out of reach.

    Weights that were rounded when they were loaded are read again: a float32 decoder has the
    unrounded ones.
    """
    if short_name(lm.dtype) == dtype:
        return lm
    known = _TWINS.setdefault(lm, {})
    if dtype not in known:
        known[dtype] = _twin(lm, getattr(torch, dtype))
    return known[dtype]


def _with_rounded_weights(lm: FrozenLM, kind: str) -> FrozenLM:
    """The same model with its weights as a GGUF file of a precision holds them.

    It is kept where it is small.
    """
    known = _ROUNDED.setdefault(lm, {})
    if kind in known:
        return known[kind]
    try:
        model = rounded_as_file(lm.model, kind)
    except NotRoundedError as error:
        raise _Absent(f"the weights of {lm.name} are not rounded: {error}") from error
    made = FrozenLM(
        model, lm.tokenizer, name=lm.name, revision=lm.revision, fingerprint=lm.fingerprint
    )
    if sum(weight.nbytes for weight in model.parameters()) <= MAX_KEPT:
        known[kind] = made
    return made


def _twin(lm: FrozenLM, dtype: torch.dtype) -> FrozenLM | None:
    rounded = lm.dtype != torch.float32 and lm.weights_hash() != lm.fingerprint
    if rounded:
        try:
            again = FrozenLM.from_pretrained(
                lm.name, revision=lm.revision, dtype=dtype, device=lm.device
            )
        except ModelError:
            return None
        return again if again.fingerprint == lm.fingerprint else None
    model = copy.deepcopy(lm.model)
    cast_weights(model, dtype)
    return FrozenLM(
        model, lm.tokenizer, name=lm.name, revision=lm.revision, fingerprint=lm.fingerprint
    )


@contextmanager
def _as_the_cell_says(lm: FrozenLM, cell: Cell) -> Iterator[Backend]:
    """The forward pass with the kernel, threads and compilation of a cell."""
    with ExitStack() as stack:
        if cell.threads:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(cell.threads)
        if cell.kernel != DEFAULT:
            _check_kernel(lm, cell.kernel)
            stack.enter_context(attention.fused(lm.model))
            stack.enter_context(sdpa_kernel(KERNELS[cell.kernel]))
        if cell.weights:
            stack.enter_context(rounding_inputs(lm.model, cell.weights))
        through = _compiled(lm) if cell.compiled else _fed_through(lm, lm.model.base_model)
        yield _rounded_after(through, cell.weights) if cell.weights else through


def _rounded_after(through: Backend, kind: str) -> Backend:
    """The forward pass with hidden states rounded as the input of an output matrix."""
    return lambda inputs, prefix: rounded_input(through(inputs, prefix), HEAD.get(kind, kind))


def _check_kernel(lm: FrozenLM, kernel: str) -> None:
    """Whether PyTorch has this kernel on this device in this dtype: tried, not believed."""
    heads = torch.zeros(1, 2, 8, 64, dtype=lm.dtype, device=lm.device)
    try:
        with sdpa_kernel(KERNELS[kernel]):
            torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    except RuntimeError as error:
        raise _Absent(
            f"this machine has no {kernel} attention for {short_name(lm.dtype)}"
        ) from error


def _compiled(lm: FrozenLM) -> Backend:
    """`lm.hidden` by a compiled body, the prefix fed before every row."""
    if lm.device.type == "cpu" and not any(
        shutil.which(name) for name in ("c++", "g++", "clang++", "cl")
    ):
        raise _Absent("torch.compile needs a C++ compiler, and there is none here")
    if lm not in _COMPILED:
        _COMPILED[lm] = torch.compile(lm.model.base_model, dynamic=True)
    through = _fed_through(lm, _COMPILED[lm])

    def hidden(inputs: Tensor, prefix: tuple[int, ...]) -> Tensor:
        if lm in _NOT_COMPILED:
            raise _Absent(_NOT_COMPILED[lm])
        try:
            with compiling.readable_errors():
                return through(inputs, prefix)
        except compiling.CompileError as error:
            _NOT_COMPILED[lm] = str(error)  # a compiler that has failed is not asked again
            raise _Absent(_NOT_COMPILED[lm]) from error

    return hidden


def _fed_through(lm: FrozenLM, body: Any) -> Backend:
    """Through a body as it is given, a prefix fed before every row.

    Another way to what `lm.hidden` gives from its cache.
    """
    return lambda inputs, prefix: run_with_prefix(body, lm.embed, inputs, prefix)
