"""Refinement: the encoder moves a text's vectors by what the frozen decoder makes of them.

A feedback pass costs the decoder one forward and one backward pass, as a step of a fit does, and is
counted as one. It gives the gradient of the text's loss with respect to its vectors; and for each
token the decoder's last hidden state and the gradient there, which shows what is wrong with the
token. The network learns how to use them, where a fit follows the gradient alone. After every
feedback pass the vectors are judged by the same loss, and the network gets a gradient from each of
these losses; the inputs that a feedback pass gives to the network are constants to that gradient.
Source of the idea: J. Marino, Y. Yue, S. Mandt, "Iterative amortized inference", ICML 2018 (arXiv
1807.09356).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from prototokens.encoder.binding import Binding
from prototokens.encoder.decoder import Decoder, Judged, padded
from prototokens.encoder.network import Feedback, Network, states

Texts = Sequence[Sequence[int]]

# Refinements in a row without a new least loss that a text is given. Long texts need some: of 16
# with 128 tokens, every one had a loss that rose once within 40 refinements, while the mean went on
# falling (dev/LOG.md, 2026-11-28).
PATIENCE = 2


class FeedbackPass(NamedTuple):
    """What one forward and backward pass of the decoder gives for the vectors of some texts.

    Attributes:
        feedback: what a refinement takes from it.
        judged: loss, margins, and what is right.
    """

    feedback: Feedback
    judged: Judged

    @property
    def gradient(self) -> Float[Tensor, "rows vectors d_model"]:
        """Of each text's summed loss, with respect to its vectors."""
        return self.feedback.gradient


class Encoded(NamedTuple):
    """Vectors of texts.

    Attributes:
        feedback_passes: how many each text took.
        reached: whether the text was seen to come out with the margin that was asked for; False
            where it was never decoded, as without any refinement.
    """

    protos: Float32[Tensor, "rows vectors d_model"]
    feedback_passes: Int64[Tensor, "rows"]
    reached: Bool[Tensor, "rows"]


def feedback_pass(
    decoder: Decoder,
    protos: Float[Tensor, "rows vectors d_model"],
    texts: Texts,
    temperature: float = 1.0,
    binding: Binding | None = None,
) -> FeedbackPass:
    """Decode the vectors of texts, and find which way they should move.

    Args:
        temperature: of the loss whose gradient it is.
        binding: of a bound network, which is given the gradient at every input position.
    """
    longest = max(len(ids) for ids in texts)
    vectors = protos.detach().float()
    fed = (vectors if binding is None else binding.read(vectors, longest)).requires_grad_()
    judged = decoder.judge(fed, texts, temperature, gradient=True, placed=binding is not None)
    assert judged.scores.gradient is not None
    (gradient,) = torch.autograd.grad(judged.hidden, fed, judged.scores.gradient)
    inputs = None
    if binding is not None:
        inputs, gradient = gradient, binding.gather(gradient)
    positions = torch.tensor(
        [row * longest + at for row, ids in enumerate(texts) for at in range(len(ids))],
        device=protos.device,
    )

    def by_text(values: Tensor) -> Tensor:
        out = values.new_zeros(len(texts) * longest, values.shape[-1], dtype=torch.float32)
        return out.index_copy_(0, positions, values.detach().float()).view(len(texts), longest, -1)

    hidden = functional.rms_norm(by_text(judged.hidden), (judged.hidden.shape[-1],))
    feedback = Feedback(gradient, by_text(judged.scores.gradient), hidden, inputs)
    return FeedbackPass(feedback, judged)


def every_refinement(
    network: Network,
    decoder: Decoder,
    texts: Texts,
    noise: Callable[[Tensor, int], Tensor] = lambda protos, number: protos,
    temperature: float = 1.0,
    unrolled: int = 0,
) -> tuple[list[Float[Tensor, "rows vectors d_model"]], list[FeedbackPass]]:
    """Every text's vectors at first and after each refinement, each with a feedback pass.

    Training takes its loss from them.

    Args:
        noise: put on the vectors of the refinement with that number before their feedback pass.
        unrolled: refinements that go before, without a gradient; the first vectors that are
            returned then have none either.
    """
    see = partial(
        feedback_pass, decoder, texts=texts, temperature=temperature, binding=network.binding
    )
    with torch.no_grad() if unrolled else nullcontext():
        reading = network.begin(*_inputs(network, decoder, texts))
        for _ in range(unrolled):
            reading = network.refine(reading, see(network.vectors(reading)).feedback)
        protos = [network.vectors(reading)]
    passes = [see(noise(protos[0], 0))]
    for number in range(network.shape.refinements):
        reading = network.refine(reading, passes[-1].feedback)
        protos.append(network.vectors(reading))
        passes.append(see(noise(protos[-1], number + 1)))
    return protos, passes


def encode(
    network: Network, decoder: Decoder, texts: Texts, most: int | None = None, margin: float = 0.0
) -> Encoded:
    """Vectors of texts, float32.

    A text is refined until it comes out exactly, or its loss has not fallen below its least for
    more than `PATIENCE` refinements; then it has the vectors of its least loss. Where the
    refinements run out, the last vectors are judged too, by a forward pass alone.

    Args:
        most: refinements of a text; by default as many as the network was trained with.
        margin: that every position of an exact text exceeds, in logits.
    """
    most = network.shape.refinements if most is None else most
    reading = network.begin(*_inputs(network, decoder, texts))
    protos = network.vectors(reading)
    best, least = protos, protos.new_full((len(texts),), torch.inf)
    feedback_passes = torch.zeros(len(texts), dtype=torch.int64)
    gainless = torch.zeros(len(texts), dtype=torch.int64, device=protos.device)
    reached = torch.zeros(len(texts), dtype=torch.bool, device=protos.device)
    going = torch.arange(len(texts), device=protos.device)
    for number in range(most + 1 if most else 0):
        part = [texts[row] for row in going.tolist()]
        if number == most:
            seen, judged = None, decoder.judge(protos[going].detach(), part)
        else:
            seen, judged = feedback_pass(decoder, protos[going], part, binding=network.binding)
            feedback_passes[going.cpu()] += 1
        loss, margins = judged.losses(len(going)), judged.least_margins(len(going))
        there = margins > margin
        reached[going[there]] = True
        better = there | (loss < least[going])
        best = best.index_copy(0, going[better], protos[going[better]])
        least = least.index_copy(0, going[better], loss[better])
        gainless[going] = torch.where(better, 0, gainless[going] + 1)
        left = (~there & (gainless[going] <= PATIENCE)).nonzero()[:, 0]
        if seen is None or not len(left):
            break
        going = going[left]
        # Padding behind the longest text that goes on is left out.
        longest = max(len(texts[row]) for row in going.tolist())
        reading = network.refine(reading.of(left, longest), seen.of(left, longest))
        protos = protos.index_copy(0, going, network.vectors(reading))
    return Encoded(best, feedback_passes, reached)


def _inputs(network: Network, decoder: Decoder, texts: Texts) -> tuple[Tensor, Tensor]:
    ids, lengths = padded(texts, decoder.lm.device)
    return states(decoder.lm, ids, network.shape.depths, network.adapters), lengths
