"""Low-rank adapters: small trained maps beside the frozen linear maps of a model.

A frozen map x -> W x becomes x -> W x + B A x, with A `[rank, inputs]` and B `[outputs, rank]`, B
zero at first (Hu et al., arXiv 2106.09685). They are added by hooks that are there during one pass
of the trunk and gone after it: the decoder is the same model in the same memory, and must not see
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class Adapters(nn.Module):
    """Adapters of a number of maps.

    Args:
        maps: name within the body, inputs, outputs.
    """

    def __init__(self, maps: tuple[tuple[str, int, int], ...], rank: int):
        super().__init__()
        self.names = [name for name, _, _ in maps]
        self.down = nn.ParameterList(
            [nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5) for _, inputs, _ in maps]
        )
        self.up = nn.ParameterList(
            [nn.Parameter(torch.zeros(outputs, rank)) for _, _, outputs in maps]
        )

    @contextmanager
    def on(self, body: nn.Module) -> Iterator[None]:
        """Within it, the body's maps are adapted."""
        hooks = []
        try:
            for name, down, up in zip(self.names, self.down, self.up, strict=True):
                hooks.append(body.get_submodule(name).register_forward_hook(_hook(down, up)))
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _hook(down: Float[Tensor, "rank inputs"], up: Float[Tensor, "outputs rank"]):
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        beside = inputs[0].to(down.dtype) @ down.mT @ up.mT
        return output + beside.to(output.dtype)

    return add


def linear_maps(body: nn.Module) -> tuple[tuple[str, int, int], ...]:
    """Every linear map of a body: name, inputs, outputs."""
    found = []
    for name, module in body.named_modules():
        if isinstance(module, nn.Linear):
            found.append((name, module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            found.append((name, *module.weight.shape))
    return tuple(found)
