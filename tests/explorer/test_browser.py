"""The page in a real browser: every tab's main path, on a wide window and on one of a phone's size.

Headless Chromium against `prototokens explore`, on the built-in model. What the windows show is
saved as pictures under build/screenshots.
"""

import base64
import json
import re
import shutil
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import prototokens as pt
from prototokens.explorer.gate import POLICY
from prototokens.samples import short

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no Chromium here: apt-get install chromium chromium-driver",
    ),
]
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDE, PHONE = (1400, 900), (390, 844)
SENTENCE = "He had never seen the sea."
PATIENCE = 120  # seconds; a busy machine is slow
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def address(served_page, tmp_path_factory):
    """The page, started as a user would, with a folder of results."""
    folder = tmp_path_factory.mktemp("explorer")
    results = folder / "results"
    (results / "table").mkdir(parents=True)
    rows = [
        {
            "text": f"t{n}",
            "tokens": 16 * n,
            "solution": {"exact": n < 3, "steps": 100 * n, "loss": n / 8.1},
        }
        for n in range(1, 5)
    ]
    (results / "table" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (results / "table" / "report.md").write_text("# A report\n\nFour texts.\n")
    (folder / "secret.jsonl").write_text('{"secret": 1}\n')
    (results / "table" / "out.jsonl").symlink_to(folder / "secret.jsonl")
    (folder / "empty").mkdir()
    models = ("--model", "builtin", "--model", folder / "empty")
    with served_page(
        "--results", results, "--max-characters", 400, "--max-upload", 1, *models, cwd=folder
    ) as address:
        yield address


@pytest.fixture(scope="module")
def ptok(tmp_path_factory):
    """A file of one sentence on the built-in model."""
    path = tmp_path_factory.mktemp("files") / "sentence.ptok"
    pt.encode(pt.FrozenLM.from_pretrained("builtin"), SENTENCE).save(path)
    return path


class Page:
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
        # A headless window is never as narrow as a phone: this sets the width that the page sees.
        metrics = {
            "width": size[0],
            "height": size[1],
            "deviceScaleFactor": 1,
            "mobile": size == PHONE,
        }
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.size = "phone" if size == PHONE else "wide"
        self.driver.get(address)
        self.wait(lambda: self.all("#encode-go"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.wait(lambda: self.all(selector))[0]

    def text(self, selector):
        return " ".join(element.text for element in self.all(selector))

    def wait(self, condition, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := condition():
                    return found
            except webdriver.remote.webdriver.WebDriverException:
                pass  # the page was being redrawn
            time.sleep(0.1)
        self.shot("too-late", busy=True)
        pytest.fail("the page did not get there")

    def until(self, selector, pattern, seconds=PATIENCE):
        """Wait for words; returns all that is there."""
        return self.wait(
            lambda: (words := self.text(selector)) and re.search(pattern, words) and words, seconds
        )

    def tab(self, name):
        self.wait(lambda: self._go_to(name))
        time.sleep(0.5)

    def _go_to(self, name):
        """Press the tab: all of them fit, on a phone too."""
        for button in self.all(".tab-container button[role=tab]"):
            if (button.get_attribute("textContent") or "").strip() == name:
                self.driver.execute_script("arguments[0].click()", button)
                return button.is_displayed()
        return False

    def click(self, selector):
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()",
            self.one(selector),
        )

    def type(self, selector, words):
        area = self.one(f"{selector} textarea, {selector} input")
        self.driver.execute_script(
            "const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(arguments[0]),"
            " 'value').set;"
            "set.call(arguments[0], arguments[1]);"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
            "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
            area,
            words,
        )
        time.sleep(0.3)

    def slide(self, selector, value):
        slider = self.one(f"{selector} input[type=range]")
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input',"
            " {bubbles: true}));"
            "arguments[0].dispatchEvent(new Event('pointerup', {bubbles: true}))",
            slider,
            value,
        )

    def choose(self, selector, words):
        box = self.one(f"{selector} input")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        option = self.wait(
            lambda: [
                each
                for each in self.all("[role=option]")
                if words in each.get_attribute("textContent")
            ]
        )[0]
        self.driver.execute_script(
            "arguments[0].dispatchEvent(new MouseEvent('mousedown', {bubbles: true}))", option
        )
        time.sleep(0.4)

    def rest(self):
        """Wait until nothing is computed, no list is open, and what came last has faded in."""
        busy = "[data-testid=status-tracker]:not(.hide), [role=option]"
        self.wait(lambda: not any(each.is_displayed() for each in self.all(busy)))
        time.sleep(0.6)

    def shot(self, name, busy=False):
        """The whole page as a picture; nothing of it may be wider than the window.

        Args:
            busy: as it is just now; by default once it is at rest.
        """
        if not busy:
            self.rest()
        SHOTS.mkdir(parents=True, exist_ok=True)
        script = (
            "const root = document.documentElement;"
            " return [root.scrollWidth, root.scrollHeight, window.innerWidth]"
        )
        width, height, seen = self.driver.execute_script(script)
        clip = {
            "x": 0,
            "y": 0,
            "width": max(width, 320),
            "height": min(max(height, 400), 6000),
            "scale": 1,
        }
        data = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )["data"]
        (SHOTS / f"{self.size}-{name}.png").write_bytes(base64.b64decode(data))
        assert width <= seen + 1, f"{name}: the page is {width} wide in a window of {seen}"

    def close(self):
        self.driver.quit()


# In the dark theme on a phone, in the light one on a wide window.
LOOKS = {"wide": (WIDE, "light"), "phone": (PHONE, "dark")}


@pytest.fixture(scope="module", params=LOOKS)
def page(address, request, tmp_path_factory):
    size, theme = LOOKS[request.param]
    page = Page(f"{address}/?__theme={theme}", size, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def test_every_tab_opens_with_its_example_and_says_what_it_shows(page):
    """Computed, not written down: the same text, solved here and now."""
    page.until("#encode-live", "exact; decoded from the file in 1 forward pass")
    assert page.text("#encode-live .pt-text") == short()
    page.until("#encode-race", "One pass:")
    for tab, selector, pattern in (
        ("Decode", "#decode-text", "the text that was encoded, by its SHA-256"),
        ("Space", "#space-overview", "6 of 6 exact"),
        ("Inside", "#inside-whole", "logit lens"),
        ("Results", "#results-about", "rows"),
    ):
        page.tab(tab)
        page.until(selector, pattern)
        leads = [each.text for each in page.all(".pt-lead") if each.is_displayed()]
        assert len(leads) == 1
        assert len(leads[0]) > 60
        page.shot(f"opened-{tab.lower()}")


def test_encode_fills_in_and_gives_a_file(page):
    page.tab("Encode")
    page.type("#encode-text", SENTENCE)
    page.click("#encode-go")
    page.until("#encode-live", "tokens right")
    page.wait(
        lambda: (
            (m := re.search(r"(\d+)%\s+tokens right", page.text("#encode-live"))) is None
            or 30 <= int(m[1]) <= 90
        )
    )
    page.shot(
        "encode-live", busy=True
    )  # of a fit that is half-way, unless it was too quick to be seen so
    done = page.until("#encode-live", "exact; decoded from the file in 1 forward pass")
    assert "NOT exact" not in done
    assert page.text("#encode-live .pt-text").replace("\n", "") == SENTENCE
    assert not page.all("#encode-live .pt-wrong")
    assert len(page.all("#encode-live .pt-chart")) == 2
    assert "nearest tokens" in page.until("#encode-vectors", "norm")
    page.until("#encode-race", "One pass:")
    assert len(page.all("#encode-race .pt-clock")) == 2
    assert not page.all("#encode-live img, #encode-vectors img")
    page.wait(
        lambda: page.all("#encode-download") and page.all("#encode-download")[0].is_displayed()
    )
    page.shot("encode-done")


def test_an_encoder_is_a_choice(page):
    page.tab("Encode")
    page.type("#encode-text", SENTENCE)
    page.click("#encode-start input[value=encoder]")
    page.wait(lambda: page.one("#encode-layout input").get_attribute("value") == "auto")
    page.click("#encode-go")
    page.until("#encode-live", "No step was needed")
    page.click("#encode-start input[value=random]")
    page.wait(lambda: "keyed:2" in page.one("#encode-layout input").get_attribute("value"))


def test_the_clock_of_the_race_runs_and_ends_at_its_time(page):
    page.tab("Encode")
    page.until("#encode-race", "One pass:")
    page.rest()
    page.click("#encode-race [data-again]")
    shown = (
        "return +getComputedStyle(document.querySelectorAll('#encode-race .pt-clock')[1],"
        " '::after').getPropertyValue('--pt-clock')"
    )
    time.sleep(2)
    first = page.driver.execute_script(shown)
    time.sleep(5)
    last = page.driver.execute_script(shown)
    told = float(re.search(r"cache: ([\d.]+) ms", page.text("#encode-race"))[1])
    assert 0 < first < last == pytest.approx(told, abs=1)


def test_the_pointer_is_told_what_a_point_stands_for(page):
    page.tab("Encode")
    page.type("#encode-text", SENTENCE)
    page.click("#encode-start input[value=random]")
    page.click("#encode-go")
    count = "return document.querySelectorAll('#encode-live [data-tip]').length"
    page.wait(lambda: page.driver.execute_script(count) > 1)
    page.until("#encode-live", "exact; decoded")
    page.driver.execute_script(
        "const strip = document.querySelectorAll('#encode-live [data-tip]')[1];"
        "strip.dispatchEvent(new PointerEvent('pointermove', {bubbles: true}))"
    )
    assert "tokens right" in page.until("#pt-tip", "step: 1")


def test_a_fit_is_stopped(page):
    page.tab("Encode")
    page.type(
        "#encode-text",
        "qz jx vk wq zzx qj kv xw jq vz xk qw zj kx vq wz jk xq zv qk jw xz vj kq wx",
    )
    page.click("#encode-go")
    page.until("#encode-live", "tokens right")
    page.click("#encode-stop")
    assert "this is how far it got" in page.until("#encode-live", "stopped")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "the text is empty"),
        ("x" * 401, "the text has 401 characters, and this page takes 400"),
    ],
)
def test_a_text_that_cannot_be_encoded(page, words, sentence):
    page.tab("Encode")
    page.type("#encode-text", words)
    page.click("#encode-go")
    page.until("#encode-message", re.escape(sentence))
    page.shot("encode-refused")


def test_a_model_that_cannot_be_loaded(page):
    page.tab("Encode")
    page.type("#encode-text", SENTENCE)
    page.choose("#encode-model", "empty")
    page.click("#encode-go")
    page.until("#encode-message", "holds no config.json, so no model")
    assert "Traceback" not in page.text("body")
    page.choose("#encode-model", "builtin")


def test_decode_shows_margins_and_a_race(page, ptok):
    page.tab("Decode")
    page.one("#decode-file input[type=file]").send_keys(str(ptok))
    assert "1 forward pass" in page.until(
        "#decode-text", "the text that was encoded, by its SHA-256"
    )
    assert page.text("#decode-text .pt-text") == SENTENCE
    assert page.one("#decode-plain textarea").get_attribute("value") == SENTENCE
    assert page.all("#decode-plain button")
    page.one("#decode-text .pt-token").click()
    shown = "return getComputedStyle(document.activeElement, '::after').content"
    assert "margin" in page.driver.execute_script(shown)
    page.click("#decode-race-go button, #decode-race-go")
    message = page.until("#decode-race", "times as long")
    assert "One pass:" in message
    assert len(page.all("#decode-race .pt-clock")) == 2
    time.sleep(7)  # the race is shown in six seconds
    lanes = page.all("#decode-race .pt-text")
    assert lanes[0].text == SENTENCE
    page.shot("decode")


def test_files_of_other_programs(page, tmp_path):
    page.driver.refresh()
    page.tab("Decode")
    wrong = tmp_path / "wrong.ptok"
    wrong.write_bytes(b"not one of ours")
    page.one("#decode-file input[type=file]").send_keys(str(wrong))
    message = page.until("#decode-message", "wrong.ptok is not a whole .ptok file")
    assert "/" not in message.partition("wrong.ptok")[0]  # not a word of where the page keeps it
    page.shot("decode-refused")


def test_space_has_ways_noise_and_exchange(page):
    page.tab("Space")
    page.type("#space-first", "The sea was calm.")
    page.type("#space-second", "It was dark.")
    page.click("#space-go")
    page.wait(lambda: "The sea was calm." in page.text("#space-noisy"))
    page.until("#space-overview", r"6 of 6 exact")
    assert len(page.all("#space-overview .pt-heat")) == 2
    assert page.all("#space-overview .pt-plane svg")
    assert len(page.all("#space-ways .pt-chart")) == 2
    right = r"(\d+) of (\d+) tokens right"
    page.slide("#space-place", "0")
    page.wait(lambda: (m := re.search(right, page.text("#space-between"))) and m[1] == m[2])
    page.slide("#space-place", "0.5")
    line = page.wait(
        lambda: (m := re.search(right, page.text("#space-between"))) and m[1] != m[2] and m
    )
    page.click("#space-way input[value='Bezier curve']")
    page.wait(
        lambda: (m := re.search(right, page.text("#space-between"))) and int(m[1]) > int(line[1])
    )
    page.slide("#space-noise", "1")
    page.wait(lambda: (m := re.search(right, page.text("#space-noisy"))) and m[1] != m[2])
    page.choose("#space-m", "A1")
    page.wait(lambda: (m := re.search(right, page.text("#space-mixed"))) and m[1] == m[2])
    page.shot("space")


def test_inside_draws_what_was_encoded(page, ptok):
    page.tab("Decode")
    if page.text("#decode-text .pt-text") != SENTENCE:
        page.driver.refresh()
        page.tab("Decode")
        page.one("#decode-file input[type=file]").send_keys(str(ptok))
    page.wait(lambda: page.text("#decode-text .pt-text") == SENTENCE)
    page.tab("Inside")
    page.wait(
        lambda: (
            page.all("#inside-text input")
            and page.one("#inside-text input").get_attribute("value").startswith("He had never")
        )
    )
    page.click("#inside-go")
    page.wait(lambda: "␣never" in page.text("#inside-whole th"))
    assert len(page.all("#inside-whole .pt-heat")) == 2
    page.until("#inside-closer", "Attention of each position to e")
    page.choose("#inside-vector", "m")
    page.until("#inside-closer", "Attention of each position to m")
    page.shot("inside")


def test_a_state_is_shared_by_its_address(page, address):
    """Copied from the page, and opened by another visit."""
    page.tab("Encode")
    page.type("#encode-text", "It was dark, sagte er: schön.")
    page.click("#share")
    page.until("#said", "The address of this page now holds")
    found = parse_qs(urlsplit(page.driver.current_url).query)
    assert found["text"] == ["It was dark, sagte er: schön."]
    assert set(found) <= {"text", "__theme"}
    page.driver.get(page.driver.current_url + "&seed=5&tab=decode")
    page.until("#decode-plain textarea, #decode-text", "by its SHA-256")
    plain = page.one("#decode-plain textarea").get_attribute("value")
    assert plain == "It was dark, sagte er: schön."
    assert page.text("#decode-text .pt-text") == plain
    page.tab("Encode")
    assert page.one("#encode-seed input").get_attribute("value") == "5"
    page.driver.get(f"{address}/?tab=nowhere")
    page.until("#said", "tab='nowhere' in the address is none of encode")
    page.driver.get(address)


def test_results_are_tables_of_the_folder_alone(page):
    page.tab("Results")
    page.until("#results-about", "rows")
    page.choose("#results-file", "results/table/rows.jsonl")
    page.until("#results-about", "4 rows")
    words = page.until("#results-rows", "0.1235")
    assert "solution.steps" in words
    assert "400" in words
    assert "Four texts." in page.until("#results-report", "A report")
    list_of_files = page.one("#results-file input")
    list_of_files.click()
    page.wait(lambda: page.all("[role=option]"))
    assert not any(
        "out.jsonl" in (each.get_attribute("textContent") or "")
        for each in page.all("[role=option]")
    )
    page.driver.execute_script("arguments[0].blur()", list_of_files)
    page.shot("results")


def test_nothing_is_fetched_from_elsewhere(page, address):
    """Addresses that the browser has asked for since it opened the page, and what was forbidden."""
    script = "return performance.getEntriesByType('resource').map(each => each.name)"
    asked = page.driver.execute_script(script)
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    refused = [
        entry["message"]
        for entry in page.driver.get_log("browser")
        if "Content Security Policy" in entry["message"]
    ]
    assert refused == []
    assert "connect-src 'self'" in POLICY


def test_a_second_visitor_sees_their_position_in_the_queue(address, tmp_path):
    one = Page(address, WIDE, tmp_path / "one")
    two = Page(address, WIDE, tmp_path / "two")
    try:
        one.type(
            "#encode-text",
            "qz jx vk wq zzx qj kv xw jq vz xk qw zj kx vq wz jk xq zv qk jw xz vj kq wx",
        )
        one.click("#encode-go")
        one.until("#encode-live", "tokens right")
        two.type("#encode-text", "It was dark.")
        two.click("#encode-go")
        two.until("#encode-live", r"queue: \d+/\d+")
        two.shot("queue", busy=True)
        two.click("#encode-stop")
        two.until("#encode-message", "Stop is noted")
        one.click("#encode-stop")
        one.until("#encode-live", "this is how far it got")
        two.until("#encode-live", "stopped before it began")
        two.click("#encode-go")
        two.until("#encode-live", "exact; decoded from the file")
    finally:
        one.close()
        two.close()
