"""Sentence embeddings by a folder, and a sentence where there is no such model."""

import pytest
import torch

from prototokens.errors import ModelError
from prototokens.lab import embedding


def test_embeddings_are_the_models_mean_states(tiny_embedder):
    found = embedding.embedder(str(tiny_embedder))(
        ["The sea.", "A much longer sentence about the sea."]
    )
    assert found.shape == (2, 16)
    library = __import__("sentence_transformers")
    model = library.SentenceTransformer(str(tiny_embedder), device="cpu")
    tokens = model.tokenizer(["The sea."], return_tensors="pt")
    with torch.no_grad():
        states = model[0].auto_model(**tokens).last_hidden_state[0]
    torch.testing.assert_close(found[0], states.mean(0), atol=1e-5, rtol=1e-4)


def test_no_such_model(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        embedding.embedder(str(tmp_path / "nothing"))
