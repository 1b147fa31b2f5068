"""A fit that can be watched, at a pace that eyes follow, and stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread

from prototokens.encoding import PlannedEncoding
from prototokens.engine.progress import Progress
from prototokens.explorer import charts, show
from prototokens.explorer.racing import Stopped
from prototokens.explorer.tokens import Piece, joined, read
from prototokens.lm.untrained import untrained_positions
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.spans import Solved
from prototokens.solution import Chunk

EVERY = 0.12  # seconds from picture to picture
MAX_SHOWN = 24  # chunks whose text is decoded for each picture
PACED = 40  # steps that take `STEP_LASTS` at least, where a fit is slowed down to be watched
STEP_LASTS = 0.15  # seconds


class Curves:
    """Accuracy and loss of a fit, step by step."""

    def __init__(self) -> None:
        self.accuracy: list[float] = []
        self.loss: list[float] = []

    def add(self, now: Progress) -> None:
        self.accuracy.append(now.accuracy)
        self.loss.append(now.loss)

    def drawn(self) -> str:
        """Both as charts, over the steps so far."""
        steps = list(range(len(self.loss)))
        x = charts.Axis("step", 0)
        right = charts.Line("tokens right", steps, self.accuracy)
        loss = charts.Line("loss", steps, [max(value, 1e-6) for value in self.loss])
        share = charts.Axis("share of the tokens", 0, 1, percent=True)
        nats = charts.Axis("nats a token, logarithmic", log=True)
        return show.cards(
            charts.lines("Tokens right", x, share, [right]),
            charts.lines("Loss", x, nats, [loss]),
            grow=True,
        )


class LiveFit:
    """An encoding that runs in a thread of its own.

    Attributes:
        outcome: the encoded text, or what went wrong, once it has ended.
        curves: accuracy and loss so far.
    """

    def __init__(self, planned: PlannedEncoding, stop: Event, paced: bool = False):
        self.planned, self.stop, self.paced = planned, stop, paced
        self.lm, self.ids = planned.lm, planned.source.ids
        self.spans = planned.plan.spans()
        recipe = planned.recipe
        lead = recipe.untrained_slack * recipe.margin
        self.left = set(untrained_positions(self.lm, self.ids, lead)) if lead else set()
        self.solved: Solved = {}
        self.frames: Queue[str] = Queue(maxsize=1)
        self.curves = Curves()
        self.outcome: EncodedText | Exception | None = None
        self._last = 0.0
        self._waited = 0.0
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def watch(self) -> Iterator[str]:
        """Pictures of the fit until it has ended; leaving early stops it."""
        try:
            while self.thread.is_alive() or not self.frames.empty():
                try:
                    yield self.frames.get(timeout=0.1)
                except Empty:
                    continue
        finally:
            if self.thread.is_alive():
                self.stop.set()
            self.thread.join()

    def _run(self) -> None:
        try:
            self.outcome = self.planned.run(progress=self._show, kept=self.solved)
        except Exception as error:  # handed over to the thread that watches, and raised there
            self.outcome = error

    def _show(self, now: Progress) -> None:
        if self.stop.is_set():
            raise Stopped
        self.curves.add(now)
        began = time.monotonic()
        if began - self._last >= EVERY or now.accuracy == 1:
            self._last = began
            with suppress(Full):  # the page has not shown the one before yet
                self.frames.put_nowait(self._frame(now))
        if self.paced and len(self.curves.loss) <= PACED:
            self._waited += self._pause(STEP_LASTS - (time.monotonic() - began))

    def _pause(self, seconds: float) -> float:
        """Wait, or until Stop; gives the seconds that it took."""
        began = time.monotonic()
        self.stop.wait(max(0.0, seconds))
        return time.monotonic() - began

    def _frame(self, now: Progress) -> str:
        pieces, margin = self._pieces(now)
        figures = {
            "step": f"{len(self.curves.loss) - 1:,}",
            "tokens right": f"{now.accuracy:.0%}",
            "loss, nats": f"{now.loss:.3f}",
            "least margin": "…" if margin is None else f"{margin:.2f}",
            "seconds of work": f"{max(0.0, now.seconds - self._waited):.1f}",
        }
        if len(self.spans) > 1:
            figures["chunks done"] = f"{now.solved} of {now.total}"
        text = show.text(joined(self.lm, pieces, self.ids))
        return show.facts(figures) + text + self.curves.drawn()

    def _pieces(self, now: Progress) -> tuple[list[Piece], float | None]:
        """The whole text as it decodes just now, and the least margin of what is at work."""
        pieces: list[Piece] = []
        least, decoded = None, 0
        first_attempt = now.total == len(self.spans)
        for order, span in enumerate(self.spans):
            ids = self.ids[span.start : span.end]
            protos = now.vectors_of(order) if first_attempt and decoded < MAX_SHOWN else None
            if protos is None:
                right = True if span in self.solved else None
                pieces += [Piece(token, None, right) for token in ids]
                continue
            decoded += 1
            got = read(self.lm, Chunk(protos, self.planned.plan.layout, len(ids)), ids)
            for position, (token, margin, true) in enumerate(
                zip(got.ids.tolist(), got.margin.tolist(), ids, strict=True), span.start
            ):
                if position in self.left:
                    pieces.append(Piece(true, patched=True))
                    continue
                pieces.append(Piece(token, margin, token == true))
                least = margin if least is None else min(least, margin)
        return pieces, least
