"""A trained encoder: texts of one model to vectors of one layout, in one pass.

It is saved to a folder and loaded from it (`encoder.folder`). Loading trusts no file: one that is
damaged, of a newer format or not finite is refused, and an encoder that was trained for another
model or layout is refused where it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens._util.settings import as_json
from prototokens._util.versions import versions
from prototokens.encoder.config import Shape
from prototokens.encoder.decoder import Decoder
from prototokens.encoder.folder import (
    CARD,
    CONFIG,
    FORMAT,
    WEIGHTS,
    network_of,
    read_config,
)
from prototokens.encoder.judge import Encoding, judged
from prototokens.encoder.network import Network
from prototokens.encoder.refine import Encoded, encode
from prototokens.errors import FileError, TextError, UsageError
from prototokens.layout import Layout
from prototokens.lm.devices import bfloat16_pays
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.response import differ
from prototokens.lm.targets import Ids, Target, read_targets
from prototokens.solution import Solution

SHIPPED = Path(__file__).parents[1] / "builtin" / "encoder"
MAX_TOKENS = 4096  # of one pass
# Refinements of a text at most, for each one of the training. Texts of other kinds than those of
# the training need more of them: with 4, one in five of 32 tokens of source code or German was
# given up although it was still getting better (dev/LOG.md, 2026-11-27).
BEYOND = 8
NEARLY_ALL = 0.95  # of the tokens, where texts are cut for vectors that take no step


def next_longer(rows: Iterable[dict[str, Any]], length: int) -> dict[str, Any] | None:
    """Of rows that were measured at some lengths, the shortest that is not shorter than this."""
    return min(
        (row for row in rows if row["length"] >= length),
        key=lambda row: row["length"],
        default=None,
    )


@dataclass(eq=False)
class Encoder:
    """A network with what it was trained for.

    Attributes:
        network: float32, in evaluation mode.
        config: what `config.json` holds: `model` (`name`, `fingerprint`, `tokenizer`), `shape`,
            `training`, `trained`, `held_out` (rows of `training.evaluate`), `rates` (rows of
            `training.proof.tune`; none in older ones), `proof` (rows of `training.proof.prove`),
            `versions`.
        path: the folder it was read from.
        lm: the model that a call `encoder(texts)` runs; `for_model` sets it.
    """

    network: Network
    config: dict[str, Any]
    path: Path | None = None
    lm: FrozenLM | None = None

    @staticmethod
    def of(lm: FrozenLM, network: Network, **known: Any) -> Encoder:
        """A network that was trained for a model, its weights rounded to what the folder keeps."""
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.copy_(tensor.to(torch.bfloat16))
        model = {
            "name": lm.recorded_name,
            "revision": lm.revision,
            "fingerprint": lm.fingerprint,
            "tokenizer": lm.tokenizer_hash,
            "response": lm.response,
        }
        shape = as_json(network.shape)
        config = {
            "format": FORMAT,
            "model": model,
            "shape": shape,
            "held_out": {},
            "proof": [],
            "versions": versions(),
        }
        return Encoder(network.eval().requires_grad_(False), {**config, **known})

    @staticmethod
    def for_model(lm: FrozenLM, layout: str | Layout | None = None) -> Encoder:
        """The encoder that ships with the package for this model, ready to be called with texts.

        Args:
            layout: of its vectors, or its name; by default that of the best one.

        Raises:
            UsageError: none ships for this model (and layout), or no such layout.
        """
        named = None if layout is None else Layout.named(layout)
        encoder = Encoder.find(lm, named)
        if encoder is None:
            wanted = "" if named is None else f" and layout {named.name!r}"
            raise UsageError(
                f"no encoder ships for {lm.name!r}{wanted}: train one with prototokens"
                " train-encoder and load it with Encoder.load"
            )
        encoder.lm = lm
        return encoder

    @staticmethod
    def find(
        lm: FrozenLM, layout: Layout | None = None, folder: Path | None = None
    ) -> Encoder | None:
        """The encoder in a folder for this model and layout, as `encoder.shipped.shipped` says."""
        found: list[Encoder] = []
        for path in sorted((folder or SHIPPED).rglob(CONFIG)):
            if read_config(path.parent)["model"]["fingerprint"] != lm.fingerprint:
                continue  # before the weights are read, which takes time
            encoder = Encoder.load(path.parent)
            try:
                encoder.check(lm, layout)
            except (FileError, UsageError):
                continue
            if layout is not None:
                return encoder
            found.append(encoder)
        return max(found, key=lambda one: (one.right_up_to, one.measured[-1:]), default=None)

    @overload
    def __call__(self, targets: str) -> Solution: ...
    @overload
    def __call__(self, targets: Sequence[Target]) -> list[Solution]: ...
    @overload
    def __call__(self, targets: Ids) -> Solution: ...

    def __call__(self, targets: Any) -> Any:
        """Solutions of targets without a step, for the model of `for_model`.

        Args:
            targets: a text, token ids, or a list of these, as `prototokens.fit` takes them.

        Returns:
            A Solution for one target, or a list of them in the order of the targets.

        Raises:
            UsageError: this encoder has no model (`lm`) yet.
            TextError: a target that is empty, or longer than the encoder was trained for.
            TypeError: targets of another type.
        """
        if self.lm is None:
            raise UsageError(
                "this encoder has no model to run: take Encoder.for_model(lm), or set encoder.lm"
            )
        wanted = read_targets(self.lm, targets, "Encoder")
        found = self.solutions(self.lm, wanted.ids)
        return found[0] if wanted.single else found

    def solutions(self, lm: FrozenLM, targets: Sequence[Sequence[int]]) -> list[Solution]:
        """Solutions of texts, given as ids, without a single step, scored by the decoder.

        Their row-steps are the feedback passes that the encoder's refinements took.

        Raises:
            FileError, TextError: as `encodings`.
        """
        return judged(lm, self.layout, targets, self.encodings(lm, targets))

    @property
    def shape(self) -> Shape:
        return self.network.shape

    @property
    def layout(self) -> Layout:
        return self.shape.arrangement

    def rate(self, length: int) -> float:
        """The share of a recipe's rate for fits from here, found for the next length tried."""
        row = next_longer(self.config.get("rates", []), length)
        return row["rate"] if row else 1.0

    def refinements_before_fit(self, length: int) -> int | None:
        """After how many refinements a fit of this length goes on; None: after all of them."""
        row = next_longer(self.config.get("rates", []), length)
        return row.get("refinements") if row else None

    @property
    def measured(self) -> list[tuple[int, float]]:
        """Lengths of held-out texts, and the share of their tokens that its vectors reproduce.

        Without a step; shortest first.
        """
        return sorted(
            (row["length"], row["accuracy"]) for row in self.config["held_out"].get("rows", [])
        )

    @property
    def right_up_to(self) -> int:
        """The longest texts of which its vectors give nearly all tokens without a step; else 0."""
        return max((length for length, right in self.measured if right >= NEARLY_ALL), default=0)

    @property
    def raw_length(self) -> int:
        """Where texts are cut for vectors that take no step: `right_up_to`, or the longest."""
        return self.right_up_to or self.shape.max_length

    def check(self, lm: FrozenLM, layout: Layout | None = None) -> None:
        """Refuse a model, or a layout, that it was not trained for.

        Raises:
            FileError: another model or tokenizer, or code that takes input vectors otherwise.
            UsageError: another layout.
        """
        made_for, this = self.config["model"], self.path or "the encoder"
        if made_for["fingerprint"] != lm.fingerprint or made_for["tokenizer"] != lm.tokenizer_hash:
            raise FileError(
                f"{this} was trained for the model {made_for['name']!r} (fingerprint"
                f" {made_for['fingerprint'][:12]!r}), and {lm.name!r} has fingerprint"
                f" {lm.fingerprint[:12]!r}: train one for it with prototokens train-encoder"
            )
        response = made_for.get("response")  # encoders of earlier versions have none
        if response and differ(response, lm.response):
            trained_with = self.config.get("versions", {}).get("transformers")
            raise FileError(
                f"{this} was trained with the weights of {lm.name!r}, but the code of transformers"
                f" {trained_with!s:.20} took input vectors otherwise than that of transformers"
                f" {versions()['transformers']} here: use that version, or train it again with"
                " prototokens train-encoder"
            )
        if layout is not None and layout.name != self.shape.layout:
            raise UsageError(
                f"{this} gives vectors for layout {self.shape.layout!r}, and {layout.name!r} is"
                " asked for: take its layout, or another encoder"
            )
        if layout is not None and layout.prefix != self.shape.prefix:
            raise UsageError(
                f"{this} gives vectors behind the prefix {self.shape.prefix}, and"
                f" {layout.prefix} is asked for: take its prefix, or another encoder"
            )
        if max(self.shape.prefix, default=0) >= lm.vocab_size:
            raise FileError(f"{this} has a prefix of tokens that {lm.name!r} does not know")

    def vectors(
        self, lm: FrozenLM, targets: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "vectors d_model"]]:
        """Vectors of texts, given as ids, many texts to a pass: float32, on the CPU.

        Raises:
            FileError, TextError: as `encodings`.
        """
        return [found.protos for found in self.encodings(lm, targets)]

    @torch.no_grad()
    def encodings(
        self,
        lm: FrozenLM,
        targets: Sequence[Sequence[int]],
        refinements: int | None = None,
        margin: float = 0.0,
    ) -> list[Encoding]:
        """Vectors of texts, given as ids, and the feedback passes that they took.

        Args:
            refinements: of a text, at most; by default `BEYOND` times as many as it was trained
                with.
            margin: in logits, at which a text is not refined any further: the recipe's, where a fit
                goes on from here.

        Raises:
            UsageError: refinements asked of an encoder that was trained without.
            FileError: it was trained for another model.
            TextError: a text without tokens, or longer than it was trained for.
        """
        self.check(lm)
        if refinements and not self.shape.refinements:
            raise UsageError(
                f"{refinements} refinements asked for, and the encoder was trained without any"
            )
        for number, ids in enumerate(targets):
            if not 1 <= len(ids) <= self.shape.max_length:
                raise TextError(
                    f"target {number + 1} of {len(targets)} has {len(ids)} tokens, and the encoder"
                    " was trained for 1 to"
                    f" {self.shape.max_length}: cut it into chunks of at most that"
                )
            if not all(0 <= token < lm.vocab_size for token in ids):
                raise TextError(
                    f"target {number + 1} of {len(targets)} has ids outside the vocabulary of"
                    f" {lm.vocab_size}"
                )
        # Texts of a like length together: padding is work.
        order = sorted(range(len(targets)), key=lambda number: -len(targets[number]))
        found: dict[int, Encoding] = {}
        while order:
            count = max(1, MAX_TOKENS // len(targets[order[0]]))
            part, order = order[:count], order[count:]
            encoded = self.batch(lm, [targets[number] for number in part], refinements, margin)
            for number, protos, passes, reached in zip(
                part,
                encoded.protos.cpu(),
                encoded.feedback_passes.tolist(),
                encoded.reached.tolist(),
                strict=True,
            ):
                found[number] = Encoding(protos, passes, reached)
        return [found[number] for number in range(len(targets))]

    @torch.no_grad()
    def batch(
        self,
        lm: FrozenLM,
        texts: Sequence[Sequence[int]],
        refinements: int | None = None,
        margin: float = 0.0,
    ) -> Encoded:
        """Vectors of texts together, on the model's device; nothing is checked."""
        self.network.to(lm.device)
        limit = BEYOND * self.shape.refinements if refinements is None else refinements
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=bfloat16_pays(lm.device)):
            return encode(self.network, Decoder(lm, self.layout), texts, limit, margin)

    def save(self, folder: str | os.PathLike[str], card: str = "") -> None:
        """Write the folder, its config last.

        A folder that was cut off is refused, or has its old content.

        Raises:
            FileError: it cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"{folder} cannot be made ({error.strerror or error}): name another folder"
            ) from error
        state = {
            name: tensor.to(torch.bfloat16).contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        content = save({name: tensor.cpu() for name, tensor in state.items()})
        self.config["weights_sha256"] = hashlib.sha256(content).hexdigest()
        write_atomically(folder / WEIGHTS, content)
        if card:
            write_atomically(folder / CARD, card.encode())
        text = (
            json.dumps(self.config, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=True)
            + "\n"
        )
        write_atomically(folder / CONFIG, text.encode())

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Encoder:
        """Read a folder, and check all that can be checked without the model.

        Raises:
            FileError: missing, no encoder, damaged, not finite, or of a newer format.
        """
        folder = Path(folder)
        try:
            config = read_config(folder)
            content = (folder / WEIGHTS).read_bytes()
        except OSError as error:
            raise FileError(
                f"{folder} is no encoder's folder: {error.filename} ({error.strerror or error})"
            ) from error
        if hashlib.sha256(content).hexdigest() != config["weights_sha256"]:
            raise FileError(
                f"{folder / WEIGHTS} is damaged: {CONFIG} tells of another; train or fetch it again"
            )
        try:
            tensors = load(content)
        except (SafetensorError, ValueError) as error:
            raise FileError(
                f"{folder / WEIGHTS} is no whole safetensors file: train or fetch it again"
            ) from error
        network = network_of(
            folder, config, {name: tensor.float() for name, tensor in tensors.items()}
        )
        return Encoder(network, config, folder)
