"""A model's response to fixed vectors does not depend on the dtype, but on the model's code."""

import copy
import math

import pytest
import torch

from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.response import NUMBERS, TOLERANCE, differ, respond


def test_responses_in_float32_and_bfloat16_agree(any_lm):
    half = copy.deepcopy(any_lm.model).to(torch.bfloat16)
    assert len(any_lm.response) == min(NUMBERS, any_lm.hidden_size)
    assert not differ(any_lm.response, FrozenLM(half, any_lm.tokenizer).response)


def test_a_factor_on_the_input_vectors_changes_the_response(tiny_gemma2):
    """Before transformers 5.4, Gemma multiplied input vectors by the square root of its width."""
    table = tiny_gemma2.model.get_input_embeddings().weight
    factor = math.sqrt(tiny_gemma2.d_model)
    assert differ(
        tiny_gemma2.response, respond(lambda vectors: tiny_gemma2.hidden(factor * vectors), table)
    )


@pytest.mark.parametrize(
    "other", [[1.0, 0.0], [1.0, 0.0, math.nan], [1.0, TOLERANCE * 1.1, 0.0], [0.0, 0.0, 0.0]]
)
def test_responses_that_differ(other):
    assert differ([1.0, 0.0, 0.0], other)
    assert differ(other, [1.0, 0.0, 0.0])


def test_responses_that_agree():
    assert not differ([1.0, 0.0, 0.0], [1.0, 0.9 * TOLERANCE, 0.0])
