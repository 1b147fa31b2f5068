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
from torch import Tensor
from torch.nn import functional

from prototokens.keys import signs
from prototokens.layout import Layout


class Binding:
    """The keys of the positions, and the vector that stands at each.

    Args:
        layout: a keyed one.
        max_length: longest text, in tokens.
    """

    def __init__(self, layout: Layout, max_length: int, d_model: int):
        self.layout, self.max_length, self.d_model = layout, max_length, d_model

    def keys(self, like: Float[Tensor, "*shape"], seq: int) -> Float[Tensor, "seq d_model"]:
        """The keys of the first positions, on the device of `like`."""
        return signs(self.max_length, self.d_model)[:seq].to(like)

    def place(self, like: Float[Tensor, "*shape"], seq: int) -> Float[Tensor, "seq vectors"]:
        """One-hot over the vectors for each position, on the device of `like`."""
        index = self.layout.index(seq).to(like.device)
        return functional.one_hot(index, self.layout.vectors).to(like.dtype)

    def write(
        self, tokens: Float[Tensor, "rows seq d_model"], absent: Bool[Tensor, "rows seq"]
    ) -> Float[Tensor, "rows vectors d_model"]:
        """What the tokens add to their vectors: a sum through the keys, over the root of its terms.

        Args:
            tokens: what each adds, before its key.
            absent: tokens behind a text's end, which add nothing.
        """
        seq = tokens.shape[1]
        place = self.place(tokens, seq) * ~absent[:, :, None]
        terms = place.sum(1).clamp(min=1)
        return (place.mT @ (tokens * self.keys(tokens, seq))) * terms.rsqrt()[:, :, None]

    def gather(
        self, gradient: Float[Tensor, "rows seq d_model"]
    ) -> Float[Tensor, "rows vectors d_model"]:
        """The gradient of the vectors, from that of the inputs that they make."""
        seq = gradient.shape[1]
        return self.place(gradient, seq).mT @ (gradient * self.keys(gradient, seq))

    def read(
        self, vectors: Float[Tensor, "rows vectors d_model"], seq: int
    ) -> Float[Tensor, "rows seq d_model"]:
        """For each token, its vector through the key of its position."""
        return (self.place(vectors, seq) @ vectors) * self.keys(vectors, seq)
