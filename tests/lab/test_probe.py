"""What is generated from the vectors: the right prompts, the right texts compared."""

import torch
from experiment_runs import carried_out, cells, settings

from prototokens.lab.experiments import probe
from prototokens.lab.job import Fit
from prototokens.lab.solution_store import SolutionStore
from prototokens.measure import quality


def test_end_to_end(tiny_llama, tiny_embedder, tmp_path):
    config = settings(tiny_llama, most_texts=2, grid=(4,), embedder=str(tiny_embedder))
    jobs, rows, report = carried_out("probe", tiny_llama, config, tmp_path)
    assert len(jobs) == 2
    assert len(rows) == 2 * (len(probe.STARTS) + len(probe.CONTROLS))
    assert set(report.figures) == {"probe_chrf", "probe_semantic"}
    table = {line["start"]: line for line in cells(report, "probe_chrf")}
    assert set(table) == {*probe.STARTS, *probe.CONTROLS}

    # One row by hand: greedy generation from e and m, pass by pass, and its likeness to what the
    # vectors hold.
    text = jobs[0].texts[0]
    (solution,) = SolutionStore(tmp_path).load(
        Fit.one(text.ids[:4], recipe=config.recipe), config.model
    )
    sequence, written = solution.protos.clone(), []
    for _ in range(4):
        logits = tiny_llama.model(inputs_embeds=sequence[None]).logits[0, -1]
        written.append(int(logits.argmax()))
        sequence = torch.cat([sequence, tiny_llama.embed(torch.tensor([written[-1]]))])
    row = next(row for row in rows if row["text"] == text.id and row["start"] == "e m")
    assert row["written"] == tiny_llama.detokenize(written)
    assert row["chrf_held"] == quality.chrf(tiny_llama.detokenize(text.ids[:4]), row["written"])
    assert row["chrf_unrelated"] == quality.chrf(
        tiny_llama.detokenize(jobs[0].texts[1].ids[:4]), row["written"]
    )


def test_a_model_without_beginning_of_sequence(tiny_llama, tmp_path):
    bos = tiny_llama.tokenizer.bos_token
    try:
        tiny_llama.tokenizer.bos_token = None
        config = settings(tiny_llama, most_texts=1, grid=(4,))
        _, rows, _ = carried_out("probe", tiny_llama, config, tmp_path)
    finally:
        tiny_llama.tokenizer.bos_token = bos
    assert {row["start"] for row in rows} == {
        "e",
        "m",
        "e m",
        "e m m m",
        "noise",
        "context",
        "context and text",
    }


def test_lengths_beyond_the_context_give_no_job(tiny_llama):
    assert probe.jobs(settings(tiny_llama, grid=(64,))) == []
