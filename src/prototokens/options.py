"""The options of `fit` and `encode`: their defaults, and the help that the command line shows.

Each is a frozen dataclass. `FitKeywords` and `EncodeKeywords` tell type checkers the keyword
arguments of `fit(lm, targets, **options)` and `encode`; a test holds them equal to the fields.
Importing this module is cheap: the command line reads the fields for its help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from prototokens._util.option_fields import described
from prototokens.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from prototokens.encoder.encoder import Encoder
    from prototokens.engine.rows import Start
    from prototokens.layout import Layout
    from prototokens.solution import Solution

    Vectors = Start | Solution | Tensor | np.ndarray  # of one target
    Mask = Sequence[bool] | Tensor | np.ndarray  # of one target
    Weights = Sequence[float] | Tensor | np.ndarray  # of one target

CERTIFY = ("none", "standard", "strict", "portable")
INEXACT = ("halve", "patch", "keep")
SHARE = ("e", "m")


class NamedOptions:
    """Options that may give a layout and a recipe by name: both are resolved here, once."""

    layout: str | Layout | None
    recipe: str | Recipe
    steps: int | None

    def resolve_recipe(self) -> Recipe:
        """The recipe, with the steps that are asked for.

        Raises:
            UsageError: no such recipe.
        """
        return Recipe.named(self.recipe, **({} if self.steps is None else {"steps": self.steps}))

    def resolve_layout(self) -> Layout | None:
        """The layout; None where it is `auto`, or not given.

        Raises:
            UsageError: no such layout.
        """
        from prototokens.layout import Layout

        return None if self.layout in (None, "auto") else Layout.named(self.layout)


@dataclass(frozen=True)
class FitOptions(NamedOptions):
    """Options of `fit`.

    Attributes:
        layout: an arrangement or its name (`Layout.named`). By default that of an encoder or a
            solution that `start` gives, else two keyed vectors, which reproduce the same text in a
            third of the steps of the paper's layout, `paper`.
        vectors: their number K, in place of a layout: `keyed:K`.
        recipe: a recipe or its name (`Recipe.named`).
        steps: most optimiser steps of an attempt; by default the recipe's.
        seed: of the starts; a list gives each target its own.
        share: one e (or one m) for all targets; then they are solved together or not at all.
        prefix: token ids that stand before the vectors (`FrozenLM.prefix_ids`): `none`, `bos`,
            `text:...`, ids, or `auto`: BOS where the model's first position is an attention sink.
            With the recipe `paper`, which is the published one to the letter, `auto` is none. A
            prefix that the layout brings is kept.
        start: where the vectors begin: `random`; `encoder`, the one that ships for this model and
            layout; `auto`, that one where it has proved to save time; an encoder
            (`encoder.starts`); or vectors: a tensor `[vectors, d_model]` or a `Solution`, for every
            target, or a list with one for each (None: at random). An `engine.rows.Start` with a
            grid stays on it.
        mask: which tokens of a target are scored, one truth value for each; for a list of targets,
            a mask or None for each. Tokens that are not scored count as wrong
            (`Solution.excluded`). By default all are scored.
        weights: a factor above zero on the loss of each token, as numbers or an array; for a list
            of targets, such weights or None for each. Where vectors cannot hold all tokens, those
            of more weight come out first. By default all are 1.
        rows: maximum number of rows side by side; by default as many as fill the machine.
    """

    layout: str | Layout | None = None
    vectors: int | None = None
    recipe: str | Recipe = "fast"
    steps: int | None = None
    seed: int | Sequence[int] = 0
    share: str | None = None
    prefix: str | Sequence[int] = "auto"
    start: str | Encoder | Vectors | Sequence[Vectors | None] = "random"
    mask: Mask | Sequence[Mask | None] | None = None
    weights: Weights | Sequence[Weights | None] | None = None
    rows: int | None = None


class FitKeywords(TypedDict, total=False):
    """The fields of `FitOptions`, as keyword arguments."""

    layout: str | Layout | None
    vectors: int | None
    recipe: str | Recipe
    steps: int | None
    seed: int | Sequence[int]
    share: str | None
    prefix: str | Sequence[int]
    start: str | Encoder | Vectors | Sequence[Vectors | None]
    mask: Mask | Sequence[Mask | None] | None
    weights: Weights | Sequence[Weights | None] | None
    rows: int | None


@dataclass(frozen=True)
class EncodeOptions(NamedOptions):
    """Options of `encode`.

    Attributes:
        layout: an arrangement of every chunk, or `auto`.
        chunk_length: tokens of every chunk but the last; by default cut by the text's information
            (`plan_chunks`).
        vectors: of a chunk, in place of a layout; `auto` chooses their number by the cost forecast
            (`plan_chunks`).
        recipe: a recipe or its name (`Recipe.named`).
        steps: most optimiser steps for a chunk; by default the recipe's.
        seed: of the random starts.
        share: one e (or one m) for all chunks; such a text is solved as a whole or not at all, and
            its chunks are not halved.
        prefix: token ids that stand before the vectors of every chunk, as `fit` takes them.
        start: where the vectors begin: `random`; `encoder`, the one that ships for this model;
            `auto`, that one where it has proved to save time; or an encoder (`encoder.starts`). A
            chunk that has failed is tried again at random. Shared vectors always begin at random.
        rows: maximum number of chunks that are fitted side by side; by default as many as fill the
            machine.
        certify: `standard` goes on until every margin withstands other batch shapes, kernels and
            dtypes, and tries the most different of them on the result; `strict` tries the whole
            decode matrix; `portable` tries what `standard` does and weights rounded to the
            precisions of GGUF files, and goes on to the margin that these need; `none` stops at the
            recipe's own margin.
        inexact: what becomes of a chunk that is not exact within its steps. `halve`: its halves are
            tried again, and what is not exact in the end is patched; `patch`: its wrong tokens are
            stored as patches, or all of its tokens where that is shorter; `keep`: it stays as it
            is. By default `halve`, and `patch` for a recipe without steps.
        bits: of each number of the vectors in the file: 32, 16, 1 to 8, or `auto`: the fewest that
            stay exact, for each chunk. A chunk that is not exact in so many takes more
            (`engine.quantise`).
    """

    layout: str | Layout = field(
        default="auto",
        metadata=described(
            "How a chunk's vectors are arranged: keyed:K (K vectors), paper (two), tiled:K and"
            " mixed:K (1 + K of them), one, halves, alternating, free; auto takes keyed:2 for a"
            " short text and keyed:5 for others.",
            in_key=True,
        ),
    )
    chunk_length: int | None = field(
        default=None,
        metadata=described(
            "Tokens a chunk.", minimum=1, default_text="as many as the vectors reproduce easily"
        ),
    )
    vectors: int | Literal["auto"] | None = field(
        default=None,
        metadata=described(
            "Vectors a chunk, in place of a layout: N is keyed:N; auto chooses their number, and"
            " the length of the chunks, so that numbers times steps come out least.",
            metavar="N|auto",
            default_text="as --layout has it",
        ),
    )
    recipe: str | Recipe = field(
        default="fast",
        metadata=described("How vectors are fitted: fast, or paper (as published).", in_key=True),
    )
    steps: int | None = field(
        default=None,
        metadata=described(
            "Most optimiser steps for a chunk.", minimum=0, default_text="the recipe's"
        ),
    )
    seed: int = field(
        default=0,
        metadata=described(
            "Of the random starts: the same seed gives the same vectors.", in_key=True
        ),
    )
    share: str | None = field(
        default=None,
        metadata=described(
            "One vector for all chunks, in layouts of two: e with --layout free, m with --layout"
            " paper or free.",
            choices=SHARE,
        ),
    )
    prefix: str | Sequence[int] = field(
        default="auto",
        metadata=described(
            "Fixed tokens before the vectors of every chunk, which cost no trained number: none,"
            " the model's BOS token, or a text; auto: BOS where the model's first position is an"
            " attention sink.",
            metavar="auto|none|bos|text:...",
        ),
    )
    start: str | Encoder = field(
        default="auto",
        metadata=described(
            "Where vectors begin: at random; at what the model's encoder gives for the text; auto:"
            " that, where it has proved to save time; or an encoder's folder (train-encoder). With"
            " --steps 0 they stay there, and auto is the encoder.",
            in_key=True,
            metavar="auto|random|encoder|FOLDER",
        ),
    )
    rows: int | None = field(
        default=None,
        metadata=described(
            "Chunks fitted side by side.", minimum=1, default_text="as many as fill the machine"
        ),
    )
    certify: str = field(
        default="standard",
        metadata=described(
            "Fit until other batch shapes, kernels and dtypes decode the same, and try them: the"
            " most different ones, or all; portable: the most different ones, and the weights"
            " rounded to the precisions of GGUF files, from F16 to Q4_K.",
            choices=CERTIFY,
        ),
    )
    inexact: str | None = field(
        default=None,
        metadata=described(
            "A chunk that is not exact within its steps is cut in two and tried again, its wrong"
            " tokens are put into the file, or it stays as it is. Tokens that halves cannot"
            " reproduce are patched in the end.",
            choices=INEXACT,
            default_text="halve; patch with --steps 0",
        ),
    )
    bits: int | Literal["auto"] = field(
        default=32,
        metadata=described(
            "Bits of each number of the vectors in the file; auto finds the fewest that stay exact,"
            " for each chunk.",
            metavar="1-8|16|32|auto",
        ),
    )

    def key_parts(self) -> dict[str, Any]:
        """The values that solved chunks depend on, as JSON.

        The layout and the recipe are objects, the layout with its prefix.
        """
        names = (one.name for one in fields(self) if one.metadata["in_key"])
        return {name: _as_json(getattr(self, name)) for name in names}


class EncodeKeywords(TypedDict, total=False):
    """The fields of `EncodeOptions`, as keyword arguments."""

    layout: str | Layout
    chunk_length: int | None
    vectors: int | Literal["auto"] | None
    recipe: str | Recipe
    steps: int | None
    seed: int
    share: str | None
    prefix: str | Sequence[int]
    start: str | Encoder
    rows: int | None
    certify: str
    inexact: str | None
    bits: int | Literal["auto"]


def _as_json(value: Any) -> Any:
    """A value of an option as JSON: a recipe, a layout, an encoder, or a plain value."""
    from prototokens.layout import Layout

    if isinstance(value, Recipe):
        return value.as_dict()
    if isinstance(value, Layout):
        return [value.name, value.key_version, list(value.prefix)]
    return value if isinstance(value, str | int | None) else str(value.path)
