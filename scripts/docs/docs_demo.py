"""A hook of mkdocs: the web page that `make page` has made becomes a live demo in the site.

Without it, as on a machine that has no network, the page of the documentation says how to make it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DEMO = Path(__file__).parents[2] / "build" / "page" / "index.html"
NAME = "demo/index.html"
MARK = "<!-- demo -->"
# It is loaded when a reader asks for it: it has megabytes.
SHOWN = """\
<div class="demo">
<button class="md-button md-button--primary" onclick="const page = document.createElement('iframe');
page.src = '../{name}'; page.title = 'A .ptok file, decoded in this page';
page.style = 'width: 100%; height: 60rem; border: 0'; this.replaceWith(page)">Start the demo
({size:.0f} MB)</button>
</div>

It can also be opened <a href="../{name}">in a window of its own</a>.
"""
ABSENT = """\
!!! note
    This copy of the documentation was built without the demo. `make page` makes it, and `make docs`
    then shows it here.
"""


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Called by mkdocs with the files that it has found: the demo is added where it was made."""
    if DEMO.is_file():
        files.append(File.generated(config, NAME, abs_src_path=str(DEMO)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the Markdown of each page."""
    if MARK not in markdown:
        return markdown
    size = DEMO.stat().st_size / 1e6 if DEMO.is_file() else None
    shown = ABSENT if size is None else SHOWN.format(name=NAME, size=size)
    return markdown.replace(MARK, shown)
