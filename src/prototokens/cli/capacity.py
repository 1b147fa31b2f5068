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
    """Measure a model: horizon, C_tokens and H_LM, and the share of the bound that is used.

    All of it one-step and autoregressive. The card is printed, and written as text, JSON and a
    picture. Fits that `reproduce` has made in the same folder are taken from there.
    """
    import json

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
    else:
        click.echo(report.markdown(), nl=False)
    if not options["quiet"]:
        click.echo(f"card.json, card.png and card.svg are in {path.parent}", err=True)
    return 0
