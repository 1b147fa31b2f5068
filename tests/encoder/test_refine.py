"""Refinements: gradients from the decoder, how they move the vectors, and their count."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

import prototokens as pt
from prototokens.encoder.config import Shape
from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import BEYOND, Encoder
from prototokens.encoder.network import make_network
from prototokens.encoder.refine import PATIENCE, encode, every_refinement, feedback_pass
from prototokens.encoder.starts import MISSED_RATE, begin, raw
from prototokens.engine.rows import Start
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.training.config import Running, Training
from prototokens.training.train import Trainer, train

SHAPE = Shape(
    layout="mixed:2",
    max_length=7,
    width=16,
    layers=1,
    heads=2,
    feed_forward=24,
    refinements=2,
    refine_layers=1,
)
TEXTS = [(5, 6, 7, 8, 9, 1, 2), (3, 4), (200,), (9, 9, 9, 9)]


@pytest.fixture
def decoder(tiny_llama):
    return Decoder(tiny_llama, Layout.named(SHAPE.layout))


@pytest.fixture
def network(tiny_llama):
    """Every part of it has a say, as in the middle of a training."""
    made, generator = make_network(tiny_llama, SHAPE, 0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture
def taught(tiny_llama, tmp_path):
    """An encoder that has learned four texts by heart, with refinements."""
    texts = [
        tuple((7 * number + 3 * position) % 256 for position in range(4)) for number in range(4)
    ]
    shape = replace(SHAPE, max_length=4, width=64, feed_forward=128)
    training = Training(texts="random-tokens", steps=120, rows=4, pool=1000, warmup=10, rate=0.01)
    trainer = Trainer(tiny_llama, shape, training, Running(tmp_path / "work", measured=4))
    trainer.pool.batch = lambda training, step: texts
    for step in range(training.steps):
        trainer.step(step)
    return Encoder.of(tiny_llama, trainer.network), texts


def test_a_feedback_pass_gives_the_gradients_of_float64(tiny_llama, decoder, network):
    protos = encode(network, decoder, TEXTS, most=0).protos.detach()
    found = feedback_pass(decoder, protos, TEXTS)
    feedback, gradient = found.feedback, found.gradient
    assert feedback.gradient is gradient
    body = type(tiny_llama.model)(tiny_llama.model.config).double()
    body.load_state_dict(tiny_llama.model.state_dict())
    for row, ids in enumerate(TEXTS):
        vectors, count = protos[row].double().requires_grad_(), len(ids)
        index = decoder.layout.index(count)
        hidden = body.model(inputs_embeds=vectors[index][None]).last_hidden_state[0]
        loss = functional.cross_entropy(body.lm_head(hidden), torch.tensor(ids), reduction="sum")
        by_vectors, by_state = torch.autograd.grad(loss, (vectors, hidden))
        torch.testing.assert_close(gradient[row].double(), by_vectors, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(
            feedback.error[row, :count].double(), by_state, rtol=1e-3, atol=1e-6
        )
        normed = functional.rms_norm(hidden.detach(), hidden.shape[-1:])
        torch.testing.assert_close(
            feedback.hidden[row, :count].double(), normed, rtol=1e-3, atol=1e-5
        )
        assert not feedback.error[row, count:].any()
        assert not feedback.hidden[row, count:].any()


def test_a_texts_refined_vectors_do_not_depend_on_the_batch(decoder, network):
    together = encode(network, decoder, TEXTS)
    for number, ids in enumerate(TEXTS):
        alone = encode(network, decoder, [ids])
        torch.testing.assert_close(together.protos[number], alone.protos[0], rtol=1e-3, atol=1e-5)
        assert together.feedback_passes[number] == alone.feedback_passes[0]


def test_a_text_whose_loss_rises_keeps_the_vectors_it_had(tiny_llama, decoder, network):
    """Untrained maps move the vectors anywhere.

    No text ends worse than it began, by the loss where it was decoded.
    """
    losses = {
        most: _losses(decoder, encode(network, decoder, TEXTS, most=most).protos)
        for most in (0, 1, 6)
    }
    many = encode(network, decoder, TEXTS, most=6)
    assert int(many.feedback_passes.min()) < 6, "nothing to test: every refinement helped"
    for row in range(len(TEXTS)):
        if many.feedback_passes[row] == 2 + PATIENCE:
            assert losses[6][row] == pytest.approx(float(losses[0][row]), rel=1e-4)
    # The last refinement is judged too, though no further one follows it.
    assert (losses[1] <= losses[0] * (1 + 1e-4)).all()
    assert (losses[6] <= losses[0] * (1 + 1e-4)).all()


def _losses(decoder, protos):
    return decoder.judge(protos.detach(), TEXTS).losses(len(TEXTS))


def test_each_refinement_moves_the_vectors_and_learns_from_the_loss_where_they_are(
    tiny_llama, decoder, network
):
    protos, passes = every_refinement(network, decoder, TEXTS)
    assert len(protos) == len(passes) == 1 + SHAPE.refinements
    for before, after in pairwise(protos):
        assert float((after - before).detach().abs().amin(dim=(1, 2)).max()) > 0
    losses = [one.judged.losses(len(TEXTS)) for one in passes]
    for most, usable in ((0, losses[0] == losses[0]), (1, losses[1] <= losses[0])):
        alike = encode(network, decoder, TEXTS, most=most).protos
        torch.testing.assert_close(
            protos[most][usable].detach(), alike[usable].detach(), rtol=1e-3, atol=1e-5
        )
    torch.autograd.backward(protos, [one.gradient for one in passes])
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert float(network.refiner.write.weight.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in tiny_llama.model.parameters())


def test_before_it_is_trained_a_refinement_changes_nothing(tiny_llama, decoder):
    network = make_network(tiny_llama, SHAPE, 0)
    assert torch.equal(
        encode(network, decoder, TEXTS).protos, encode(network, decoder, TEXTS, most=0).protos
    )


def test_with_e_alone_predicted_the_others_are_not_moved(tiny_llama, decoder):
    network = make_network(tiny_llama, replace(SHAPE, predict="e"), 0)
    torch.nn.init.ones_(network.refiner.write.weight)
    first, last = (encode(network, decoder, TEXTS, most=most).protos for most in (0, 2))
    assert not torch.allclose(first[:, 0], last[:, 0])
    assert torch.equal(first[:, 1:], last[:, 1:])


def test_exact_texts_take_no_further_feedback_pass(tiny_llama, taught):
    encoder, texts = taught
    encoded = encoder.batch(tiny_llama, texts)
    exact = encoder.batch(tiny_llama, texts, refinements=0)
    decoder = Decoder(tiny_llama, encoder.layout)
    right_at_once = decoder.judge(exact.protos, texts).exact(len(texts))
    assert bool(right_at_once.any()), "nothing to test: no text is exact without refinement"
    assert encoded.feedback_passes[right_at_once].tolist() == [1] * int(right_at_once.sum())
    torch.testing.assert_close(encoded.protos[right_at_once], exact.protos[right_at_once])
    assert not exact.feedback_passes.any()


def test_with_a_margin_refining_goes_on_until_it_is_there(tiny_llama, taught):
    encoder, texts = taught
    decoder = Decoder(tiny_llama, encoder.layout)

    def encoded(margin):
        found = encoder.batch(tiny_llama, texts, margin=margin)
        judged = decoder.judge(found.protos, texts)
        return found.feedback_passes, judged.least_margins(len(texts)), judged.losses(len(texts))

    passes, margins, losses = encoded(0.0)
    between = float(margins.sort().values[1])  # two texts have no more
    more, grown, fallen = encoded(between)
    assert torch.equal(more > passes, margins <= between)
    there_or_no_worse = (
        (grown > between) | (fallen <= losses * (1 + 1e-4)) | (more == BEYOND * SHAPE.refinements)
    )
    assert there_or_no_worse.all()
    (start,) = begin(tiny_llama, texts[:1], encoder.layout, encoder, margin=between).starts
    assert start.row_steps == int(more[0])


def test_failed_texts_are_known_and_fits_continue_from_them_in_smaller_steps(tiny_llama, taught):
    encoder, texts = taught
    unknown = [(250, 3, 77, 12), (9, 200, 14, 91)]  # nothing like what it has learned
    asked = 0.1
    encodings = encoder.encodings(tiny_llama, [*texts, *unknown], margin=asked)
    decoder = Decoder(tiny_llama, encoder.layout)
    protos = torch.stack([one.protos for one in encodings])
    margins = decoder.judge(protos, [*texts, *unknown]).least_margins(len(encodings))
    assert [one.reached for one in encodings] == (margins > asked).tolist()
    assert {one.reached for one in encodings} == {True, False}, "nothing to test"
    begun = begin(tiny_llama, [*texts, *unknown], encoder.layout, encoder, margin=asked)
    rates = [start.lr_scale for start in begun.starts]
    assert rates == [1.0 if one.reached else MISSED_RATE for one in encodings]
    missed = sum(not one.reached for one in encodings)
    assert f"({missed} of them not right yet)" in begun.words
    recipe = pt.Recipe.named("fast", margin=asked)
    fitted = pt.fit(tiny_llama, unknown, layout=encoder.layout, recipe=recipe, start=encoder)
    assert all(one.exact for one in fitted)


def test_feedback_passes_count_as_row_steps(tiny_llama, taught):
    encoder, texts = taught
    passes = [encoding.feedback_passes for encoding in encoder.encodings(tiny_llama, texts)]
    assert all(0 < count <= BEYOND * SHAPE.refinements for count in passes)
    assert [solution.row_steps for solution in raw(tiny_llama, encoder, texts)] == passes
    starts = begin(tiny_llama, texts, encoder.layout, encoder).starts
    assert [start.row_steps for start in starts] == passes
    counted = pt.fit(tiny_llama, texts, layout=encoder.layout, start=starts)
    free = pt.fit(
        tiny_llama,
        texts,
        layout=encoder.layout,
        start=[start._replace(row_steps=0) for start in starts],
    )
    assert [one.row_steps for one in counted] == [
        one.row_steps + count for one, count in zip(free, passes, strict=True)
    ]
    assert all(one.exact for one in counted)
    with pytest.raises(UsageError, match="from zero"):
        pt.fit(
            tiny_llama,
            texts[:1],
            layout=encoder.layout,
            start=[Start(starts[0].protos, row_steps=-1)],
        )


def test_an_encoder_without_refinements_refuses_them(tiny_llama):
    plain = Encoder.of(tiny_llama, make_network(tiny_llama, replace(SHAPE, refinements=0), 0))
    with pytest.raises(UsageError, match="without any"):
        plain.encodings(tiny_llama, TEXTS, refinements=1)
    assert len(plain.encodings(tiny_llama, TEXTS, refinements=0)) == len(TEXTS)


def test_feedback_passes_are_at_temperature_1(tiny_llama, training, running):
    with pytest.raises(UsageError, match="temperature 1"):
        Trainer(tiny_llama, SHAPE, replace(training, temperature=0.5), running)


def test_held_out_rows_count_feedback_passes(tiny_llama, training, running, tmp_path):
    shape = replace(SHAPE, max_length=6)
    encoder = train(tiny_llama, shape, training, tmp_path / "out", running)
    rows = encoder.config["held_out"]["rows"]
    assert all(0 < row["looks"] <= BEYOND * SHAPE.refinements for row in rows)
    assert (
        f"2 in training, up to {2 * BEYOND} in use" in (tmp_path / "out" / "README.md").read_text()
    )


def test_unrolled_refinements_go_before_and_take_no_gradient(decoder, network):
    protos, _ = every_refinement(network, decoder, TEXTS)
    later, passes = every_refinement(network, decoder, TEXTS, unrolled=1)
    assert not later[0].requires_grad
    assert all(one.requires_grad for one in later[1:])
    torch.testing.assert_close(later[0], protos[1].detach(), rtol=1e-4, atol=1e-5)
    torch.autograd.backward(later[1:], [one.gradient for one in passes[1:]])
    assert float(network.refiner.write.weight.grad.abs().max()) > 0
    assert network.read.weight.grad is None  # reading the text went before
