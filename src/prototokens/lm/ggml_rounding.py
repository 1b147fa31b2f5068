"""What weights become when GGML stores them in fewer bits: rounded, and read back.

llama.cpp runs most models with weights of 4 to 8 bits. `rounded_as_file` changes a model's weights
to what such a file would hold, in float32, so that PyTorch can say which text comes out there. The
formats are those of `ggml-quants.c` (`quantize_row_*_ref`, and `make_qx_quants` and
`make_qkx2_quants` for the scales of the K formats), computed for all blocks at once; numbers may
differ from GGML's in the last bit of a scale. On a CPU llama.cpp also rounds what is multiplied
with such weights: to 8 bits, in blocks as long as those of the weights, and with F16 to 16;
`rounding_inputs` does the same to the inputs of linear layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

FORMATS = ("F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K")
SUPERBLOCK = 256  # numbers
# Where rows are no multiple of it, llama.cpp takes another format of about as many bits.
INSTEAD = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0"}
HEAD = {"Q5_K": "Q6_K", "Q4_K": "Q6_K"}  # llama.cpp keeps the output matrix in more bits
GROUP = 1 << 20  # numbers that are rounded at a time: bounds memory
TINY = 1e-15

Blocks = Float32[Tensor, "blocks numbers"]


class NotRoundedError(ValueError):
    """A model has weights that are not rounded here; the message says which."""


def rounded_as_file(model: Any, kind: str) -> Any:
    """A copy of a model with the weights that a GGUF file of a precision holds.

    The matrices of linear layers and the embedding are rounded, each row along the numbers that are
    multiplied with an input, the output matrix as `HEAD` says.

    Args:
        model: of transformers, in float32.
        kind: one of `FORMATS`.

    Raises:
        NotRoundedError: the model has weights of another form, or rows that no format divides.
    """
    made = copy.deepcopy(model)
    head, embedding = made.get_output_embeddings(), made.get_input_embeddings()
    done: set[int] = set()
    for module in (head, embedding, *made.modules()):
        if not isinstance(module, nn.Linear | Conv1D) and module is not embedding:
            continue
        weight: Any = module.weight
        if id(weight) in done:
            continue
        done.add(id(weight))
        rows = weight.data.T if isinstance(module, Conv1D) else weight.data
        rows.copy_(rounded(rows, HEAD.get(kind, kind) if module is head else kind))
    for name, weight in made.named_parameters():
        if weight.ndim > 2 and id(weight) not in done:
            raise NotRoundedError(f"{name} has {weight.ndim} dimensions")
    return made


@contextmanager
def rounding_inputs(model: Any, kind: str) -> Iterator[None]:
    """Inside of `with`, linear layers round their inputs, but for the output matrix.

    Args:
        model: with weights in the format.
        kind: one of `FORMATS`.
    """
    head = model.get_output_embeddings()
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D) and module is not head:
                hook = module.register_forward_pre_hook(
                    lambda _, given: (rounded_input(given[0], kind),)
                )
                stack.callback(hook.remove)
        yield


def rounded_input(
    values: Float32[Tensor, "*rows width"], kind: str
) -> Float32[Tensor, "*rows width"]:
    """Numbers as llama.cpp rounds them on a CPU before a product with weights of a format."""
    if kind == "F16":
        return values.half().float()
    size = SUPERBLOCK if kind in INSTEAD and values.shape[-1] % SUPERBLOCK == 0 else 32
    blocks = values.reshape(-1, size)
    made = _q8_k(blocks) if size == SUPERBLOCK else _q8_0(blocks)
    return made.view(values.shape)


def rounded(weight: Float32[Tensor, "rows width"], kind: str) -> Float32[Tensor, "rows width"]:
    """A matrix as GGML stores it in a format, or in the one that it takes for such rows.

    Raises:
        NotRoundedError: rows are no multiple of any block.
    """
    if kind == "F16":
        return weight.half().float()
    size, through = FUNCTIONS[kind]
    if weight.shape[1] % size and kind in INSTEAD:
        size, through = FUNCTIONS[INSTEAD[kind]]
    if weight.shape[1] % size:
        raise NotRoundedError(f"rows of {weight.shape[1]} numbers are no multiple of {size}")
    blocks = weight.reshape(-1, size)
    parts = [through(part) for part in blocks.split(GROUP // size)]
    return torch.cat(parts).view(weight.shape)


def _half(values: Tensor) -> Tensor:
    return values.half().float()


def _over(values: Tensor | float, divisor: Tensor) -> Tensor:
    """A quotient; 0 where the divisor is."""
    safe = torch.where(divisor == 0, 1.0, divisor)
    return torch.where(divisor == 0, 0.0, values / safe)


def _largest(x: Blocks) -> Float32[Tensor, "blocks 1"]:
    """The number of the largest size of each block, with its sign."""
    return x.gather(1, x.abs().argmax(1, keepdim=True))


def _q8_0(x: Blocks) -> Blocks:
    scale = x.abs().amax(1, keepdim=True) / 127
    levels = x * _over(1.0, scale)
    return levels.sign() * (levels.abs() + 0.5).floor() * _half(scale)


def _q8_k(x: Blocks) -> Blocks:
    scale = _largest(x) / -127
    return (x * _over(1.0, scale)).round().clamp(max=127) * scale


def _q5_0(x: Blocks) -> Blocks:
    scale = _largest(x) / -16
    levels = (x * _over(1.0, scale) + 16.5).floor().clamp(max=31)
    return (levels - 16) * _half(scale)


def _q5_1(x: Blocks) -> Blocks:
    least = x.amin(1, keepdim=True)
    scale = (x.amax(1, keepdim=True) - least) / 31
    levels = ((x - least) * _over(1.0, scale) + 0.5).floor()
    return levels * _half(scale) + _half(least)


def _q6_k(x: Float32[Tensor, "blocks 256"]) -> Float32[Tensor, "blocks 256"]:
    parts = x.view(-1, 16, 16)
    scales = _symmetric_scale(parts.reshape(-1, 16)).view(-1, 16)
    top = _largest(scales)
    whole = _half(top / -128)
    steps = (_over(-128.0, top) * scales).round().clamp(max=127)
    steps = (whole * steps)[:, :, None]
    return (_over(parts, steps).round().clamp(-32, 31) * steps).view_as(x)


def _symmetric_scale(x: Float32[Tensor, "blocks 16"]) -> Float32[Tensor, "blocks 1"]:
    """`make_qx_quants` for levels of -32 to 31, each error weighted by the number's square."""
    top = _largest(x)
    best, scale = torch.zeros_like(top), torch.zeros_like(top)
    for shift in (0, *range(-9, 0), *range(1, 10)):
        levels = (_over(-(32 + 0.1 * shift), top) * x).round().clamp(-32, 31)
        product = (x.pow(3) * levels).sum(1, keepdim=True)
        square = (x.square() * levels.square()).sum(1, keepdim=True)
        better = product.square() > best * square
        scale = torch.where(better, _over(product, square), scale)
        best = torch.where(better, scale * product, best)
    return torch.where(top.abs() < TINY, 0.0, scale)


def _q5_k(x: Float32[Tensor, "blocks 256"]) -> Float32[Tensor, "blocks 256"]:
    return _asymmetric(x, 31, -0.5, 15)


def _q4_k(x: Float32[Tensor, "blocks 256"]) -> Float32[Tensor, "blocks 256"]:
    return _asymmetric(x, 15, -1.0, 20)


def _asymmetric(
    x: Float32[Tensor, "blocks 256"], top: int, start: float, count: int
) -> Float32[Tensor, "blocks 256"]:
    """Q4_K and Q5_K: eight blocks of a scale and a minimum of 6 bits each."""
    parts = x.view(-1, 8, 32)
    found = _scale_and_minimum(parts.reshape(-1, 32), top, start, count)
    stored = []
    for values in (one.view(-1, 8) for one in found):
        most = values.amax(1, keepdim=True)
        steps = (_over(63.0, most) * values).round().clamp(max=63)
        stored.append((_half(most / 63) * steps)[:, :, None])
    scale, minimum = stored
    levels = _over(parts + minimum, scale).round().clamp(0, top)
    return (scale * levels - minimum).view_as(x)


def _scale_and_minimum(
    x: Float32[Tensor, "blocks 32"], top: int, start: float, count: int
) -> tuple[Float32[Tensor, "blocks 1"], Float32[Tensor, "blocks 1"]]:
    """`make_qkx2_quants`: the scale, and the minimum with its sign changed, of least error."""
    weights = x.square().mean(1, keepdim=True).sqrt() + x.abs()

    def total(values: Tensor) -> Tensor:
        return (weights * values).sum(1, keepdim=True)

    least = x.amin(1, keepdim=True).clamp(max=0)
    most = x.amax(1, keepdim=True)
    scale = (most - least) / top
    levels = _over(x - least, scale).round().clamp(0, top)
    error = total((scale * levels + least - x).square())
    ones, sum_x = total(torch.ones_like(x)), total(x)
    for step in range(count + 1):
        inverse = _over(start + 0.1 * step + top, most - least)
        levels = (inverse * (x - least)).round().clamp(0, top)
        sum_l, sum_ll, sum_xl = total(levels), total(levels.square()), total(x * levels)
        spread = ones * sum_ll - sum_l.square()
        fitted = _over(ones * sum_xl - sum_x * sum_l, spread)
        offset = _over(sum_ll * sum_x - sum_l * sum_xl, spread)
        fitted = torch.where(offset > 0, _over(sum_xl, sum_ll), fitted)
        offset = offset.clamp(max=0)
        now = total((fitted * levels + offset - x).square())
        better = (spread > 0) & (now < error)
        scale, least = torch.where(better, fitted, scale), torch.where(better, offset, least)
        error = torch.where(better, now, error)
    return scale, -least


# By format: the numbers of a block, and the function from numbers to what is read back.
FUNCTIONS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "Q8_0": (32, _q8_0),
    "Q5_0": (32, _q5_0),
    "Q5_1": (32, _q5_1),
    "Q6_K": (SUPERBLOCK, _q6_k),
    "Q5_K": (SUPERBLOCK, _q5_k),
    "Q4_K": (SUPERBLOCK, _q4_k),
}
