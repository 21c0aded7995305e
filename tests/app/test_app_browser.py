"""The app in a real browser, on a real small run: explore, results, chat, ratings, an evaluation.

With the environment variable SIZEWISE_SCREENSHOTS the pictures are kept in that folder.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from sizewise.composition.compose import compose_run
from sizewise.job.run import run_job

pytestmark = pytest.mark.browser
PATIENCE = 240_000
expect.set_options(timeout=90_000)
EVIL = "<img src=x onerror=\"document.title='owned'\"> ![](http://192.0.2.1/x.png)"
FEELINGS = ("nervous", "lonely", "tired", "proud", "bored", "jealous", "calm", "restless")
PLACES = ("at work", "at home", "in class", "on Sundays", "with friends", "after lunch")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one real run: a nano model tuned for a few steps on made-up talks."""
    root = tmp_path_factory.mktemp("app")
    table = root / "talks.csv"
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["question", "answer"])
        for feeling in FEELINGS:
            for place in PLACES:
                writer.writerow([f"I feel {feeling} {place}. {EVIL}", f"What is {feeling} like?"])
    overrides = [
        "model=nano", "lora.r=4", "dataset=csv", "dataset.name=talks",
        f"dataset.source.path='{table}'", "dataset.prompt='{question}'",
        "dataset.answer='{answer}'", "trainer.max_epochs=2", "trainer.progress_bar=false",
        "logger=none", "callbacks=none", "generation.max_new_tokens=12", "optimizer.lr=3e-3",
        f"paths.cache='{root / 'cache'}'",
    ]  # fmt: skip
    run_job(compose_run(overrides), root / "sweep" / "nano_talks_r4")
    return root


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Serve the app as a person would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sizewise.commands.main", "app", str(runs / "sweep")]
    command += ["--port", str(port), "--outputs", str(runs / "outputs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = (runs / "app.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while not answers(url):
        assert process.poll() is None, (runs / "app.log").read_text()
        assert time.monotonic() < deadline, "the app did not start"
        time.sleep(0.3)
    printed = (runs / "app.log").read_text().split()
    yield next(word for word in printed if word.startswith(f"{url}/?token="))
    process.terminate()
    process.wait(timeout=120)
    log.close()
    assert not answers(url)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Visit:
    """A page in the browser that remembers every complaint and every address it asked."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        page.goto(url)
        self.settle()

    def _asked(self, request: object) -> None:
        address = str(request.url)  # type: ignore[attr-defined]
        if address.startswith(("http", "ws")):
            self.hosts.add(address.split("/")[2].split(":")[0])

    def open(self, name: str) -> None:
        """Choose a page."""
        self.page.get_by_role("radio", name=name).first.click()
        heading = self.page.get_by_role("heading", name=name, exact=True)
        if name != "Results":
            expect(heading).to_be_visible(timeout=PATIENCE)
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run to its end, and no further run begins for a moment.

        A click on what is just being moved or drawn anew is lost.
        """
        expect(self.page.get_by_role("note")).to_contain_text(
            "Research, not care.", timeout=PATIENCE
        )
        app = self.page.get_by_test_id("stApp")
        state, calm = "data-test-script-state", 0
        while calm < 4:
            expect(app).to_have_attribute(state, "notRunning", timeout=PATIENCE)
            self.page.wait_for_timeout(200)
            calm = calm + 1 if app.get_attribute(state) == "notRunning" else 0

    def shot(self, name: str) -> None:
        folder = os.environ.get("SIZEWISE_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(800)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))

    def fits(self) -> None:
        """Nothing is wider than the window."""
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wide) <= 0
        main = (
            "(e => e.scrollWidth - e.clientWidth)"
            "(document.querySelector('[data-testid=stMainBlockContainer]').parentElement)"
        )
        assert self.page.evaluate(main) <= 0

    def reads(self) -> None:
        """Every text that is drawn stands out from its ground by 4.5 (WCAG 2.2) or more.

        What is about to be drawn anew is pale for a moment.
        """
        self.settle()
        ground = self.page.evaluate("getComputedStyle(document.querySelector('.stApp')).background")
        dark = self.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert ("255, 255, 255" in ground) is not dark
        assert self.page.evaluate(PALE) == []


# Texts whose colour, with the opacity of all that they stand in, is too near to that of the ground.
PALE = """() => {
  const parts = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (a, b) => [0, 1, 2].map(i => (a[3] ?? 1) * a[i] + (1 - (a[3] ?? 1)) * b[i]);
  const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const up = e => e ? [e, ...up(e.parentElement)] : [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let text; text = walk.nextNode();) {
    const element = text.parentElement, range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect(), style = getComputedStyle(element);
    const drawn = box.width > 2 && box.height > 2 && style.visibility == "visible";
    if (!text.textContent.trim() || !drawn || element.closest("style, script, noscript")) continue;
    const styles = up(element).map(e => getComputedStyle(e));
    const opacity = styles.reduce((a, s) => a * s.opacity, 1);
    const grounds = styles.map(s => parts(s.backgroundColor)).filter(c => c[3] !== 0).reverse();
    const ground = grounds.reduce((below, c) => over(c, below), [255, 255, 255]);
    const ink = parts(element.closest("svg") ? style.fill : style.color);
    const seen = over([...ink.slice(0, 3), (ink[3] ?? 1) * opacity], ground);
    const [a, b] = [light(seen), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (opacity > 0.02 && ratio < 4.5) found.push([ratio.toFixed(2), text.textContent.trim()]);
  }
  return found.slice(0, 20);
}"""


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def visit(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Iterator[Visit]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            viewport={"width": request.param, "height": 900},
            color_scheme="dark" if request.param == 390 else "light",
        )
        yield Visit(context.new_page(), address)
        context.close()


def width(visit: Visit) -> str:
    size = visit.page.viewport_size
    return "phone" if size and size["width"] < 600 else "desktop"


def test_a_visit(visit: Visit, runs: Path) -> None:
    """One walk through all pages: a person's order, one browser."""
    see_results(visit)
    see_explore(visit)
    see_chat(visit, runs)
    see_rate(visit, runs)
    see_evaluate(visit, runs)
    assert visit.complaints == []
    assert visit.hosts == {"127.0.0.1"}
    assert visit.page.title() != "owned"


def test_a_visitor_without_the_token_sees_nothing(address: str) -> None:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address.partition("?")[0])
        expect(page.get_by_role("alert")).to_contain_text("Open the whole address")
        expect(page.get_by_role("note")).to_have_count(0)
        expect(page.get_by_role("radio", name="Chat")).to_have_count(0)
        browser.close()


def see_results(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_role("heading", name="Quality against cost")).to_be_visible()
    expect(page.get_by_role("heading", name="What a reviewer would object to")).to_be_visible()
    expect(page.locator(".objections li").first).to_be_visible()
    shown, hidden = ("narrow", "wide") if width(visit) == "phone" else ("wide", "narrow")
    expect(page.locator(f"[class*='st-key-{hidden}_pareto']")).to_be_hidden()
    picture = page.locator(f"[class*='st-key-{shown}_pareto']").get_by_test_id("stPlotlyChart")
    markers = picture.locator(".scatterlayer .trace .points path")
    expect(markers).to_have_count(2)
    visit.shot(f"{width(visit)}_results")
    for place, label in enumerate(("nano zero-shot", "nano LoRA r=4")):
        choose(visit, markers.nth(place), label)
    expect(page.locator(".panel").first).to_contain_text("I feel")
    expect(page.locator(".panel").first).to_contain_text("<img src=x")
    expect(page.get_by_role("heading", name="Distribution over examples")).to_be_visible()
    expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Table (CSV)").click()
    assert "nano LoRA r=4" in download.value.path().read_text()
    page.locator(".panel").first.scroll_into_view_if_needed()
    visit.shot(f"{width(visit)}_results_answers")
    visit.fits()
    visit.reads()


def choose(visit: Visit, marker: Locator, label: str) -> None:
    """Click a point until its model is shown: a picture that is being drawn anew hears nothing."""
    chosen = visit.page.get_by_label(re.compile("Model$")).first
    end = time.monotonic() + PATIENCE / 1000
    while chosen.input_value() != label and time.monotonic() < end:
        # Plotly listens on the layer above its markers, so the mouse goes to where one is.
        marker.scroll_into_view_if_needed()
        box = marker.bounding_box()
        assert box is not None
        visit.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        visit.settle()
    expect(chosen).to_have_value(label)


def see_explore(visit: Visit) -> None:
    visit.open("Explore")
    page = visit.page
    expect(page.get_by_role("heading", name="Duplicates and leaks")).to_be_visible()
    expect(page.get_by_text("exact repetitions were removed from 48 rows")).to_be_visible()
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(2)
    panels = page.locator(".panel")
    first = panels.first.inner_text()
    page.get_by_test_id("stNumberInputStepUp").click()
    expect(panels.first).not_to_have_text(first)
    visit.shot(f"{width(visit)}_explore")
    visit.fits()
    visit.reads()


def see_chat(visit: Visit, runs: Path) -> None:
    visit.open("Chat")
    page = visit.page
    talk = ("I feel nervous at work.", "Why?", "And at home?")
    if width(visit) == "phone":
        talk = talk[:1]
    for number, text in enumerate(talk, start=1):
        say(visit, text)
        expect(page.locator(".panel:not(.writing)")).to_have_count(2 * number, timeout=PATIENCE)
        visit.settle()
    answers = [panel.inner_text() for panel in page.locator(".panel").all()]
    tuned, base = answers[::2], answers[1::2]
    assert tuned != base
    visit.open("Rate")
    visit.open("Chat")
    expect(page.locator(".panel")).to_have_count(2 * len(talk))
    page.get_by_role("button", name="Settings").click()
    longest = page.get_by_test_id("stSlider").filter(has_text="Longest answer")
    expect(longest).to_contain_text("12")  # that of the run, and not the least there is
    page.keyboard.press("Escape")
    visit.settle()
    say(visit, "I want to <b>kill myself</b>")
    alert = page.get_by_role("alert").filter(has_text="Please talk to a person now")
    expect(alert).to_contain_text("findahelpline.com")
    expect(page.locator(".said").last).to_have_text("I want to <b>kill myself</b>")
    expect(page.locator(".panel")).to_have_count(2 * len(talk))
    visit.shot(f"{width(visit)}_chat_crisis")
    assert not (runs / "sweep" / "transcripts").exists() or width(visit) == "phone"
    before = set((runs / "sweep").glob("transcripts/*.json"))
    page.get_by_role("button", name="Save transcript").click()
    expect(page.get_by_text("Saved to")).to_be_visible()
    (saved,) = set((runs / "sweep").glob("transcripts/*.json")) - before
    turns = json.loads(saved.read_text())["turns"]
    assert [len(turn["answers"]) for turn in turns] == [*(2 for _ in talk), 0]
    assert turns[-1]["finding"]["category"] == "suicidality"
    visit.fits()
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".said")).to_have_count(0)
    visit.settle()
    box = page.get_by_test_id("stChatInputTextArea")
    for text in ("I feel calm at home.", "And in class?"):  # the second while the first is answered
        box.fill(text)
        box.press("Enter")
        expect(page.locator(".said").last).to_have_text(text)
    expect(page.locator(".panel:not(.writing)")).to_have_count(4, timeout=PATIENCE)
    page.reload()  # it is the same page again, and nothing is looked for in vain
    visit.settle()
    expect(page.get_by_role("heading", name="Chat", exact=True)).to_be_visible(timeout=PATIENCE)


def say(visit: Visit, text: str) -> None:
    box = visit.page.get_by_test_id("stChatInputTextArea")
    box.fill(text)
    box.press("Enter")
    expect(visit.page.locator(".said").last).to_have_text(text)
    visit.settle()


def see_rate(visit: Visit, runs: Path) -> None:
    visit.open("Rate")
    page, rater = visit.page, f"Rater {width(visit)}"
    name = page.get_by_label("Your name")
    name.fill(rater)
    name.press("Enter")
    visit.settle()
    first = page.get_by_role("button", name="First is better")
    expect(first).to_be_visible()
    shown = page.locator(".who").all_inner_texts()
    assert shown == ["Prompt", "First answer", "Second answer"]
    visit.shot(f"{width(visit)}_rate")
    prompt = page.locator(".panel").first.inner_text()
    first.click()
    expect(page.get_by_text(re.compile(r"^1 of \d+ rated$"))).to_be_visible()
    expect(page.locator(".panel").first).not_to_have_text(prompt)
    lines = [
        json.loads(line)
        for path in (runs / "sweep" / "ratings").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    (rating,) = [line for line in lines if line["rater"] == rater]
    assert rating["outcome"] == ("b" if rating["swapped"] else "a")
    visit.fits()
    visit.reads()


def see_evaluate(visit: Visit, runs: Path) -> None:
    visit.open("Evaluate")
    page = visit.page
    if width(visit) == "phone":  # once is enough: it is a process that loads everything anew
        expect(page.get_by_text(re.compile(r"^done: \d+ of \d+ answers$"))).to_be_visible()
        visit.fits()
        return
    page.get_by_role("button", name="Start").click()
    ended = page.get_by_text(re.compile(r"talks, tuned: perplexity|Failed after"))
    expect(ended).to_be_visible(timeout=PATIENCE)
    expect(ended).to_contain_text("talks, tuned: perplexity")
    expect(page.get_by_text(re.compile(r"^done: \d+ of \d+ answers$"))).to_be_visible()
    visit.shot(f"{width(visit)}_evaluate")
    assert len(list((runs / "outputs").glob("*/outcome.json"))) == 1
    visit.fits()
