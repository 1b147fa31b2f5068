"""The network and its way through the frozen decoder, against slow and obvious references."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from prototokens.encoder.config import Shape
from prototokens.encoder.decoder import Decoder, padded
from prototokens.encoder.network import make_network, shape_for, states
from prototokens.errors import UsageError
from prototokens.layout import Layout

SHAPE = Shape(layout="tiled:2", max_length=9, width=16, layers=2, heads=2, feed_forward=24)
direct_or_not = pytest.mark.parametrize("direct", [0, 8], ids=["queries", "a map of each position"])
TEXTS = [(5, 6, 7, 8, 9, 1, 2), (3, 4), (200,), (9, 9, 9, 9)]


def vectors_of(lm, network, texts):
    """Of texts, before any refinement."""
    ids, lengths = padded(texts, lm.device)
    return network.vectors(
        network.begin(states(lm, ids, network.shape.depths, network.adapters), lengths)
    )


def lively(lm, shape=SHAPE):
    """A network whose every part has a say, as in the middle of a training."""
    network = make_network(lm, shape, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@direct_or_not
def test_a_texts_vectors_do_not_depend_on_the_batch(tiny_llama, direct):
    network = lively(tiny_llama, replace(SHAPE, direct=direct))
    together = vectors_of(tiny_llama, network, TEXTS)
    for number, ids in enumerate(TEXTS):
        alone = vectors_of(tiny_llama, network, [ids])
        torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-6)


@direct_or_not
def test_every_token_and_its_position_changes_the_vectors(tiny_llama, direct):
    network = lively(tiny_llama, replace(SHAPE, direct=direct))
    found = vectors_of(tiny_llama, network, [(1, 2, 3), (1, 2, 4), (2, 1, 3), (1, 2)])
    distances = torch.cdist(found.flatten(1), found.flatten(1)) + torch.eye(4)
    assert distances.min() > 1e-4


@direct_or_not
def test_vectors_begin_on_the_scale_of_the_embeddings(tiny_llama, direct):
    network = make_network(tiny_llama, replace(SHAPE, direct=direct), 0)
    table = tiny_llama.embedding_weight
    vectors = vectors_of(tiny_llama, network, TEXTS).detach()
    spread = (vectors - table.mean(0)) / table.std(0)
    assert 0.5 < spread.square().mean().sqrt().item() < 2.0
    torch.testing.assert_close(network.mean, table.float().mean(0))


@direct_or_not
def test_with_e_alone_predicted_the_others_are_the_same_for_all_texts(tiny_llama, direct):
    network = lively(tiny_llama, replace(SHAPE, predict="e", direct=direct))
    vectors = vectors_of(tiny_llama, network, TEXTS).detach()
    assert not torch.equal(vectors[0, 0], vectors[1, 0])
    assert all(torch.equal(vectors[0, 1:], other[1:]) for other in vectors)


@pytest.mark.parametrize("layout", ["paper", "tiled:2", "free", "halves"])
def test_loss_and_gradient_through_the_decoder_are_those_of_float64(tiny_llama, layout):
    layout = Layout.named(layout)
    network = lively(tiny_llama, Shape(**{**vars(SHAPE), "layout": layout.name}))
    vectors = vectors_of(tiny_llama, network, TEXTS).detach().requires_grad_()
    judged = Decoder(tiny_llama, layout).judge(vectors, TEXTS, temperature=0.5, gradient=True)
    judged.hidden.backward(0.25 * judged.scores.gradient)
    reference, total = vectors.detach().double().requires_grad_(), 0.0
    body = type(tiny_llama.model)(tiny_llama.model.config).double()
    body.load_state_dict(tiny_llama.model.state_dict())
    rights = []
    for row, ids in zip(reference, TEXTS, strict=True):
        logits = body(inputs_embeds=row[layout.index(len(ids))][None]).logits[0][
            layout.scored(len(ids))
        ]
        total = total + functional.cross_entropy(logits / 0.5, torch.tensor(ids), reduction="sum")
        rights.append(int((logits.argmax(-1) == torch.tensor(ids)).sum()))
    total.backward()
    assert float(judged.scores.loss.sum()) == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(vectors.grad.double(), 0.25 * reference.grad, rtol=1e-3, atol=1e-6)
    assert judged.right(len(TEXTS)).tolist() == rights
    assert judged.exact(len(TEXTS)).tolist() == [
        right == len(ids) for right, ids in zip(rights, TEXTS, strict=True)
    ]


@pytest.mark.parametrize("family", ["llama", "neox", "gpt2", "opt"])
def test_a_trunk_of_any_family_is_read_and_adapted_but_never_changed(family, request):
    lm = request.getfixturevalue(f"tiny_{family}")
    before, ids = lm.weights_hash(), torch.tensor([[1, 2, 3, 4]])
    inputs = lm.embed(ids)
    plain = lm.hidden(inputs)
    shape = Shape(**{**vars(SHAPE), "depths": (0, 1), "rank": 3})
    network = make_network(lm, shape, 0)
    assert network.adapters is not None
    untouched = states(lm, ids, (0, 1), network.adapters)
    assert torch.equal(untouched, states(lm, ids, (0, 1))), "adapters are zero at first"
    with torch.no_grad():
        for up in network.adapters.up:
            up.add_(0.3)
    adapted = states(lm, ids, (0, 1), network.adapters)
    assert not torch.allclose(adapted, untouched)
    adapted.sum().backward()
    # Those of the blocks behind the depths that are read have no say.
    assert sum(up.grad is not None and bool(up.grad.any()) for up in network.adapters.up) >= 2
    assert torch.equal(lm.hidden(inputs), plain), "the decoder does not see the adapters"
    assert lm.weights_hash() == before
    assert all(parameter.grad is None for parameter in lm.model.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_length": 0}, "max_length"),
        ({"heads": 3}, "multiple of heads"),
        ({"predict": "m"}, "predict"),
        ({"depths": ()}, "depth"),
        ({"depths": (1, 1)}, "each once"),
        ({"rank": 2}, "trunk"),
        ({"layout": "spiral"}, "spiral"),
        ({"layers": 0}, "layers"),
    ],
)
def test_shapes_that_cannot_be_are_refused_in_words(changes, words):
    with pytest.raises(UsageError, match=words):
        Shape(**{**vars(SHAPE), **changes})


def test_depths_and_lengths_beyond_the_model_are_refused(tiny_llama):
    with pytest.raises(UsageError, match="depths 0 to 2"):
        shape_for(tiny_llama, Shape(**{**vars(SHAPE), "depths": (0, 9)}))
    with pytest.raises(UsageError, match="128"):
        shape_for(tiny_llama, Shape(max_length=500))
