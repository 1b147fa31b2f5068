"""Training of an encoder through the frozen decoder's own loss.

From a source of texts to a finished folder.

A run is a pure function of its arguments, the order of its data included: killed at any moment and
started again with the same ones, it goes on from its last checkpoint and ends with the same weights
(on one machine, with as many threads). With more `steps` it goes on from the checkpoint before the
rate fell.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototokens._util.extras import need
from prototokens._util.settings import as_json
from prototokens._util.words import counted
from prototokens.encoder.config import Shape
from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import SHIPPED, Encoder
from prototokens.encoder.folder import CONFIG
from prototokens.encoder.network import Block, Network, make_network
from prototokens.encoder.refine import Encoded, encode, every_refinement
from prototokens.errors import FileError, Interrupted, ModelError, UsageError
from prototokens.lab.catalogue import describe_seconds
from prototokens.lab.passages import without_folders
from prototokens.lab.texts import Texts
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.training.card import draw, write_card
from prototokens.training.checkpoint import (
    BEFORE_DECAY,
    NAME,
    Reached,
    State,
    about_run,
    cut_log,
    find_start,
    load_checkpoint,
    save_checkpoint,
)
from prototokens.training.config import Running, Training
from prototokens.training.data import Pool, open_pool
from prototokens.training.distil import Teacher, load_solutions
from prototokens.training.evaluate import by_length, lengths_of, of_encoder
from prototokens.training.muon import Muon
from prototokens.training.proof import prove, tune

TRIALS = 2  # timed batches before a training, of which the faster counts


class Trainer:
    """A run in memory: the network, its optimisers, its data, and one step of it."""

    def __init__(self, lm: FrozenLM, shape: Shape, training: Training, running: Running):
        if shape.refinements and training.temperature != 1:
            raise UsageError(
                "refinements take the loss at temperature 1: pass --temperature 1, or"
                " --refinements 0"
            )
        running.work.mkdir(parents=True, exist_ok=True)
        self.lm, self.training, self.running = lm, training, running
        self.network = make_network(lm, shape, training.seed)
        self.shape = self.network.shape
        if training.init:
            self._begin_with(Encoder.load(training.init))
        self.decoder = Decoder(lm, shape.arrangement)
        self.pool: Pool = open_pool(lm, training, shape.max_length, running.work)
        self.held_out = self._held_out()
        self.teacher: Teacher | None = None
        if training.solutions:
            self.teacher = load_solutions(
                Path(training.solutions), lm, shape.layout, shape.max_length
            )
        self.state = State(self.network, optimisers(self.network, training))
        if running.compile:
            self.network.begin, self.network.refine = (
                torch.compile(self.network.begin),
                torch.compile(self.network.refine),
            )

    def _begin_with(self, encoder: Encoder) -> None:
        """Take the weights of another encoder."""
        encoder.check(self.lm)
        if encoder.shape != self.shape:
            raise UsageError(
                f"{self.training.init} has another shape ({encoder.shape}) than the one asked for"
                f" ({self.shape}): give the options that it was trained with"
            )
        self.network.load_state_dict(encoder.network.state_dict())

    def _held_out(self) -> list[tuple[int, ...]]:
        count, training = self.running.measured, self.training
        if training.held_out:
            passages = Texts(self.lm, [training.held_out], training.seed).passages(
                count, self.shape.max_length
            )
            return [passage.ids for passage in passages]
        return self.pool.held_out(count)

    def encode(self, texts: Sequence[Sequence[int]]) -> Encoded:
        """Vectors of texts, in the dtype that the run multiplies in."""
        with self._low():
            return encode(self.network, self.decoder, texts)

    def _low(self) -> torch.autocast:
        return torch.autocast(
            self.lm.device.type, torch.bfloat16, enabled=self.training.dtype == "bfloat16"
        )

    def step(self, step: int) -> dict[str, Any]:
        """One optimiser step; returns what is logged of it."""
        training = self.training
        tokens, nats, right = self.gradients(step)
        for optimiser, rate in zip(
            self.state.optimisers, (training.matrix_rate, training.rate), strict=True
        ):
            for group in optimiser.param_groups:
                group["lr"] = rate * training.factor(step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return {
            "step": step + 1,
            "tokens": tokens,
            "nats": round(nats / tokens, 5),
            "accuracy": round(right / tokens, 5),
        }

    def gradients(self, step: int) -> tuple[int, float, int]:
        """Add a step's gradients to the network's; returns tokens, nats, and how many are right."""
        training, texts = self.training, self.pool.batch(self.training, step)
        tokens = sum(len(ids) for ids in texts)
        nats, right = 0.0, 0
        for first in range(0, len(texts), self.running.rows_at_a_time):
            part = texts[first : first + self.running.rows_at_a_time]
            noise = partial(_noisy, training=training, step=step, first=first)
            with self._low():
                protos, passes = every_refinement(
                    self.network,
                    self.decoder,
                    part,
                    noise,
                    training.temperature,
                    training.unrolled_at(step) if self.shape.refinements else 0,
                )
            moved = [pair for pair in zip(protos, passes, strict=True) if pair[0].requires_grad]
            torch.autograd.backward(
                [vectors for vectors, _ in moved], [one.gradient / tokens for _, one in moved]
            )
            scores = passes[-1].judged.scores
            nats += float(scores.loss.double().sum())
            right += int(scores.right.sum())
        if self.teacher is not None:
            taught, protos = self.teacher.batch(training, step)
            away = (self.encode(taught).protos - protos.to(self.lm.device)) / self.network.std
            (training.distil * away.square().mean()).backward()
        return tokens, nats, right

    def forecast(self, step: int) -> float:
        """Seconds that the steps from `step` on will take, from trials that change nothing.

        A step's time grows with its tokens; trials have those of the last step.
        """
        took = []
        for _ in range(TRIALS):
            began = time.monotonic()
            tokens, *_ = self.gradients(self.training.steps - 1)
            for optimiser in self.state.optimisers:
                optimiser.zero_grad(set_to_none=True)
            took.append((time.monotonic() - began) / tokens)
        lengths = self.training.lengths
        left = range(step, self.training.steps)
        return min(took) * sum(sum(lengths(at, self.shape.max_length)) for at in left)

    @torch.no_grad()
    def measured(self) -> list[dict[str, Any]]:
        """Held-out accuracy and exact share by length, at this moment."""
        return by_length(
            self.decoder, self.encode, self.held_out, lengths_of(self.shape.max_length)
        )


def train(lm: FrozenLM, shape: Shape, training: Training, out: Path, running: Running) -> Encoder:
    """Train an encoder and write its folder; returns it as it is read back from there.

    Raises:
        TextError: a source with too little text.
        UsageError: settings that cannot be meant, or a work folder of another run.
        FileError: a checkpoint or an output that cannot be read or written.
        ModelError: the loss is not finite any more.
        Interrupted: `running.stop` asked for it.
    """
    need("matplotlib", "plots", "the picture on an encoder's card")
    before = lm.weights_hash()
    try:
        trainer = Trainer(lm, shape, training, running)
    except OSError as error:
        raise FileError(
            f"{running.work} cannot be used ({error.strerror or error}): name another --work"
        ) from error
    reached = _run(trainer)
    assert lm.weights_hash() == before, "the frozen model has changed"
    named = replace(
        training,
        texts=without_folders(training.texts),
        held_out=without_folders(training.held_out),
        init=Path(training.init).name,
    )
    known = {"training": as_json(named), "trained": reached._asdict()}
    Encoder.of(lm, trainer.network, **known).save(out)
    # What is measured is what ships: the weights as they are rounded in the file.
    encoder = Encoder.load(out)
    encoder.config["held_out"] = of_encoder(
        lm, encoder, trainer.held_out, training.held_out or training.texts
    )
    _prove(lm, encoder, trainer.held_out, running)
    draw(running.work / "log.jsonl", encoder, out / "held-out.svg")
    encoder.save(out, write_card(encoder))
    return Encoder.load(out)


def _run(trainer: Trainer) -> Reached:
    """All steps that are left, with log and checkpoints."""
    training, running = trainer.training, trainer.running
    about = about_run(trainer.lm.fingerprint, trainer.shape)
    reached = Reached()
    if found := find_start(running.work, about, training, running.afresh):
        path, reached = found
        load_checkpoint(path, trainer.state)
    log = cut_log(running.work, reached.step)
    if running.log and reached.step < training.steps:
        running.log(_outlook(trainer, reached.step))
    saved = time.monotonic()
    began = saved - reached.seconds
    with log.open("a", encoding="utf-8", buffering=1) as lines:
        while reached.step < training.steps:
            if reached.step == training.decay_start:
                save_checkpoint(
                    running.work / BEFORE_DECAY, trainer.state, about, training, reached
                )
            row = trainer.step(reached.step)
            reached = Reached(
                row["step"], reached.tokens + row["tokens"], round(time.monotonic() - began, 1)
            )
            if not row["nats"] < float("inf"):
                raise ModelError(
                    f"the loss was not finite at step {row['step']}: pass lower rates, or --dtype"
                    " float32"
                )
            row = {**row, "tokens": reached.tokens, "rate": training.factor(row["step"] - 1)}
            if reached.step % running.measure_every == 0 or reached.step == training.steps:
                row["held_out"] = trainer.measured()
            row["seconds"] = reached.seconds
            lines.write(json.dumps(row) + "\n")
            if running.on_progress:
                running.on_progress(row)
            stopped = running.stop is not None and running.stop()
            if (
                stopped
                or time.monotonic() - saved >= running.save_every
                or reached.step == training.steps
            ):
                save_checkpoint(running.work / NAME, trainer.state, about, training, reached)
                saved = time.monotonic()
            if stopped and reached.step < training.steps:
                raise Interrupted(
                    f"stopped at step {reached.step} of {training.steps}: the same command goes on"
                    " from there"
                )
    return reached


def _outlook(trainer: Trainer, step: int) -> str:
    """How long the rest of a training takes here, and what such trainings have led to."""
    training, longest = trainer.training, trainer.shape.max_length
    seconds = trainer.forecast(step)
    tokens = sum(sum(training.lengths(at, longest)) for at in range(training.steps))
    words = (
        f"{counted(training.steps - step, 'step')} to go, about {describe_seconds(seconds)} here"
        f" by a timed trial; {tokens:,} training tokens in all"
    )
    for path in sorted(SHIPPED.rglob(CONFIG)):
        config = json.loads(path.read_text(encoding="utf-8"))
        row = config["held_out"]["rows"][-1]
        words += (
            f"\nfor comparison: {config['shape']['layout']} of {config['model']['name']} was"
            f" trained on {config['trained']['tokens']:,} tokens, and {row['exact']:.0%} of its"
            f" {row['texts']} held-out texts of {row['length']} tokens come out exactly"
        )
    return words


def optimisers(network: Network, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    matrices = [
        parameter for block in blocks for parameter in block.parameters() if parameter.ndim == 2
    ]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    dtype = getattr(torch, training.dtype)
    return [
        Muon(matrices, lr=training.matrix_rate, dtype=dtype),
        torch.optim.AdamW(others, lr=training.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _noisy(protos: Tensor, number: int, *, training: Training, step: int, first: int) -> Tensor:
    """Vectors with noise, a share of their root mean square.

    The same whenever the step is taken again.
    """
    if training.noise == 0:
        return protos
    drawn = np.random.default_rng([training.seed, step, 2, first, number]).standard_normal(
        tuple(protos.shape), dtype=np.float32
    )
    drawn = torch.from_numpy(drawn).to(protos.device)
    return protos + training.noise * protos.detach().square().mean().sqrt() * drawn


def _prove(
    lm: FrozenLM, encoder: Encoder, texts: Sequence[Sequence[int]], running: Running
) -> None:
    """Record, for each length, the rate of fits from the encoder's vectors and what they save.

    The rate is chosen on other texts, where there are any.
    """
    part = texts[: running.proved]
    others = texts[running.proved :][: max(1, running.proved // 2)] or part
    lengths = (
        sorted({min(length, encoder.shape.max_length) for length in running.prove_at})
        if part
        else []
    )
    encoder.config["rates"] = [
        tune(lm, encoder, [ids[:length] for ids in others], log=running.log) for length in lengths
    ]
    encoder.config["proof"] = [
        prove(lm, encoder, [ids[:length] for ids in part], log=running.log) for length in lengths
    ]
