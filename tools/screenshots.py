"""Pictures of the report and the app for the README: python -m tools.screenshots multirun/NAME.

Needs Chromium and the extra ``dev`` (playwright); writes docs/images/report.png and app.png.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH, HEIGHT = 1200, 900
PATIENCE_MS = 240_000


def report_picture(page: Page, directory: Path) -> None:
    """Photograph the upper part of a sweep's report."""
    page.goto((directory / "report.html").resolve().as_uri())
    page.wait_for_timeout(3_000)
    page.screenshot(path=IMAGES / "report.png")


def app_picture(page: Page, directory: Path) -> None:
    """Photograph the results page of the app on the same sweep: objections and the picture."""
    with served(directory) as address:
        page.goto(address, timeout=PATIENCE_MS)
        page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE_MS)
        page.wait_for_timeout(5_000)
        heading = page.get_by_role("heading", name="What a reviewer would object to")
        heading.evaluate("element => element.scrollIntoView()")
        page.wait_for_timeout(1_000)
        page.screenshot(path=IMAGES / "app.png")


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Start the app as a person would; yield the address that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["app", str(directory), "--port", str(port)]
    app = subprocess.Popen(
        [sys.executable, "-m", "sizewise.commands.main", *command],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert app.stdout is not None
        said = app.stdout.readline()
        wait_until_answered(f"http://127.0.0.1:{port}")
        yield next(word for word in said.split() if word.startswith("http"))
    finally:
        app.terminate()
        app.wait()


def wait_until_answered(address: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit(f"{address} does not answer.")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write(__doc__ or "")
        return 2
    directory = Path(arguments[0])
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        report_picture(page, directory)
        app_picture(page, directory)
        chromium.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
