"""`prototokens capacity`: one model's card."""

from __future__ import annotations

from typing import Any

import click

from prototokens.cli import common, sweeping

DEFAULT_TEXTS = ("sample", "random-tokens")


@click.command(short_help="Measure how much one model's vectors hold: its capacity card.")
@sweeping.sweep_options
@common.seed_option
@common.model_options
@common.output_options
def capacity(debug: bool, **options: Any) -> int:
    """Measure a model: horizon, C_tokens and H_LM, one-step and autoregressive, and the share of the bound that is used.

    The card is printed, and written as text, JSON and a picture. What `reproduce` has fitted
    already in the same folder is taken from there.
    """
    import json

    from prototokens.lab import experiments
    from prototokens.lab.experiments.capacity import card

    config = sweeping.settings(options, DEFAULT_TEXTS)
    module = experiments.load("capacity")
    rows = sweeping.run_jobs(module.jobs(config), config, options)
    report, made = module.report(rows), card(rows)
    files = report.save(sweeping.folder(options) / "capacity")
    place = files[0].with_name("card.json")
    place.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if options["as_json"]:
        common.print_json({**made, "files": [str(file) for file in (*files, place)]})
    else:
        click.echo(report.markdown(), nl=False)
    if not options["quiet"]:
        click.echo(f"card.json, card.png and card.svg are in {place.parent}", err=True)
    return 0
