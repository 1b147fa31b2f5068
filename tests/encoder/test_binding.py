"""Tokens that write and read keyed vectors through the keys of their positions."""

from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens.encoder.binding import Binding
from prototokens.encoder.config import Shape
from prototokens.encoder.decoder import Decoder, padded
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.network import make_network, states
from prototokens.encoder.refine import encode, feedback_pass
from prototokens.errors import UsageError
from prototokens.fitting import fit
from prototokens.keys import signs
from prototokens.layout import keyed

SHAPE = Shape(
    layout="keyed:2",
    max_length=9,
    width=16,
    layers=1,
    heads=2,
    feed_forward=24,
    bound=True,
    refinements=2,
    refine_layers=1,
)
TEXTS = [(5, 6, 7, 8, 9, 1, 2), (3, 4), (200,), (9, 9, 9, 9)]


@pytest.fixture
def network(tiny_llama):
    """A network none of whose maps is zero."""
    network = make_network(tiny_llama, SHAPE, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def test_what_is_written_is_the_signed_sum_of_the_tokens_over_the_root_of_their_number():
    binding, tokens = Binding(keyed(3), 8, 4), torch.randn(2, 7, 4)
    lengths = (7, 4)
    absent = torch.arange(7)[None] >= torch.tensor(lengths)[:, None]
    written, keys = binding.write(tokens, absent), signs(7, 4)
    for row, length in enumerate(lengths):
        for vector in range(3):
            places = range(vector, length, 3)
            expected = sum((keys[at] * tokens[row, at] for at in places), torch.zeros(4))
            torch.testing.assert_close(
                written[row, vector], expected / max(1, len(places)) ** 0.5, rtol=1e-5, atol=1e-6
            )


def test_tokens_read_what_the_model_is_fed(tiny_llama):
    vectors = torch.randn(2, 3, tiny_llama.d_model)
    layout = keyed(3)
    fed = vectors[:, layout.index(7)] * layout.keys(7, tiny_llama.d_model)
    assert torch.equal(Binding(layout, 9, tiny_llama.d_model).read(vectors, 7), fed)


def test_a_text_is_encoded_alike_in_any_batch(tiny_llama, network):
    decoder = Decoder(tiny_llama, SHAPE.arrangement)
    together = encode(network, decoder, TEXTS).protos
    for number, ids in enumerate(TEXTS):
        alone = encode(network, decoder, [ids]).protos[0]
        torch.testing.assert_close(together[number], alone, rtol=1e-3, atol=1e-5)


def test_all_maps_of_a_bound_network_are_trained(tiny_llama, network):
    ids, lengths = padded(TEXTS, tiny_llama.device)
    decoder = Decoder(tiny_llama, SHAPE.arrangement)
    reading = network.begin(states(tiny_llama, ids, (0,)), lengths)
    found = feedback_pass(decoder, network.vectors(reading), TEXTS, binding=network.binding)
    moved = network.vectors(network.refine(reading, found.feedback))
    moved.square().sum().backward()
    missing = [name for name, value in network.named_parameters() if value.grad is None]
    assert missing == []
    assert network.write_tokens.weight.grad.abs().max() > 0
    assert network.refiner.write_tokens.weight.grad.abs().max() > 0


def test_a_folder_has_no_keys_in_it_and_loads_to_the_same_vectors(tiny_llama, network, tmp_path):
    encoder = Encoder.of(tiny_llama, network.bfloat16().float())
    encoder.save(tmp_path / "encoder")
    loaded = Encoder.load(tmp_path / "encoder")
    assert loaded.shape.bound
    assert not any("keys" in name for name in loaded.network.state_dict())
    decoder = Decoder(tiny_llama, SHAPE.arrangement)
    assert torch.equal(
        encode(loaded.network, decoder, TEXTS).protos, encode(network, decoder, TEXTS).protos
    )


def test_the_gradient_at_the_inputs_gives_that_of_the_vectors(tiny_llama, network):
    decoder, vectors = Decoder(tiny_llama, SHAPE.arrangement), torch.randn(4, 2, 32)
    bound = feedback_pass(decoder, vectors, TEXTS, binding=network.binding)
    plain = feedback_pass(decoder, vectors, TEXTS)
    torch.testing.assert_close(bound.gradient, plain.gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bound.feedback.error, plain.feedback.error, rtol=1e-4, atol=1e-6)
    for row, ids in enumerate(TEXTS):
        assert not bound.feedback.inputs[row, len(ids) :].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"layout": "mixed:2"}, "keyed layout"), ({"predict": "e"}, "all vectors")],
)
def test_bound_tokens_need_keys_and_every_vector(changes, words):
    with pytest.raises(UsageError, match=words):
        replace(SHAPE, **changes)


def test_an_encoder_behind_a_prefix_serves_that_prefix_alone(tiny_llama):
    shape = replace(SHAPE, prefix=(7,))
    encoder = Encoder.of(tiny_llama, make_network(tiny_llama, shape, 0))
    text = list(TEXTS[0])
    (solution,) = fit(tiny_llama, [text], start=encoder, steps=1)
    assert solution.layout.prefix == (7,)
    with pytest.raises(UsageError, match="prefix"):
        fit(tiny_llama, [text], start=encoder, layout="keyed:2", prefix=[8], steps=1)
    encoded = pt.encode(tiny_llama, "ab", start=encoder, steps=0, inexact="keep", certify="none")
    assert encoded.header.prefix == (7,)
