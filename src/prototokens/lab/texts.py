"""Where targets come from: `--texts`, and the passages that a model gets from it.

Sources:
    `sample`: passages of the stories in the package.
    `file:PATH[:COLUMN]`: of a text file, a Parquet or JSON-lines file with a column of texts, or a
        folder of such files.
    `hub:ID[@REVISION]:COLUMN[:SPLIT]`: of a data set on the Hugging Face hub, streamed;
        `hub:emozilla/pg19:text` is PG-19.
    `random-words:WORDLIST`: words drawn uniformly from a list, one word a line.
    `random-tokens`: ids drawn from the vocabulary, special tokens left out.
    `generated[:SOURCE]`: the model's own continuations, at temperature 1, of passages of SOURCE;
        `sample` by default.

Passages of running text begin at a sentence. All are functions of the seed: the first ten of fifty
are the ten that are given when ten of that length are asked for. How documents are read is
`lab.documents`'.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from prototokens.errors import TextError, UsageError
from prototokens.lab.costs import Costs
from prototokens.lab.documents import Document, documents
from prototokens.lab.passages import Passage, without_folders
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.tokenization import Vocabulary

DEFAULT = "sample"
KINDS = (
    "sample",
    "file:PATH[:COLUMN]",
    "hub:ID[@REVISION]:COLUMN",
    "random-words:WORDLIST",
    "random-tokens",
    "generated[:SOURCE]",
)
GLOVE = (
    "the 100,000 most frequent words of GloVe 6B serve: unpack glove.6B.zip from"
    " https://nlp.stanford.edu/projects/glove/ and"
    " take the first column: head -n 100000 glove.6B.50d.txt | cut -d' ' -f1 > words.txt"
)
# A sentence begins at a capital letter, quoted or not, behind the end of another or at the head of
# a paragraph.
SENTENCE = re.compile("(?:(?<=[.!?])[\"'\u201d\u2019]?\\s+|\\n\\s*\\n)(?=[\"'\u201c\u2018]?[A-Z])")
FIRST_PAGES = 2000  # characters at the head of a long text that are left out: titles and contents
# characters a token at first, when enough text for so many tokens is cut out; doubled until it is
# enough
MAX_TOKEN_LENGTH = 16
GENERATED_POSITIONS = 1 << 14  # most tokens of one sampling pass


@runtime_checkable
class Origin(Protocol):
    """A source of texts: passages, one after the other.

    A source has no end, or ends where it has no more.
    """

    def passages(self, tokens: int, context: int) -> Iterator[Passage]: ...


class Texts:
    """Passages of one or more sources, as ids of one model."""

    def __init__(self, lm: FrozenLM, sources: Sequence[str] = (DEFAULT,), seed: int = 0):
        """Sources are as `--texts` takes them; all but `each` looks at the first alone.

        Raises:
            UsageError: a source that is none.
            TextError: one that cannot be read.
        """
        if not sources:
            raise UsageError(f"no texts given: choose from {', '.join(KINDS)}")
        self.lm, self.sources, self.seed = lm, tuple(sources), seed
        self.source = self.sources[0]
        self.origin = _origin(self.source, lm, seed)

    @cached_property
    def costs(self) -> Costs:
        """What fits of the passages are expected to cost."""
        return Costs(self.lm)

    def each(self) -> list[Texts]:
        """One for each source."""
        return [self, *(Texts(self.lm, [source], self.seed) for source in self.sources[1:])]

    def passages(self, count: int, tokens: int, context: int = 0) -> list[Passage]:
        """So many passages of so many tokens.

        With `context`, the tokens that come before each are kept beside it.

        Raises:
            TextError: the source does not hold that many.
        """
        found = []
        if count > 0:
            for passage in self.origin.passages(tokens, context):
                found.append(passage)
                if len(found) == count:
                    return found
            behind = f" with {context} before them" if context else ""
            raise TextError(
                f"{self.source} holds {len(found)} passages of {tokens} tokens{behind}, and {count}"
                " are needed:"
                " name a larger source with --texts"
            )
        return found

    def continuations(
        self, contexts: int, each: int, tokens: int, context: int = 128
    ) -> list[list[Passage]]:
        """Continuations that are sampled from the model, `each` of every context.

        Contexts have `context` tokens, continuations `tokens`.

        The contexts are passages of the source; where that is `generated:SOURCE`, of SOURCE.
        """
        origin = self.origin.origin if isinstance(self.origin, Generated) else self.origin
        plain = (
            Texts(self.lm, [self.source.partition(":")[2] or DEFAULT], self.seed)
            if origin is not self.origin
            else self
        )
        heads = plain.passages(contexts, context)
        numbered = [(head, number) for head in heads for number in range(each)]
        out = sampled(
            self.lm,
            [head.ids for head, _ in numbered],
            tokens,
            [f"{self.seed} {number}" for _, number in numbered],
        )
        made = [
            Passage(f"{head.id}~{number}", ids, head.ids, without_folders(self.source))
            for (head, number), ids in zip(numbered, out, strict=True)
        ]
        return [made[start : start + each] for start in range(0, len(made), each)]


def _origin(source: str, lm: FrozenLM, seed: int) -> Origin:
    kind, _, rest = source.partition(":")
    if kind == "generated":
        return Generated(source, _origin(rest or DEFAULT, lm, seed), lm, seed)
    return origin_of(source, lm, seed)


def origin_of(source: str, vocabulary: Vocabulary, seed: int) -> Origin:
    """A source whose texts need no model: all but `generated`.

    Raises:
        UsageError, TextError: as `Texts`.
    """
    kind, _, rest = source.partition(":")
    if kind in ("sample", "file", "hub"):
        return Running(source, documents(source), vocabulary, seed)
    if kind == "random-words":
        return RandomWords(source, rest, vocabulary, seed)
    if source == "random-tokens":
        return RandomTokens(vocabulary, seed)
    raise UsageError(f"texts {source!r} are none of {', '.join(KINDS)}")


class Running:
    """Running text: passages that begin at a sentence, spread over the documents in turn."""

    def __init__(self, source: str, read: Iterator[Document], lm: Vocabulary, seed: int):
        self.source, self.lm, self.seed = source, lm, seed
        self._read = read
        self._known: list[Document] = []
        self._starts: dict[str, list[int]] = {}

    def passages(self, tokens: int, context: int) -> Iterator[Passage]:
        """One of each document, then a second one of each, and so on; no two overlap."""
        taken: dict[str, list[tuple[int, int]]] = {}
        turn, alive = 0, True
        while alive:
            alive = False
            for document in self._documents():
                starts, spans = self._starts_of(document), taken.setdefault(document.name, [])
                if turn >= len(starts):
                    continue
                alive = True
                passage = self._cut(document, starts[turn], tokens, context)
                span = (
                    (starts[turn], starts[turn] + len(self.lm.detokenize(passage.ids)))
                    if passage
                    else (0, 0)
                )
                if passage and all(span[1] <= start or end <= span[0] for start, end in spans):
                    spans.append(span)
                    yield passage
            turn += 1

    def _documents(self) -> Iterator[Document]:
        """Those that were read already, and then further ones as they are needed."""
        number = 0
        while True:
            if number == len(self._known):
                further = next(self._read, None)
                if further is None:
                    return
                self._known.append(further)
            yield self._known[number]
            number += 1

    def _starts_of(self, document: Document) -> list[int]:
        """Where sentences begin, in an order that the seed decides."""
        if document.name not in self._starts:
            text = document.text
            first = min(FIRST_PAGES, len(text) // 10) if len(text) > 10 * FIRST_PAGES else 0
            starts = [0] * (first == 0) + [
                match.end() for match in SENTENCE.finditer(text) if match.end() >= first
            ]
            random.Random(f"{self.seed} {document.name}").shuffle(starts)
            self._starts[document.name] = starts
        return self._starts[document.name]

    def _cut(self, document: Document, start: int, tokens: int, context: int) -> Passage | None:
        """The passage that begins there.

        None where the document ends before it does, or begins after its context would.
        """
        ids = _enough(self.lm, tokens, lambda width: document.text[start : start + width])
        before = (
            _enough(self.lm, context, lambda width: document.text[max(0, start - width) : start])
            if context
            else []
        )
        if len(ids) < tokens or len(before) < context:
            return None
        kept = tuple(before[len(before) - context :])
        return Passage(
            f"{document.name}@{start}", tuple(ids[:tokens]), kept, without_folders(self.source)
        )


def _enough(lm: Vocabulary, tokens: int, cut) -> list[int]:
    """Ids of a stretch that `cut` makes as wide as it takes.

    Some tokens more than needed, as the last may be cut off.
    """
    width = MAX_TOKEN_LENGTH * (tokens + 16)
    while True:
        stretch = cut(width)
        ids = lm.tokenize(stretch)
        if len(ids) >= tokens + 8 or len(stretch) < width:
            return ids
        width *= 2


class RandomWords:
    """Words of a list, each as likely as any other, with spaces between."""

    def __init__(self, source: str, path: str, lm: Vocabulary, seed: int):
        if not path:
            raise UsageError(
                f"random-words needs a list of words, one a line: random-words:words.txt; {GLOVE}"
            )
        try:
            self.words = [
                word
                for line in Path(path).read_text(encoding="utf-8-sig").splitlines()
                if (word := line.strip())
            ]
        except (OSError, ValueError) as error:
            raise TextError(
                f"the word list {path} cannot be read"
                f" ({getattr(error, 'strerror', None) or error}); {GLOVE}"
            ) from error
        if not self.words:
            raise TextError(f"the word list {path} is empty; {GLOVE}")
        self.source, self.name, self.lm, self.seed = (
            source,
            f"random-words:{Path(path).name}",
            lm,
            seed,
        )

    def passages(self, tokens: int, context: int) -> Iterator[Passage]:
        number = 0
        while True:
            draw = random.Random(f"{self.seed} {number}")
            words: list[str] = []
            ids: list[int] = []
            while len(ids) < context + tokens:
                words += draw.choices(self.words, k=64)
                ids = self.lm.tokenize(" ".join(words))[
                    :-8
                ]  # the last word's ids may change with what follows
            target, before = tuple(ids[context : context + tokens]), tuple(ids[:context])
            yield Passage(f"{self.name}#{number}", target, before, without_folders(self.source))
            number += 1


class RandomTokens:
    """Ids of the vocabulary, each as likely as any other, special tokens left out."""

    def __init__(self, lm: Vocabulary, seed: int):
        special = set() if lm.tokenizer is None else set(lm.tokenizer.all_special_ids)
        size = lm.vocab_size if lm.tokenizer is None else min(lm.vocab_size, len(lm.tokenizer))
        self.ids = [token for token in range(size) if token not in special]
        self.seed = seed

    def passages(self, tokens: int, context: int) -> Iterator[Passage]:
        number = 0
        while True:
            draw = random.Random(f"{self.seed} tokens {number}")
            before = draw.choices(self.ids, k=context)
            yield Passage(
                f"random-tokens#{number}",
                tuple(draw.choices(self.ids, k=tokens)),
                tuple(before),
                "random-tokens",
            )
            number += 1


class Generated:
    """Continuations that the model itself samples, each of a context of its own length."""

    def __init__(self, source: str, origin: Origin, lm: FrozenLM, seed: int):
        self.source, self.origin, self.lm, self.seed = source, origin, lm, seed

    def passages(self, tokens: int, context: int) -> Iterator[Passage]:
        heads = self.origin.passages(max(tokens, context), 0)
        side_by_side = max(1, min(64, GENERATED_POSITIONS // (2 * tokens)))
        while True:
            some = [head for _, head in zip(range(side_by_side), heads, strict=False)]
            if not some:
                return
            out = sampled(
                self.lm, [head.ids for head in some], tokens, [str(self.seed)] * len(some)
            )
            for head, ids in zip(some, out, strict=True):
                yield Passage(f"{head.id}~", ids, head.ids, without_folders(self.source))


@torch.no_grad()
def sampled(
    lm: FrozenLM, contexts: Sequence[tuple[int, ...]], tokens: int, seeds: Sequence[str]
) -> list[tuple[int, ...]]:
    """Multinomial continuations at temperature 1 of contexts of one length, with a cache.

    Each has a stream of chance of its own, from its seed and its context: neither number nor order
    of the others changes it.
    """
    from prototokens.lab.sampling import sample

    out: list[tuple[int, ...]] = []
    part = max(1, GENERATED_POSITIONS // (len(contexts[0]) + tokens)) if contexts else 1
    for start in range(0, len(contexts), part):
        out += sample(lm, contexts[start : start + part], tokens, seeds[start : start + part])
    return out
