"""A real headless Chromium for tests of the page: Debian's, with its driver."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.servers import ROOT, eventually

__all__ = ["Page", "browser"]

#: Where screenshots are kept for whoever changes the page.
SCREENSHOTS = ROOT / "build" / "page"
#: Wide, and a telephone: width and height in CSS pixels.
WIDE, PHONE = (1280, 900), (375, 812)
#: Nothing of a browser's own that looks for the network.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Page:
    """A tab with the page in it."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads
        self.size = WIDE

    def open(self, url: str, *, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        """Go to an address as someone with such a screen and such a taste."""
        self.size = size
        self._resize(size[1])
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(url)

    def find(self, selector: str) -> list[WebElement]:
        """Elements by CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first such element, waited for."""
        return eventually(lambda: self.find(selector), what=f"{selector} is on the page")[0]

    def texts(self, selector: str) -> list[str]:
        """What such elements say, all at one moment."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector))

    def button(self, text: str, within: str = "body") -> WebElement:
        """A visible button or link that says this, waited for."""

        def look() -> WebElement | None:
            found = [e for e in self.find(f"{within} button, {within} a") if text in e.text and e.is_displayed()]
            return found[0] if found else None

        return eventually(look, what=f"a button {text!r}")

    def choose(self, files: list[Path], selector: str = "#files") -> None:
        """Give files to the page as its file dialog does."""
        self.one(selector).send_keys("\n".join(map(str, files)))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript."""
        return self.driver.execute_script(script, *arguments)

    def keep(self, name: str) -> None:
        """Keep a screenshot of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self._resize(min(4000, self.run("return document.documentElement.scrollHeight")))
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
        self._resize(self.size[1])

    def complaints(self) -> list[str]:
        """What the browser has said since the last call: errors, and what the content security policy stopped."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return [message for message in said if "Failed to load resource" not in message]

    def downloaded(self, suffix: str) -> Path:
        """The file with this suffix that was downloaded last, when it is whole; it is moved out of the way."""

        def look() -> list[Path]:
            files = list(self.downloads.iterdir())
            try:
                under_way = any(path.suffix == ".crdownload" or not path.stat().st_size for path in files)
            except FileNotFoundError:  # Chromium has given it its name just now
                under_way = True
            return [] if under_way else [path for path in files if path.suffix == suffix]

        (found,) = eventually(look, what=f"a download of {suffix}")
        return found.rename(self.downloads.parent / found.name)

    def _resize(self, height: int) -> None:
        phone = self.size == PHONE
        metrics = {"width": self.size[0], "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@contextmanager
def browser() -> Iterator[Page]:
    """A browser for the block. The test fails where there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.fail("the tests of the page need a browser: apt-get install chromium chromium-driver")
    folder = Path(tempfile.mkdtemp(prefix="lm-browser-"))
    downloads = folder / "downloads"
    downloads.mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    tab = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Page(tab, downloads)
    finally:
        tab.quit()
        shutil.rmtree(folder, ignore_errors=True)
