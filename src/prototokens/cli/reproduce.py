"""`prototokens reproduce`: every table and figure of the paper, from one command, on any model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from prototokens._util.words import counted
from prototokens.cli import common, sweeping

if TYPE_CHECKING:
    from prototokens.lab.job import Config, Job, Row

DEFAULT_TEXTS = ("sample", "random-tokens", "generated:sample")


@click.command(short_help="Run the paper's experiments: tables, figures and rows.")
@click.argument("name", required=False, metavar="[NAME|FILE.py|all]")
@click.option(
    "--plan", is_flag=True, help="Run nothing: list the jobs and say how long they will take here."
)
@click.option(
    "--from-rows",
    is_flag=True,
    help="Run nothing: write the reports again from the rows of the folder; no model is loaded.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="NAME[@REVISION]",
    help="For pretraining: a model, or a folder of models; again.",
)
@click.option(
    "--embedder", help="For figure6 and quality: a sentence-embedding model, a folder or a hub id."
)
@click.option(
    "--layouts",
    help="Layouts to compare in place of the experiment's own, with commas: paper,keyed:2. For"
    " those that compare several.",
)
@sweeping.sweep_options
@common.seed_option
@common.model_options
@common.output_options
def reproduce(name: str | None, debug: bool, **options: Any) -> int:
    """Run the experiment NAME, or all of them.

    Without NAME, list what there is and about how long each takes.

    FILE.py is a study: an experiment in a file of its own, whose code is run. Its report goes to
    the output folder itself.

    What is done already in the output folder is not run again: a run that was killed goes on where
    it was, and several processes can share the work of one folder. Reports, with their tables as
    Markdown and CSV and their figures as PNG and SVG, go to the folder; the tables are printed too.
    """
    if name is None:
        return _list(options)
    from prototokens.errors import UsageError
    from prototokens.lab.catalogue import check_name

    check_name(name)
    if not options["from_rows"]:
        sweeping.check(options)
    from prototokens.lab import experiments

    names = experiments.resolve(name)
    if options["from_rows"]:
        return _redraw(names, name == "all", options)
    if experiments.is_study(names[0]) and options["runner"] != "local":
        raise UsageError("a study runs in this process: leave --runner as it is")
    modules = {one: experiments.load(one) for one in names}
    without = [one for one, module in modules.items() if not hasattr(module, "LAYOUTS")]
    if options["layouts"] and without:
        raise UsageError(
            f"--layouts is for experiments that compare layouts, which {', '.join(without)} does"
            " not"
        )
    config = sweeping.settings(options, DEFAULT_TEXTS)
    jobs = {one: module.jobs(config) for one, module in modules.items()}
    every = [job for some in jobs.values() for job in some]
    if options["plan"]:
        return _plan(jobs, config, options)
    if config.scale == "paper" and not options["quiet"]:
        click.echo(f"{counted(len(every), 'job')}; {_forecast(every, config)}", err=True)
    rows = sweeping.run_jobs(every, config, options)
    made = []
    for one, module in modules.items():
        keys = {job.key for job in jobs[one]}
        mine = [row for row in rows if row["key"] in keys]
        made.append(_written(one, module.report(mine), mine, len(keys), options))
    if options["as_json"]:
        common.print_json(
            {
                "model": config.model.name,
                "fingerprint": config.model.fingerprint,
                "scale": config.scale,
                "experiments": made,
            }
        )
    return 0


def _redraw(names: list[str], some: bool, options: dict[str, Any]) -> int:
    """Reports from the rows that a folder has; with `some`, of those experiments that have any."""
    from prototokens.errors import UsageError
    from prototokens.lab import experiments
    from prototokens.lab.records import Records

    folder = sweeping.folder(options)
    records = (
        Records(folder, lambda line: click.echo(f"prototokens: {line}", err=True))
        if folder.is_dir()
        else None
    )
    found = {name: rows for name in names if records and (rows := records.rows(name))}
    if not found or (not some and len(found) < len(names)):
        raise UsageError(
            f"there are no rows of {', '.join(names)} in {folder}: name their folder with --out, or"
            " run it first"
        )
    made = []
    for name, rows in found.items():
        # Studies, and what follows a model over its training, compare models and recipes.
        if name != "pretraining" and not experiments.is_study(name) and _mixed(rows):
            raise UsageError(
                f"{folder} has rows of {name} from several models or recipes: a folder of each has"
                " one report"
            )
        made.append(
            _written(
                name,
                experiments.load(name).report(rows),
                rows,
                len({row["key"] for row in rows}),
                options,
            )
        )
    if options["as_json"]:
        first = next(iter(found.values()))[0]
        common.print_json(
            {
                "model": first["model"],
                "fingerprint": first["fingerprint"],
                "scale": None,
                "experiments": made,
            }
        )
    return 0


def _mixed(rows: list[Row]) -> bool:
    """Whether rows are of more than one model or recipe."""
    models = {(row["fingerprint"], row["dtype"]) for row in rows}
    return len(models) > 1 or len({row["recipe"]["name"] for row in rows}) > 1


def _written(
    name: str, report: Any, rows: list[Row], jobs: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Write a report, print it unless JSON is asked for, and say it as JSON."""
    from prototokens.lab import experiments

    folder = sweeping.folder(options)
    files = report.save(folder if experiments.is_study(name) else folder / name)
    if not options["as_json"]:
        click.echo(report.markdown())
    if not options["quiet"]:
        click.echo(
            f"{name}: {counted(len(rows), 'row')}; report and figures in {files[0].parent}",
            err=True,
        )
    tables = {
        table.name: [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        for table in report.tables
    }
    return {
        "name": name,
        "title": report.title,
        "jobs": jobs,
        "rows": len(rows),
        "seconds": round(sum({row["key"]: row.get("seconds", 0.0) for row in rows}.values()), 1),
        "notes": report.notes,
        "tables": tables,
        "files": [str(file) for file in files],
    }


def _plan(jobs: dict[str, list[Job]], config: Config, options: dict[str, Any]) -> int:
    """What would be run, and for how long."""
    from prototokens.lab.catalogue import describe_seconds
    from prototokens.lab.plan import measure_rate, total_work
    from prototokens.lab.records import Records

    folder = sweeping.folder(options)
    records = Records(folder) if folder.is_dir() else None
    rate = measure_rate(config.texts.lm, config.model.flops)
    planned, to_do = [], []
    for name, some in jobs.items():
        unique = {job.key: job for job in some}
        left = [job for key, job in unique.items() if records is None or not records.done(key)]
        to_do += left
        seconds = total_work(left) / rate.position_steps
        planned.append(
            {
                "name": name,
                "jobs": len(unique),
                "done": len(unique) - len(left),
                "seconds": seconds,
                "keys": [job.key for job in left],
            }
        )
    # Experiments that share fits take less together than each by itself.
    total = total_work(to_do) / rate.position_steps
    if options["as_json"]:
        common.print_json(
            {
                "model": config.model.name,
                "fingerprint": config.model.fingerprint,
                "scale": config.scale,
                "plan": planned,
                "seconds": total,
                "position_steps_per_second": rate.position_steps,
            }
        )
        return 0
    for name, some in jobs.items():
        for job in some:
            done = records is not None and records.done(job.key)
            click.echo(_job_line(name, job, None if done else job.work / rate.position_steps))
    for one in planned:
        click.echo(
            f"{one['name']}: {counted(one['jobs'], 'job')}, {one['done']} done,"
            f" {describe_seconds(one['seconds'])} to go here",
            err=True,
        )
    click.echo(
        f"in all {describe_seconds(total)}, at {rate.position_steps:,.0f} position-steps a second"
        " as measured just now",
        err=True,
    )
    return 0


def _job_line(name: str, job: Job, seconds: float | None) -> str:
    """A line of the plan for one job: its forecast, or that it is done where there is none."""
    from prototokens.lab.catalogue import describe_seconds

    texts = job.texts[0].id if len(job.texts) == 1 else f"{len(job.texts)} texts"
    longest = max((len(text.ids) for text in job.texts), default=0)
    length = counted(longest, "token") if longest else ""
    forecast = "done" if seconds is None else describe_seconds(seconds)
    return f"{job.key[:12]}  {name:<11}  {job.layout:<11}  {length:<12}  {forecast:<14}  {texts}"


def _forecast(jobs: list[Job], config: Config) -> str:
    from prototokens.lab.catalogue import describe_seconds
    from prototokens.lab.plan import measure_rate, total_work

    rate = measure_rate(config.texts.lm, config.model.flops)
    seconds = total_work(jobs) / rate.position_steps
    return f"about {describe_seconds(seconds)} here, if none is done yet"


def _about(seconds: float) -> str:
    """A duration that is a guess, in at most 17 characters."""
    from prototokens.lab.catalogue import describe_seconds

    words = describe_seconds(seconds)
    return words if words.startswith("under") else f"about {words}"


def _list(options: dict[str, Any]) -> int:
    """Each experiment with a line, and about what it takes.

    From stored forecasts, as a list must not load a model.
    """
    from prototokens.lab.catalogue import EXPERIMENTS, stored_forecast

    stored = stored_forecast()
    speed = stored["position_steps_per_second"]
    found = [
        {"name": name, "shows": shows, "smoke_seconds": stored["smoke"][name] / speed}
        for name, (_, shows) in EXPERIMENTS.items()
    ]
    if options["as_json"]:
        common.print_json(
            {"model": "builtin", "fingerprint": stored["fingerprint"], "experiments": found}
        )
        return 0
    width = max(len(one["name"]) for one in found)
    for one in found:
        click.echo(f"{one['name']:<{width}}  {_about(one['smoke_seconds']):<17}  {one['shows']}")
    if not options["quiet"]:
        where = stored["machine"]
        total = stored["smoke_all"] / speed
        click.echo(
            f"Forecasts for the built-in model with --scale smoke, at {speed:,} position-steps a"
            " second, measured with"
            f" {counted(where['threads'], 'thread')} of {where['processor']}; all: {_about(total)}."
            " For this machine,"
            " another model, or --scale paper, add --plan: prototokens reproduce all --plan",
            err=True,
        )
    return 0
