"""The page of `export --to html` in headless Chromium, from a disk and from a static host."""

import base64
import functools
import http.server
import json
import threading
import time
from pathlib import Path

import pytest
from safetensors.numpy import load
from tests.explorer.test_browser import CHROMIUM, DRIVER, FLAGS, PHONE, SHOTS, WIDE, webdriver
from tests.ptok.test_file_format_page import write

from prototokens.cli import main
from prototokens.exchange.web import assets
from prototokens.ptok.stored import read_stored

GOLDEN = sorted((Path(__file__).parents[1] / "format" / "files").glob("*.ptok"))
FIRST = next(path for path in GOLDEN if path.stem == "keyed-1-prefix-patches")
PATIENCE = 240  # seconds; a busy machine is slow
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no Chromium here: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page as the command writes it."""
    pytest.importorskip("onnx", reason="needs the extra [html]")
    if assets.cached_files() is None:
        pytest.skip("onnxruntime-web is not in the cache: `make page` fetches it")
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.raises(SystemExit) as leaving:
        main(["export", str(FIRST), "--to", "html", "-o", str(path)])
    assert leaving.value.code == 0
    assert path.stat().st_size < 40e6
    return path


class Window:
    """A window on the page."""

    def __init__(self, address, size, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(executable_path=DRIVER)
        )
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1}
        metrics["mobile"] = size == PHONE
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(address)

    def text(self, name):
        return self.driver.execute_script(
            "return document.getElementById(arguments[0]).textContent", name
        )

    def until(self, name, words):
        end = time.monotonic() + PATIENCE
        while words not in (found := self.text(name)):
            assert time.monotonic() < end, (name, found, self.text("alert"), self.text("state"))
            time.sleep(0.2)
        return found

    def choose(self, path):
        """Give a file to the page, and wait until it has been shown or refused."""
        self.driver.execute_script("document.getElementById('name').textContent = ''")
        self.driver.execute_script("document.getElementById('check').textContent = ''")
        self.driver.execute_script("document.getElementById('alert').textContent = ''")
        self.driver.find_element("id", "choose").send_keys(str(path))

    def exact(self, name):
        """The text that is shown, of which the page says that it is the one in the file."""
        self.until("name", name)
        self.until("check", "This is the text")
        return self.text("text")

    def overflow(self):
        return self.driver.execute_script(
            "return document.documentElement.scrollWidth - innerWidth"
        )

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        whole = {"captureBeyondViewport": True}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
        (SHOTS / f"{name}.png").write_bytes(base64.b64decode(taken))

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def opened(address, size, folder):
    window = Window(address, size, folder)
    try:
        yield window
        assert [one["message"] for one in window.driver.get_log("browser")] == []
    finally:
        window.driver.quit()


@pytest.fixture(scope="module")
def window(page, tmp_path_factory):
    yield from opened(page.as_uri(), WIDE, tmp_path_factory.mktemp("profile"))


def shown(path):
    """The text of a golden file, as a page shows bytes that are no UTF-8."""
    return path.with_suffix(".txt").read_bytes().decode(errors="replace")


def test_the_page_opens_with_its_text_and_both_clocks(window):
    assert window.exact(FIRST.name) == shown(FIRST)
    verdict = window.until("verdict", "times as long")
    assert "for as many tokens" in verdict
    assert "1 forward pass," in window.text("step-words")
    tokens = read_stored(FIRST).header.text.tokens
    assert window.text("serial-words") == f"{tokens} forward passes, {tokens} tokens"
    assert "MIT License" in window.driver.page_source
    window.shot("html-wide")
    window.scheme("dark")
    window.shot("html-wide-dark")
    window.scheme("light")
    assert window.overflow() <= 0


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_file_that_is_chosen_is_decoded(window, path):
    window.choose(path)
    assert window.exact(path.name) == shown(path)


def test_a_file_that_is_dropped_is_decoded(window):
    path = GOLDEN[0]
    window.driver.execute_script("document.getElementById('name').textContent = ''")
    window.driver.execute_script(
        """const raw = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([raw], arguments[1]));
        document.body.dispatchEvent(
          new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));""",
        base64.b64encode(path.read_bytes()).decode(),
        path.name,
    )
    assert window.exact(path.name) == shown(path)


def with_values(path, **changes):
    """A golden file with other values in its header, and with right hashes."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["prototokens"])
    for key, value in changes.items():
        header[key] |= value
    arrays = load(raw)
    return write(header, arrays, sorted(arrays))


def test_a_damaged_file_and_one_of_another_model_are_refused(window, tmp_path):
    window.choose(FIRST)
    text = window.exact(FIRST.name)
    damaged = bytearray(FIRST.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.ptok").write_bytes(damaged)
    window.choose(tmp_path / "damaged.ptok")
    said = window.until("alert", "damaged.ptok is refused")
    assert said.endswith("the hash of its tensors is wrong: it is damaged.")
    other = {"fingerprint": "0" * 64, "name": "someone/other"}
    (tmp_path / "other.ptok").write_bytes(with_values(FIRST, model=other))
    window.choose(tmp_path / "other.ptok")
    said = window.until("alert", "other.ptok is refused")
    assert "another model (someone/other) than the one in this page (builtin)" in said
    assert window.driver.find_element("id", "alert").is_displayed()
    assert window.text("text") == text


def test_a_text_that_does_not_come_out_is_not_passed_off_as_it(window, tmp_path):
    (tmp_path / "wrong.ptok").write_bytes(with_values(FIRST, text={"sha256": "0" * 64}))
    window.choose(tmp_path / "wrong.ptok")
    assert "does not decode to its text here" in window.until("alert", "wrong.ptok")
    assert "This is not the text" in window.text("check")


def test_a_phone_sees_it_whole_from_a_static_host(page, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=page.parent)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{page.name}"
        for window in opened(address, PHONE, tmp_path):
            assert window.exact(FIRST.name) == shown(FIRST)
            window.until("verdict", "times as long")
            for element in window.driver.find_elements("css selector", "details"):
                element.find_element("css selector", "summary").click()
            assert window.overflow() <= 0
            window.shot("html-phone")
            window.scheme("dark")
            window.shot("html-phone-dark")
        server.shutdown()
