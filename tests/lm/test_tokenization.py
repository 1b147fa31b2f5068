"""Text to ids and back, and the hash of the tokenizer."""

import pytest
import torch
from tokenizers import processors

from prototokens.errors import ModelError, TextError
from prototokens.lm.frozen_lm import FrozenLM


@pytest.mark.parametrize(
    "text", ["", " ", "a . b 's  ,", "<bos>x<eos>", "naïve 👩‍🚀 e\u0301\n\t", "nul \0 end "]
)
def test_detokenize_inverts_tokenize(tiny_llama, text):
    ids = tiny_llama.tokenize(text)
    assert (
        tiny_llama.detokenize(ids)
        == tiny_llama.detokenize(torch.tensor(ids, dtype=torch.int64))
        == text
    )


def test_tokenize_adds_no_special_tokens(tiny_llama, byte_tokenizer):
    byte_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A", special_tokens=[("<bos>", 256)]
    )
    lm = FrozenLM(tiny_llama.model, byte_tokenizer)
    assert byte_tokenizer("ab")["input_ids"][0] == 256
    assert lm.tokenize("ab") == tiny_llama.tokenize("ab")


def test_the_tokenizer_hash_does_not_depend_on_padding_and_truncation(tiny_llama, byte_tokenizer):
    used = FrozenLM(tiny_llama.model, byte_tokenizer)
    byte_tokenizer.pad_token = "<eos>"
    byte_tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert (
        FrozenLM(tiny_llama.model, byte_tokenizer).tokenizer_hash
        == used.tokenizer_hash
        == tiny_llama.tokenizer_hash
    )
    byte_tokenizer.add_tokens(["another"])
    assert FrozenLM(tiny_llama.model, byte_tokenizer).tokenizer_hash != used.tokenizer_hash


def test_texts_that_cannot_be_tokenized(tiny_llama, byte_tokenizer):
    with pytest.raises(TextError, match="character 1 of the text"):
        tiny_llama.tokenize("a\ud800")
    bare = FrozenLM(tiny_llama.model)
    assert bare.tokenizer_hash == ""
    with pytest.raises(ModelError, match="has no tokenizer"):
        bare.tokenize("a")
    byte_tokenizer.add_tokens(["one", "two", "three"])
    with pytest.raises(ModelError, match="gives the id 260, and the model has 260 outputs"):
        FrozenLM(tiny_llama.model, byte_tokenizer).tokenize("three")


def test_the_former_names_still_work(tiny_llama):
    assert tiny_llama.encode("abc") == tiny_llama.tokenize("abc")
    assert tiny_llama.decode([97, 98]) == tiny_llama.detokenize([97, 98])
