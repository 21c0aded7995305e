"""The page in a real browser: every control works, nothing of the data runs, no console error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import Spec, Task, make_sweep

from sizewise.record.directories import RunDir
from sizewise.record.history import Line, rewrite
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import compare
from sizewise.report.page.page import render_page

pytestmark = pytest.mark.browser
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
LISTEN = """<script>
window.problems = [];
window.addEventListener("error", (e) => problems.push(String(e.message)));
window.addEventListener("securitypolicyviolation", (e) => problems.push("refused " + e.blockedURI));
console.error = (...a) => problems.push(a.join(" "));
window.copied = []; window.saved = []; window.blobs = [];
Object.defineProperty(navigator, "clipboard",
  { value: { writeText: (text) => { copied.push(text); return Promise.resolve(); } } });
HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
const Whole = Blob;
window.Blob = function (parts, options) {
  if (options && options.type === "text/csv") blobs.push(parts.join(""));
  return new Whole(parts, options);
};
</script>"""
DRIVE = """<script>
const found = {};
const rect = (n) => n.getBoundingClientRect();
const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
  && a.top < b.bottom - 1 && b.top < a.bottom - 1;
function names(node) {
  const texts = Array.from(node.querySelectorAll(".annotation-text-g")).map((n) => rect(n));
  const marks = Array.from(node.querySelectorAll(".scatterlayer .points path")).map((n) => rect(n));
  const inside = rect(node.querySelector(".nsewdrag"));
  const pairs = texts.flatMap((a, i) => texts.slice(i + 1).map((b) => [a, b]));
  return {
    names: texts.length, marks: marks.length,
    over: pairs.filter(([a, b]) => over(a, b)).length,
    covered: texts.filter((a) => marks.some((b) => over(a, b))).length,
    outside: texts.filter((a) => a.left < inside.left - 2 || a.right > inside.right + 2
      || a.top < inside.top - 2 || a.bottom > inside.bottom + 2).length,
  };
}
function ends() {
  return Array.from(document.querySelectorAll(".table.cut")).filter((n) => n.offsetWidth)
    .map((box) => {
      const right = rect(box.querySelector(".scroll")).right;
      const cells = Array.from(box.querySelector("table").tHead.rows[0].cells);
      return Math.min(...cells.map((cell) => Math.abs(rect(cell).right - right)));
    });
}
function finish() {
  found.hash = document.querySelector("#set-1").hidden;
  found.saved = saved; found.copied = copied; found.csv = blobs[0];
  found.title = document.title; found.problems = problems;
  const out = document.createElement("pre");
  out.id = "found"; out.textContent = JSON.stringify(found);
  document.body.replaceChildren(out);
}
function act() {
  const one = (q, within) => (within || document).querySelector(q);
  const all = (q, within) => Array.from((within || document).querySelectorAll(q));
  const firsts = () => all("#configurations-0 tbody th").map((n) => n.textContent);
  found.charts = all("#set-0 .chart").map((n) => [n.dataset.chart, all("svg", n).length]);
  found.before = firsts();
  const heads = all("#configurations-0 thead button");
  heads[1].click(); found.descending = firsts();
  heads[1].click(); found.ascending = firsts();
  found.sorted = heads[1].parentElement.getAttribute("aria-sort");
  const filter = one('[data-filter="configurations-0"]');
  filter.value = "mini"; filter.dispatchEvent(new Event("input"));
  found.filtered = all("#configurations-0 tbody tr").filter((r) => !r.hidden).length;
  const browser = one("[data-browser='0']");
  const where = () => one("[data-role=where]", browser).textContent;
  const marks = () => all(".answers .head", browser).slice(0, 2).map((n) => n.textContent);
  found.start = where();
  one("[data-role=next]", browser).click(); found.second = where();
  browser.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  found.back = where();
  const kind = one("[data-role=kind]", browser);
  kind.value = "worse"; kind.dispatchEvent(new Event("change"));
  found.worse = [where(), marks()];
  kind.value = "all"; kind.dispatchEvent(new Event("change"));
  const search = one("[data-role=search]", browser);
  search.value = "patient 7:"; search.dispatchEvent(new Event("input"));
  found.searched = [where(), one(".prompt pre", browser).textContent];
  const theme = document.documentElement.dataset.theme;
  one("#theme").click();
  found.theme = [theme, document.documentElement.dataset.theme];
  document.querySelectorAll("details").forEach((n) => { n.open = true; });
  found.placed = names(one("#quality-0 .chart"));
  const costs = all("[data-switch='quality-0']");
  costs[1].click();
  found.placedToo = names(one("#quality-0 .chart"));
  const logged = all("[data-switch='training-chart-0']");
  logged[1].click();
  found.logged = [one("#training-chart-0 .chart").dataset.chart, logged.length];
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  one("#configurations-0 [data-copy]").click();
  one("#configurations-0 [data-csv]").click();
  one("#configurations-0 [data-latex]").click();
  one("[data-copy-text]").click();
  one("#quality-0").closest("section").querySelector("[data-picture=svg]").click();
  found.cost = [one("#quality-0 .chart").dataset.chart, costs[1].getAttribute("aria-pressed")];
  all("[data-show]")[1].click();
  found.shown = all(".set").map((n) => !n.hidden);
  all("[data-show]")[0].click();
  location.hash = "#setup-1";
  found.links = all(".sections a").filter((n) => !one(n.getAttribute("href"))).length;
  found.answer = one("[data-browser='1'] .answers pre").textContent;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.unnamed = all("button, select, input").filter((n) => !n.textContent.trim()
    && !n.getAttribute("aria-label") && !n.closest("label")).length;
}
function start() {
  // Charts are drawn one after the other, which takes its time on a busy machine.
  if (document.querySelector("#set-0 .chart:not([data-drawn])")) { setTimeout(start, 50); return; }
  try { act(); } catch (error) { problems.push(error.stack); }
  setTimeout(() => { found.ends = ends(); }, 800);
  setTimeout(finish, 1500);
}
addEventListener("load", () => setTimeout(start, 500));
</script>"""


def drive(page: Path, width: int) -> dict[str, Any]:
    """Run the script against a copy of the page in headless Chromium and return what it found."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    profile = page.parent / f"profile{width}"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", f"--user-data-dir={profile}",
            f"--window-size={width},9000", "--virtual-time-budget=30000", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(unescape(found.group(1)))
    return result


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    task = Task(examples=120)
    specs = [Spec("nano", 0.45, r=r, seed=s, task=task) for r in (4, 8) for s in (1, 2)]
    specs += [Spec("nano", 0.45, 0.5, r=4, max_train=100, task=task), Spec("micro", task=task)]
    specs += [Spec("mini", 0.4, None, task=task)]
    specs += [Spec("nano", task=Task("other", examples=40, answer=EVIL))]
    for directory in make_sweep(root / "sweep", specs):
        write_outcome(replace(read_outcome(directory), warnings=[EVIL]), directory)
        lines = [Line(step, step, {"val_loss": 2.0 / (1 + step), "lr": 0.1}) for step in range(9)]
        rewrite(RunDir(directory).history, lines)
    text = render_page(compare([root / "sweep"]), "a sweep")
    text = text.replace("<meta charset", LISTEN + "<meta charset", 1)
    text = text.replace("</body>", DRIVE + "</body>")
    path = root / "page.html"
    path.write_text(text)
    return path


@pytest.mark.parametrize("width", [1280, 500])
def test_every_control_works_and_nothing_complains(page: Path, width: int) -> None:
    found = drive(page, width)
    assert found["problems"] == []
    assert found["title"] == "a sweep – sizewise"
    names = {name for name, _ in found["charts"]}
    wanted = {"quality-params", "forest", "ranks", "learning", "scaling", "hybrid", "strata-0"}
    assert wanted | {"confusion-0", "confusion-1", "calibration", "training-val_loss"} == names
    assert all(drawn > 0 for _, drawn in found["charts"])
    assert len(found["before"]) == 7
    assert found["descending"][0].startswith("mini")
    assert found["ascending"][0].startswith("nano")
    assert found["sorted"] == "ascending"
    assert found["filtered"] == 1
    assert (found["start"], found["second"], found["back"]) == (
        "1 of 120",
        "2 of 120",
        "1 of 120",
    )
    where, (tuned, base) = found["worse"]
    assert where.startswith("1 of")
    assert "wrong" in tuned
    assert "right" in base
    assert found["searched"][0] == "1 of 1"
    assert found["searched"][1].startswith("Patient 7:")
    assert found["theme"] in (["light", "dark"], ["dark", "light"])
    assert found["cost"] == ["quality-memory_bytes", "true"]
    assert found["shown"] == [False, True]
    assert found["answer"] == EVIL
    for placed in (found["placed"], found["placedToo"]):
        assert placed["names"] == placed["marks"] == 7
        assert (placed["over"], placed["covered"], placed["outside"]) == (0, 0, 0)
    assert found["logged"] == ["training-lr", 2]
    assert found["ends"] or width > 1000
    assert max(found["ends"], default=0) <= 4
    table, latex, said = found["copied"]
    assert len(table.splitlines()) == len(found["csv"].splitlines()) == 8
    assert table.splitlines()[0].startswith("Configuration\tParameters")
    assert "mini zero-shot," in found["csv"]
    assert latex.startswith("\\begin{table}")
    assert said.startswith("nano LoRA r=")
    assert found["saved"] == ["all-configurations.csv", "quality-memory-bytes.svg"]
    assert (found["links"], found["hash"]) == (0, False)
    assert found["overflow"] <= 0
    assert found["unnamed"] == 0
