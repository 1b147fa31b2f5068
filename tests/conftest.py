"""Tiny random models of every family that is promised, built in memory.

No file, no network, milliseconds each.

Weights are larger than a fresh model's (`SPREAD`), so that logits differ by more than rounding and
a wrong scale or a missing soft cap shows. All share one byte-level tokenizer: ids 0 to 255 are the
bytes in its own order, 256 and 257 the ends of a text.
"""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prototokens.lm.frozen_lm import FrozenLM

FAMILIES = ["llama", "neox", "gpt2", "opt", "qwen2", "qwen3", "gemma2", "gemma3", "mamba"]
SPREAD = 0.15
VOCAB = {"vocab_size": 260, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": None}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": SPREAD,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}


def make_byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<bos>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")


def make(model_class, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config)


def wrap(model_class, config):
    return FrozenLM(
        make(model_class, config), make_byte_tokenizer(), name=f"tiny-{config.model_type}"
    )


@pytest.fixture
def byte_tokenizer():
    """A tokenizer of its own for each test: a call may change it."""
    return make_byte_tokenizer()


@pytest.fixture(scope="session")
def tiny_llama():
    return wrap(
        LlamaForCausalLM, LlamaConfig(**VOCAB, **SHAPE, **GROUPED, tie_word_embeddings=True)
    )


@pytest.fixture(scope="session")
def tiny_neox():
    return wrap(GPTNeoXForCausalLM, GPTNeoXConfig(**VOCAB, **SHAPE))


@pytest.fixture(scope="session")
def tiny_gpt2():
    shape = {
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "initializer_range": SPREAD,
    }
    return wrap(GPT2LMHeadModel, GPT2Config(**VOCAB, **shape))


@pytest.fixture(scope="session")
def tiny_opt():
    """Of two widths, as OPT-350M: 24 at the embeddings and head, 32 between them; no final norm."""
    shape = {
        "hidden_size": 32,
        "word_embed_proj_dim": 24,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    extra = {"max_position_embeddings": 128, "do_layer_norm_before": False, "init_std": SPREAD}
    return wrap(OPTForCausalLM, OPTConfig(**VOCAB, **shape, **extra))


@pytest.fixture(scope="session")
def tiny_qwen2():
    return wrap(Qwen2ForCausalLM, Qwen2Config(**VOCAB, **SHAPE, num_key_value_heads=2))


@pytest.fixture(scope="session")
def tiny_qwen3():
    return wrap(Qwen3ForCausalLM, Qwen3Config(**VOCAB, **SHAPE, **GROUPED))


@pytest.fixture(scope="session")
def tiny_gemma2():
    """Embeddings scaled by the root of the width, logits capped: at 5, where it shows."""
    return wrap(
        Gemma2ForCausalLM, Gemma2Config(**VOCAB, **SHAPE, **GROUPED, final_logit_softcapping=5.0)
    )


@pytest.fixture(scope="session")
def tiny_gemma3():
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    return wrap(Gemma3ForCausalLM, Gemma3TextConfig(**VOCAB, **SHAPE, **GROUPED, **layers))


@pytest.fixture(scope="session")
def tiny_mamba():
    shape = {
        "hidden_size": 32,
        "state_size": 8,
        "num_hidden_layers": 2,
        "initializer_range": SPREAD,
    }
    return wrap(MambaForCausalLM, MambaConfig(**VOCAB, **shape))


@pytest.fixture(scope="session", params=FAMILIES)
def any_lm(request):
    """Each family in turn."""
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture(scope="session")
def folder(tiny_llama, tmp_path_factory):
    """A tiny Llama with a byte-level tokenizer: 32 wide, 128 positions, fits in milliseconds."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llama.model.save_pretrained(path)
    tiny_llama.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def tiny_folder(tiny_llama, tmp_path):
    """The tiny Llama and its tokenizer, as `save_pretrained` writes them."""
    tiny_llama.model.save_pretrained(tmp_path / "model")
    tiny_llama.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory):
    """A folder with a sentence-embedding model.

    A random BERT of width 16 over bytes, mean of its states.
    """
    library = pytest.importorskip("sentence_transformers", reason="needs the extra [metrics]")
    folder = tmp_path_factory.mktemp("embedder")
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    make(
        BertModel, BertConfig(vocab_size=260, max_position_embeddings=512, **shape)
    ).save_pretrained(folder / "bert")
    tokenizer = make_byte_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder / "bert")
    library.SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "embedder"))
    return folder / "embedder"
