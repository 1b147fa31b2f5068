"""Throughput both ways: only what comes back is timed, and the ratio is of the rows."""

import dataclasses
import statistics

import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.lab.experiments import figure4


def test_throughput_both_ways(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=2, grid=(1, 2))
    _, rows, report = carried_out("figure4", tiny_llama, config, tmp_path)
    assert {row["way"] for row in rows} == {"one-step", "autoregressive"}
    timed = [row for row in rows if row["tokens"]]
    assert timed
    for row in timed:
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds_to_decode"])
    (line,) = cells(report, "figure4")
    mine = [
        {row["text"]: row for row in rows if row["way"] == way}
        for way in ("one-step", "autoregressive")
    ]
    both = [text for text in mine[0] if mine[0][text]["tokens"] and mine[1][text]["tokens"]]
    ratios = [
        mine[0][text]["tokens_per_second"] / mine[1][text]["tokens_per_second"] for text in both
    ]
    assert line["ratio, mean over texts"] == pytest.approx(statistics.mean(ratios))


def test_passages_that_do_not_decode_exactly_are_not_timed(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=1, grid=(2,))
    (job, _) = figure4.jobs(config)
    from prototokens.fitting import fit

    solution = fit(tiny_llama, [list(job.text.ids)], recipe="fast")[0]
    wrong = dataclasses.replace(solution, ids=tuple((token + 1) % 256 for token in solution.ids))
    assert figure4._timed(tiny_llama, wrong, figure4._one_step, 2) is None
