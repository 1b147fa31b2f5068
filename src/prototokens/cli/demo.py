"""`prototokens demo`: the whole idea in a minute, on the built-in model."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototokens._util.words import counted
from prototokens.cli import common

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from prototokens.engine.progress import Progress
    from prototokens.layout import Layout
    from prototokens.lm.frozen_lm import FrozenLM

FRAME_EVERY = 0.15  # seconds between pictures on a terminal
LINE_EVERY = 0.5  # seconds between lines where the output is no terminal
NEXT = """
[bold]next[/]
   prototokens encode --text "a sentence of yours" -o mine.ptok
   prototokens decode mine.ptok
   prototokens explore      the same in a browser (needs the extra explorer)
"""


@click.command(short_help="Show the whole idea in a minute.")
@common.model_options
@common.seed_option
@common.output_options
def demo(
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    seed: int,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Show it: a sentence in two vectors and a story in chunks, both decoded from their files.

    Then an encoder's vectors of the sentence, which take no fit. The model that decodes them did
    not change.
    """
    common.check_model_name(model, revision)
    from rich.console import Console

    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False, quiet=quiet)
    began = time.monotonic()
    lm = common.load_model(model, revision, device, dtype)
    before = lm.weights_hash()
    console.print(
        f"[bold]model[/] {lm.name}: d_model {lm.d_model}, vocabulary {lm.vocab_size}, frozen\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        sentence = _sentence(lm, seed, Path(folder) / "sentence.ptok", console)
        rates = _clocks(lm, console)
        story = _story(lm, seed, Path(folder) / "story.ptok", console, quiet)
    encoded = _encoder_pass(lm, console)
    unchanged = lm.weights_hash() == before
    seconds = time.monotonic() - began
    console.print(
        "\nthe model's weights, hashed before and after:"
        f" {'[green]unchanged[/]' if unchanged else '[red]CHANGED[/]'}"
        f" ({before[:16]}); {seconds:.0f} s in all"
    )
    console.print(NEXT)
    done = sentence and story and unchanged
    if as_json:
        common.print_json(
            {
                "sentence_exact": sentence,
                "story_exact": story,
                "one_step_single": round(rates["one_step_single"], 1),
                "autoregressive_single": round(rates["autoregressive_single"], 1),
                "encoder_accuracy": encoded,
                "weights_unchanged": unchanged,
                "seconds": round(seconds, 1),
            }
        )
    return 0 if done else 1


def _sentence(lm: FrozenLM, seed: int, path: Path, console: Console) -> bool:
    """One sentence in two vectors, its decoded text shown as the fit goes."""
    from prototokens import samples
    from prototokens.encoding import encode
    from prototokens.layout import keyed

    text = samples.short()
    layout = keyed(2).with_prefix(lm.prefix_ids())
    ids = lm.tokenize(text)
    console.print(
        f"[bold]1.[/] {len(ids)} tokens into two vectors, e and m; the model is fed e, m, e, m,"
        " ..., each multiplied by the"
        " fixed signs of its position, and nothing else"
    )
    frames = _Frames(lm, layout, ids, console)
    with frames.live:
        encoded = encode(
            lm, text, layout=layout, chunk_length=len(ids), seed=seed, progress=frames.show
        )
    encoded.save(path)
    if frames.first_right is not None and frames.first_right < frames.steps:
        console.print(
            f"   all {counted(len(ids), 'token')} right at step {frames.first_right}; the fit went"
            f" on to step {frames.steps}, so that each leads by a margin that other kernels and"
            " batch sizes leave"
        )
    return _read_back(lm, path, text, console)


class _Frames:
    """The decoded text as the fit goes: one picture on a terminal, else a line for each change.

    Attributes:
        live: what draws the picture, to be entered.
        first_right: the step at which all tokens were right; None before.
        steps: the last step.
    """

    def __init__(self, lm: FrozenLM, layout: Layout, ids: list[int], console: Console) -> None:
        from rich.live import Live

        self.lm, self.layout, self.ids, self.console = lm, layout, ids, console
        self.live = Live(console=console, transient=False, auto_refresh=False)
        self.first_right: int | None = None
        self.steps = 0
        self._last = -1e9
        self._shown: list[int] | None = None

    def show(self, now: Progress) -> None:
        """Show a step, unless the last one shown was a moment ago, or gave the same text."""
        from prototokens.engine.decode import decode_ids
        from prototokens.solution import Chunk

        protos = now.vectors_of(0)
        right_first = now.accuracy == 1 and self.first_right is None
        if right_first:
            self.first_right = now.row_steps
        self.steps = now.row_steps
        every = FRAME_EVERY if self.console.is_terminal else LINE_EVERY
        if protos is None or (time.monotonic() - self._last < every and not right_first):
            return
        self._last = time.monotonic()
        got = decode_ids(self.lm, [Chunk(protos, self.layout, len(self.ids))]).ids[0]
        if self.console.is_terminal:
            self.live.update(_coloured(self.lm, got, self.ids, now.row_steps), refresh=True)
        elif got != self._shown:
            self.console.print(_coloured(self.lm, got, self.ids, now.row_steps))
        self._shown = got


def _coloured(lm: FrozenLM, got: list[int], ids: list[int], steps: int) -> Table:
    """The decoded text of vectors as they are, wrong tokens dimmed."""
    from rich.table import Table
    from rich.text import Text

    right = sum(a == b for a, b in zip(got, ids, strict=True))
    line = Text()
    for token, target in zip(got, ids, strict=True):
        line.append(
            lm.detokenize([token]).replace("\n", "¶"),
            style="green" if token == target else "dim red",
        )
    frame = Table.grid(padding=(0, 2))
    frame.add_row(f"   step {steps:4d}", f"{right:2d}/{len(ids)}", line)
    return frame


def _clocks(lm: FrozenLM, console: Console) -> dict[str, float]:
    """How long the sentence takes in one pass, and token by token with a cache."""
    from prototokens import samples
    from prototokens.bench.compare import decoding_rates
    from prototokens.recipe import FAST

    ids = lm.tokenize(samples.short())
    rates = decoding_rates(lm, [ids], FAST)
    once, by_token = (
        1000 * len(ids) / rates[name] for name in ("one_step_single", "autoregressive_single")
    )
    console.print(
        f"   the clock, for {counted(len(ids), 'token')}: {once:.1f} ms in one pass,"
        f" {by_token:.1f} ms token by token with a cache: {rates['ratio_single']:.1f} times"
    )
    return rates


def _encoder_pass(lm: FrozenLM, console: Console) -> float | None:
    """The sentence through the encoder that ships, without a fit; the share of right tokens.

    None where no encoder ships for this model.
    """
    from prototokens import samples
    from prototokens.encoder.shipped import shipped
    from prototokens.encoder.starts import raw

    encoder = shipped(lm)
    if encoder is None:
        return None
    ids = lm.tokenize(samples.short())[: encoder.shape.max_length]
    began = time.perf_counter()
    (solution,) = raw(lm, encoder, [ids])
    seconds = time.perf_counter() - began
    passes = counted(int(solution.row_steps), "feedback pass", "feedback passes")
    console.print(
        f"\n[bold]3.[/] without a fit: an encoder gives"
        f" {counted(encoder.layout.vectors, 'vector')} for the sentence in one pass and {passes}"
        f" of the frozen model, {seconds * 1000:.0f} ms:"
        f" {solution.right_tokens} of {counted(len(ids), 'token')} right"
    )
    return solution.right_tokens / len(ids)


def _story(lm: FrozenLM, seed: int, path: Path, console: Console, quiet: bool) -> bool:
    """Three paragraphs in chunks."""
    from prototokens import samples
    from prototokens.encoding import encode
    from prototokens.planning.chunks import plan_chunks

    text = samples.lighthouse()
    console.print(
        f"\n[bold]2.[/] {len(text.split(chr(10) * 2))} paragraphs, {len(text)} characters, in"
        " chunks fitted side by side"
    )
    plan = plan_chunks(lm, lm.tokenize(text))
    console.print(f"   {plan.describe()}")
    with common.fit_progress(quiet) as progress:
        encoded = encode(lm, text, plan=plan, seed=seed, progress=progress)
    size = encoded.save(path)
    steps = sorted(encoded.header.steps)
    median = counted(steps[len(steps) // 2], "step")
    console.print(f"   {median} (median), a file of {counted(size, 'byte')}")
    return _read_back(lm, path, text, console)


def _read_back(lm: FrozenLM, path: Path, text: str, console: Console) -> bool:
    """Decode the saved file and compare."""
    from prototokens.decoding import decode_text
    from prototokens.ptok.encoded import EncodedText

    decoded = decode_text(lm, EncodedText.load(path))
    same = decoded.matches and decoded.text == text
    verdict = "[green]exact[/]" if same else "[red]NOT exact[/]"
    console.print(
        f"   decoded from the file: {counted(decoded.tokens, 'token')},"
        f" {counted(decoded.forward_passes, 'forward pass', 'forward passes')},"
        f" {decoded.seconds * 1000:.0f} ms, {verdict}"
    )
    console.print(f"   “{decoded.text[:70].strip()} ...”", style="italic")
    return same
