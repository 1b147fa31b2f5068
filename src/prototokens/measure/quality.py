"""What a reconstruction that is not exact is worth as a text, and which tokens it gets wrong.

Distances and scores of text come from maintained libraries (extra `[metrics]`): Levenshtein and
longest common subsequence from rapidfuzz, chrF and BLEU from sacrebleu. Semantic similarity takes
the texts' embeddings, which `lab.embedding` computes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prototokens._util.extras import need

EXTRA = "metrics"
PURPOSE = "measuring the quality of a text"
WORD = re.compile(r"\w+|[^\w\s]")


class Scores(NamedTuple):
    """A text against the one it should be.

    Attributes:
        cer: character error rate: edits / characters of the reference; 0 is perfect, above 1 is
            possible.
        chrf: chrF2, 0 to 100: F score of character n-grams up to 6 (Popovic 2015).
        bleu: sentence BLEU with effective order, 0 to 100 (Papineni et al. 2002).
        rouge_l: F1 of the longest common subsequence of words, in [0, 1] (Lin 2004).
    """

    cer: float
    chrf: float
    bleu: float
    rouge_l: float


class Bin(NamedTuple):
    """Tokens whose property lies between two edges, and how many of them are wrong.

    Attributes:
        low, high: of the bin: low <= value < high; the last one's high is included.
        tokens, wrong: counts.
    """

    low: float
    high: float
    tokens: int
    wrong: int

    @property
    def rate(self) -> float | None:
        """Share of wrong tokens; None in an empty bin."""
        return self.wrong / self.tokens if self.tokens else None


def scores(reference: str, text: str) -> Scores:
    """All text scores of `text` against `reference`.

    Raises:
        MissingExtraError: rapidfuzz or sacrebleu is not installed.
        ValueError: the reference is empty.
    """
    return Scores(
        character_error_rate(reference, text),
        chrf(reference, text),
        bleu(reference, text),
        rouge_l(reference, text),
    )


def character_error_rate(reference: str, text: str) -> float:
    """The edit distance of two texts, divided by the characters of the reference.

    Characters are inserted, deleted or replaced.
    """
    if not reference:
        raise ValueError("an error rate needs a reference that is not empty")
    return need("rapidfuzz.distance", EXTRA, PURPOSE).Levenshtein.distance(reference, text) / len(
        reference
    )


def chrf(reference: str, text: str) -> float:
    """chrF2 of a sentence, 0 to 100."""
    return float(need("sacrebleu", EXTRA, PURPOSE).sentence_chrf(text, [reference]).score)


def bleu(reference: str, text: str) -> float:
    """BLEU of a sentence, 0 to 100: n-grams up to 4, or up to as many as it has words."""
    measure = need("sacrebleu.metrics", EXTRA, PURPOSE).BLEU(effective_order=True)
    return float(measure.sentence_score(text, [reference]).score)


def rouge_l(reference: str, text: str) -> float:
    """F1 of the longest common subsequence of words and marks, letter case aside.

    1 where both have none.
    """
    words, found = WORD.findall(reference.lower()), WORD.findall(text.lower())
    if not words or not found:
        return float(words == found)
    common = need("rapidfuzz.distance", EXTRA, PURPOSE).LCSseq.similarity(words, found)
    return 2 * common / (len(words) + len(found))


def perplexity(nats: Float[Tensor, " tokens"]) -> float:
    """The exponential of the mean surprisal."""
    if not len(nats):
        raise ValueError("a text of no tokens has no perplexity")
    return math.exp(float(nats.double().mean()))


def semantic_similarity(one: Float[Tensor, " width"], other: Float[Tensor, " width"]) -> float:
    """Cosine of two texts' embeddings, in [-1, 1]."""
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


def frequencies(ids: Sequence[int], among: Sequence[Sequence[int]]) -> list[int]:
    """How often each token of a text occurs among texts, that text being one of them."""
    counts = Counter(token for text in among for token in text)
    return [counts[token] for token in ids]


def error_bins(
    values: Sequence[float], wrong: Bool[Tensor, " tokens"], edges: Sequence[float]
) -> list[Bin]:
    """Wrong tokens by a property of the tokens: frequency, surprisal, position.

    Args:
        values: the property of each token.
        edges: ascending; one more than there are bins. Values outside are left out.
    """
    if list(edges) != sorted(set(edges)) or len(edges) < 2:
        raise ValueError(f"edges of bins must ascend: {list(edges)}")
    if len(values) != len(wrong):
        raise ValueError(f"{len(values)} values for {len(wrong)} tokens")
    property_of = torch.tensor(values, dtype=torch.float64)
    bins = []
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        here = (property_of >= low) & ((property_of <= high) if last else (property_of < high))
        bins.append(Bin(low, high, int(here.sum()), int((here & wrong).sum())))
    return bins
