"""The shape of an encoder: plain values, which go into its folder as JSON.

Importing this module is cheap: the command line reads the fields for its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prototokens._util.json_fields import Fields, an_object, count, list_of, string
from prototokens._util.option_fields import described
from prototokens._util.settings import require

if TYPE_CHECKING:
    from prototokens.layout import Layout

PREDICT = ("all", "e")
STARTS = ("random", "encoder", "auto")  # names of starts; anything else is an encoder's folder


@dataclass(frozen=True)
class Shape:
    """An encoder's architecture; `network.shape_for` fills in what a model decides.

    Attributes:
        layout: the arrangement that its vectors are meant for.
        max_length: longest text, in tokens.
        predict: `all` vectors of a text, or its `e` alone: then the others are learned once, the
            same for every text.
        width, layers, heads, feed_forward: of its bidirectional blocks.
        depths: what the blocks read: hidden states of the frozen model at these depths, side by
            side. 0 is the input embedding, so `(0,)` is an encoder from scratch, for which the
            model is not run at all.
        rank: of the low-rank adapters on the frozen model where it is run as trunk; 0: none.
        prefix: token ids that stand before the vectors, as in `Layout.prefix`.
        bound: in a keyed layout, whether each token writes and reads its vector through the key of
            its position (`encoder.binding`), beside the queries.
        direct: numbers of each token that a map of its own position carries to the vectors
            directly; 0: only queries write them.
        refinements: how often, in training, the vectors are moved by gradients from the decoder
            (`refine`); each costs a forward and a backward pass. refine_layers: blocks of each.
        d_model: width of the vectors; hidden: of the decoder's last states; features: numbers that
            the blocks read for each token.
        adapted: the linear maps of the trunk that get adapters: name, inputs, outputs.
    """

    layout: str = field(
        default="keyed:5",
        metadata=described("The arrangement of the vectors.", default_text="keyed:5"),
    )
    max_length: int = field(default=32, metadata=described("Longest text, in tokens.", minimum=1))
    predict: str = field(
        default="all",
        metadata=described(
            "All vectors of a text, or e alone: then the others are learned, the same for every"
            " text.",
            choices=PREDICT,
        ),
    )
    width: int = field(default=256, metadata=described("Of the encoder's blocks.", minimum=1))
    layers: int = field(default=4, metadata=described("How many blocks.", minimum=1))
    heads: int = field(default=16, metadata=described("Heads of attention in each.", minimum=1))
    feed_forward: int = field(
        default=1024,
        metadata=described("Width of their feed-forward part.", minimum=1, default_text="4 widths"),
    )
    depths: tuple[int, ...] = field(
        default=(0,),
        metadata=described(
            "Depths of the frozen model that are read; 0 is its input embedding, and alone an"
            " encoder from scratch.",
            metavar="D,...",
        ),
    )
    rank: int = field(
        default=0, metadata=described("Of low-rank adapters on the model as trunk.", minimum=0)
    )
    direct: int = field(
        default=0,
        metadata=described(
            "Numbers of each token that a map of its own position carries to the vectors; 0: none.",
            minimum=0,
        ),
    )
    bound: bool = False
    prefix: tuple[int, ...] = ()
    refinements: int = field(
        default=0,
        metadata=described(
            "How often the vectors are moved by gradients from the model; each costs a forward and"
            " a backward pass of it.",
            minimum=0,
        ),
    )
    refine_layers: int = field(default=2, metadata=described("Blocks of each of them.", minimum=1))
    d_model: int = 0
    hidden: int = 0
    features: int = 0
    adapted: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        _ = self.arrangement  # raises where there is no such layout
        require(
            "an encoder",
            {
                "max_length must be at least 1": self.max_length >= 1,
                f"predict must be one of {', '.join(PREDICT)}": self.predict in PREDICT,
                "width must be a multiple of heads": self.width > 0
                and self.heads > 0
                and self.width % self.heads == 0,
                "layers must be at least 1": self.layers >= 1,
                "feed_forward must be at least 1": self.feed_forward >= 1,
                "depths must name at least one depth, each once, none below 0": len(self.depths) > 0
                and min(self.depths) >= 0
                and len(set(self.depths)) == len(self.depths),
                "rank must not be negative": self.rank >= 0,
                "direct must not be negative": self.direct >= 0,
                "prefix must be token ids": all(
                    type(token) is int and token >= 0 for token in self.prefix
                ),
                "bound tokens need a keyed layout": not self.bound
                or self.arrangement.key_version > 0,
                "bound tokens write all vectors (predict all)": not self.bound
                or self.predict == "all",
                "refinements must not be negative": self.refinements >= 0,
                "refine_layers must be at least 1": self.refine_layers >= 1,
                "adapters (rank above 0) need a trunk: a depth above 0": self.rank == 0
                or max(self.depths) > 0,
            },
        )

    @property
    def arrangement(self) -> Layout:
        """The layout of its vectors, behind the prefix.

        Raises:
            UsageError: no such layout.
        """
        from prototokens.layout import recorded

        return recorded(self.layout, self.prefix)

    @property
    def vectors(self) -> int:
        """Vectors of a text."""
        return self.arrangement.vectors


@dataclass(frozen=True)
class EncoderManifest:
    """What the `config.json` of an encoder's folder must have, whatever else it records.

    Attributes:
        format: version of the folder's form.
        model: the model that the encoder was trained for: `name`, `fingerprint`, `tokenizer`.
        shape: values of a `Shape`.
        weights_sha256: hash of the file of the weights.
        held_out: accuracy on texts that it was not trained on.
        proof: measurements of whether it saves time, by length.
    """

    format: int
    model: dict[str, Any]
    shape: dict[str, Any]
    weights_sha256: str
    held_out: dict[str, Any]
    proof: tuple[dict[str, Any], ...]

    @staticmethod
    def parse(values: Any) -> EncoderManifest:
        """Read a JSON object from untrusted input.

        Raises:
            MismatchError: a key is missing, or of another kind; the message says which.
        """
        fields = Fields(values)
        manifest = EncoderManifest(
            format=fields.take("format", count()),
            model=fields.take("model", an_object),
            shape=fields.take("shape", an_object),
            weights_sha256=fields.take("weights_sha256", string),
            held_out=fields.take("held_out", an_object),
            proof=fields.take("proof", list_of(an_object)),
        )
        model = Fields(manifest.model, "model")
        for name in ("name", "fingerprint", "tokenizer"):
            model.take(name, string)
        return manifest
