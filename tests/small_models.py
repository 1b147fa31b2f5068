"""Small random models for the tests of `lm`, and the message with which a model is rejected."""

import pytest
import torch

from prototokens.errors import ModelError
from prototokens.lm.frozen_lm import FrozenLM

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def random_model(model_class, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return model_class(config)


def refusal(given, **options):
    """The message with which a model is rejected; it is one line."""
    with pytest.raises(ModelError) as caught:
        FrozenLM.from_pretrained(given, **options) if not hasattr(given, "config") else FrozenLM(
            given
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)
