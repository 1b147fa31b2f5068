"""Encoded texts and folders of results on the Hugging Face hub, and in folders of the same form, each with a generated card.

A `.ptok` file goes into a model repository, since it belongs to its base model and to no other; a folder of results goes into
a data set. What comes back from the hub is read with the same suspicion as any file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub_errors

from prototokens._util.files import write_atomically
from prototokens._version import __version__
from prototokens.errors import FileError
from prototokens.lm.checks import one_line
from prototokens.ptok.encoded import EncodedText

FILE = "text.ptok"
CARD = "README.md"
# What a folder of results holds; nothing else of it is sent, or fetched.
RESULTS = ["*.jsonl", "*.csv", "*.json", "*.md", "*.png", "*.svg"]


def save_pretrained(encoded: EncodedText, folder: str | os.PathLike[str]) -> Path:
    """Write an encoded text and its card into a folder, which is made where it is not there.

    Returns:
        The `.ptok` file.

    Raises:
        FileError: the folder cannot be written.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the folder {place} cannot be made ({error.strerror or error}): choose another place") from error
    encoded.save(place / FILE)
    write_atomically(place / CARD, card(encoded).encode())
    return place / FILE


def from_pretrained(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, filename: str = FILE, endpoint: str | None = None
) -> EncodedText:
    """Read an encoded text from a folder, or from a repository of the hub. The model that it belongs to is not loaded.

    Args:
        name_or_path: a folder written by `save_pretrained`, or the id of a repository.
        revision: branch, tag or commit of a repository.
        filename: the file's name there.
        endpoint: another hub than the usual one.

    Raises:
        FileError: it is not there, or not a file of ours.
    """
    name = os.fspath(name_or_path)
    if Path(name).is_dir():
        if revision is not None:
            raise FileError(f"{name} is a folder and has no revision {revision!r}: only repositories on the hub have")
        return EncodedText.load(Path(name) / filename)
    with _in_words(name):
        path = hf_hub_download(
            name, filename, revision=revision, endpoint=endpoint, library_name="prototokens", library_version=__version__
        )
    return EncodedText.load(path)


def push_to_hub(
    encoded: EncodedText,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "An encoded text",
    endpoint: str | None = None,
) -> str:
    """Put an encoded text and its card into a repository of the hub, which is made where it is not there.

    Args:
        repository: owner/name.
        private: of a new repository; None: as the account has it.
        token: of the account; by default the one that is logged in.
        message: of the commit.
        endpoint: another hub than the usual one.

    Returns:
        The address of the commit.

    Raises:
        FileError: the hub refuses, or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd

    files = {FILE: encoded.to_bytes(), CARD: card(encoded, repository).encode()}
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    with _in_words(repository):
        api = HfApi(endpoint=endpoint, token=token, library_name="prototokens", library_version=__version__)
        api.create_repo(repository, private=private, exist_ok=True)
        return api.create_commit(repository, operations, commit_message=message).commit_url


def push_results(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Rows and reports",
    endpoint: str | None = None,
) -> str:
    """Put a folder of results (rows, reports, tables, figures; not the solutions) into a data set of the hub.

    A card is made where the folder has no README.md of its own.

    Raises:
        FileError: there are no rows in the folder, the hub refuses, or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd

    place = Path(folder)
    found = {path.relative_to(place).as_posix(): path for path in _results(place)}
    if not any(name.endswith(".jsonl") for name in found):
        raise FileError(f"{place} holds no rows (.jsonl): name a folder that an experiment has written")
    operations = [CommitOperationAdd(name, path) for name, path in found.items()]
    if CARD not in found:
        operations.append(CommitOperationAdd(CARD, results_card(place, repository).encode()))
    with _in_words(repository):
        api = HfApi(endpoint=endpoint, token=token, library_name="prototokens", library_version=__version__)
        api.create_repo(repository, private=private, exist_ok=True, repo_type="dataset")
        return api.create_commit(repository, operations, commit_message=message, repo_type="dataset").commit_url


def pull_results(repository: str, *, revision: str | None = None, endpoint: str | None = None) -> Path:
    """The folder of results of a data set, fetched into the hub's cache on this machine.

    Raises:
        FileError: it is not there, or out of reach.
    """
    with _in_words(repository):
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=RESULTS, endpoint=endpoint,
                library_name="prototokens", library_version=__version__,
            )
        )  # fmt: skip


def card(encoded: EncodedText, repository: str | None = None) -> str:
    """What a reader must know of an encoded text: which model it needs, what is in it, how it is decoded."""
    header = encoded.header
    model, text, lengths = header["model"], header["text"], header["chunks"]
    tokens, numbers = text["tokens"], encoded.vectors.numel()
    meta: dict[str, Any] = {"library_name": "prototokens", "tags": ["prototokens", "one-step-generation"]}
    if model["name"].count("/") == 1 and not Path(model["name"]).exists():
        meta["base_model"] = model["name"]
    where = repr(repository) if repository else '"FOLDER"'
    load = f'pt.FrozenLM.from_pretrained("{_plain(model["name"])}"'
    load += f', revision="{_plain(model["revision"])}")' if model["revision"] else ")"
    margin = "-" if header["min_margin"] is None else f"{header['min_margin']:.3f}"
    lines = {
        "model": f"{_plain(model['name'])}, fingerprint `{_plain(model['fingerprint'][:16])}`, computed in {model['dtype']}",
        "text": f"{tokens:,} tokens, {text['characters']:,} characters, SHA-256 `{_plain(text['sha256'])}`",
        "vectors": f"{len(encoded.vectors):,} of {model['d_model']} numbers, {numbers / tokens:.2f} numbers a token",
        "chunks": f"{len(lengths)} of {min(lengths)} to {max(lengths)} tokens, layout `{header['layout']}`",
        "exact": f"{'yes' if header['exact'] else 'no'}: {header['accuracy']:.2%} of the tokens right when it was made",
        "least margin": f"{margin} logits",
        "made with": f"prototokens {_plain(header['versions']['prototokens'])}, recipe `{_plain(header['recipe']['name'])}`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return f"""\
{_front(meta)}
# A text as {len(encoded.vectors):,} vectors

`{FILE}` holds a text as input vectors of a frozen language model, which gives it back token for token, each chunk in one
forward pass. To any other model the vectors mean nothing. They are larger than the text: this is no compressor.

| | |
|---|---|
{table}

```python
import prototokens as pt
from prototokens.ptok.hub import from_pretrained

lm = {load}
print(pt.decode(lm, from_pretrained({where})))
```
"""


def results_card(folder: Path, repository: str) -> str:
    """What is in a folder of results: its rows by file, and the models and experiments that they name."""
    lines, models, experiments = [], set(), set()
    for path in _results(folder):
        if path.suffix != ".jsonl":
            continue
        rows = [row for line in path.read_text(encoding="utf-8").splitlines() if isinstance(row := _json(line), dict)]
        lines.append(f"| `{path.relative_to(folder).as_posix()}` | {len(rows):,} |")
        models |= {_plain(str(name)) for row in rows if (name := _named(row.get("model")))}
        experiments |= {_plain(str(row["experiment"])) for row in rows if row.get("experiment")}
    meta = {"tags": ["prototokens"], "pretty_name": _plain(repository.rpartition("/")[2])}
    table = "\n".join(lines)
    return f"""\
{_front(meta)}
# Results of prototokens

Rows of experiments, one JSON object a line, each with what is needed to make it again.

| file | rows |
|---|---|
{table}

Models: {", ".join(sorted(models)) or "not named"}. Experiments: {", ".join(sorted(experiments)) or "not named"}.

```python
from prototokens.ptok.hub import pull_results

print(pull_results({repository!r}))
```
"""


def _results(folder: Path) -> Iterator[Path]:
    """The files of a folder that belong to its results, without links and without what is hidden."""
    suffixes = {pattern[1:] for pattern in RESULTS}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in suffixes and path.is_file() and not path.is_symlink() and not hidden:
            yield path


def _front(meta: dict[str, Any]) -> str:
    """A card's head: JSON strings are YAML strings, so nothing in a name can end it."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in meta.items()]
    return "\n".join(["---", *lines, "---"])


def _plain(word: str) -> str:
    """A word from a file for a card: no line ends, no markup, nothing that closes a string."""
    return "".join(letter if letter.isalnum() or letter in " ._-/:+@" else "?" for letter in word)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _named(model: Any) -> Any:
    """A row names its model, or describes it."""
    return model.get("name") if isinstance(model, dict) else model


@contextmanager
def _in_words(repository: str) -> Iterator[None]:
    """The hub's errors as sentences.

    Raises:
        FileError: anything that the hub, or the way to it, has against it.
    """
    try:
        yield
    except hub_errors.HFValidationError as error:
        raise FileError(f"{repository!r} is neither a folder here nor the id of a repository (owner/name)") from error
    except hub_errors.RevisionNotFoundError as error:
        raise FileError(f"the repository {repository!r} has no such revision: give a branch, a tag or a commit") from error
    except hub_errors.RepositoryNotFoundError as error:
        advice = "check the name, or log in with `hf auth login` if it is private"
        raise FileError(f"{repository!r} is no folder here, and the hub shows no repository of that name: {advice}") from error
    except hub_errors.LocalEntryNotFoundError as error:
        advice = "check the name, or connect to the network"
        raise FileError(f"{repository!r} is no folder here, and the hub could not be reached: {advice}") from error
    except hub_errors.EntryNotFoundError as error:
        raise FileError(f"the repository {repository!r} holds no such file: check its name") from error
    except (hub_errors.HfHubHTTPError, OSError, ValueError) as error:
        raise FileError(f"the hub does not serve {repository!r} ({one_line(error)}): log in, or try again later") from error
