"""A capacity card in the shapes of lm-evaluation-harness and of the hub."""

import json
from datetime import date

import pytest
import yaml
from huggingface_hub import EvalResultEntry
from huggingface_hub._eval_results import eval_result_entries_to_yaml, parse_eval_result_entries

from prototokens.lab.leaderboards import hub_entries, lm_eval_results, yaml_of

WAY = {
    "texts": "random-tokens",
    "way": "memory:1",
    "count": 3,
    "horizon": 8,
    "c_tokens": 8,
    "c_tokens_mean": 6.5,
    "h_lm": 20.25,
    "h_lm_low": 18.0,
    "h_lm_high": 23.0,
    "h_lm_std": 2.0,
    "bits_per_float": 0.11,
    "bound": 341.3,
    "share_of_bound": 0.02,
    "lower_bounds": 0,
    "greedy_exact": None,
}
CARD = {
    "model": "some/model",
    "revision": None,
    "fingerprint": "0" * 64,
    "dtype": "float32",
    "d_model": 256,
    "capacity": [WAY, {**WAY, "texts": "file:a.txt", "way": "paper", "greedy_exact": 1.0}],
}
# The members of `EvalResults` in lm_eval/result_schema.py of lm-eval 0.4.13: their types as JSON.
SCHEMA = {
    "results": dict,
    "groups": dict,
    "group_subtasks": dict,
    "configs": dict,
    "versions": dict,
    "n-shot": dict,
    "higher_is_better": dict,
    "n-samples": dict,
    "samples": dict,
    "config": dict,
    "git_hash": str,
    "date": float,
    "pretty_env_info": str,
    "transformers_version": str,
    "lm_eval_version": str,
    "model_source": str,
    "model_name": str,
    "model_name_sanitized": str,
    "task_hashes": dict,
    "total_evaluation_time_seconds": str,
}
CONFIG = {"model", "model_args", "model_num_parameters", "model_dtype", "model_revision"}
CONFIG |= {"model_sha", "batch_size", "batch_sizes", "device", "use_cache", "limit"}
CONFIG |= {"bootstrap_iters", "gen_kwargs", "random_seed", "numpy_seed", "torch_seed"}


@pytest.fixture
def results():
    return json.loads(json.dumps(lm_eval_results(CARD, 1.5, {"steps": 400}), allow_nan=False))


def test_results_have_the_members_of_the_harness_and_their_types(results):
    assert results.keys() <= SCHEMA.keys()
    assert all(isinstance(value, SCHEMA[key]) for key, value in results.items())
    assert results["config"].keys() <= CONFIG
    assert results["config"]["model_args"] == {"pretrained": "some/model", "steps": 400}


def test_every_task_has_all_that_the_harness_writes_of_one(results):
    tasks = set(results["results"])
    assert len(tasks) == 2
    for part in ("configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert set(results[part]) == tasks
    for name, metrics in results["results"].items():
        assert (metrics["name"], metrics["sample_len"]) == (name, 3)
        assert isinstance(metrics["alias"], str)
        for key, value in metrics.items():
            if key in ("name", "alias", "sample_len"):
                continue
            metric, _, of_filter = key.partition(",")
            assert of_filter == "none"
            assert metric.removesuffix("_stderr") in results["higher_is_better"][name]
            assert value == "N/A" if isinstance(value, str) else isinstance(value, int | float)
        assert results["n-samples"][name] == {"original": 3, "effective": 3}


def test_the_harness_own_table_takes_the_results(results):
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed")
    assert "h_lm" in utils.make_table(results)


def test_entries_are_those_that_the_hubs_library_reads_and_writes():
    entries = hub_entries(CARD, date(2026, 1, 2).isoformat(), "some/benchmark", "https://x.org/y")
    read = yaml.safe_load(yaml_of(entries))
    parsed = parse_eval_result_entries(read)
    assert all(isinstance(entry, EvalResultEntry) for entry in parsed)
    assert eval_result_entries_to_yaml(parsed) == read == entries
    first = parsed[0]
    assert (first.dataset_id, first.value) == ("some/benchmark", 20.25)
    assert first.task_id == "prototokens_capacity_random_tokens_memory_1"
    assert first.date == "2026-01-02"
    assert "18 to 23" in first.notes
