"""Options of `prototokens corpus`, and the settings that a run resolves them to.

Importing this module is cheap: the command line reads the fields for its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prototokens._util.option_fields import described
from prototokens._util.settings import require
from prototokens.errors import UsageError
from prototokens.lab.passages import without_folders
from prototokens.layout import DEFAULT_VECTORS, Layout, keyed
from prototokens.options import CERTIFY, EncodeOptions, NamedOptions
from prototokens.recipe import Recipe

if TYPE_CHECKING:
    from prototokens.lab.job import ModelFacts
    from prototokens.lm.frozen_lm import FrozenLM

VALUES = ("float32", "float16", "int8")
# Rows of a shard, where none are asked for: so many times what the engine runs side by side, so
# that the last rows of a shard, which run alone, are a small part of it.
FILLS, MIN_ROWS, MAX_ROWS = 4, 64, 4096
SAME = {one.name: one.metadata for one in EncodeOptions.__dataclass_fields__.values()}


@dataclass(frozen=True)
class CorpusOptions(NamedOptions):
    """Options of a corpus.

    Attributes:
        layout: an arrangement or its name; by default that of an encoder that is given as start,
            else `keyed:2`.
        recipe: a recipe or its name.
        steps: most optimizer steps of a fit; by default the recipe's.
        start: `auto`, `random`, `encoder`, or an encoder's folder.
        prefix: token ids that stand before the vectors, as `fit` takes them.
        seed: of the random starts, and of sources that draw.
        length: most tokens of a row; longer texts are cut.
        limit: most rows.
        certify: level of the certificate that every row is tried at.
        values: what the vectors are stored in.
        shard_rows: rows of a shard.
    """

    layout: str | None = field(
        default=None,
        metadata=described(
            "How a row's vectors are arranged: keyed:K (K vectors), paper (two), and others.",
            default_text="keyed:2, or an encoder's",
        ),
    )
    recipe: str | Recipe = field(default="fast", metadata=SAME["recipe"])
    steps: int | None = field(
        default=None,
        metadata=described(
            "Most optimiser steps of a fit.", minimum=0, default_text="the recipe's"
        ),
    )
    start: str = field(
        default="auto",
        metadata=described(
            "Where vectors begin: at random; at what the model's encoder gives; auto: that, where"
            " it has proved to save time; or an encoder's folder (train-encoder).",
            metavar="auto|random|encoder|FOLDER",
        ),
    )
    prefix: str = field(default="auto", metadata=SAME["prefix"])
    seed: int = 0
    length: int = field(
        default=64,
        metadata=described("Most tokens of a row: longer texts are cut.", minimum=1),
    )
    limit: int | None = field(
        default=None,
        metadata=described("Most rows.", minimum=1, default_text="all that the source gives"),
    )
    certify: str = field(
        default="none",
        metadata=described(
            "Fit until other batch shapes, kernels and dtypes decode the same, and try them on"
            " every row.",
            choices=CERTIFY,
        ),
    )
    values: str = field(
        default="float32",
        metadata=described(
            "What vectors are stored in. They are scored as stored; for int8 they are repaired on"
            " the grid where rounding costs a token.",
            choices=VALUES,
        ),
    )
    shard_rows: int | None = field(
        default=None,
        metadata=described(
            "Rows of a file: what a kill can lose.",
            minimum=1,
            default_text="four times what the engine runs side by side, 64 to 4096",
        ),
    )


@dataclass(frozen=True)
class Settings:
    """Everything that a row depends on, resolved, and what a worker on another machine needs.

    Attributes:
        model: the frozen model.
        source: the texts, as `lab.texts` names them.
        layout: of every row, with its prefix.
        recipe: with the margin that the certificate asks for.
        start, seed, length, limit, certify, values, shard_rows: as `CorpusOptions` has them.
    """

    model: ModelFacts
    source: str
    layout: Layout
    recipe: Recipe
    start: str
    seed: int
    length: int
    limit: int | None
    certify: str
    values: str
    shard_rows: int

    def as_json(self) -> dict[str, Any]:
        """What `meta.json` records, and what a run that goes on has to have in common."""
        from prototokens.lm.locate import recorded_name

        model = self.model
        return {
            "model": {
                "name": recorded_name(model.name),
                "revision": model.revision,
                "fingerprint": model.fingerprint,
                "tokenizer": model.tokenizer,
                "dtype": model.dtype,
                "d_model": model.d_model,
                "vocab_size": model.vocab_size,
            },
            "source": without_folders(self.source),
            "layout": self.layout.name,
            "key_version": self.layout.key_version,
            "vectors": self.layout.vectors,
            "prefix": list(self.layout.prefix),
            "recipe": self.recipe.as_dict(),
            "start": recorded_name(self.start),
            "seed": self.seed,
            "length": self.length,
            "limit": self.limit,
            "certify": self.certify,
            "values": self.values,
            "shard_rows": self.shard_rows,
        }


def settle(
    lm: FrozenLM, source: str, options: CorpusOptions, shard_rows: int | None = None
) -> Settings:
    """Resolve the options for a model.

    Args:
        shard_rows: of the folder, where it has shards already and none are asked for.

    Raises:
        UsageError: no such layout, recipe or start, or rows that the model has no room for.
        FileError: the start is no encoder's folder, or an encoder of another model.
    """
    from prototokens.encoder.shipped import chosen
    from prototokens.encoder.start_option import start_of
    from prototokens.encoding import certified_recipe
    from prototokens.engine.memory import max_positions
    from prototokens.fitting import prefix_of
    from prototokens.lab.models import facts

    _check(options)
    recipe = options.resolve_recipe()
    named = options.resolve_layout()
    encoder = chosen(lm, start_of(options.start), named)
    layout = named or (encoder.layout if encoder else keyed(DEFAULT_VECTORS))
    if not layout.prefix:
        layout = layout.with_prefix(prefix_of(lm, options.prefix, recipe))
    longest = lm.longest_target(layout)
    if options.length > longest:
        raise UsageError(
            f"rows of {options.length} tokens asked for, and {lm.name} holds at most {longest} with"
            f" layout {layout.name!r}: give a smaller --length, longer texts are cut"
        )
    width = len(layout.prefix) + layout.positions(options.length)
    capacity = max_positions(lm, width) // width
    return Settings(
        model=facts(lm, layout.prefix),
        source=source,
        layout=layout,
        recipe=certified_recipe(lm, recipe, options.certify, layout),
        start=options.start,
        seed=options.seed,
        length=options.length,
        limit=options.limit,
        certify=options.certify,
        values=options.values,
        shard_rows=options.shard_rows
        or shard_rows
        or max(MIN_ROWS, min(MAX_ROWS, FILLS * capacity)),
    )


def _check(options: CorpusOptions) -> None:
    """Refuse values that no run can have.

    Raises:
        UsageError: the first of them.
    """
    rules = {
        "length must be at least 1": options.length >= 1,
        "limit must be at least 1": options.limit is None or options.limit >= 1,
        "shard_rows must be at least 1": options.shard_rows is None or options.shard_rows >= 1,
        f"values must be one of {', '.join(VALUES)}": options.values in VALUES,
        f"certify must be one of {', '.join(CERTIFY)}": options.certify in CERTIFY,
    }
    require("the corpus", rules)
