"""Folders of results on the Hugging Face hub: each is a data set there, with a generated card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from prototokens._version import __version__
from prototokens.errors import FileError
from prototokens.ptok.hub import CARD, errors_in_words, front_matter, plain

# What a folder of results holds; nothing else of it is sent, or fetched.
RESULTS = ["*.jsonl", "*.csv", "*.json", "*.md", "*.png", "*.svg"]


def push_results(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Rows and reports",
    endpoint: str | None = None,
) -> str:
    """Put a folder of results into a data set of the hub.

    Rows, reports, tables and figures go there, solutions do not.

    A card is made where the folder has no README.md of its own.

    Raises:
        FileError: there are no rows in the folder, the hub refuses, or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd

    root = Path(folder)
    found = {path.relative_to(root).as_posix(): path for path in _results(root)}
    if not any(name.endswith(".jsonl") for name in found):
        raise FileError(
            f"{root} holds no rows (.jsonl): name a folder that an experiment has written"
        )
    operations = [CommitOperationAdd(name, path) for name, path in found.items()]
    if CARD not in found:
        operations.append(CommitOperationAdd(CARD, results_card(root, repository).encode()))
    with errors_in_words(repository):
        api = HfApi(
            endpoint=endpoint, token=token, library_name="prototokens", library_version=__version__
        )
        api.create_repo(repository, private=private, exist_ok=True, repo_type="dataset")
        return api.create_commit(
            repository, operations, commit_message=message, repo_type="dataset"
        ).commit_url


def pull_results(
    repository: str, *, revision: str | None = None, endpoint: str | None = None
) -> Path:
    """The folder of results of a data set, fetched into the hub's cache on this machine.

    Raises:
        FileError: it is not there, or out of reach.
    """
    with errors_in_words(repository):
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=RESULTS,
                endpoint=endpoint,
                library_name="prototokens",
                library_version=__version__,
            )
        )


def results_card(folder: Path, repository: str) -> str:
    """What is in a folder of results.

    Its rows by file, and the models and experiments that they name.
    """
    lines, models, experiments = [], set(), set()
    for path in _results(folder):
        if path.suffix != ".jsonl":
            continue
        rows = [
            row
            for line in path.read_text(encoding="utf-8").split("\n")
            if isinstance(row := _json(line), dict)
        ]
        lines.append(f"| `{path.relative_to(folder).as_posix()}` | {len(rows):,} |")
        models |= {plain(str(name)) for row in rows if (name := _named(row.get("model")))}
        experiments |= {plain(str(row["experiment"])) for row in rows if row.get("experiment")}
    meta = {"tags": ["prototokens"], "pretty_name": plain(repository.rpartition("/")[2])}
    table = "\n".join(lines)
    return f"""\
{front_matter(meta)}
# Results of prototokens

Rows of experiments, one JSON object a line, each with what is needed to make it again.

| file | rows |
|---|---|
{table}

Models: {_listed(models)}. Experiments: {_listed(experiments)}.

```python
from prototokens.lab.hub import pull_results

print(pull_results({repository!r}))
```
"""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "not named"


def _results(folder: Path) -> Iterator[Path]:
    """The files of a folder that belong to its results, without links and hidden ones."""
    suffixes = {pattern[1:] for pattern in RESULTS}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in suffixes and path.is_file() and not path.is_symlink() and not hidden:
            yield path


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _named(model: Any) -> Any:
    """A row names its model, or describes it."""
    return model.get("name") if isinstance(model, dict) else model
