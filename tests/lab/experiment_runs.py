"""An experiment run end to end on a model in memory.

Jobs, rows in a folder, a report with its files.
"""

from prototokens.lab import experiments, models
from prototokens.lab.job import Config
from prototokens.lab.records import Records
from prototokens.lab.sweep import Local, sweep
from prototokens.lab.texts import Texts
from prototokens.recipe import Recipe


def settings(lm, *, steps=60, sources=("sample",), **changes):
    """Few texts and few steps; `changes` are fields of Config."""
    return Config(
        models.facts(lm), Texts(lm, sources), recipe=Recipe.named("fast", steps=steps), **changes
    )


def carried_out(name, lm, config, folder, drawn=True):
    """(jobs, rows, report) of an experiment.

    Its files are in `folder / "report"`, and each picture was written.

    `drawn`: whether there has to be a picture; None: there may be one.
    """
    experiment = experiments.load(name)
    jobs = experiment.jobs(config)
    records = Records(folder, log=lambda line: None)
    rows = sweep(jobs, records, Local(lm))
    made = experiment.report(rows)
    written = made.save(folder / "report")
    assert drawn is None or bool(made.figures) is drawn
    assert {path.name for path in written} >= {
        f"{figure}.{suffix}" for figure in made.figures for suffix in ("png", "svg")
    }
    assert all(path.stat().st_size > 0 for path in written)
    experiment.report([])  # before there are rows
    return jobs, rows, made


def cells(report, name):
    """A table as a list of {column: cell}; columns of the same name keep the last one's cell."""
    table = next(table for table in report.tables if table.name == name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
