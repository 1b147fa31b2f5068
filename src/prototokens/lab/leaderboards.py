"""A capacity card in the shapes that evaluators read.

`lm_eval_results` has the shape of the `results.json` of lm-evaluation-harness (its
`EvalResults`), `hub_entries` that of a `.eval_results/*.yaml` file of a model on the Hugging Face
hub. Both are plain values; a card is what `lab.experiments.capacity.card` gives.
"""

from __future__ import annotations

from typing import Any

from prototokens._util.versions import versions

TASK = "prototokens_capacity"
TASK_VERSION = 1
# The figures of a card that become metrics, each with whether more of it is better.
METRICS = {
    "c_tokens": True,
    "c_tokens_mean": True,
    "h_lm": True,
    "horizon": True,
    "bits_per_float": True,
    "share_of_bound": True,
    "greedy_exact": True,
}
FILTER = "none"  # lm-evaluation-harness names a metric with the filter of the answers behind it
Z_95 = 1.959964  # half of a 95% interval, in standard errors


def lm_eval_results(card: dict[str, Any], date: float, command: dict[str, Any]) -> dict[str, Any]:
    """The card as results of lm-evaluation-harness: a task for each source and way.

    Args:
        date: when it was measured, as a UNIX timestamp.
        command: the options of the command, recorded as the arguments of the model.
    """
    tasks = {_task(one): one for one in card["capacity"]}
    return {
        "results": {name: _metrics(name, one) for name, one in tasks.items()},
        "group_subtasks": {TASK: list(tasks)},
        "configs": {name: _config(name, one) for name, one in tasks.items()},
        "versions": dict.fromkeys(tasks, TASK_VERSION),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {name: dict(METRICS) for name in tasks},
        "n-samples": {
            name: {"original": one["count"], "effective": one["count"]}
            for name, one in tasks.items()
        },
        "config": {
            "model": "prototokens",
            "model_args": {"pretrained": card["model"], **command},
            "model_dtype": card["dtype"],
            "model_revision": card["revision"] or "",
            "model_sha": card["fingerprint"] or "",
            "batch_size": None,
            "device": None,
            "limit": None,
        },
        "date": date,
        "transformers_version": versions()["transformers"],
        "model_source": "prototokens",
        "model_name": card["model"] or "",
        "model_name_sanitized": (card["model"] or "").replace("/", "__"),
        "task_hashes": {},
    }


def hub_entries(
    card: dict[str, Any], date: str, dataset: str, source: str | None = None
) -> list[dict[str, Any]]:
    """The card as entries of a `.eval_results/*.yaml` file: one for each source and way.

    The value of an entry is the mean H_LM, in nats.

    Args:
        date: ISO 8601.
        dataset: id of the benchmark on the hub that has these tasks.
        source: address of the rows or of the report.
    """
    return [
        {
            "dataset": {"id": dataset, "task_id": _task(one)},
            "value": one["h_lm"],
            "date": date,
            **({} if source is None else {"source": {"url": source, "name": "prototokens"}}),
            "notes": (
                f"H_LM in nats, mean of {one['count']} texts, 95% interval {one['h_lm_low']:.4g} to"
                f" {one['h_lm_high']:.4g}; C_tokens {one['c_tokens']}; {one['way']}"
                f" ({card['dtype']})"
            ),
        }
        for one in card["capacity"]
    ]


def yaml_of(entries: list[dict[str, Any]]) -> str:
    """The entries as YAML, which any JSON is: strings are quoted, and nothing is guessed."""
    import json

    lines = []
    for entry in entries:
        for number, (key, value) in enumerate(entry.items()):
            lines.append(f"{'  ' if number else '- '}{key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _task(one: dict[str, Any]) -> str:
    """Name of a task: what was read, and how."""
    plain = f"{TASK}_{one['texts']}_{one['way']}"
    return "".join(letter if letter.isalnum() else "_" for letter in plain).lower()


def _metrics(name: str, one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "alias": f"{one['texts']}, {one['way']}"}
    found["sample_len"] = one["count"]
    for metric in METRICS:
        if one[metric] is not None:
            found[f"{metric},{FILTER}"] = one[metric]
            found[f"{metric}_stderr,{FILTER}"] = "N/A"
    found[f"h_lm_stderr,{FILTER}"] = (one["h_lm_high"] - one["h_lm_low"]) / (2 * Z_95)
    return found


def _config(name: str, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": one["texts"],
        "output_type": one["way"],
        "repeats": 1,
        "metadata": {"version": TASK_VERSION, "way": one["way"], "texts": one["texts"]},
    }
