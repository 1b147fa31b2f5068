"""The README and the pages of docs/ are true.

Their Python runs and prints what they show, their commands are commands, their links lead
somewhere, and the tables and constants that they state are those of the code.
"""

import asyncio
import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import click
import pytest
import torch

import prototokens as pt
from prototokens.cli import cli, main
from prototokens.layout import NAMED as LAYOUTS
from prototokens.recipe import NAMED as RECIPES

ROOT = Path(__file__).parents[2]
REPORTS = sorted((ROOT / "results").rglob("README.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *REPORTS]
NAMES = [page.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/") for page in PAGES]
CHAPTER = "He had never seen the sea before that day. It was dark.\n"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, content, first line, and where it ends in the page."""

    language: str
    content: str
    line: int
    end: int


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1, m.end())
        for m in FENCE.finditer(text)
    ]


def prose(page):
    """The page without fenced blocks and code spans."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", "", text)


def commands(page):
    """Every `prototokens ...` of a page's console and sh blocks.

    Returns:
        (line, arguments, whether the command stands alone) of each.
    """
    found = []
    for block in blocks(page):
        if block.language not in ("console", "sh"):
            continue
        content = block.content.replace("\\\n", " ")
        for line in content.splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue  # what a command printed
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            for number, word in enumerate(words):
                if word == "prototokens" and (number == 0 or words[number - 1] in ("|", "&&", ";")):
                    rest = words[number + 1 :]
                    stop = next(
                        (n for n, w in enumerate(rest) if set(w) <= set("|&;<>()")), len(rest)
                    )
                    found.append((line, rest[:stop], number == 0 and stop == len(rest)))
    return found


@pytest.fixture(scope="module")
def builtin():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield pt.FrozenLM.from_pretrained("builtin")
    torch.set_num_threads(threads)


@pytest.fixture
def reader(builtin, monkeypatch, tmp_path):
    """Where a reader of a page stands: a folder with a text and one with results in it.

    The built-in model is loaded once for all pages, and takes the place of every model that a page
    names. The web page is built and not served.
    """
    load = pt.FrozenLM.from_pretrained

    def from_pretrained(name="builtin", *, dtype="auto", **options):
        return builtin if dtype == "auto" else load("builtin", dtype=dtype)

    monkeypatch.setattr(pt.FrozenLM, "from_pretrained", from_pretrained)
    # Commands look for a model's folder before they load it.
    monkeypatch.setattr("prototokens.lm.local.find_local", lambda name, revision: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reproduced").mkdir()
    (tmp_path / "chapter.txt").write_text(CHAPTER, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_pages_python_runs_and_prints_what_it_shows(page, reader):
    namespace = {"__name__": "__main__"}
    of_page = blocks(page)
    text = page.read_text(encoding="utf-8")
    for number, block in enumerate(of_page):
        if block.language != "python":
            continue
        # Filled up with empty lines, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.content, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        following = of_page[number + 1] if number + 1 < len(of_page) else None
        if (
            following
            and following.language == "text"
            and not text[block.end : text.index("```text", block.end)].strip()
        ):
            assert printed.getvalue() == following.content, f"{page.name}, line {following.line}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_of_a_page_is_one(page):
    for line, arguments, _ in commands(page):
        command, arguments = cli, list(arguments)
        if arguments and not arguments[0].startswith("-"):
            assert arguments[0] in cli.commands, line
            command = cli.commands[arguments.pop(0)]
        try:
            command.make_context("prototokens", arguments)
        except click.exceptions.Exit:
            pass  # --help and --version have been answered
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}\n{error.format_message()}")


def unserved(monkeypatch):
    """`explore` builds its page and ends."""
    page = pytest.importorskip("prototokens.explorer.page", reason="gradio is not installed")
    monkeypatch.setattr(page, "listen", lambda host, port, listen=page.listen: listen(host, 0))
    loops, new_loop = [], asyncio.new_event_loop

    def recorded():
        loops.append(new_loop())
        return loops[-1]

    def serve(settings, host, bound):
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "new_event_loop", recorded)
            page.build(settings)
        bound.close()
        # Gradio opens event loops for a page that is to be served, and leaves them to whoever
        # serves it.
        assert loops
        for loop in loops:
            loop.close()
        asyncio.set_event_loop(None)

    monkeypatch.setattr(page, "serve", serve)


ELSEWHERE = {"demo", "bench", "ray", "-", "--engine", "html", "memory.safetensors", "sea-adapter"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_pages_commands_do_what_they_say(page, reader, monkeypatch, capsysbinary):
    """With a chapter of two sentences.

    All but studies and what takes minutes, a cluster, the network, standard input, another
    program's engine, or files that the page's Python writes (`memory.safetensors`; the tests of
    `export` make them).
    """
    run = [
        arguments
        for _, arguments, alone in commands(page)
        if alone and not ELSEWHERE & set(arguments)
    ]
    run = [
        arguments
        for arguments in run
        if not any(word.startswith(("hub:", "studies/")) for word in arguments)
    ]
    if any(arguments[0] == "explore" for arguments in run):
        unserved(monkeypatch)
    for arguments in run:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        errors = capsysbinary.readouterr().err.decode()
        assert end.value.code == 0, f"{page.name}: prototokens {shlex.join(arguments)}\n{errors}"
    if (again := Path("again.txt")).exists():
        assert again.read_text(encoding="utf-8") == CHAPTER


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_make_target_of_a_page_is_one(page):
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


def anchor(heading):
    """The id that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page):
    return {
        anchor(heading)
        for heading in re.findall(
            r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE
        )
    }


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_of_a_page_leads_somewhere(page):
    text = prose(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        goal = (page.parent / target).resolve() if target else page
        assert goal.exists(), link
        assert goal.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(goal), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_module_and_file_that_a_page_names_is_there(page):
    package = ROOT / "src" / "prototokens"
    for name in re.findall(r"`([\w/.]+\.py)`", page.read_text(encoding="utf-8")):
        assert any((root / name).is_file() for root in (package, package / "engine", ROOT)), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_constant_that_a_page_states_has_that_value(page):
    for module, name, value in re.findall(
        r"`([a-z_.]+)\.([A-Z_]+)` = ([\w.,:]*\w)", page.read_text(encoding="utf-8")
    ):
        actual = getattr(importlib.import_module(f"prototokens.{module}"), name)
        assert value.replace(",", "") == str(actual), f"{module}.{name}"


def table(page, heading):
    """The first table under a heading.

    A list of rows, each a list of cells, without the title row.
    """
    section = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_table_of_recipes_holds_their_values():
    rows = table(ROOT / "docs" / "concepts.md", "Recipes")
    assert {row[0].strip("`") for row in rows} == set(RECIPES["paper"].as_dict()) - {"name"}
    for key, *written in ([cell.strip("`") for cell in row[:3]] for row in rows):
        for recipe, value in zip(("paper", "fast"), written, strict=True):
            actual = getattr(RECIPES[recipe], key)
            shown = (
                ", ".join(f"{part:g}" for part in actual) if isinstance(actual, tuple) else actual
            )
            assert value == (shown if isinstance(shown, str) else f"{shown:g}"), (recipe, key)


def test_the_table_of_layouts_holds_what_they_do():
    rows = {row[0].strip("`"): row[1:] for row in table(ROOT / "docs" / "concepts.md", "Layouts")}
    assert set(rows) == {*LAYOUTS, "tiled:K", "mixed:K", "keyed:K"}
    signs = str.maketrans("em₁₂", "0112")
    for name, (vectors, drawn, read, _) in rows.items():
        layout = pt.Layout.named(name.replace("K", "2"))
        several = "K" if name == "keyed:K" else "K + 1"
        assert vectors == (several if name.endswith(":K") else str(layout.vectors))
        signs_drawn = [
            int(word.translate(signs)[-1]) for word in drawn.removesuffix(" (K = 2)").split()
        ]
        assert signs_drawn == layout.index(5).tolist()
        assert (
            layout.scored(5).tolist() == list(range(len(signs_drawn)))[0 if read == "all" else 1 :]
        )


@pytest.mark.parametrize(("name", "width"), [("filling-in", 760), ("filling-in-narrow", 400)])
def test_the_picture_is_whole_and_fetches_nothing(name, width):
    picture = (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(picture)
    assert tree.get("viewBox", "").startswith(f"0 0 {width} ")
    assert not [key for element in tree.iter() for key in element.attrib if key.endswith("href")]
    sizes = [
        float(element.get("font-size", "0"))
        for element in tree.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert min(sizes) >= 13
