"""The two ends of a frozen model: its output head, and the scale of its input embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Head:
    """From the last hidden states to logits: `softcap(scale * (weight @ hidden + bias))`.

    Attributes:
        weight: one row per token.
        bias: one number per token, or None.
        softcap: c in c * tanh(logits / c) (Gemma 2), or None.
        scale: factor on the logits before the soft cap (Cohere, Granite), 1.0 in most models.
        dtype: dtype in which the model itself returns its logits; None for the weight's dtype.
    """

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None = None
    softcap: float | None = None
    scale: float = 1.0
    dtype: torch.dtype | None = None

    def __call__(
        self, hidden: Float[Tensor, "*positions hidden"]
    ) -> Float[Tensor, "*positions vocab"]:
        """Logits of hidden states, rounded where the model itself rounds."""
        logits = functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        logits = logits.to(self.dtype or logits.dtype)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


class EmbeddingScale(NamedTuple):
    """Statistics of the input embeddings of all ids, in float32, on the CPU.

    Attributes:
        mean, std: mean and standard deviation of each coordinate over the vocabulary.
        rms: root mean square of all entries of the table.
    """

    mean: Float32[Tensor, " d_model"]
    std: Float32[Tensor, " d_model"]
    rms: float
