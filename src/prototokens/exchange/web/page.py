"""A `.ptok` file as one web page, which decodes it and any other of the same model.

The page holds the model, onnxruntime-web and the file, and asks nobody for anything: it works from
a disk and from any static host. Its reader of `.ptok` files is written from docs/file-format.md.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from prototokens._version import __version__
from prototokens.decoding import decode_text
from prototokens.errors import ModelError, UsageError
from prototokens.exchange.web import assets
from prototokens.exchange.web.graph import onnx_model
from prototokens.exchange.web.vocabulary import token_bytes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText

READER = ("sha256.js", "json.js", "layout.js", "container.js", "ptok.js", "text.js")
SCRIPTS = (*READER, "engine.js", "drawing.js", "page.js")
MAX_PAGE = 40_000_000  # bytes
LEVEL = 5  # of gzip: higher ones take a minute for weights, and gain 2%
MARK = re.compile(r"<!-- (\w+) -->|/\* (\w+) \*/")


def web_page(lm: FrozenLM, content: bytes, name: str, runtime: Mapping[str, bytes]) -> bytes:
    """The page.

    Args:
        lm: the model, in float32; a plain Llama model with a byte-level tokenizer.
        content: of the `.ptok` file that the page opens with.
        name: of that file, to show.
        runtime: of `assets.runtime_files`.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: the page cannot run this model.
        UsageError: the page would be too large.
    """
    if lm.tokenizer is None or lm.max_context is None:
        raise ModelError(f"{lm.name!r} has no tokenizer, or states no maximum context")
    tokens = token_bytes(lm.tokenizer, lm.vocab_size, lm.name)
    packed = {
        "model": onnx_model(lm),
        "binary": runtime[assets.BINARY],
        "runtime": runtime[assets.SCRIPT],
        "vocabulary": json.dumps([one.decode("latin-1") for one in tokens]).encode(),
        "file": content,
    }
    parts = {
        "style": _resource("page.css"),
        "script": script(SCRIPTS),
        "settings": _embedded_json(_settings(lm, name)),
        "data": "\n".join(_embedded(key, value) for key, value in packed.items()),
    }
    page = MARK.sub(lambda mark: parts[mark[1] or mark[2]], _resource("page.html")).encode()
    if len(page) > MAX_PAGE:
        raise UsageError(
            f"the page would have {len(page) / 1e6:.1f} MB, and {MAX_PAGE / 1e6:.0f} are the most:"
            " the model or the file is too large"
        )
    return page


def read_page_file(lm: FrozenLM, path: Path) -> tuple[bytes, bool]:
    """The content of a file, and whether it decodes to its text with this model.

    Raises:
        FileError: it is missing or damaged, or of another model.
    """
    encoded = EncodedText.load(path)
    return path.read_bytes(), decode_text(lm, encoded).matches


def script(names: Sequence[str]) -> str:
    """Parts of the page's script, joined."""
    return "\n".join(map(_resource, names))


def _resource(name: str) -> str:
    return (files("prototokens.exchange.web") / "page" / name).read_text(encoding="utf-8")


def _settings(lm: FrozenLM, name: str) -> dict[str, object]:
    """What the script has to know about the model and its runtime."""
    config = lm.model.config
    return {
        "name": name,
        "version": __version__,
        "runtime": f"{assets.NAME} {assets.VERSION}",
        "model": {
            "name": lm.recorded_name,
            "fingerprint": lm.fingerprint,
            "tokenizer": lm.tokenizer_hash,
            "d_model": lm.d_model,
            "vocab_size": lm.vocab_size,
            "context": lm.max_context,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "head_width": config.head_dim,
            "parameters": sum(one.numel() for one in lm.model.parameters()),
            "first": config.bos_token_id or 0,
        },
    }


def _embedded(name: str, content: bytes) -> str:
    """A block of data of the page: gzip, then base64."""
    packed = base64.b64encode(gzip.compress(content, LEVEL, mtime=0)).decode()
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>'


def _embedded_json(values: dict[str, object]) -> str:
    """JSON in which nothing ends the element it stands in."""
    return json.dumps(values, sort_keys=True).replace("<", "\\u003c")
