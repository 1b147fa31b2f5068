"""Links between docs/ and results/ lead to the same pages on GitHub and in the site."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
HOOK = runpy.run_path(str(ROOT / "scripts" / "docs" / "docs_results.py"))


@pytest.mark.parametrize(
    ("page", "written", "in_the_site"),
    [
        ("findings.md", "[rows](../results/held/README.md)", "[rows](results/held/README.md)"),
        (
            "how-to/quantised.md",
            "[it](../../results/bits/README.md#x)",
            "[it](../results/bits/README.md#x)",
        ),
        ("results/README.md", "[f](../docs/findings.md#length)", "[f](../findings.md#length)"),
        (
            "results/held/README.md",
            "![p](../../docs/images/front.svg)",
            "![p](../../images/front.svg)",
        ),
        ("results/held/README.md", "[other](../front/README.md)", "[other](../front/README.md)"),
        (
            "findings.md",
            "[here](vectors.md) [there](https://a.b/results/c)",
            "[here](vectors.md) [there](https://a.b/results/c)",
        ),
    ],
)
def test_links_of_a_page_are_those_of_the_site(page, written, in_the_site):
    shown = HOOK["on_page_markdown"](
        written, page=SimpleNamespace(file=SimpleNamespace(src_uri=page))
    )
    assert shown == in_the_site


def test_every_report_and_its_pictures_are_in_the_site():
    added = []
    config = SimpleNamespace(
        use_directory_urls=False,
        site_dir="site",
        docs_dir="docs",
        plugins=SimpleNamespace(_current_plugin=None),
    )
    HOOK["on_files"](added, config=config)
    names = {file.src_uri for file in added}
    assert {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "results").rglob("README.md")
    } <= names
    assert {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "results").rglob("report.md")
    } <= names
    assert not {name for name in names if name.endswith((".jsonl", ".json", ".csv"))}


DEMO = runpy.run_path(str(ROOT / "scripts" / "docs" / "docs_demo.py"))
PAGE = (ROOT / "docs" / "how-to" / "browser.md").read_text(encoding="utf-8")


def hooked(monkeypatch, demo):
    """The files that the hook adds to the site, and the page as it is then written."""
    monkeypatch.setitem(DEMO["on_files"].__globals__, "DEMO", demo)
    config = SimpleNamespace(
        use_directory_urls=False,
        site_dir="site",
        docs_dir="docs",
        plugins=SimpleNamespace(_current_plugin=None),
    )
    added = DEMO["on_files"]([], config=config)
    return [file.src_uri for file in added], DEMO["on_page_markdown"](PAGE)


def test_the_site_shows_the_demo_where_it_was_made(monkeypatch, tmp_path):
    (tmp_path / "index.html").write_bytes(bytes(2_000_000))
    added, page = hooked(monkeypatch, tmp_path / "index.html")
    assert added == ["demo/index.html"]
    assert "../demo/index.html" in page
    assert "(2 MB)" in page


def test_the_site_without_a_demo_says_how_to_make_it(monkeypatch, tmp_path):
    added, page = hooked(monkeypatch, tmp_path / "index.html")
    assert added == []
    assert "`make page` makes it" in page
    assert "demo/index.html" not in page
