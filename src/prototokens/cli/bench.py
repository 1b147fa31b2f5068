"""`prototokens bench`: this engine against the published way, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common
from prototokens.errors import TextError, UsageError

if TYPE_CHECKING:
    import torch

    from prototokens.lm.frozen_lm import FrozenLM


@click.command(short_help="Compare this engine with the published way of fitting.")
@click.argument("source", required=False, metavar="[FILE|-]")
@click.option(
    "--what",
    type=click.Choice(["fit", "shapes", "heads", "head-memory"]),
    default="fit",
    show_default=True,
    help="fit: five ways to the same texts; shapes: what a step costs by length, rows and width;"
    " heads: three ways from"
    " hidden states to loss and gradient; head-memory: the most memory that two of them take for 16"
    " rows of 512 tokens, a"
    " vocabulary of 128,256 and 2,048 numbers a position.",
)
@click.option("--texts", help="Passages of a source, as in reproduce, in place of FILE.")
@click.option(
    "--length",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Tokens of a passage.",
)
@click.option(
    "--passages", type=click.IntRange(min=1), default=8, show_default=True, help="How many."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Most optimiser steps for a passage.",
)
@click.option(
    "--seconds",
    type=float,
    default=30.0,
    show_default=True,
    help="After which a one-at-a-time way starts no further passage.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the engine's body first, for the shapes it will meet: minutes, which are"
    " reported and not counted.",
)
@click.option(
    "--random",
    "random_shapes",
    multiple=True,
    help="For shapes and heads: a model of random weights (repeatable).",
)
@common.model_options
@common.output_options
def bench(
    source: str | None,
    what: str,
    texts: str | None,
    length: int,
    passages: int,
    steps: int,
    seconds: float,
    compiled: bool,
    random_shapes: tuple[str, ...],
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Measure this engine on this machine, as it is now: compare ratios, not times.

    By default the same passages are fitted five ways in one run: one at a time in float32 as
    published, and with this engine, each with both recipes, and with this engine in more than two
    vectors. They are cut from FILE, from --texts, or from the sample story.
    """
    if source is not None and texts is not None:
        raise UsageError("give either a file or --texts")
    text = None if source is None else common.read_text(source, None)
    if what == "shapes":
        return _shapes(_models(random_shapes, model, revision, device, dtype), as_json, quiet)
    if what == "heads":
        return _heads(_models(random_shapes, model, revision, device, dtype), as_json)
    if what == "head-memory":
        return _head_memory(device, dtype, as_json)
    common.check_model_name(model, revision)
    from prototokens.bench.compare import compare

    lm = common.load_model(model, revision, device, dtype)
    serial = common.load_model(model, revision, device, "float32")
    targets = _targets(lm, text, texts, passages, length)
    if compiled:
        lm.compile()

    def on_step(tally: Any) -> None:
        if not quiet:
            click.echo(
                f"{tally.name}: {tally.tried} tried, {tally.solved} solved, {tally.seconds:.0f} s",
                err=True,
            )

    result = compare(lm, serial, targets, steps, seconds, on_step)
    if as_json:
        common.print_json(result)
    else:
        _show(result)
    return 0


def _targets(
    lm: FrozenLM, text: str | None, texts: str | None, passages: int, length: int
) -> list[list[int]]:
    """Passages of one length: of a text, of a named source, or of the sample story."""
    if texts is not None:
        from prototokens.lab.texts import Texts

        return [list(passage.ids) for passage in Texts(lm, [texts]).passages(passages, length)]
    from prototokens import samples

    ids = lm.tokenize(samples.lighthouse() if text is None else text)
    targets = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)][
        :passages
    ]
    if len(targets) < passages:
        raise TextError(
            f"the text has {len(ids)} tokens, too few for {passages} passages of {length}: give a"
            " longer FILE, or fewer of them"
        )
    return targets


def _models(
    shapes: tuple[str, ...], model: str | None, revision: str | None, device: str | None, dtype: str
) -> list[FrozenLM]:
    """Random models of the shapes asked for, in the dtype that pays here.

    Without any, the model of the options.
    """
    if not shapes:
        return [common.load_model(model, revision, device, dtype)]
    from prototokens.bench.models import random_model

    torch_device, chosen = _device_and_dtype(device, dtype)
    return [random_model(shape, chosen, torch_device) for shape in shapes]


def _device_and_dtype(device: str | None, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Where random weights are put, and in which dtype: with `auto` the one that pays there."""
    import torch

    from prototokens.lm.devices import bfloat16_pays

    torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return torch_device, getattr(
        torch,
        ("bfloat16" if bfloat16_pays(torch_device) else "float32") if dtype == "auto" else dtype,
    )


def _shapes(models: list[FrozenLM], as_json: bool, quiet: bool) -> int:
    from prototokens.bench.shapes import LENGTHS, ROWS, step_costs

    # By rows at one length, by length at full batch, and so for each width.
    plans = [(list(LENGTHS), [None]), ([32], list(ROWS))]
    rows = []
    for lengths, counts in plans:
        for row in step_costs(models, lengths, counts):
            rows.append(row)
            if not as_json:
                click.echo(
                    f"{row['model']:<22}{row['length']:>5} tokens{row['rows']:>5}"
                    f" rows{row['milliseconds']:>9.1f} ms"
                    f"{row['row_steps_per_second']:>10.1f} row-steps/s{row['gflops']:>8.1f}"
                    f" GFLOP/s{row['share_of_peak']:>6.0%}"
                )
    if as_json:
        common.print_json({"shapes": rows})
    return 0


def _heads(models: list[FrozenLM], as_json: bool) -> int:
    from prototokens.bench.heads import compare_heads

    rows = [{"model": lm.name, **row} for lm in models for row in compare_heads(lm, 1024)]
    if as_json:
        common.print_json({"heads": rows})
        return 0
    for row in rows:
        click.echo(
            f"{row['model']:<22}{row['way']:<9}{row['positions']:>6}"
            f" positions{row['vocabulary']:>8} tokens"
            f"{row['milliseconds']:>9.1f} ms  error {row['gradient_error']:.1e}"
        )
    return 0


def _head_memory(device: str | None, dtype: str, as_json: bool) -> int:
    from prototokens.bench.head_memory import head_memory

    torch_device, chosen = _device_and_dtype(device, dtype)
    rows = head_memory(chosen, torch_device)
    if as_json:
        common.print_json({"head_memory": rows})
        return 0
    for row in rows:
        peak = "unknown" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f} MB"
        click.echo(
            f"{row['way']:<9}{row['rows']} rows of {row['tokens']} tokens, {row['vocabulary']:,}"
            " logits each"
            f" ({row['logits_bytes'] / 1e6:,.0f} MB in all): {peak} at most, in {row['dtype']} on"
            f" {row['device']}"
        )
    return 0


def _show(result: dict[str, Any]) -> None:
    click.echo(
        f"{result['passages']} passages of {result['length']} tokens, {result['steps']} steps each"
        f" at most; {result['model']};"
        f" engine in {result['dtype']} on {result['device']}, {result['threads']} threads,"
        f" peak {result['peak_gflops']:.0f} GFLOP/s"
        + (
            ""
            if result["compile_seconds"] is None
            else f", compiled in {result['compile_seconds']:.0f} s beforehand"
        )
    )
    click.echo(
        f"{'way':<22}{'tried':>6}{'solved':>8}{'a minute':>10}{'times':>8}{'row-steps/s':>13}"
        f"{'times':>8}{'of peak':>9}{'memory':>9}"
    )
    for way in result["ways"]:
        click.echo(
            f"{way['name']:<22}{way['tried']:>6}{way['solved']:>8}{way['solved_per_minute']:>10.1f}"
            f"{way['times_serial_paper']:>8.1f}{way['row_steps_per_second']:>13.0f}"
            f"{way['row_steps_times_serial_paper']:>8.1f}{way['share_of_peak']:>9.0%}"
            f"{way['memory'] / 1e6:>6,.0f} MB"
        )
    rates = result["decoding"]
    click.echo(
        f"decoding: {rates['one_step_single']:,.0f} tokens/s one-step for one row,"
        f" {rates['one_step_batch']:,.0f} for all,"
        f" {rates['autoregressive_single']:,.0f} greedy with a cache: {rates['ratio_single']:.0f}"
        " times"
    )
