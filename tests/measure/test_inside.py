"""Attention, logit lens and knockout, against slow references and against what must not change."""

import math

import pytest
import torch

import prototokens as pt
from prototokens.errors import ModelError, TextError, UsageError
from prototokens.measure import inside
from prototokens.solution import Chunk

NAMES = ["llama", "neox", "gpt2", "opt", "gemma2", "gemma3"]


@pytest.fixture(params=NAMES)
def lm(request):
    return request.getfixturevalue(f"tiny_{request.param}")


def fitted(lm, layout="tiled:2", length=7, seed=0):
    layout = pt.Layout.named(layout)
    generator = torch.Generator().manual_seed(seed)
    return Chunk(torch.randn(layout.vectors, lm.d_model, generator=generator), layout, length)


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_attention_adds_up_and_looks_back_alone(lm):
    chunk = fitted(lm)
    shares = inside.attention(lm, chunk)
    assert shares.shape == (2, lm.model.config.num_attention_heads, 7, 3)
    close(shares.sum(-1), torch.ones(shares.shape[:-1]))
    close(
        shares[:, :, 0, 0], torch.ones(shares.shape[:2])
    )  # the first position has e alone to look at
    assert float(shares[:, :, 1, 2].abs().max()) == 0  # the second has not seen m_2 yet
    weights = inside.attention_weights(lm, chunk.protos[chunk.layout.index(7)])
    close(shares[..., 1], weights[..., [1, 3, 5]].sum(-1))


def test_attention_of_a_llama_equals_a_plain_computation(tiny_llama):
    """The first layer from its matrices, in float64: rotary positions, grouped keys, softmax."""
    lm, chunk = tiny_llama, fitted(tiny_llama)
    block = lm.model.model.layers[0]
    inputs = chunk.protos[chunk.layout.index(7)].double()
    states = (
        inputs * (inputs.square().mean(-1, keepdim=True) + lm.model.config.rms_norm_eps).rsqrt()
    )
    states = states * block.input_layernorm.weight.double()
    query = (states @ block.self_attn.q_proj.weight.double().T).view(7, 4, 8)
    key = (
        (states @ block.self_attn.k_proj.weight.double().T)
        .view(7, 2, 8)
        .repeat_interleave(2, dim=1)
    )
    angles = torch.arange(7)[:, None] * 10000.0 ** -(torch.arange(0, 8, 2) / 8.0)

    def turned(vectors):
        half, other = vectors[..., :4], vectors[..., 4:]
        cosine, sine = angles.cos()[:, None].double(), angles.sin()[:, None].double()
        return torch.cat([half * cosine - other * sine, other * cosine + half * sine], -1)

    scores = torch.einsum("qhd,khd->hqk", turned(query), turned(key)) / math.sqrt(8)
    weights = scores.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -math.inf).softmax(-1)
    close(inside.attention_weights(lm, inputs.float())[0].double(), weights)


def test_the_lens_ends_at_what_is_decoded(lm):
    chunk = fitted(lm, layout="free")
    lens = inside.logit_lens(lm, chunk)
    assert lens.ids.shape == (3, 7)
    decoded = pt.decode_ids(lm, [chunk]).ids[0]
    assert lens.ids[-1].tolist() == decoded
    assert lens.rank[-1].tolist() == [0] * 7
    assert lens.ids[0].tolist() != decoded
    hidden = lm.hidden(chunk.protos[chunk.layout.index(7)][None])[0, 1:]
    close(lens.nats[-1], -lm.logits(hidden).log_softmax(-1).max(-1).values)


def test_the_lens_of_a_llama_equals_norm_and_head_on_its_states(tiny_llama):
    """The lens equals norm and head on the states between the blocks that transformers returns.

    The target is another one.
    """
    lm, chunk = tiny_llama, fitted(tiny_llama)
    inputs = chunk.protos[chunk.layout.index(7)]
    target = torch.arange(7) + 40
    lens = inside.logit_lens(lm, chunk, target)
    states = lm.model(inputs_embeds=inputs[None], output_hidden_states=True).hidden_states
    for depth in range(2):
        logits = lm.model.lm_head(lm.model.model.norm(states[depth][0]))
        assert lens.ids[depth].tolist() == logits.argmax(-1).tolist()
        close(lens.nats[depth], -logits.log_softmax(-1)[torch.arange(7), target])
        order = logits.argsort(-1, descending=True).tolist()
        assert lens.rank[depth].tolist() == [
            row.index(token) for row, token in zip(order, target.tolist(), strict=True)
        ]


def test_the_depth_at_which_a_token_appears():
    rank = torch.tensor([[3, 0, 0, 5], [0, 0, 1, 2], [0, 0, 0, 1]])
    assert inside.appears(inside.Lens(rank, rank.float(), rank)).tolist() == [1, 0, 2, 3]


def test_knocked_out_from_the_first_block_on_nothing_depends_on_e(lm):
    chunk = fitted(lm)
    other = chunk._replace(protos=torch.cat([fitted(lm, seed=1).protos[:1], chunk.protos[1:]]))
    one, two = inside.knockout(lm, chunk), inside.knockout(lm, other)
    assert one.ids.shape == (3, 7)
    assert one.ids[0, 1:].tolist() == two.ids[0, 1:].tolist()
    assert (
        inside.knockout(lm, chunk, vector=1).ids[0, 0] == one.ids[2, 0]
    )  # e's own position sees e alone, whatever is hidden


def test_an_untouched_row_is_what_is_decoded(lm):
    chunk = fitted(lm)
    knocked = inside.knockout(lm, chunk)
    assert knocked.ids[-1].tolist() == pt.decode_ids(lm, [chunk]).ids[0]
    assert bool((knocked.margin[-1] > 0).all())
    assert bool((knocked.margin[:-1, 1:] < knocked.margin[-1, 1:]).any())


def test_a_block_without_e_is_unaffected_by_it(tiny_neox):
    """Between: e's state before the second block is replaced.

    Where the second block does not see it, no other output moves.
    """
    lm, chunk = tiny_neox, fitted(tiny_neox)
    inputs = chunk.protos[chunk.layout.index(7)]
    keys = chunk.layout.index(7) == 0
    before = inside._with_hidden_keys(lm, inputs, keys)

    def spoil(_, given, made):
        states = made if isinstance(made, torch.Tensor) else made[0]
        states = torch.cat([states[:, :1].flip(-1), states[:, 1:]], 1)
        return states if isinstance(made, torch.Tensor) else (states, *made[1:])

    hook = inside.blocks(lm)[0].register_forward_hook(spoil)
    after = inside._with_hidden_keys(lm, inputs, keys)
    hook.remove()
    close(before[:2, 1:], after[:2, 1:])
    assert not torch.allclose(before[2, 1:], after[2, 1:], atol=1e-4)


def test_the_model_is_left_as_it_was(tiny_llama):
    lm, chunk = tiny_llama, fitted(tiny_llama)
    weights, chosen = lm.weights_hash(), lm.model.config._attn_implementation
    before = lm.hidden(chunk.protos[None])
    inside.attention(lm, chunk)
    inside.logit_lens(lm, chunk)
    inside.knockout(lm, chunk)
    assert lm.weights_hash() == weights
    assert lm.model.config._attn_implementation == chosen
    assert torch.equal(lm.hidden(chunk.protos[None]), before)


def test_models_that_expose_no_states_are_refused(tiny_llama, tiny_mamba):
    with pytest.raises(ModelError, match="no attention weights"):
        inside.attention(tiny_mamba, fitted(tiny_mamba))
    with pytest.raises(ModelError, match="no attention mask"):
        inside.knockout(tiny_mamba, fitted(tiny_mamba))
    with pytest.raises(UsageError, match="no vector 3 to knock out: layout tiled:2 has 0 to 2"):
        inside.knockout(tiny_llama, fitted(tiny_llama), vector=3)
    with pytest.raises(UsageError, match="vectors of width 24 given"):
        inside.attention(tiny_llama, Chunk(torch.zeros(2, 24), pt.Layout.named("paper"), 3))
    with pytest.raises(TextError, match="600 positions to look into, and at most 512"):
        inside.logit_lens(tiny_llama, fitted(tiny_llama, length=600))
