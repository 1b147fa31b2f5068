"""How proto-tokens are arranged into an input, and which outputs are scored.

A layout is two integer vectors for each target length N: `index`, the proto-token that sits at each
input position, and `scored`, the input positions whose outputs are read as the target. A keyed
layout multiplies each vector by the key of its position (`keys`). A prefix, if there is one, is a
list of token ids that stand before the vectors. Nothing else in the package knows one arrangement
from another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from prototokens._util.numerals import whole_number
from prototokens.errors import UsageError
from prototokens.keys import VERSION, signs

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64
    from torch import Tensor

DEFAULT_VECTORS = 2  # K of `keyed:K` where neither a layout nor a number of vectors is named
MAX_REPEATED = 1024  # K of `tiled:K`, `mixed:K` and `keyed:K`
MEMORY = "memory:"  # the name of the autoregressive baseline's layout begins so
NEIGHBOURS = (1, 2, 3)  # preceding vectors together with which a vector should be new, in `mixed:K`


@dataclass(frozen=True)
class Layout:
    """An arrangement of `vectors` proto-tokens, for targets of any length.

    Attributes:
        name: what `Layout.named` finds it by, and what files record.
        vectors: number of distinct proto-tokens; number 0 is e, the others m_1 ... m_K.
        arrange: target length N -> (index, scored) as plain lists.
        key_version: of the rule that gives the key of each position (`prototokens.keys`); 0 where
            vectors are fed unchanged.
        prefix: token ids that stand before the vectors: fixed input that costs no trained number.
    """

    name: str
    vectors: int
    arrange: Callable[[int], tuple[list[int], list[int]]]
    key_version: int = 0
    prefix: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def named(name: str | Layout) -> Layout:
        """The layout of that name.

        | name | input | scored |
        |---|---|---|
        | `one` | e x N | all |
        | `halves` | e x N/2, m x N/2 | all |
        | `alternating` | e m e m ... | all |
        | `free` | e, m x N | all but the first: e's own output is free |
        | `paper` | e, m x (N-1) | all: e's own output is the first token |
        | `tiled:K` | e, then m_1 ... m_K over and over, N-1 of them | all |
        | `mixed:K` | e, m_1 ... m_K, then these in an order whose neighbours keep changing | all |
        | `keyed:K` | K vectors in turn, each multiplied by the key (signs) of its position | all |

        The first five are the arrangements of the paper's table 1 (arXiv 2505.21189), whose text
        and table disagree on which of the two with one e is which; its equation is `paper`.

        Raises:
            UsageError: no such layout.
        """
        if isinstance(name, Layout):
            return name
        if name in NAMED:
            return NAMED[name]
        kind, _, number = name.partition(":")
        count = whole_number(number) or 0
        # Compared as text: `keyed:02` would be a second name of one layout.
        if kind in REPEATING and 1 <= count <= MAX_REPEATED and number == str(count):
            return REPEATING[kind](count)
        known = ", ".join(
            [*NAMED, f"{_or([f'{kind}:K' for kind in REPEATING])} with K from 1 to {MAX_REPEATED}"]
        )
        raise UsageError(f"there is no layout {name!r}: choose one of {known}")

    def index(self, length: int) -> Int64[Tensor, "positions"]:
        """The proto-token at each input position, for a target of `length` tokens."""
        import torch  # not above: names of layouts are checked without PyTorch

        return torch.tensor(self._arranged(length)[0])

    def scored(self, length: int) -> Int64[Tensor, "tokens"]:
        """The input position whose output is read as each target token."""
        import torch

        return torch.tensor(self._arranged(length)[1])

    def windows(self, length: int) -> int:
        """How many different stretches of three inputs there are in a row.

        They tell positions with the same vector apart; with keys every position is different.
        """
        return max(0, length - 2) if self.key_version else _windows(self, length)

    def positions(self, length: int) -> int:
        """Number of input positions for a target of `length` tokens, the prefix not counted."""
        return len(self._arranged(length)[0])

    def keys(self, length: int, d_model: int) -> Float32[Tensor, "positions d_model"] | None:
        """The factors on the vector at each input position; None where a layout has no keys."""
        return signs(self.positions(length), d_model) if self.key_version else None

    def with_prefix(self, prefix: Sequence[int]) -> Layout:
        """The same arrangement behind these token ids."""
        return replace(self, prefix=tuple(prefix))

    @property
    def recordable(self) -> bool:
        """Whether files can record it: `recorded` finds this very arrangement by its name."""
        try:
            return recorded(self.name, self.prefix) == self
        except UsageError:
            return False

    def __reduce__(self) -> Any:
        """Pickle by name, since arrangements are functions; others need an importable function."""
        if self.recordable:
            return recorded, (self.name, self.prefix)
        values = (self.name, self.vectors, self.arrange, self.key_version, self.prefix)
        return Layout, values

    def _arranged(self, length: int) -> tuple[list[int], list[int]]:
        if length < 1:
            raise UsageError(f"a target has at least one token, not {length}")
        return self.arrange(length)


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


@lru_cache(maxsize=1 << 14)
def _windows(layout: Layout, length: int) -> int:
    index = layout.arrange(length)[0]
    return len(set(zip(index, index[1:], index[2:], strict=False)))


@cache
def tiled(repeated: int) -> Layout:
    """[e](m_1 ... m_K)*: one e, then K vectors over and over; with K = 1 it is the paper's."""
    return Layout(
        name="paper" if repeated == 1 else f"tiled:{repeated}",
        vectors=repeated + 1,
        arrange=lambda n: ([0] + [1 + i % repeated for i in range(n - 1)], list(range(n))),
    )


@cache
def mixed(repeated: int) -> Layout:
    """The vector e and K others, in an order in which pairs of neighbours repeat late.

    Tiled, a vector always stands behind the same one, and only the distance to the beginning tells
    its positions apart. Here each of its positions has other neighbours, which is what a language
    model reads best: fits take about half as many steps (docs/vectors.md).
    """
    return Layout(
        name=f"mixed:{repeated}",
        vectors=repeated + 1,
        arrange=lambda n: (
            list(_mixed_order(repeated + 1, 1 << (n - 1).bit_length())[:n]),
            list(range(n)),
        ),
    )


@cache
def keyed(vectors: int) -> Layout:
    """K vectors in turn, each multiplied by the key of its position.

    Keys make every position look different to the model, where repeated vectors differ by their
    distance to the beginning
    alone: the same floats take a third of the steps, and one vector holds a text
        (docs/concepts.md).
    """
    return Layout(
        name=f"keyed:{vectors}",
        vectors=vectors,
        arrange=lambda n: ([i % vectors for i in range(n)], list(range(n))),
        key_version=VERSION,
    )


@cache
def memory(vectors: int) -> Layout:
    """K memory vectors and then the text (`engine.inputs.Cramming`); -1 stands for a token."""
    return Layout(
        f"{MEMORY}{vectors}",
        vectors,
        lambda n: (
            [*range(vectors), *[-1] * (n - 1)],
            list(range(vectors - 1, vectors + n - 1)),
        ),
    )


def recorded(name: str, prefix: Sequence[int] = ()) -> Layout:
    """The layout that a file names: one of `Layout.named`, or `memory:K`, behind a prefix.

    Raises:
        UsageError: no such layout.
    """
    count = whole_number(name.removeprefix(MEMORY)) if name.startswith(MEMORY) else None
    if count is not None and 1 <= count <= MAX_REPEATED:
        return memory(count).with_prefix(prefix)
    return Layout.named(name).with_prefix(prefix)


@lru_cache
def _mixed_order(count: int, length: int) -> tuple[int, ...]:
    """Numbers below `count`, each the one that came least often behind the last one, two and three.

    What is asked first counts most (`NEIGHBOURS`), and of several alike the next in turn is taken.
    The beginning does not depend on `length`. It comes close to what a de Bruijn sequence does, and
    needs no length that is a power of `count`.
    """
    order: list[int] = []
    come: Counter[tuple[int, ...]] = Counter()
    for position in range(length):
        contexts = [
            tuple(order[position - before :]) for before in NEIGHBOURS if before <= position
        ]
        turn = order[-1] + 1 if order else 0
        best, least = turn % count, None
        for number in range(turn, turn + count):
            often = [come[*context, number % count] for context in contexts]
            if least is None or often < least:
                best, least = number % count, often
            if not any(often):
                break
        come.update((*context, best) for context in contexts)
        order.append(best)
    return tuple(order)


REPEATING = {"tiled": tiled, "mixed": mixed, "keyed": keyed}
NAMED = {
    layout.name: layout
    for layout in (
        Layout("one", 1, lambda n: ([0] * n, list(range(n)))),
        Layout("halves", 2, lambda n: ([0] * ((n + 1) // 2) + [1] * (n // 2), list(range(n)))),
        Layout("alternating", 2, lambda n: ([i % 2 for i in range(n)], list(range(n)))),
        Layout("free", 2, lambda n: ([0] + [1] * n, list(range(1, n + 1)))),
        tiled(1),
    )
}
