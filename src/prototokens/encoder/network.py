"""The network: tokens of a text in, its vectors out, in one pass.

Each token is represented by its input embedding in the frozen model, or its hidden states at some
depths, and learned queries, one for each vector, stand among the tokens. In bidirectional blocks
each attends to all others; the queries' last states are read as the vectors, on the scale of the
model's input embeddings. Where there are refinements (`refine`), further blocks take what the
decoder makes of the vectors, and move them.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from prototokens.encoder.adapters import Adapters, linear_maps
from prototokens.encoder.binding import Binding
from prototokens.encoder.config import Shape
from prototokens.errors import ModelError, UsageError
from prototokens.lm.frozen_lm import FrozenLM

# The network takes the logarithm of a gradient's size, and this is its smallest.
MIN_SIZE = 1e-8
# Of attention: queries and keys are normed, so nothing else could make it attend to one token
# alone.
SHARPNESS = 2.0


def shape_for(lm: FrozenLM, shape: Shape) -> Shape:
    """The shape with what the model decides.

    Raises:
        UsageError: a depth that the model has not, or texts longer than its context.
        ModelError: a trunk is asked for, and the model does not show its hidden states.
    """
    positions = shape.arrangement.positions(shape.max_length)
    if lm.max_context is not None and positions > lm.max_context:
        raise UsageError(
            f"texts of up to {shape.max_length} tokens take {positions} positions, and {lm.name}"
            f" holds {lm.max_context}:"
            " ask for a smaller --max-length"
        )
    with torch.no_grad():
        features = states(
            lm, torch.zeros(1, 1, dtype=torch.int64, device=lm.device), shape.depths
        ).shape[-1]
    maps = linear_maps(lm.model.base_model) if shape.rank else ()
    return replace(
        shape, d_model=lm.d_model, hidden=lm.hidden_size, features=features, adapted=maps
    )


def states(
    lm: FrozenLM,
    ids: Int64[Tensor, "rows seq"],
    depths: tuple[int, ...],
    adapters: Adapters | None = None,
) -> Float[Tensor, "rows seq features"]:
    """Hidden states at these depths side by side, each vector scaled to a root mean square of 1.

    Depth 0 is the input.

    Raises:
        UsageError: a depth that the model has not.
        ModelError: it does not show its hidden states.
    """
    embedded = lm.embed(ids)
    found: tuple[Tensor, ...] = (embedded,)
    if max(depths) > 0:
        body: Any = lm.model.base_model
        adapted = adapters is not None
        with (
            adapters.on(body) if adapted else nullcontext(),
            torch.set_grad_enabled(adapted and torch.is_grad_enabled()),
        ):
            out = body(
                inputs_embeds=embedded, use_cache=False, output_hidden_states=True, return_dict=True
            )
        given = out.hidden_states
        if not given:
            raise ModelError(
                f"{lm.name!r} shows no hidden states, so it cannot be an encoder's trunk: use depth"
                " 0"
            )
        found = (embedded, *given[1:])
    if max(depths) >= len(found):
        raise UsageError(
            f"depth {max(depths)} asked for, and {lm.name!r} has depths 0 to {len(found) - 1}"
        )
    return torch.cat(
        [functional.rms_norm(found[depth].float(), (found[depth].shape[-1],)) for depth in depths],
        -1,
    )


class Block(nn.Module):
    """Attention of all to all, then a feed-forward part.

    Both on normed inputs, added to what comes in.
    """

    def __init__(self, width: int, heads: int, feed_forward: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm_in = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.rise, self.fall = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        # A block is the identity at first: gradients reach every depth from the first step.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.fall.weight)
        nn.init.zeros_(self.fall.bias)

    def forward(
        self, x: Float[Tensor, "rows seq width"], absent: Bool[Tensor, "rows seq"]
    ) -> Float[Tensor, "rows seq width"]:
        rows, seq, width = x.shape
        query, key, value = (
            self.qkv(self.norm(x)).view(rows, seq, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        query, key = (functional.rms_norm(part, (part.shape[-1],)) for part in (query, key))
        # Plain products: rows are short, and PyTorch's fused kernel for CPUs is made for long ones
        # (`attention`).
        scores = query @ key.mT * (SHARPNESS * query.shape[-1] ** -0.5)
        mixed = (
            scores.masked_fill(absent[:, None, None, :], -torch.inf).softmax(-1).to(value.dtype)
            @ value
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, seq, width))
        return x + self.fall(functional.gelu(self.rise(self.norm_in(x))))


class Feedback(NamedTuple):
    """What a feedback pass gives for some vectors (`refine.feedback_pass`).

    Attributes:
        gradient: of each text's loss with respect to its vectors.
        error: of each token, the gradient with respect to the decoder's last hidden state; zero
            behind a text's end.
        hidden: that hidden state, scaled to a root mean square of 1.
        inputs: of a bound network, the gradient with respect to each input.
    """

    gradient: Float[Tensor, "rows vectors d_model"]
    error: Float[Tensor, "rows seq hidden"]
    hidden: Float[Tensor, "rows seq hidden"]
    inputs: Float[Tensor, "rows seq d_model"] | None = None

    def of(self, rows: Int64[Tensor, "some"], longest: int) -> Feedback:
        """Of some texts, the longest of which has so many tokens."""
        return Feedback(
            self.gradient[rows],
            self.error[rows, :longest],
            self.hidden[rows, :longest],
            None if self.inputs is None else self.inputs[rows, :longest],
        )


class Reading(NamedTuple):
    """Where a network stands with some texts.

    Attributes:
        x: the states of queries and tokens.
        absent: those behind a text's end.
        moved: the vectors, in units of `std`, from `base`.
    """

    x: Float[Tensor, "rows seq width"]
    absent: Bool[Tensor, "rows seq"]
    moved: Float[Tensor, "rows queries d_model"]

    def of(self, rows: Int64[Tensor, "some"], longest: int) -> Reading:
        """Of some texts, the longest of which has so many tokens."""
        end = self.moved.shape[1] + longest
        return Reading(self.x[rows, :end], self.absent[rows, :end], self.moved[rows])


class Refiner(nn.Module):
    """A refinement: moves the vectors by the states of the blocks and a feedback pass.

    One set of maps serves all.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        width = shape.width
        self.vectors = nn.Linear(2 * shape.d_model + 1, width)
        self.tokens = nn.Linear(2 * shape.hidden + 3 * shape.d_model * shape.bound, width)
        self.blocks = nn.ModuleList(
            [Block(width, shape.heads, shape.feed_forward) for _ in range(shape.refine_layers)]
        )
        self.norm = nn.RMSNorm(width)
        self.write = nn.Linear(width, shape.d_model, bias=False)
        nn.init.zeros_(self.write.weight)
        if shape.bound:
            self.write_tokens = nn.Linear(width, shape.d_model, bias=False)
            nn.init.zeros_(self.write_tokens.weight)

    def forward(
        self,
        reading: Reading,
        vectors: Tensor,
        gradient: Tensor,
        tokens: Float[Tensor, "rows seq features"],
        binding: Binding | None = None,
    ) -> Reading:
        """Move the vectors.

        Args:
            vectors: those that are predicted, and `gradient`: of the loss there, both in units of
                `std`.
            tokens: error and hidden state of each token (`Feedback`).
            binding: where tokens read and write the vectors too.
        """
        size = gradient.square().mean((1, 2), keepdim=True).sqrt() + MIN_SIZE
        queries, seq = vectors.shape[1], tokens.shape[1]
        if binding is not None:
            tokens = torch.cat(
                [tokens, binding.read(gradient / size, seq), binding.read(vectors, seq)], -1
            )
        inputs = torch.cat([gradient / size, vectors, size.log().expand(-1, queries, 1)], -1)
        added = torch.cat([self.vectors(inputs), self.tokens(tokens)], 1)
        x = reading.x + added.to(reading.x.dtype)
        for block in self.blocks:
            x = block(x, reading.absent)
        normed = self.norm(x)
        moved = self.write(normed[:, :queries]).float()
        if binding is not None:
            written = self.write_tokens(normed[:, queries:]).float()
            moved = moved + binding.write(written, reading.absent[:, queries:])
        return Reading(x, reading.absent, reading.moved + moved)


class Network(nn.Module):
    """What is trained.

    Args:
        shape: as `shape_for` gives it.
        mean, std: of the frozen model's input embeddings, per dimension: the scale of the vectors
            at first.
        error: scale of the gradient at the decoder's last state where a token is wrong.
    """

    mean: Tensor
    std: Tensor
    error: Tensor

    def __init__(
        self,
        shape: Shape,
        mean: Float[Tensor, " d_model"],
        std: Float[Tensor, " d_model"],
        error: float = 1.0,
    ):
        super().__init__()
        self.shape = shape
        queries = shape.vectors if shape.predict == "all" else 1
        width = shape.width
        self.read = nn.Linear(shape.features, width)
        self.positions = nn.Parameter(0.5 * torch.randn(shape.max_length, width))
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.lengths = nn.Parameter(0.1 * torch.randn(shape.max_length, width))
        self.blocks = nn.ModuleList(
            [Block(width, shape.heads, shape.feed_forward) for _ in range(shape.layers)]
        )
        self.norm = nn.RMSNorm(width)
        self.write = nn.Linear(width, shape.d_model, bias=False)
        self.binding: Binding | None = None
        if shape.bound:
            self.binding = Binding(shape.arrangement, shape.max_length, shape.d_model)
            self.write_tokens = nn.Linear(width, shape.d_model, bias=False)
        if shape.direct:
            self.narrow = nn.Linear(width, shape.direct, bias=False)
            maps = torch.randn(shape.max_length, shape.direct, queries, shape.d_model)
            # At first the vectors move by about a tenth of the embeddings' spread.
            self.direct = nn.Parameter(0.1 * (shape.direct * shape.max_length) ** -0.5 * maps)
        # Where the vectors lie before a text is seen, in units of `std`: apart, so that no two
        # begin alike.
        self.base = nn.Parameter(torch.randn(shape.vectors, shape.d_model))
        self.adapters = Adapters(shape.adapted, shape.rank) if shape.adapted else None
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.refiner = Refiner(shape) if shape.refinements else None
        if shape.refinements:
            self.register_buffer("error", torch.tensor(error))

    def begin(
        self, features: Float[Tensor, "rows seq features"], lengths: Int64[Tensor, "rows"]
    ) -> Reading:
        """Read texts, right-padded: no token attends to the padding."""
        seq = features.shape[1]
        tokens = self.read(features) + self.positions[:seq]
        queries = self.queries + self.lengths[lengths - 1][:, None]
        x = torch.cat([queries.to(tokens.dtype), tokens], 1)
        positions = torch.arange(seq, device=features.device)
        absent = functional.pad(
            positions[None, :] >= lengths[:, None], (queries.shape[1], 0), value=False
        )
        for block in self.blocks:
            x = block(x, absent)
        x = self.norm(x)
        moved = self.write(x[:, : queries.shape[1]]).float()
        if self.binding is not None:
            written = self.write_tokens(x[:, queries.shape[1] :]).float()
            moved = moved + self.binding.write(written, absent[:, queries.shape[1] :])
        if self.shape.direct:
            narrow = self.narrow(x[:, queries.shape[1] :]).masked_fill(
                absent[:, queries.shape[1] :, None], 0
            )
            maps = self.direct[:seq].to(narrow.dtype).flatten(0, 1).flatten(1)
            moved = moved + (narrow.flatten(1) @ maps).float().view_as(moved)
        return Reading(x, absent, moved)

    def refine(self, reading: Reading, feedback: Feedback) -> Reading:
        """Move the vectors by what the decoder makes of them."""
        assert self.refiner is not None
        queries = reading.moved.shape[1]
        vectors = (self.base[:queries] + reading.moved).detach()
        tokens = torch.cat([feedback.error / self.error, feedback.hidden], -1)
        if feedback.inputs is not None:
            inputs = feedback.inputs * self.std
            present = (~reading.absent[:, queries:]).sum(1)
            size = (inputs.square().mean(2).sum(1) / present).sqrt() + MIN_SIZE
            tokens = torch.cat([tokens, inputs / size[:, None, None]], -1)
        gradient = feedback.gradient[:, :queries] * self.std
        return self.refiner(reading, vectors, gradient, tokens, self.binding)

    def vectors(self, reading: Reading) -> Float[Tensor, "rows vectors d_model"]:
        """The vectors, float32."""
        moved = functional.pad(
            reading.moved, (0, 0, 0, self.shape.vectors - reading.moved.shape[1])
        )
        return self.mean + self.std * (self.base + moved)


def make_network(lm: FrozenLM, shape: Shape, seed: int) -> Network:
    """An untrained network for a model, on its device."""
    mean, std, _ = lm.embedding_scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The gradient at a state is the difference of two rows of the head where one token is taken
        # for another.
        error = float(lm.head.weight.float().square().mean().sqrt()) * math.sqrt(2)
        network = Network(shape_for(lm, shape), mean.clone(), std.clone(), error)
    return network.to(lm.device)
