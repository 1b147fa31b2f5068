"""`prototokens capacity`: one model's card."""

from __future__ import annotations

from typing import Any

import click

from prototokens.cli import common, sweeping
from prototokens.errors import UsageError

DEFAULT_TEXTS = ("sample", "random-tokens")


@click.command(short_help="Measure how much one model's vectors hold: its capacity card.")
@sweeping.sweep_options
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "lm-eval", "hub"]),
    default="text",
    show_default=True,
    help="Of standard output. lm-eval: the JSON of lm-evaluation-harness's results.json; hub: the"
    " YAML of a file in a hub model's .eval_results folder.",
)
@click.option(
    "--benchmark",
    metavar="ORGANISATION/NAME",
    help="With --format hub: the data set on the hub that is the benchmark.",
)
@common.seed_option
@common.model_options
@common.output_options
def capacity(shape: str, benchmark: str | None, debug: bool, **options: Any) -> int:
    """Measure a model: horizon, C_tokens and H_LM, and the share of the bound that is used.

    All of it one-step and autoregressive. The card is printed, and written as text, JSON and a
    picture. Fits that `reproduce` has made in the same folder are taken from there.
    """
    import json

    if (shape == "hub") != (benchmark is not None):
        raise UsageError("--benchmark ORGANISATION/NAME belongs to --format hub")
    if shape != "text" and options["as_json"]:
        raise UsageError("give either --json or --format")
    sweeping.check(options)
    from prototokens.lab import experiments
    from prototokens.lab.experiments.capacity import card

    config = sweeping.settings(options, DEFAULT_TEXTS)
    module = experiments.load("capacity")
    rows = sweeping.run_jobs(module.jobs(config), config, options)
    report, made = module.report(rows), card(rows)
    files = report.save(sweeping.folder(options) / "capacity")
    path = files[0].with_name("card.json")
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if options["as_json"]:
        common.print_json({**made, "files": [str(file) for file in (*files, path)]})
    elif shape == "text":
        click.echo(report.markdown(), nl=False)
    else:
        click.echo(_shaped(made, shape, benchmark, options), nl=False)
    if not options["quiet"]:
        click.echo(f"card.json, card.png and card.svg are in {path.parent}", err=True)
    return 0


def _shaped(
    card: dict[str, Any], shape: str, benchmark: str | None, options: dict[str, Any]
) -> str:
    """The card in the shape of lm-evaluation-harness or of the hub."""
    import json
    from datetime import UTC, datetime

    from prototokens.lab.leaderboards import hub_entries, lm_eval_results, yaml_of

    now = datetime.now(UTC)
    if benchmark is not None:
        return yaml_of(hub_entries(card, now.date().isoformat(), benchmark))
    names = ("scale", "recipe", "steps", "count", "lengths", "prefix", "seed")
    given = {name: options[name] for name in names if options.get(name) is not None}
    return json.dumps(lm_eval_results(card, now.timestamp(), given), indent=2) + "\n"
