"""The page without a browser.

What it refuses, what it never gives away, and how a fit is watched and stopped.
"""

import asyncio
import json
import re
import socket
import sys
import threading
from html import unescape

import pytest
import torch

import prototokens as pt
from prototokens.errors import FileError, ModelError, UsageError
from prototokens.explorer import show, style
from prototokens.explorer.tokens import all_tokens, read, tokens_of
from prototokens.explorer.work import (
    Desk,
    Settings,
    chunk_of,
    from_shelf,
    put_on_shelf,
    show_errors_in,
)
from prototokens.ptok.encoded import EncodedText
from prototokens.solution import Chunk

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'prototokens[explorer]'")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of results beside a file that is none of the page's business, and a link to it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "given" / "deep").mkdir(parents=True)
    (folder / "given" / "deep" / "rows.jsonl").write_text(
        '{"a": 1, "b": {"c": [1, 2], "d": "x"}}\n\n{"a": 10}\n'
    )
    (folder / "given" / "table.csv").write_text("name,steps\none,20\ntwo,3\n")
    (folder / "given" / "broken.jsonl").write_text("[1, 2]\n")
    (folder / "given" / "deep" / "report.md").write_text(
        "# Title\n\n![curve](curve.svg)\n\n<script>alert(1)</script>\n"
    )
    (folder / "given" / "deep" / "curve.png").write_bytes(b"\x89PNG")
    (folder / "secret.jsonl").write_text('{"secret": 1}\n')
    (folder / "given" / "link.jsonl").symlink_to(folder / "secret.jsonl")
    return folder / "given"


@pytest.fixture(scope="module")
def served(served_page, results):
    """The page's address."""
    with served_page("--results", results, "--max-upload", 1, cwd=results, clean=False) as address:
        yield address


def ask(method, url, **options):
    import httpx

    return httpx.request(method, url, trust_env=False, timeout=30, **options)


def test_no_file_of_the_machine_is_given_away(served, results):
    for path in (
        "/etc/passwd",
        results / "table.csv",
        results.parent / "secret.jsonl",
        sys.executable,
        "../../etc/passwd",
    ):
        assert ask("GET", f"{served}/gradio_api/file={path}").status_code in (403, 404), path


@pytest.mark.parametrize(
    "path", ["secret.ptok", "/etc/passwd", "http://127.0.0.1:9/x.ptok", "/tmp/gradio/../x.ptok"]
)
def test_a_path_or_an_address_in_place_of_an_upload_is_refused(served, results, path):
    """A direct request cannot name a file of the machine or have the machine fetch one."""
    (results.parent / "secret.ptok").write_text("secret")
    named = str(results.parent / path) if path == "secret.ptok" else path
    data = [{"path": named, "meta": {"_type": "gradio.FileData"}}, "builtin", None]
    for asked in ("gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/call/decode"):
        sent = {"data": data, "fn_index": 0, "session_hash": "x"}
        answer = ask("POST", f"{served}/{asked}", json=sent)
        assert (answer.status_code, answer.json()) == (
            403,
            {"detail": "only a file that was sent up can be named"},
        )


def upload(served):
    """A file that was sent up: the path that the page gave it."""
    return ask(
        "POST", f"{served}/gradio_api/upload", files={"files": ("a b.ptok", b"x" * 100)}
    ).json()[0]


def joined(served, description):
    """The answer to a request whose input is a file that is described so."""
    sent = {"data": [description, "builtin", None], "fn_index": 10_000, "session_hash": "x"}
    content = sent if isinstance(description, dict) else None
    raw = json.dumps(sent).replace(json.dumps(description), str(description))
    options = (
        {"json": content}
        if content
        else {"content": raw, "headers": {"content-type": "application/json"}}
    )
    return ask("POST", f"{served}/gradio_api/queue/join", **options)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x.ptok",
        "http://elsewhere.example/gradio_api/file={path}",
        "//elsewhere.example/gradio_api/file={path}",
        "http://user@elsewhere.example/gradio_api/file={path}",
        "file:///etc/passwd",
        "{root}/gradio_api/file=/etc/passwd",
        "{root}/gradio_api/proxy=http://elsewhere.example/x",
        ["http://elsewhere.example/"],
    ],
)
def test_a_file_with_an_address_elsewhere_is_refused(served, url):
    """Whether Gradio would fetch the `url` of a file has changed with its versions.

    It is not asked.
    """
    path = upload(served)
    named = url.format(path=path, root=served) if isinstance(url, str) else url
    answer = joined(served, {"path": path, "url": named, "meta": {"_type": "gradio.FileData"}})
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "only a file that was sent up can be named"},
    )
    assert joined(served, {"url": named, "meta": {"_type": "gradio.FileData"}}).status_code == 403


@pytest.mark.parametrize(
    "url", [None, "", "/gradio_api/file={path}", "{root}/gradio_api/file={path}"]
)
def test_a_file_that_was_sent_up_passes_with_its_own_address(served, url):
    path = upload(served)
    named = url and url.format(path=path, root=served)
    answer = joined(served, {"path": path, "url": named, "meta": {"_type": "gradio.FileData"}})
    assert answer.status_code != 403


@pytest.mark.parametrize(
    "route", ["file=", "file/", "proxy=", "file=%20", "file=HTTP%3A%2F%2F127.0.0.1:9/"]
)
@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "https://elsewhere.example/x"])
def test_the_route_for_files_leads_nowhere_else(served, route, address):
    """An open redirect, or a fetch in the visitor's name (gradio-app/gradio, issue 13593)."""
    answer = ask("GET", f"{served}/gradio_api/{route}{address}", follow_redirects=False)
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "this page serves its own files alone"},
    )


def test_a_file_that_is_described_twice_is_refused(served):
    """The gate and Gradio might read different ones."""
    path = json.dumps(upload(served))
    assert joined(served, f'{{"path": {path}, "path": {path}}}').status_code == 403


@pytest.mark.parametrize("size", [5 << 20, 12 << 20])
def test_a_request_that_is_too_large_is_refused_in_words_that_gradio_shows(served, size):
    """Its page takes the sentence from the JSON member `detail`.

    Anything else it calls an answer that it cannot read.
    """
    answer = ask(
        "POST",
        f"{served}/gradio_api/queue/join",
        json={"data": ["x" * size], "fn_index": 0, "session_hash": "x"},
    )
    assert answer.status_code == 413
    assert answer.json() == {
        "detail": "the text is far longer than the 2,000 characters that this page takes"
    }


def test_the_gate_lets_through_what_the_limit_on_texts_allows(served_page, tmp_path):
    """Two texts of the longest that may be, in the characters that take most room.

    No model is loaded for them.
    """
    with served_page("--max-characters", 500_000, cwd=tmp_path, clean=False) as address:
        sent = {"data": ["\x01" * 500_000] * 2, "fn_index": 10_000, "session_hash": "x"}
        assert ask("POST", f"{address}/gradio_api/queue/join", json=sent).status_code not in (
            403,
            413,
        )


def test_an_upload_that_is_too_large(served):
    assert (
        ask(
            "POST", f"{served}/gradio_api/upload", files={"files": ("a.ptok", b"x" * 1000)}
        ).status_code
        == 200
    )
    assert (
        ask(
            "POST", f"{served}/gradio_api/upload", files={"files": ("a.ptok", b"x" * (2 << 20))}
        ).status_code
        == 413
    )


def test_every_answer_forbids_what_is_elsewhere_and_no_stranger_is_answered(served):
    answer = ask("GET", served)
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis" not in answer.text
    assert ask("GET", served, headers={"Host": "elsewhere.example"}).status_code == 400
    for path in ("docs", "monitoring", "gradio_api/mcp/sse"):
        assert ask("GET", f"{served}/{path}").status_code in (403, 404), path


def test_nothing_is_reported_to_its_makers(served):
    assert ask("GET", f"{served}/config").json()["analytics_enabled"] is False


def test_only_files_of_the_folders_are_tables(results):
    from prototokens.explorer.results import _files, _find, _plots, _report
    from prototokens.explorer.tables import read

    folders = (results,)
    assert list(_files(folders, (".jsonl", ".csv"))) == [
        "given/broken.jsonl",
        "given/deep/rows.jsonl",
        "given/table.csv",
    ]
    heads, cells, total = read(_find(folders, "given/deep/rows.jsonl", (".jsonl",)))
    assert (heads, cells, total) == (["a", "b.c", "b.d"], [[1, "[1, 2]", "x"], [10, "", ""]], 2)
    assert read(results / "table.csv") == (["name", "steps"], [["one", 20.0], ["two", 3.0]], 2)
    for name in (
        "given/../secret.jsonl",
        "given/link.jsonl",
        str(results.parent / "secret.jsonl"),
        "/etc/passwd",
    ):
        with pytest.raises(UsageError, match="not among the files of the folders"):
            _find(folders, name, (".jsonl", ".csv"))
    with pytest.raises(FileError, match="no table that can be read here"):
        read(results / "broken.jsonl")
    rows = results / "deep" / "rows.jsonl"
    assert "curve.svg" not in _report(folders, rows)
    assert "curve" in _plots(folders, rows)


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b"])
def test_only_line_feeds_end_the_rows_of_a_table(tmp_path, letter):
    """Python's `splitlines` ends lines at these as well (wbolster/jsonlines, issue 53)."""
    from prototokens.explorer.tables import read

    row = (
        json.dumps({"a": f"x{letter}y", "b": 1}, ensure_ascii=False)
        if letter != "\x0b"
        else '{"a": "x\\u000by", "b": 1}'
    )
    (tmp_path / "rows.jsonl").write_text(f"{row}\n{row}\n", encoding="utf-8-sig")
    assert read(tmp_path / "rows.jsonl") == (["a", "b"], [[f"x{letter}y", 1]] * 2, 2)
    (tmp_path / "rows.csv").write_text(f"a,b\nx{letter}y,1\n", encoding="utf-8-sig")
    assert read(tmp_path / "rows.csv") == (["a", "b"], [[f"x{letter}y", 1.0]], 1)


def test_columns_of_numbers_sort_as_numbers():
    from prototokens.explorer.tables import kinds

    assert kinds(["a", "b", "c"], [[1, "x", True], [2.5, "y", False]]) == ["number", "str", "str"]
    assert kinds(["a", "b"], [[1, None], [None, None], [10, None]]) == ["number", "str"]
    assert kinds(["a"], []) == ["str"]


def test_distinguishing_columns_come_first_and_shared_values_stand_above():
    from prototokens.explorer.results import _about
    from prototokens.explorer.tables import arranged

    heads = [
        "model",
        "fingerprint",
        "ids_sha256",
        "recipe.steps",
        "run.steps",
        "run.exact",
        "gap",
        "void",
    ]
    cells = [
        ["builtin", "a" * 64, "b" * 64, 1, 100, True, "", ""],
        ["builtin", "a" * 64, "c" * 64, 2, 200, True, 7, ""],
        ["builtin", "a" * 64, "d" * 64, 1, 300, False, "", ""],
    ]
    table = arranged(heads, cells, 3)
    assert table.heads == ["run.exact", "run.steps", "recipe.steps", "gap", "ids_sha256"]
    assert table.cells[0] == [True, 100, 1, None, "b" * 64]
    assert table.alike == {"model": "builtin", "fingerprint": "aaaaaaaaaaaa…"}
    words = unescape(_about("given/x.jsonl", table))
    assert "given/x.jsonl: 3 rows." in words
    assert "sort" in words
    assert "All rows alike: model builtin; fingerprint aaaaaaaaaaaa…" in words
    one = arranged(heads[:2], [cells[0][:2]], 1)
    assert (one.heads, one.alike) == (heads[:2], {})
    assert arranged(["a", "b"], [[1, 2], [3]], 2).cells == [[1, 2], [3, None]]


def test_reports_beside_below_and_above(tmp_path):
    from prototokens.explorer.results import _report

    folder = tmp_path / "results"
    for name in ("one", "two", "bare"):
        (folder / name).mkdir(parents=True)
    for name, words in (
        ("README.md", "of all"),
        ("one/report.md", "of one"),
        ("two/report.md", "of two"),
    ):
        (folder / name).write_text(words + "\n")
    (tmp_path / "README.md").write_text("outside")
    shown = {name: _report((folder,), folder / name / "rows.jsonl") for name in ("one", "bare", "")}
    assert shown["one"] == "of one"
    assert shown["bare"] == "of all"
    assert [shown[""].index(words) for words in ("of all", "of one", "of two")] == sorted(
        shown[""].index(words) for words in ("of all", "of one", "of two")
    )
    assert "`two/report.md`" in shown[""]


def test_more_pictures_than_are_shown_are_counted(tmp_path):
    from prototokens.explorer.results import _plots

    for number in range(13):
        (tmp_path / f"{number:02}.png").write_bytes(b"\x89PNG")
    shown = _plots((tmp_path,), tmp_path / "rows.jsonl")
    assert "12 of 13 pictures are shown" in shown
    assert shown.count("<img") == 12
    (tmp_path / "12.png").unlink()
    assert "pictures are shown" not in _plots((tmp_path,), tmp_path / "rows.jsonl")


def test_a_visitors_text_is_never_markup():
    nasty = '<img src=x onerror="alert(1)">'
    made = [
        show.problem(nasty),
        show.note(nasty),
        show.facts({nasty: nasty}),
        show.table([nasty], [[nasty, nasty]]),
        show.text([show.Token(nasty, 1.0, True)]),
        show.text([show.Token(nasty, 1.0)], by_margin=True),
        show.race([(nasty, 1)], 1, [(nasty, 1)], 2, 1),
    ]
    for html in made:
        assert "<img" not in html
        assert nasty in unescape(html)


def test_errors_are_sentences(caplog):
    def fails(error):
        def handler():
            raise error

        return handler

    @show_errors_in("message")
    def well():
        return {"out": 1}

    assert well() == {"message": "", "out": 1}
    refused = show_errors_in("message")(fails(ModelError("'x' cannot be <b>loaded</b>")))()
    assert "&lt;b&gt;loaded" in refused["message"]
    broken = show_errors_in("message")(fails(ZeroDivisionError("secret detail")))()
    assert "secret" not in broken["message"]
    assert "went wrong in the program" in broken["message"]
    assert "secret detail" in caplog.text

    @show_errors_in("message")
    def many():
        yield {"out": 1}
        raise UsageError("no more")

    first, last = list(many())
    assert first == {"message": "", "out": 1}
    assert "no more" in last["message"]


def test_only_the_models_of_the_page_are_loaded(tiny_folder):
    desk = Desk(Settings(models=(str(tiny_folder), "nowhere/at-all"), dtype="float32"))
    assert desk.model(str(tiny_folder)) is desk.model(str(tiny_folder))
    with pytest.raises(UsageError, match="not among the models of this page"):
        desk.model("/etc")
    with pytest.raises(
        UsageError, match=r"the text has 2,001 characters, and this page takes 2,000"
    ):
        desk.check_text("x" * 2001)


def test_a_visitors_file_is_their_own_and_goes_with_them():
    desk = Desk(Settings())
    one, other = desk.file_of("../../etc"), desk.file_of("b")
    assert one.parent.parent == other.parent.parent
    assert one != other
    one.write_text("x")
    desk.stops["../../etc"] = threading.Event()
    stop = desk.stops["../../etc"]
    desk.forget("../../etc")
    assert stop.is_set()
    assert not one.exists()
    desk.forget("never came")


def test_what_is_read_of_vectors(tiny_llama):
    solution = pt.fit(tiny_llama, "Call me.")
    got = read(tiny_llama, solution, solution.ids)
    assert got.ids.tolist() == list(solution.ids)
    assert float(got.margin.min()) == pytest.approx(solution.margin, abs=1e-3)
    tokens = tokens_of(tiny_llama, solution, [0, *solution.ids[1:]])
    assert [token.right for token in tokens] == [False, *[True] * 7]
    assert tokens[0].margin < 0 < tokens[1].margin
    assert "".join(token.text for token in tokens_of(tiny_llama, solution)) == "Call me."


def test_tokens_from_patches_are_marked(tiny_llama):
    text = "Call me Ishmael."
    recipe = pt.Recipe.named("fast", steps=8)
    encoded = pt.encode(
        tiny_llama, text, layout="tiled:2", chunk_length=4, recipe=recipe, inexact="patch"
    )
    tokens = all_tokens(tiny_llama, encoded, tiny_llama.tokenize(text))
    assert "".join(token.text for token in tokens) == text
    assert sum(token.patched for token in tokens) == encoded.repaired_tokens > 0
    assert all(token.patched or token.right for token in tokens)
    assert "from a patch" in show.text(tokens)
    stored = next(iter(encoded.extras.stored), None)
    if stored is not None:
        with pytest.raises(UsageError, match="stored as its tokens"):
            chunk_of(encoded, stored + 1)


def test_the_shelf_keeps_the_newest_by_different_names(tiny_llama):
    encoded = EncodedText.of(tiny_llama, "A", [pt.fit(tiny_llama, "A")], recipe=pt.Recipe())
    shelf = []
    for number in range(10):
        shelf = put_on_shelf(shelf, tiny_llama, encoded, "A" if number % 2 else "B")
    assert len(shelf) == len({text.title for text in shelf}) == 8
    assert from_shelf(shelf, shelf[3].title) is shelf[3]
    with pytest.raises(UsageError, match="no such text yet"):
        from_shelf(shelf, None)
    assert chunk_of(encoded, 1).length == 1
    with pytest.raises(UsageError, match="numbered from 1 to 1"):
        chunk_of(encoded, 2)


@pytest.fixture
def live(tiny_llama):
    from prototokens.encoding import plan_encoding
    from prototokens.explorer.live import LiveFit
    from prototokens.options import EncodeOptions

    def live(text, paced=False, **recipe):
        options = EncodeOptions(
            layout="tiled:2", chunk_length=4, recipe=pt.Recipe.named("fast", **recipe)
        )
        return LiveFit(plan_encoding(tiny_llama, text, options), threading.Event(), paced)

    return live


def test_a_fit_is_watched_to_its_end(live):
    fit = live("Call me.")
    frames = list(fit.watch())
    assert frames
    assert "least margin" in frames[0]
    assert isinstance(fit.outcome, EncodedText)
    assert fit.outcome.exact


def test_a_fit_ends_when_it_is_asked_to_and_when_nobody_watches(live):
    from prototokens.explorer.racing import Stopped

    asked = live("Call me Ishmael.", margin=1e6, steps=100_000)
    for _ in asked.watch():
        asked.stop.set()
    assert isinstance(asked.outcome, Stopped)
    left = live("Call me Ishmael.", margin=1e6, steps=100_000)
    watching = left.watch()
    next(watching)
    watching.close()
    assert not left.thread.is_alive()
    assert isinstance(left.outcome, Stopped)


@pytest.fixture
def blocks(monkeypatch):
    """Where a tab can be built.

    Gradio would leave event loops open: it makes one wherever it finds none that runs.
    """
    import gradio as gr

    loops = []
    new = asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(new()) or loops[-1])
    with gr.Blocks(analytics_enabled=False) as blocks:
        yield blocks
    asyncio.set_event_loop(None)
    for loop in loops:
        loop.close()


@pytest.fixture
def encoder(tiny_folder, blocks):
    """The tab Encode: its desk, and what its two buttons do.

    What they do is given as dictionaries from elements' names to what they show.
    """
    import gradio as gr

    from prototokens.explorer import encode

    desk = Desk(Settings(models=(str(tiny_folder),), dtype="float32", max_characters=100))
    encode.tab(desk, gr.State([]))
    handlers = {each.name: each.fn for each in blocks.fns.values()}
    visitor = gr.Request(session_hash="a visitor")

    def press(text, pressed, **recipe):
        values = (
            text,
            str(tiny_folder),
            "paper",
            "random",
            "fast",
            0,
            recipe.get("steps", 200),
            False,
            [],
            pressed,
        )
        for update in handlers["run"](visitor, *values):
            yield {component.elem_id: value for component, value in update.items()}

    return desk, press, lambda pressed: handlers["halt"](pressed, visitor)


def test_stop_while_a_text_waits_in_the_line_keeps_it_from_beginning(encoder):
    desk, press, halt = encoder
    assert "Stop is noted" in halt(2.0)
    *_, last = press("Call me.", 1.0)
    assert "stopped before it began" in last["encode-live"]
    assert desk.loaded == {}
    *_, last, race = press("Call me.", 3.0)
    assert "exact; decoded" in last["encode-live"]
    assert race["encode-race"].count("pt-clock") == 2


def test_stop_while_the_model_loads(encoder, monkeypatch):
    _, press, halt = encoder
    load = Desk.model

    def slow(self, name):
        halt(2.0)
        return load(self, name)

    monkeypatch.setattr(Desk, "model", slow)
    *_, last = press("Call me.", 1.0)
    assert "stopped before it began" in last["encode-live"]


def test_a_refused_text_leaves_no_file_of_the_one_before_to_be_downloaded(encoder):
    _, press, _ = encoder
    updates = list(press("x" * 101, 1.0))
    assert "the text has 101 characters" in updates[-1]["encode-message"]
    assert [
        update["encode-download"].visible for update in updates if "encode-download" in update
    ] == [False]


def test_the_curves_stay_when_a_fit_has_ended_and_say_their_first_and_last_values(encoder):
    _, press, _ = encoder
    *_, last, _ = press("Call me.", 1.0)
    assert len(re.findall("<polyline", last["encode-live"])) == 2
    described = re.findall('role="img" aria-label="([^"]*)"', last["encode-live"])
    assert described[0].startswith("Tokens right, share of the tokens over step. tokens right: ")
    assert re.search(r"100% at \d+$", described[0])
    assert re.search(r"loss: [\d.]+ at 0, [\d.e-]+ at \d+$", described[1])


def test_encode_shows_norms_and_nearest_tokens_and_no_noise(encoder):
    _, press, _ = encoder
    *_, last, _ = press("Call me.", 1.0)
    words = unescape(re.sub("<[^>]+>", " ", last["encode-vectors"]))
    assert "vector norm times a token's 5 nearest tokens" in re.sub(" +", " ", words)
    assert "<img" not in "".join(map(str, last.values()))


def test_fits_show_their_position_in_the_queue(blocks):
    from prototokens.explorer import space

    space.tab(Desk(Settings()))
    assert {each.name: each.show_progress for each in blocks.fns.values()} == {
        "run": "full",
        "walk": "minimal",
        "shake": "minimal",
        "swap": "minimal",
    }


def test_points_on_a_plane_keep_their_distances():
    from prototokens.explorer.solutions import flattened

    points = torch.tensor([[0.0, 0], [3, 0], [3, 4], [-1, 2]], dtype=torch.float64)
    flat = flattened(torch.cdist(points, points))
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(points, points))


def test_a_race_of_a_chunk(tiny_llama):
    from prototokens.explorer.decode import _load
    from prototokens.explorer.racing import race

    solution = pt.fit(tiny_llama, "Call me.")
    words = race(tiny_llama, Chunk(solution.protos, solution.layout, 8))
    assert "8 tokens, from 2 vectors either way" in words
    assert words.count("pt-clock") == 2
    with pytest.raises(FileError, match=r"^none\.ptok does not exist"):
        _load("/tmp/where/it/is/kept/none.ptok")


def test_a_text_that_is_named_like_an_encoded_one(tmp_path):
    from prototokens.explorer.decode import _load

    (tmp_path / "note.ptok").write_text("no proto-tokens are in here\n")
    with pytest.raises(
        FileError,
        match=r"^note\.ptok is not a whole \.ptok file \(it does not begin as such a file does",
    ):
        _load(str(tmp_path / "note.ptok"))


def test_a_port_that_is_taken():
    from prototokens.explorer.page import listen

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be listened at"):
            listen("127.0.0.1", taken.getsockname()[1])


def test_margins_have_a_legend_deeper_colours_in_the_dark_and_a_number_for_fingers_and_keys():
    tokens = show.text([show.Token("a", 0.1), show.Token("b", 9.0)], by_margin=True)
    assert 'tabindex="0" title="token 1, margin 0.10"' in tokens
    assert ".pt-token:focus::after { content: attr(title)" in style.CSS
    hues = re.findall("--pt-hue:([0-9,]+);--pt-deep:([0-9.]+)", tokens)
    assert [hue for hue, _ in hues] == ["200,36,52", "9,105,218"]
    assert set(hues[1:]) <= set(re.findall("--pt-hue:([0-9,]+);--pt-deep:([0-9.]+)", show.legend()))
    assert "3 logits and more" in show.legend()
    base, deep = re.search(r"\.dark \.pt-margin .*calc\(([\d.]+) \+ ([\d.]+)", style.CSS).groups()
    assert float(base) >= 0.5
    assert float(base) + float(deep) >= 0.8


def test_wide_pictures_and_tables_scroll_on_a_phone():
    assert "moves sideways" in show.image(b"x", "a wide one")
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (3000).to_bytes(4, "big")
    assert "min-width:1800px" in show.image(head, "one of many tokens")
    assert '<div class="pt-table" tabindex="0"><table>' in show.table(["", "a"], [["b", "c"]])
    assert re.search(r"\.pt-table \{[^}]*overflow-x: auto", style.CSS)
    assert re.search(r"\.pt-text \{[^}]*white-space: break-spaces", style.CSS)
