"""Rows of measurements in a file of JSON lines: written as they come, and not measured again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class RowFile:
    """A file that rows are appended to, one write each, so that a killed run goes on where it was.

    Args:
        path: of the file; its folder is made.
        key: names of the values that say which measurement a row is.
    """

    def __init__(self, path: Path, key: Sequence[str]):
        self.path, self.key = path, tuple(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = read_rows(path)
        self._done = {self.key_of(row) for row in self.rows}

    def done(self, row: Row) -> bool:
        """Whether there is a row of this measurement."""
        return self.key_of(row) in self._done

    def append(self, row: Row) -> None:
        """Add a row, behind a torn last line, if there is one, and not in it."""
        self.rows.append(row)
        self._done.add(self.key_of(row))
        with self.path.open("ab+") as out:
            if out.tell():
                out.seek(-1, 2)
                torn = out.read(1) != b"\n"
            else:
                torn = False
            out.write((b"\n" if torn else b"") + json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def key_of(self, row: Row) -> str:
        """Which measurement a row is."""
        return json.dumps([row.get(name) for name in self.key], sort_keys=True)


def options(words: str, rows: str, page: str) -> argparse.ArgumentParser:
    """The options that every script has that measures texts into rows and reports from rows alone.

    Args:
        words: the script's docstring.
        rows: where rows go by default.
        page: that `--report` writes to, for its help.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--texts", help="a source, as reproduce takes it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path(rows))
    parser.add_argument("--report", action="store_true", help=f"write the tables of {page} from the rows alone")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; what is to be measured needs texts."""
    args = parser.parse_args()
    if not args.report and not args.texts:
        parser.error("--texts is needed where something is to be measured")
    return args


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; a torn line is left out, and said."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"{path}, line {number}, is torn and left out", file=sys.stderr)
    return rows
