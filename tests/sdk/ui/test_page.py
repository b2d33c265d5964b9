"""The page in a real browser, from its start to its end; the tests follow each other on one page.

Gradio has an environment of its own (`make page`), and the browser is Debian's Chromium.
"""

from __future__ import annotations

import base64
import gc
import http.client
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from contrast import CONTRAST
from PIL import Image

from mnemoscope import Detector, embedded
from mnemoscope.calibration.moving import move
from mnemoscope.explain import Explainer
from mnemoscope.ui import UiOptions
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

MISSING = "has an environment of its own: make .venv/ui/installed"
pytest.importorskip("gradio", reason=f"Gradio {MISSING}")
sync_api = pytest.importorskip("playwright.sync_api", reason=f"Playwright {MISSING}")

from mnemoscope.ui.prompt_tab import EXAMPLES  # noqa: E402
from mnemoscope.ui.running import opened  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
MEMORISED = embedded.read_prompts("memorized")
WAIT = 60_000  # milliseconds, on a machine that does much else
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = '<img src=x onerror="window.harm=1"> ${window.harm=2} {{constructor}} a cat'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)"),
]


@dataclass
class Opened:
    """A page in a browser, and what came of it."""

    browser: Any
    page: Any
    address: str
    files: Path
    errors: list[str] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def text(self, place: str, holding: str | re.Pattern[str], wait: int = WAIT) -> str:
        """What is shown in a place, once it holds something."""
        found = self.page.locator(place)
        sync_api.expect(found).to_contain_text(holding, timeout=wait)
        return str(found.inner_text())

    def prompt(self, text: str) -> None:
        self.page.locator("#prompt textarea").fill(text)
        self.page.keyboard.press("Enter")


@pytest.fixture(scope="module")
def shown() -> Iterator[Opened]:
    with pytest.MonkeyPatch.context() as patch, opened(UiOptions(port=0)) as served:
        patch.setattr("mnemoscope.ui.studio._LEARNT_ON", 2)  # twenty take twenty seconds
        thread = threading.Thread(
            target=served.server.run, kwargs={"sockets": [served.listener]}, daemon=True
        )
        thread.start()
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport=WIDE)
            page.set_default_timeout(WAIT)
            found = Opened(browser, page, served.address, Path(os.environ["GRADIO_TEMP_DIR"]))
            page.on("pageerror", lambda error: found.errors.append(str(error)))
            page.on(
                "console",
                lambda said: said.type == "error" and found.errors.append(said.text),
            )
            page.on("request", lambda request: found.requests.add(request.url))
            page.goto(served.address)
            yield found
            browser.close()
        served.server.should_exit = True
        thread.join()


def test_it_starts(shown: Opened) -> None:
    assert "nothing" not in shown.text("#verdict", "choose an example")
    assert shown.page.title() == "Mnemoscope"
    assert not shown.page.evaluate("localStorage.length")
    assert not shown.page.locator("footer").is_visible()


def test_a_memorised_prompt_is_flagged(shown: Opened) -> None:
    shown.button("Memorised").click()
    said = shown.text("#verdict", "Flagged")
    with Detector.load(threads=1) as detector:
        found = Explainer(detector).explain(EXAMPLES[0][1])
    assert "None of the 1,000 benign prompts" in said
    meter = shown.page.get_by_role("meter")
    assert float(meter.get_attribute("aria-valuenow")) == pytest.approx(found.score, rel=1e-3)
    assert f"{found.threshold:.4g}" in said
    rows = [(w.span, w.score) for w in found.words] + [(s.span, s.score) for s in found.signs]
    hot = {span: score for span, score in rows if span and score and score > 0}
    words = [found.prompt[slice(*span)] for span in sorted(hot)]
    sync_api.expect(shown.page.locator("#words mark")).to_have_text(words, timeout=WAIT)
    first = found.prompt[slice(*max(hot, key=lambda span: hot[span]))]
    assert shown.page.locator("#words li").first.inner_text().startswith(first)
    shown.page.locator("#use-1").wait_for()


def test_words_that_are_to_stay_stay(shown: Opened) -> None:
    shown.page.get_by_label("tower", exact=True).check()
    cards = shown.page.locator(".mn-slot .mn-paper:visible")
    sync_api.expect(cards.first).to_be_visible()
    shown.page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.mn-slot .mn-paper')]"
        ".filter(e => e.checkVisibility()).map(e => e.textContent);"
        "return all.length > 0 && all.every(t => t.includes('tower')) }"
    )


def test_an_edit_is_applied_by_one_key(shown: Opened) -> None:
    edited = shown.page.locator(".mn-slot .mn-paper:visible").first.inner_text()
    shown.page.locator("#use-1").focus()
    shown.page.keyboard.press("Enter")
    shown.text("#verdict", "Not flagged")
    assert shown.page.locator("#prompt textarea").input_value() == edited
    assert not shown.page.locator("#use-1").is_visible()


def test_words_are_weighed_by_gradient_too(shown: Opened) -> None:
    shown.page.get_by_text("How to measure").first.click()
    shown.page.get_by_label("gradient").check()
    shown.text("#words", "how strongly the score reacts")
    shown.page.get_by_label("leaving words out").check()
    shown.text("#words", "how far the score falls")


def test_what_is_not_calibrated_has_no_verdict(shown: Opened) -> None:
    steps = shown.page.get_by_label(re.compile("number input for Denoising steps")).first
    steps.fill("2")
    steps.press("Enter")
    said = shown.text("#verdict", "the way of measuring has changed: press Screen")
    assert "Not flagged" not in said
    sync_api.expect(shown.page.locator("#words")).to_have_text("")
    shown.prompt("a cat")
    said = shown.text("#verdict", "No verdict")
    assert "There is no calibration of magnitude at 2 steps" in said
    steps.fill("1")
    steps.press("Enter")


def test_a_prompt_that_is_typed_has_no_verdict_yet(shown: Opened) -> None:
    shown.button("Memorised").click()
    shown.page.locator("#use-1").wait_for()
    shown.page.locator("#prompt textarea").press_sequentially(" a")
    shown.text("#verdict", "The prompt or the way of measuring has changed")
    sync_api.expect(shown.page.locator("#use-1")).to_be_hidden()
    shown.button("Memorised").click()
    shown.text("#verdict", "Flagged")
    shown.page.locator("#prompt textarea").press_sequentially(" a")  # while edits are looked for
    shown.text("#verdict", "has changed")
    shown.page.wait_for_timeout(1500)
    sync_api.expect(shown.page.locator("#use-1")).to_be_hidden()
    shown.text("#verdict", "has changed")
    shown.button("Screen").click()
    shown.text("#verdict", "lagged")


@pytest.mark.parametrize(
    ("prompt", "verdict"),
    [
        ("", "nothing to screen"),
        ("word " * 100, "as far as it was read"),
        (HOSTILE, "Not flagged"),
    ],
)
def test_prompts_that_are_none_or_odd(shown: Opened, prompt: str, verdict: str) -> None:
    shown.prompt(prompt)
    shown.text("#verdict", verdict)
    if prompt == HOSTILE:
        assert shown.text("#words", "constructor").find(HOSTILE) >= 0
        assert shown.page.evaluate("window.harm") is None


def test_pictures_are_drawn_before_and_after(shown: Opened) -> None:
    shown.button("Memorised").click()
    shown.page.locator("#draw").click()
    assert "Stop" in shown.page.locator("#stop").inner_text()
    shown.page.locator("#drawn progress").wait_for()
    said = shown.text("#drawn", "nearest training picture", 5 * WAIT)
    assert re.search(r"as drawn, seed 0\s+copy similarity 0\.9", said)
    assert "mitigated, seed 0" in said
    assert said.count("where the prompt decided it") == 2
    seen = shown.page.locator("#drawn img").evaluate_all("all => all.map(e => e.src)")
    place = [row.prompt for row in MEMORISED].index(EXAMPLES[0][1])
    training = np.asarray(embedded.memorized_pictures()[place])
    assert len(seen) == 5
    np.testing.assert_array_equal(_pixels(seen[0]), training)
    differences = [np.abs(_pixels(each).astype(int) - training).mean() for each in seen]
    assert differences[1] < differences[3] / 2  # as drawn it is the training picture; mitigated not


def test_drawing_can_be_stopped(shown: Opened) -> None:
    shown.page.locator("#draw").click()
    shown.page.locator("#drawn progress").wait_for()
    shown.page.locator("#stop").click()
    shown.text("#drawn", "Stopped")
    sync_api.expect(shown.page.locator("#draw")).to_be_enabled()


def test_a_file_is_audited_and_deleted(shown: Opened, tmp_path: Path) -> None:
    benign = [row.prompt for row in embedded.read_prompts("held_out")[:20]]
    file = tmp_path / "captions.csv"
    rows = [*(row.prompt for row in MEMORISED[:10]), *benign, "a" * LONGEST_PROMPT + "a"]
    file.write_text("caption\n" + "".join(f'"{row}"\n' for row in rows))
    shown.tab("File")
    shown.page.locator("#file input[type=file]").set_input_files(file)
    said = shown.text("#audited", "distinct prompts flagged")
    flagged = int(re.match(r"(\d+) of 30 distinct", said)[1])  # type: ignore[index]
    assert 8 <= flagged <= 12
    assert shown.text("#rows", "flagged").startswith(f"{flagged} flagged")
    shown.page.locator("#show").get_by_label("Not screened").check()
    assert "longer than" in shown.text("#rows", "1 not screened")
    shown.page.locator("#show").get_by_label("All").check()
    shown.page.locator("#holding textarea").fill(MEMORISED[0].prompt.upper())
    shown.text("#rows", "1 prompt")
    report = base64.b64decode(_href(shown, "Report (HTML)")).decode()
    assert f"{flagged} of 30 distinct prompts flagged" in report
    results = base64.b64decode(_href(shown, "All results (CSV)")).decode()
    assert [line.split(",")[0] for line in results.splitlines()[:1]] == ["prompt"]
    assert len(results.splitlines()) == 32
    assert not [path for path in shown.files.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_file_of_something_else_is_refused_in_a_sentence(shown: Opened, tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("a,b\n1,2\n")
    shown.page.locator("#file input[type=file]").set_input_files(file)
    said = shown.text("#audited", "could not be done")
    assert "numbers.csv" in said
    assert "only a, b. Name the right one under “How to audit”, Column" in said
    assert "/" not in said
    assert "Traceback" not in said
    picture = tmp_path / "picture.png"
    Image.new("RGB", (2, 2)).save(picture)
    shown.page.locator("#file input[type=file]").set_input_files(picture)
    assert "numbers.csv" not in shown.text("#audited", "picture.png is no file of prompts")
    assert not [path for path in shown.files.rglob("*") if path.is_file() and path.stat().st_size]


def test_the_threshold_can_be_moved(shown: Opened) -> None:
    shown.tab("Calibration")
    shown.page.locator("#histogram svg").wait_for()
    with Detector.load(threads=1) as detector:
        calibration = detector.calibrated()
    assert calibration is not None
    noises = calibration.setting.noises
    way = shown.page.locator("#calibrated input")
    sync_api.expect(way).to_have_value(f"magnitude, 1 step, {noises} noises, onnxruntime")
    assert f"{calibration.threshold:.5g}" in shown.text("#promise", "confidence")
    slider = shown.page.locator("#threshold input[type=number]")
    slider.fill("1.0")
    slider.press("Enter")
    moved = move(calibration, 1.0)
    said = shown.text("#cost", f"{moved.benign_above:,} of 1,000 benign prompts")
    assert f"at most {100 * moved.fpr:.3g} %" in said
    shown.page.locator("#histogram .mn-moved").wait_for(state="attached")
    slider.fill("99")
    shown.text("#cost", "Thresholds to try lie between")
    slider.fill("1.0")
    shown.text("#cost", f"{moved.benign_above:,} of 1,000 benign prompts")


@pytest.mark.parametrize(("scheme", "low"), [("light", "#808080"), ("dark", "#505050")])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_text_can_be_read_and_nothing_sticks_out(
    shown: Opened, size: dict[str, int], scheme: str, low: str
) -> None:
    page = shown.page
    page.set_viewport_size(size)
    page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
    for name in ("Calibration", "File", "Prompt"):
        shown.tab(name)
        page.wait_for_timeout(400)  # colours fade
        assert page.evaluate(CONTRAST) == [], name
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    page.evaluate(f"document.querySelector('h1').style.color = '{low}'")
    seen = [text for _, text in page.evaluate(CONTRAST)]
    page.evaluate("document.querySelector('h1').style.color = ''")
    assert seen == ["Mnemoscope"]  # the check sees what has less


def test_everything_is_reached_by_keys(shown: Opened) -> None:
    shown.page.set_viewport_size(WIDE)
    shown.tab("Prompt")
    shown.page.locator("#prompt textarea").focus()
    reached = []
    for _ in range(8):
        shown.page.keyboard.press("Tab")
        reached.append(shown.page.evaluate("document.activeElement.innerText"))
    assert reached[0] == "Screen"
    assert [name for name, _ in EXAMPLES] == reached[1 : 1 + len(EXAMPLES)]


def test_only_this_machine_was_asked_and_nothing_is_kept(shown: Opened) -> None:
    hosts = {urlsplit(url).hostname for url in shown.requests if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
    assert shown.errors == []
    place = urlsplit(shown.address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port)
    connection.request("GET", "/", headers={"Host": "rebound.example"})
    assert connection.getresponse().status == 400
    connection.close()
    for origin in ("http://elsewhere.example", "null"):
        headers = {"Origin": origin, "Content-Length": "0"}
        connection.request("POST", "/gradio_api/upload", headers=headers)
        assert connection.getresponse().status == 403
        connection.close()
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert "connect-src 'self'" in str(answer.getheader("content-security-policy"))
    connection.close()
    shown.page.locator("#draw").click()
    shown.page.locator("#drawn progress").wait_for()
    assert _sessions()
    assert _runs()
    shown.page.close()
    _until(lambda: not _sessions())
    _until(lambda: not _runs())


def _sessions() -> list[object]:
    """What Gradio remembers of pages, their prompts among it."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each).__name__ == "SessionState"]


def _runs() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mnemoscope-run"]


def _until(holds: Callable[[], bool]) -> None:
    ended = threading.Event()
    for _ in range(300):
        if holds():
            return
        ended.wait(0.1)
    raise AssertionError("it did not come to be so")


def _href(shown: Opened, name: str) -> str:
    href = shown.page.get_by_role("link", name=name).get_attribute("href")
    return str(href).partition("base64,")[2]


def _pixels(source: str) -> np.ndarray[Any, Any]:
    content = base64.b64decode(source.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
