"""EncodedText: a text of any length as vectors, and the `.ptok` file that holds it.

The file is one safetensors file: tensors, and a JSON header in the metadata (docs/file-format.md
describes it byte by byte). Loading checks all it can before anything is decoded, and refuses in
words. Nothing in a file names a path to open or code to run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from safetensors.torch import save
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.assemble import Precision, Record, assemble
from prototokens.ptok.decoded import as_bytes
from prototokens.ptok.header import Header, write_header
from prototokens.ptok.hub import HubMixin
from prototokens.ptok.match import check_model
from prototokens.ptok.patches import Extras, pack
from prototokens.ptok.stored import StoredText, read_stored
from prototokens.ptok.tensors import in_order, pack_codes, tensors_hash
from prototokens.recipe import Recipe
from prototokens.solution import Chunk, Solution


@dataclass(frozen=True)
class EncodedText(HubMixin):
    """A text stored in vectors.

    Attributes:
        vectors: the distinct vectors of all chunks, a shared one once.
        slots: for each chunk, the rows of `vectors` that are its proto-tokens, e first; -1 in a
            chunk that is stored as tokens.
        header: what is recorded beside them.
        extras: what makes the text whole where vectors alone do not: patches, stored chunks, edits
            of the bytes.
        scale: of each vector's grid, where vectors take few bits (`header.bits`); None where all
            are float32.
        path: the file it was loaded from, for messages; None where it was made here.
    """

    vectors: Float32[Tensor, "distinct d_model"]
    slots: Int64[Tensor, "chunks vectors"]
    header: Header
    extras: Extras = field(default_factory=Extras)
    scale: Float32[Tensor, "distinct"] | None = None
    path: Path | None = None

    @staticmethod
    def of(
        lm: FrozenLM,
        text: str | bytes,
        solutions: Sequence[Solution],
        *,
        recipe: Recipe,
        share: int | None = None,
        extras: Extras | None = None,
        precision: Precision | None = None,
        record: Record | None = None,
    ) -> EncodedText:
        """Put solved chunks together.

        Args:
            text: the whole text, or its bytes; the ids of the solutions, one after another, decode
                to it, but for edits.
            share: number of the vector that all chunks share, if any.
            extras: patches, stored chunks and edits that the text needs.
            precision: of each chunk's vectors in the file; by default float32.
            record: what else is recorded; by default that nothing was tried with the vectors.
        """
        if not solutions:
            raise UsageError("there are no chunks to put together")
        vectors, slots, scale, header = assemble(
            lm,
            as_bytes(text),
            solutions,
            recipe=recipe,
            share=share,
            extras=extras or Extras(),
            precision=precision,
            record=record or Record(),
        )
        return EncodedText(vectors, slots, header, extras or Extras(), scale)

    def __repr__(self) -> str:
        """One line: what it holds, and whether it is exact."""
        count, width = self.vectors.shape
        exact = "exact" if self.exact else "not exact"
        where = "" if self.path is None else f", from {str(self.path)!r}"
        return (
            f"EncodedText({self.header.text.tokens} tokens in {len(self.header.chunks)} chunks,"
            f" {count} x {width} {self.layout.name!r}, {exact}{where})"
        )

    @property
    def layout(self) -> Layout:
        return self.header.arrangement

    @property
    def exact(self) -> bool:
        """Whether the text was reproduced exactly when the file was made.

        By the vectors and, where there are any, patches.
        """
        return self.header.exact

    @property
    def certified(self) -> bool:
        """Whether the margins that were asked for were reached.

        Everything that the certificate tried came out right as well.
        """
        made = self.header.certificate
        if made is None or not made.tried or not self.exact or made.wrong:
            return False
        asked, shift, least = made.threshold, made.shift, made.least_margin
        if asked is None or shift is None or least is None:
            return True
        return least >= asked - shift

    @property
    def bits(self) -> int:
        """Bits of all vectors in the file, the scales of their grids among them."""
        return self.header.vector_bits(len(self.vectors))

    @property
    def repaired_tokens(self) -> int:
        """Tokens that come out of patches and stored chunks, not of vectors."""
        return self.extras.patched + sum(map(len, self.extras.stored.values()))

    @property
    def patch_bytes(self) -> int:
        """Bytes of patches, stored chunks and edits in the file."""
        return len(pack(self.extras, len(self.header.chunks))) if self.extras else 0

    def chunks(self) -> list[Chunk]:
        """The chunks that are stored in vectors, in order, ready to decode.

        Without those that are stored as tokens.
        """
        return [self.chunk(number + 1) for number in self.in_vectors()]

    def chunk(self, number: int) -> Chunk:
        """A chunk by its number, from 1.

        Raises:
            UsageError: there is none of that number, or no vectors hold it.
        """
        count = len(self.header.chunks)
        if not 1 <= number <= count:
            raise UsageError(
                f"there is no chunk {number}: the chunks of this text are numbered from 1 to"
                f" {count}"
            )
        if number - 1 in self.extras.stored:
            raise UsageError(
                f"chunk {number} is stored as its tokens: there are no vectors to look at"
            )
        return Chunk(
            self.vectors[self.slots[number - 1]], self.layout, self.header.chunks[number - 1]
        )

    def in_vectors(self) -> list[int]:
        """The numbers of the chunks that are stored in vectors, counted from 0.

        All other chunks are stored as tokens.
        """
        return [
            number for number in range(len(self.header.chunks)) if number not in self.extras.stored
        ]

    def check_model(self, lm: FrozenLM, any_model: bool = False) -> None:
        """Refuse a model that is not the one the vectors were fitted to.

        Args:
            any_model: let other weights and another tokenizer pass; that the text comes out is then
                for its hash to say.

        Raises:
            FileError: another model, or another tokenizer.
        """
        check_model(self, lm, any_model)

    def to_bytes(self) -> bytes:
        """The file's content."""
        tensors = {"slots": self.slots.to(torch.int32).contiguous()}
        if self.scale is None or self.header.bits is None:
            tensors["vectors"] = self.vectors.contiguous()
        else:
            tensors |= {
                "codes": pack_codes(self.vectors, self.scale, self.header.bits),
                "scale": self.scale.contiguous(),
            }
        if self.extras:
            packed = pack(self.extras, len(self.header.chunks))
            tensors["patches"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        header = replace(self.header, tensors_sha256=tensors_hash(tensors)).as_json()
        return in_order(save(tensors, metadata=write_header(header)))

    def save(self, path: str | os.PathLike[str], like: Path | None = None) -> int:
        """Write the file atomically: a kill leaves the old file or the new one.

        Args:
            path: of the file.
            like: the file of the text: who may not read that may not read a new file either.

        Returns:
            The size of the file, in bytes.

        Raises:
            FileError: the path cannot be written.
        """
        content = self.to_bytes()
        write_atomically(Path(path), content, like)
        return len(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EncodedText:
        """Read a file and check all that can be checked without the model.

        Raises:
            FileError: missing, not such a file, damaged, not finite, or of a newer format.
        """
        return cls.from_stored(read_stored(Path(path)), Path(path))

    @classmethod
    def from_stored(cls, stored: StoredText, path: Path) -> EncodedText:
        """The content of a file as tensors."""
        # Copies: the arrays are views of bytes, which PyTorch could write into.
        return cls(
            torch.tensor(stored.vectors),
            torch.tensor(stored.slots, dtype=torch.int64),
            stored.header,
            stored.extras,
            None if stored.scale is None else torch.tensor(stored.scale),
            path,
        )
