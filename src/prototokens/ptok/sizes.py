"""How large a text is in other forms.

The comparison shows that vectors are no way of making files small.
"""

from __future__ import annotations

import lzma

import zstandard

from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.arithmetic import coded_bytes
from prototokens.ptok.source import Source

ZSTD_LEVEL = 19
XZ_LEVEL = 9


def sizes_of(lm: FrozenLM, source: Source) -> dict[str, int]:
    """The size of a text in bytes: plain, compressed, and arithmetically coded.

    Returns:
        `plain`: the bytes themselves; `zstd` (level 19); `xz` (level 9); `arithmetic`: its tokens,
            coded one after another
        with this very model's probabilities, and its edits.
    """
    return {
        "plain": len(source.content),
        "zstd": len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(source.content)),
        "xz": len(lzma.compress(source.content, preset=XZ_LEVEL)),
        "arithmetic": coded_bytes(lm, source.ids) + source.edited,
    }
