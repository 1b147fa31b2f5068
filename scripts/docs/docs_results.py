"""A hook of mkdocs: the reports of results/ become pages of the site.

Links between them and docs/ stay valid.

Reports and rows live in results/, outside of the folder of the documentation. In the site that
folder is inside it: so `../results/` of a page of docs/ loses one step up, and `../docs/` of a
report loses its folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SHOWN = ("README.md", "report.md")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Called by mkdocs with the files that it has found.

    Reports, and the pictures beside them, are added.
    """
    for path in sorted((ROOT / "results").rglob("*")):
        if path.name in SHOWN or path.suffix == ".svg":
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with the Markdown of each page."""
    if page.file.src_uri.startswith("results/"):
        if page.file.src_uri.endswith("report.md"):
            page.meta["hide"] = ["toc"]  # its column is needed for tables with many columns
        return re.sub(r"\]\(((?:\.\./)+)docs/", r"](\1", markdown)
    return re.sub(r"\]\(\.\./((?:\.\./)*results/)", r"](\1", markdown)
