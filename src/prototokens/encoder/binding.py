"""Binding: in a keyed layout, each token writes its vector through the key of its own position.

A keyed layout feeds `key_i * v` at position i (`prototokens.keys`), so one vector serves many
positions, each of which sees it multiplied by other signs. A network that writes the vector as a
whole would have to learn all keys by heart. Here it need not: what token i adds to its vector is
multiplied by the key of position i, and what it reads of the vector is multiplied by it again,
which undoes the signs, as `key_i * key_i = 1`. This is the bundling of bound pairs of holographic
reduced representations (T. Plate, IEEE Transactions on Neural Networks 6 (1995) 623), with signs
for convolutions.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from prototokens.keys import signs
from prototokens.layout import Layout


class Binding(nn.Module):
    """The keys of the positions, and the vector that stands at each.

    Args:
        layout: a keyed one.
        max_length: longest text, in tokens.
    """

    keys: Float[Tensor, "positions d_model"]
    place: Float[Tensor, "positions vectors"]

    def __init__(self, layout: Layout, max_length: int, d_model: int):
        super().__init__()
        place = nn.functional.one_hot(layout.index(max_length), layout.vectors).float()
        # Made from the layout, so a file of weights does not hold them.
        self.register_buffer("keys", signs(max_length, d_model).clone(), persistent=False)
        self.register_buffer("place", place, persistent=False)

    def write(
        self, tokens: Float[Tensor, "rows seq d_model"], absent: Bool[Tensor, "rows seq"]
    ) -> Float[Tensor, "rows vectors d_model"]:
        """What the tokens add to their vectors: a sum through the keys, over the root of its terms.

        Args:
            tokens: what each adds, before its key.
            absent: tokens behind a text's end, which add nothing.
        """
        seq = tokens.shape[1]
        place = self.place[:seq] * ~absent[:, :, None]
        terms = place.sum(1).clamp(min=1)
        return (place.mT @ (tokens * self.keys[:seq])) * terms.rsqrt()[:, :, None]

    def read(
        self, vectors: Float[Tensor, "rows vectors d_model"], seq: int
    ) -> Float[Tensor, "rows seq d_model"]:
        """For each token, its vector through the key of its position."""
        return (self.place[:seq] @ vectors) * self.keys[:seq]
