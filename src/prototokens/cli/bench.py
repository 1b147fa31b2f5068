"""`prototokens bench`: this engine against the published way, side by side."""

from __future__ import annotations

from typing import Any

import click

from prototokens.cli import common
from prototokens.errors import TextError


@click.command(short_help="Compare this engine with the published way of fitting.")
@click.argument("source", required=False, metavar="[FILE|-]")
@click.option("--length", type=click.IntRange(min=2), default=16, show_default=True, help="Tokens of a passage.")
@click.option(
    "--passages", type=click.IntRange(min=1), default=8, show_default=True, help="How many, cut from the text in a row."
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=2000, show_default=True, help="Most optimiser steps for a passage."
)
@click.option(
    "--seconds", type=float, default=30.0, show_default=True, help="After which a one-at-a-time way starts no further passage."
)
@common.model_options
@common.output_options
def bench(
    source: str | None, length: int, passages: int, steps: int, seconds: float, model: str | None, revision: str | None,
    device: str | None, dtype: str, as_json: bool, quiet: bool, debug: bool,
) -> int:  # fmt: skip
    """Fit the same passages four ways in one run: one at a time as published, and with this engine, each with both recipes.

    The passages are cut from FILE, or from the sample story. Times are of this machine as it is now; compare the ratios.
    """
    from prototokens import samples
    from prototokens.bench.compare import compare

    text = samples.lighthouse() if source is None else common.read_text(source, None)
    lm = common.load_model(model, revision, device, dtype)
    ids = lm.encode(text)
    targets = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)][:passages]
    if len(targets) < passages:
        raise TextError(
            f"the text has {len(ids)} tokens, too few for {passages} passages of {length}: give a longer FILE, or fewer of them"
        )

    def said(tally: Any) -> None:
        if not quiet:
            click.echo(f"{tally.name}: {tally.tried} tried, {tally.solved} solved, {tally.seconds:.0f} s", err=True)

    result = compare(lm, targets, steps, seconds, said)
    if as_json:
        common.print_json(result)
    else:
        _show(result)
    return 0


def _show(result: dict[str, Any]) -> None:
    click.echo(
        f"{result['passages']} passages of {result['length']} tokens, {result['steps']} steps each at most; {result['model']},"
        f" {result['dtype']}, {result['device']}, {result['threads']} threads, {result['peak_gflops']:.0f} GFLOP/s peak"
    )
    click.echo(f"{'way':<16}{'tried':>6}{'solved':>8}{'a minute':>10}{'row-steps/s':>13}{'GFLOP/s':>9}{'of peak':>9}")
    for way in result["ways"]:
        click.echo(
            f"{way['name']:<16}{way['tried']:>6}{way['solved']:>8}{way['solved_per_minute']:>10.1f}"
            f"{way['row_steps_per_second']:>13.0f}{way['gflops']:>9.1f}{way['share_of_peak']:>9.0%}"
        )
    rates = result["decoding"]
    click.echo(
        f"decoding: {rates['one_step_single']:,.0f} tokens/s one-step for one row, {rates['one_step_batch']:,.0f} for all,"
        f" {rates['autoregressive_single']:,.0f} greedy with a cache: {rates['ratio_single']:.0f} times"
    )
    click.echo(f"peak memory of the process: {result['peak_memory_bytes'] / 1e6:,.0f} MB")
