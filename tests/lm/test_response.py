"""How a model answers to fixed vectors.

The same in every dtype, another where its code takes vectors otherwise.
"""

import copy
import math

import pytest
import torch

from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.response import NUMBERS, TOLERANCE, differ, respond


def test_the_dtype_hardly_moves_it(any_lm):
    half = copy.deepcopy(any_lm.model).to(torch.bfloat16)
    assert len(any_lm.response) == min(NUMBERS, any_lm.hidden_size)
    assert not differ(any_lm.response, FrozenLM(half, any_lm.tokenizer).response)


def test_a_factor_on_the_vectors_moves_it_far(tiny_gemma2):
    """The convention before transformers 5.4.

    The body multiplies by the square root of the width.
    """
    table = tiny_gemma2.model.get_input_embeddings().weight
    factor = math.sqrt(tiny_gemma2.d_model)
    assert differ(
        tiny_gemma2.response, respond(lambda vectors: tiny_gemma2.hidden(factor * vectors), table)
    )


@pytest.mark.parametrize(
    "other", [[1.0, 0.0], [1.0, 0.0, math.nan], [1.0, TOLERANCE * 1.1, 0.0], [0.0, 0.0, 0.0]]
)
def test_what_differs(other):
    assert differ([1.0, 0.0, 0.0], other)
    assert differ(other, [1.0, 0.0, 0.0])


def test_what_does_not():
    assert not differ([1.0, 0.0, 0.0], [1.0, 0.9 * TOLERANCE, 0.0])
