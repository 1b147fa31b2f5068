"""Surprisal against its definition, in windows and in chunks."""

import copy
import math

import pytest
import torch

from prototokens.errors import UsageError
from prototokens.lm import autoregressive
from prototokens.lm.frozen_lm import FrozenLM


def slow_surprisal(model, ids, bos, window):
    """Surprisal by its definition: one forward pass in float64 for every token."""
    lead = [] if bos is None else [bos]
    context_length, nats, start, stop = window - len(lead), [], 0, window - len(lead)
    for number, target in enumerate(ids):
        if not lead and number == 0:
            nats.append(math.log(model.config.vocab_size))
            continue
        if number > stop:
            start = number - context_length // 2
            stop = start + context_length
        context = torch.tensor([lead + ids[start:number]])
        assert context_length // 2 <= number - start <= context_length or start == 0
        nats.append(-model(input_ids=context).logits[0, -1].log_softmax(-1)[target].item())
    return torch.tensor(nats)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("family", "length"),
    [("llama", 1), ("llama", 12), ("llama", 13), ("llama", 14), ("llama", 40), ("mamba", 25)],
)
def test_surprisal_equals_its_definition(family, length, bos, request, monkeypatch):
    monkeypatch.setattr(autoregressive, "SURPRISAL_WINDOW", 12)
    monkeypatch.setattr(autoregressive, "SURPRISAL_WINDOW_UNLIMITED", 12)
    monkeypatch.setattr(autoregressive, "SURPRISAL_CHUNK", 5)
    tiny = request.getfixturevalue(f"tiny_{family}")
    lm = FrozenLM(tiny.model, tiny.tokenizer if bos else None)
    chunks, logits = [], lm.logits
    monkeypatch.setattr(lm, "logits", lambda hidden: chunks.append(len(hidden)) or logits(hidden))
    ids = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    nats = lm.surprisal(torch.tensor(ids))
    expected = slow_surprisal(copy.deepcopy(tiny.model).double(), ids, 256 if bos else None, 12)
    torch.testing.assert_close(nats, expected, rtol=1e-4, atol=1e-4)
    assert not nats.requires_grad
    assert max(chunks, default=0) <= 5
    assert sum(chunks) == length - (not bos)


def test_surprisal_of_a_text_longer_than_the_context(tiny_gpt2):
    assert tiny_gpt2.max_context == 64
    ids = torch.arange(200) % 256
    nats = tiny_gpt2.surprisal(ids)
    assert nats.shape == (200,)
    torch.testing.assert_close(nats[:64], tiny_gpt2.surprisal(ids[:64].tolist()))


def test_surprisal_of_no_ids_and_of_invalid_ids(tiny_llama):
    assert tiny_llama.surprisal([]).shape == (0,)
    with pytest.raises(UsageError, match="from 0 to 259; got 3 to 260"):
        tiny_llama.surprisal([3, 260])
