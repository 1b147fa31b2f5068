"""`prototokens demo`: the whole idea in a minute, on the built-in model."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototokens.cli import common

if TYPE_CHECKING:
    from rich.console import Console

    from prototokens.engine.progress import Progress
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.solution import Chunk

FRAME_EVERY = 0.15  # seconds between pictures on a terminal
LINE_EVERY = 0.5  # seconds between lines where the output is no terminal


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

    The model that decodes them did not change.
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
        story = _story(lm, seed, Path(folder) / "story.ptok", console, quiet)
    unchanged = lm.weights_hash() == before
    seconds = time.monotonic() - began
    console.print(
        "\nthe model's weights, hashed before and after:"
        f" {'[green]unchanged[/]' if unchanged else '[red]CHANGED[/]'}"
        f" ({before[:16]}); {seconds:.0f} s in all"
    )
    done = sentence and story and unchanged
    if as_json:
        common.print_json(
            {
                "sentence_exact": sentence,
                "story_exact": story,
                "weights_unchanged": unchanged,
                "seconds": round(seconds, 1),
            }
        )
    return 0 if done else 1


def _sentence(lm: FrozenLM, seed: int, path: Path, console: Console) -> bool:
    """One sentence in two vectors, its decoded text shown as the fit goes."""
    from rich.live import Live

    from prototokens import samples
    from prototokens.encoding import encode
    from prototokens.layout import keyed
    from prototokens.solution import Chunk

    text = samples.short()
    layout = keyed(2).with_prefix(lm.prefix_ids())
    ids = lm.tokenize(text)
    console.print(
        f"[bold]1.[/] {len(ids)} tokens into two vectors, e and m; the model is fed e, m, e, m,"
        " ..., each multiplied by the"
        " fixed signs of its position, and nothing else"
    )
    last = -1e9

    with Live(console=console, refresh_per_second=10, transient=False, auto_refresh=False) as live:

        def show(now: Progress) -> None:
            nonlocal last
            protos = now.vectors_of(0)
            every = FRAME_EVERY if console.is_terminal else LINE_EVERY
            if protos is None or (time.monotonic() - last < every and now.accuracy < 1):
                return
            last = time.monotonic()
            frame = _coloured(lm, Chunk(protos, layout, len(ids)), ids, now.row_steps)
            if console.is_terminal:
                live.update(frame, refresh=True)
            else:
                console.print(frame)

        encoded = encode(lm, text, layout=layout, chunk_length=len(ids), seed=seed, progress=show)
    encoded.save(path)
    return _read_back(lm, path, text, console)


def _coloured(lm: FrozenLM, chunk: Chunk, ids: list[int], steps: int):
    """The decoded text of vectors as they are, wrong tokens dimmed."""
    from rich.table import Table
    from rich.text import Text

    from prototokens.engine.decode import decode_ids

    got = decode_ids(lm, [chunk]).ids[0]
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
    console.print(f"   {steps[len(steps) // 2]} steps (median), a file of {size:,} bytes")
    return _read_back(lm, path, text, console)


def _read_back(lm: FrozenLM, path: Path, text: str, console: Console) -> bool:
    """Decode the saved file and compare."""
    from prototokens.decoding import decode_text
    from prototokens.ptok.encoded import EncodedText

    decoded = decode_text(lm, EncodedText.load(path))
    same = decoded.matches and decoded.text == text
    verdict = "[green]exact[/]" if same else "[red]NOT exact[/]"
    plural = "" if decoded.forward_passes == 1 else "es"
    console.print(
        f"   decoded from the file: {decoded.tokens} tokens, {decoded.forward_passes} forward"
        f" pass{plural},"
        f" {decoded.seconds * 1000:.0f} ms, {verdict}"
    )
    console.print(f"   “{decoded.text[:70].strip()} ...”", style="italic")
    return same
