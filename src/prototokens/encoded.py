"""EncodedText: a text of any length as vectors, and the `.ptok` file that holds it.

The file is one safetensors file: tensors, and a JSON header in the metadata (docs/file-format.md describes it byte by
byte). Loading checks all it can before anything is decoded, and refuses in words. Nothing in a file names a path to open or
code to run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prototokens._version import __version__
from prototokens.chunks import longest_target
from prototokens.engine.certify import UNCERTIFIED, Certificate
from prototokens.errors import FileError, UsageError
from prototokens.frozen_lm import FrozenLM
from prototokens.header import FORMAT, read_header, write_header
from prototokens.layout import Layout
from prototokens.recipe import Recipe
from prototokens.solution import Solution

SUFFIX = ".ptok"


class Chunk(NamedTuple):
    """One stretch of the text: what decoding needs of it."""

    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    length: int


@dataclass(frozen=True)
class EncodedText:
    """A text held by vectors.

    Attributes:
        vectors: the distinct vectors of all chunks, a shared one once.
        slots: for each chunk, the rows of `vectors` that are its proto-tokens, e first.
        header: what is recorded beside them; keys as in docs/file-format.md.
        path: the file it was loaded from, for messages; None where it was made here.
    """

    vectors: Float32[Tensor, "distinct d_model"]
    slots: Int64[Tensor, "chunks vectors"]
    header: dict[str, Any]
    path: Path | None = None

    @staticmethod
    def of(
        lm: FrozenLM,
        text: str,
        solutions: Sequence[Solution],
        *,
        recipe: Recipe,
        share: int | None = None,
        row_steps: int | None = None,
        certificate: Certificate = UNCERTIFIED,
    ) -> EncodedText:
        """Put solved chunks together.

        Args:
            text: the whole text; the ids of the solutions, one after another, decode to it.
            share: number of the vector that all chunks share, if any.
            row_steps: forward and backward passes spent in all; by default those of the solutions alone.
            certificate: what was tried with them.
        """
        if not solutions:
            raise UsageError("there are no chunks to put together")
        vectors, slots = _table([solution.protos for solution in solutions], share)
        raw = text.encode("utf-8", "surrogatepass")
        flags = [solution.exact for solution in solutions]
        margin = min(solution.margin for solution in solutions)
        tokens = sum(solution.length for solution in solutions)
        header = {
            "format": FORMAT,
            "model": {
                "name": lm.name,
                "revision": lm.revision,
                "fingerprint": lm.fingerprint,
                "dtype": str(lm.dtype).removeprefix("torch."),
                "d_model": lm.d_model,
                "vocab_size": lm.vocab_size,
            },
            "tokenizer": lm.tokenizer_hash,
            "layout": solutions[0].layout.name,
            "shared": None if share is None else ("e" if share == 0 else f"m_{share}"),
            "chunks": [solution.length for solution in solutions],
            "text": {
                "sha256": hashlib.sha256(raw).hexdigest(),
                "bytes": len(raw),
                "characters": len(text),
                "tokens": tokens,
            },
            "exact": all(flags),
            "chunks_exact": flags,
            "accuracy": sum(solution.correct for solution in solutions) / tokens,
            "min_margin": margin if math.isfinite(margin) else None,
            "steps": [solution.steps for solution in solutions],
            "row_steps": sum(solution.row_steps for solution in solutions) if row_steps is None else row_steps,
            "seeds": [solution.seed for solution in solutions],
            "restarts": [solution.restarts for solution in solutions],
            "recipe": recipe.as_dict(),
            "certificate": certificate.as_dict(),
            "versions": versions(),
        }
        return EncodedText(vectors, slots, header)

    @property
    def layout(self) -> Layout:
        return Layout.named(self.header["layout"])

    @property
    def exact(self) -> bool:
        """Whether every chunk decoded exactly when the file was made."""
        return self.header["exact"]

    @property
    def certified(self) -> bool:
        """Whether a certificate was made, and everything that it tried came out right."""
        tried = self.header.get("certificate", {}).get("tried", [])
        return bool(tried) and self.exact and all(one["wrong"] == 0 for one in tried)

    def chunks(self) -> list[Chunk]:
        """The chunks in order, ready to decode."""
        layout = self.layout
        lengths = self.header["chunks"]
        return [Chunk(self.vectors[slots], layout, length) for slots, length in zip(self.slots, lengths, strict=True)]

    def check_model(self, lm: FrozenLM) -> None:
        """Refuse a model that is not the one the vectors were fitted to.

        Raises:
            FileError: another model, or another tokenizer.
        """
        made_for, this = self.header["model"], self.path or "the encoded text"
        if made_for["fingerprint"] != lm.fingerprint:
            raise FileError(
                f"{this} was made for the model {made_for['name']!r} (fingerprint {made_for['fingerprint'][:12]!r}), and"
                f" {lm.name!r} has fingerprint {lm.fingerprint[:12]!r}: vectors mean nothing to other weights;"
                f" {'that model has changed since' if made_for['name'] == lm.name else 'name the model they were made for'}"
            )
        if self.header["tokenizer"] != lm.tokenizer_hash:
            raise FileError(
                f"{this} was made with another tokenizer than that of {lm.name!r} (hash {self.header['tokenizer'][:12]!r}"
                f" against {lm.tokenizer_hash[:12]!r}): the ids would be read as other text"
            )
        longest, most = max(self.header["chunks"]), longest_target(lm, self.layout)
        if made_for["d_model"] != lm.d_model or longest > most:
            raise FileError(
                f"{this} is damaged: it holds vectors of width {made_for['d_model']} and chunks of up to {longest} tokens, and"
                f" {lm.name!r} takes width {lm.d_model} and at most {most} tokens"
            )

    def to_bytes(self) -> bytes:
        """The file's content."""
        tensors = {"vectors": self.vectors.contiguous(), "slots": self.slots.to(torch.int32).contiguous()}
        header = {**self.header, "tensors_sha256": _tensors_hash(tensors)}
        return _in_order(save(tensors, metadata=write_header(header)))

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the file beside its place and rename it there, so that a kill leaves the old file or the new one.

        Returns:
            The size of the file, in bytes.

        Raises:
            FileError: the place cannot be written.
        """
        content = self.to_bytes()
        write_atomically(Path(path), content)
        return len(content)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> EncodedText:
        """Read a file and check all that can be checked without the model.

        Raises:
            FileError: missing, not such a file, damaged, not finite, or of a newer format.
        """
        path = Path(path)
        try:
            if not path.is_file():
                raise FileError(_no_file(path))
            with safe_open(path, "pt") as handle:
                header = read_header(handle.metadata() or {}, path)
                _check_declared(handle, header, path)
                tensors = {"vectors": handle.get_tensor("vectors"), "slots": handle.get_tensor("slots")}
        except OSError as error:
            raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
        except (SafetensorError, ValueError, MemoryError) as error:
            raise FileError(
                f"{path} is not a whole {SUFFIX} file ({_first_line(error)}): it is truncated, altered or not one"
            ) from error
        if header.get("tensors_sha256") != _tensors_hash(tensors):
            raise FileError(f"{path} is damaged: its vectors are not the ones that were saved")
        if not tensors["vectors"].isfinite().all():
            raise FileError(f"{path} holds numbers that are not finite: no text can be decoded from it")
        slots = tensors["slots"].to(torch.int64)
        if int(slots.min()) < 0 or int(slots.max()) >= tensors["vectors"].shape[0]:
            raise FileError(f"{path} is damaged: a chunk names a vector that is not there")
        return EncodedText(tensors["vectors"], slots, header, path)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the file and a card into a folder (`hub.save_pretrained`)."""
        from prototokens import hub

        return hub.save_pretrained(self, folder)

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> EncodedText:
        """Read one from a folder or from the Hugging Face hub (`hub.from_pretrained`)."""
        from prototokens import hub

        return hub.from_pretrained(name_or_path, revision=revision)

    def push_to_hub(self, repository: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Put it into a repository of the hub, with a card (`hub.push_to_hub`); returns the commit's address."""
        from prototokens import hub

        return hub.push_to_hub(self, repository, private=private, token=token)


def versions() -> dict[str, str]:
    """Of this package and of what the numbers depend on."""
    import safetensors
    import transformers

    return {
        "prototokens": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
    }


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename.

    Raises:
        FileError: the place cannot be written; what was there stays.
    """
    beside = None
    try:
        place = Path(os.path.realpath(path))  # of a link, the file that it names is written, and the link stays
        descriptor, beside = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, place)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path} could not be written ({reason}): what was there before is untouched") from error
    finally:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)


def _in_order(content: bytes) -> bytes:
    """A safetensors file with the keys of its header in order: the same fit gives the same file."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + content[start:]


def _table(protos: list[Tensor], share: int | None) -> tuple[Tensor, Tensor]:
    """Distinct vectors and, for each chunk, where they stand."""
    width = protos[0].shape[0]
    if share is None:
        return torch.cat(protos), torch.arange(len(protos) * width).view(len(protos), width)
    own = [number for number in range(width) if number != share]
    table = torch.cat([protos[0][share : share + 1], *(chunk[own] for chunk in protos)])
    slots = torch.zeros(len(protos), width, dtype=torch.int64)
    slots[:, own] = 1 + torch.arange(len(protos) * len(own)).view(len(protos), len(own))
    return table, slots


def _tensors_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _check_declared(handle: Any, header: dict[str, Any], path: Path) -> None:
    """Names, kinds and shapes of the tensors, before any is read."""
    if sorted(handle.keys()) != ["slots", "vectors"]:
        raise FileError(
            f"{path} is damaged: it should hold the tensors 'vectors' and 'slots', and holds {sorted(handle.keys())}"
        )
    vectors, slots = handle.get_slice("vectors"), handle.get_slice("slots")
    expected = [len(header["chunks"]), Layout.named(header["layout"]).vectors]
    if vectors.get_dtype() != "F32" or slots.get_dtype() != "I32":
        raise FileError(f"{path} is damaged: its tensors are of other kinds than float32 and int32")
    shape = vectors.get_shape()
    if len(shape) != 2 or shape[0] < 1 or shape[1] != header["model"]["d_model"]:
        raise FileError(f"{path} is damaged: its vectors have shape {shape}, not [any, {header['model']['d_model']}]")
    if slots.get_shape() != expected:
        raise FileError(f"{path} is damaged: its slots have shape {slots.get_shape()}, not {expected}")


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, and a {SUFFIX} file was expected"
    return f"{path} is no regular file: a {SUFFIX} file was expected" if path.exists() else f"{path} does not exist"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
