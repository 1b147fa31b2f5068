"""The work of `prototokens encode`: fit, save, check the file, and keep solved chunks."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common
from prototokens.errors import FileError, Interrupted

if TYPE_CHECKING:
    from prototokens.encoding import PlannedEncoding
    from prototokens.engine.progress import Progress
    from prototokens.planning.chunks import CostForecast
    from prototokens.ptok.encoded import EncodedText
    from prototokens.ptok.spans import Solved

# Seconds between saves of the solved chunks, so that even a killed run can be resumed.
SAVE_EVERY = 30.0


def encode_and_save(
    planned: PlannedEncoding, output: Path, original: Path | None, quiet: bool
) -> dict[str, Any]:
    """Encode, save, read back and decode.

    Args:
        original: the file of the text, if it has one: who may not read that may not read the
            output.

    Returns:
        The keys and values of `--json`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the message says what is kept.
    """
    from prototokens.decoding import decode_text
    from prototokens.planning.throughput import measured_pace
    from prototokens.ptok.encoded import EncodedText

    lm, plan, options = planned.lm, planned.plan, planned.options
    # A vector that all chunks share ties their fits together, which the forecast does not know.
    forecast = None if options.share else plan.forecast
    pace = None
    if forecast is not None and not quiet:
        pace = measured_pace(lm, planned.source.ids, plan, planned.recipe, options.rows)
    began = time.monotonic()
    solved = SolvedChunks.of(planned, output, original)
    if not quiet:
        _announce(planned, forecast, pace, solved)
    starts: list[str] = []
    encoded = _fit_and_save(planned, forecast, solved, output, quiet, starts.append)
    solved.path.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    # The file is what counts, as a user will read it.
    matches = decode_text(lm, EncodedText.load(output)).matches
    return {
        "output": str(output),
        "model": lm.name,
        **_content(encoded),
        "bytes": output.stat().st_size,
        "exact": encoded.exact and matches,
        "starts": "; ".join(starts),
        "seconds": round(seconds, 3),
        **_forecast(forecast, pace),
    }


@dataclass
class SolvedChunks:
    """The chunks that are solved, in a file beside the output until that is complete.

    Attributes:
        path: the file.
        key: of the work that it belongs to.
        original: the file of the text, whose permissions it gets.
        chunks: the solutions.
        saved: when they were last written, by the monotonic clock.
    """

    path: Path
    key: str
    original: Path | None
    chunks: Solved
    saved: float = field(default_factory=time.monotonic)

    @staticmethod
    def of(planned: PlannedEncoding, output: Path, original: Path | None) -> SolvedChunks:
        """The chunks of an earlier run of the same work, if there was one."""
        from prototokens.ptok.resume import load_partial, partial_key, partial_path

        ids, options = planned.source.ids, planned.options
        path, key = partial_path(output), partial_key(planned.lm, ids, options)
        # Chunks that share a vector are solved together or not at all: none can be kept.
        chunks = {} if options.share else load_partial(path, key, planned.plan.layout, ids)
        return SolvedChunks(path, key, original, chunks)

    @property
    def tokens(self) -> int:
        """Tokens of the chunks."""
        return sum(span.end - span.start for span in self.chunks)

    def save(self) -> None:
        """Write the file.

        Raises:
            FileError: it cannot be written.
        """
        from prototokens.ptok.resume import save_partial

        save_partial(self.path, self.key, self.chunks, self.original)

    def save_now_and_then(
        self, show: Callable[[Progress], None] | None, progress: Progress
    ) -> None:
        """Show the progress, and write the file where the last time was long ago."""
        if show:
            show(progress)
        if not self.chunks or time.monotonic() - self.saved <= SAVE_EVERY:
            return
        try:
            self.save()
        except FileError as error:
            # A disk that is full now may have room when the output is written.
            click.echo(
                f"prototokens: warning: what is solved could not be kept on the way: {error}",
                err=True,
            )
        self.saved = time.monotonic()


def _announce(
    planned: PlannedEncoding,
    forecast: CostForecast | None,
    pace: float | None,
    solved: SolvedChunks,
) -> None:
    """Print the plan, its forecast, and how much of it is solved already."""
    tokens = len(planned.source.ids)
    words = planned.plan.describe()
    if forecast:
        remaining = (1 - solved.tokens / tokens) * forecast.row_steps
        words += f"; {forecast._replace(row_steps=remaining).describe(pace)}"
    click.echo(words, err=True)
    if solved.chunks:
        click.echo(
            f"taking up {solved.tokens} of {tokens} tokens from {solved.path}",
            err=True,
        )


def _fit_and_save(
    planned: PlannedEncoding,
    forecast: CostForecast | None,
    solved: SolvedChunks,
    output: Path,
    quiet: bool,
    log: Callable[[str], None],
) -> EncodedText:
    """Fit the chunks and write the output; when stopped, keep those that are solved.

    Args:
        log: takes a sentence about the starts.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
    """
    row_steps = None if forecast is None else forecast.row_steps / len(planned.plan.lengths)
    try:
        with _sigterm_as_ctrl_c(), common.fit_progress(quiet, row_steps) as show:
            encoded = planned.run(
                kept=solved.chunks,
                progress=partial(solved.save_now_and_then, show),
                log=log,
            )
            encoded.save(output, solved.original)
            return encoded
    except KeyboardInterrupt:
        if not solved.chunks:
            raise Interrupted("stopped before any chunk was solved: nothing is kept") from None
        solved.save()
        raise Interrupted(
            f"stopped: {solved.tokens} of {len(planned.source.ids)} tokens are solved and kept in"
            f" {solved.path}; the same command goes on from there"
        ) from None


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM stop the work as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _content(encoded: EncodedText) -> dict[str, Any]:
    """What the file holds, what its fit took, and how far it is certified."""
    from statistics import median

    header, numbers = encoded.header, encoded.vectors.numel()
    certificate = header.certificate
    return {
        "layout": header.layout,
        "prefix": len(header.prefix),
        "tokens": header.text.tokens,
        "chunks": len(header.chunks),
        "vectors": encoded.vectors.shape[0],
        "floats": numbers,
        "bits": encoded.bits / numbers if numbers else 32.0,
        "patched": header.patched,
        "stored": sum(header.chunks[number] for number in header.stored),
        "edited": header.edited,
        "accuracy": header.accuracy,
        "steps_median": float(median(header.steps)),
        "row_steps": header.row_steps,
        "min_margin": header.min_margin,
        "certified": certificate.level if certificate and encoded.certified else "none",
        "noise_radius": certificate.noise_radius if certificate else None,
        "worst_radius": certificate.worst_radius if certificate else None,
    }


def _forecast(forecast: CostForecast | None, pace: float | None) -> dict[str, Any]:
    """The forecast's values, each None without one."""
    steps = forecast and forecast.row_steps
    return {
        "forecast_exact": forecast and round(forecast.exact, 4),
        "forecast_steps": forecast and round(forecast.steps, 1),
        "forecast_row_steps": None if steps is None else round(steps, 1),
        "forecast_seconds": None if steps is None or pace is None else round(steps / pace, 1),
    }
