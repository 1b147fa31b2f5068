"""The parts of a `.ptok` file's header: the model, the text, the certificate.

Each is read from a JSON object of an untrusted file, and every key is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prototokens._util.json_fields import (
    Fields,
    MismatchError,
    count,
    list_of,
    nullable,
    number,
    string,
)

if TYPE_CHECKING:
    from prototokens.engine.certify import Certificate

MAX_WIDTH = 1 << 20  # numbers of a vector
MAX_RESPONSE = 1024  # numbers
CERTIFIED_NUMBERS = ("threshold", "shift", "least_margin", "noise_radius", "worst_radius")
COMMIT = re.compile("[0-9a-f]{6,64}")


@dataclass(frozen=True)
class ModelRecord:
    """Which model the vectors are for.

    Attributes:
        name: what it was called; a hint for people, never opened by itself.
        revision: commit on the hub; None for a model that has none.
        fingerprint: hash of its weights.
        dtype: what it computed in during the fit.
        d_model: width of a vector.
        vocab_size: number of its logits.
        response: how its code answered to fixed vectors; files of earlier versions have none.
        other: values that this version does not know.
    """

    name: str
    revision: str | None
    fingerprint: str
    dtype: str
    d_model: int
    vocab_size: int | None = None
    response: tuple[float, ...] = ()
    other: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(values: Any, path: str = "model") -> ModelRecord:
        """Read a JSON object.

        Raises:
            MismatchError: a key is missing, or of another kind.
        """
        fields = Fields(values, path)
        return ModelRecord(
            fields.take("name", string),
            fields.take("revision", nullable(_commit)),
            fields.take("fingerprint", string),
            fields.take("dtype", string),
            fields.take("d_model", count(1, MAX_WIDTH)),
            fields.take("vocab_size", nullable(count(1)), None),
            fields.take("response", list_of(number, MAX_RESPONSE), ()),
            fields.rest,
        )

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "name": self.name,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "d_model": self.d_model,
            **present(vocab_size=self.vocab_size, response=list(self.response) or None),
            **self.other,
        }


@dataclass(frozen=True)
class TextRecord:
    """The text: its SHA-256 in hexadecimal digits, and its length in three units."""

    sha256: str
    bytes: int
    characters: int
    tokens: int
    other: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(values: Any, path: str = "text") -> TextRecord:
        """Read a JSON object.

        Raises:
            MismatchError: a key is missing, or of another kind.
        """
        fields = Fields(values, path)
        return TextRecord(
            fields.take("sha256", string),
            fields.take("bytes", count(1)),
            fields.take("characters", count(1)),
            fields.take("tokens", count(1)),
            fields.rest,
        )

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "sha256": self.sha256,
            "bytes": self.bytes,
            "characters": self.characters,
            "tokens": self.tokens,
            **self.other,
        }


@dataclass(frozen=True)
class CertificateRecord:
    """What was tried on the vectors, and what came of it; `engine.certify.Certificate` explains it.

    Attributes:
        tried: ways of decoding, each with the number of positions that were `wrong`.
        other: further values, `absent` among them.
    """

    level: str = "none"
    threshold: float | None = None
    shift: float | None = None
    least_margin: float | None = None
    noise_radius: float | None = None
    worst_radius: float | None = None
    tried: tuple[dict[str, Any], ...] = ()
    other: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(values: Any, path: str = "certificate") -> CertificateRecord:
        """Read a JSON object.

        Raises:
            MismatchError: a value is of another kind.
        """
        fields = Fields(values, path)
        return CertificateRecord(
            level=fields.take("level", string, "none"),
            **{name: fields.take(name, nullable(number), None) for name in CERTIFIED_NUMBERS},
            tried=fields.take("tried", list_of(_tried), ()),
            other=fields.rest,
        )

    @staticmethod
    def of(certificate: Certificate) -> CertificateRecord:
        """What is recorded of a certificate."""
        return CertificateRecord(
            level=certificate.level,
            **{name: getattr(certificate, name) for name in CERTIFIED_NUMBERS},
            tried=certificate.tried,
            other={"absent": list(certificate.absent)},
        )

    @property
    def wrong(self) -> int:
        """Ways of decoding that gave a wrong token."""
        return sum(way["wrong"] > 0 for way in self.tried)

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        numbers = {name: getattr(self, name) for name in CERTIFIED_NUMBERS}
        return {"level": self.level, **numbers, "tried": list(self.tried), **self.other}


def present(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _commit(value: Any, path: str) -> str:
    """A commit, and neither a branch nor a path: the hub is asked for it."""
    if not isinstance(value, str) or COMMIT.fullmatch(value) is None:
        raise MismatchError(path, "a commit or null", value)
    return value


def _tried(value: Any, path: str) -> dict[str, Any]:
    """A way of decoding that was tried."""
    Fields(value, path).take("wrong", count())
    return value
