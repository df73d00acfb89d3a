"""The page, driven in a real headless Chromium, on a real gateway with real workers. Screenshots: ``build/page``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.browser import PHONE, WIDE, Page, browser
from tests.support.gateway import GatewayProcess, gateway
from tests.support.servers import ROOT, eventually, redis_server, worker_process

#: Chromium is a package of the system's: `make test-page`, not `make test`.
pytestmark = pytest.mark.browser

PHOTOS = ROOT / "examples" / "photos"
SIX = ["coffee.jpg", "rocket.jpg", "camera.png", "animals/chelsea.jpg", "astronaut.jpg", "clock.gif"]
#: Text smaller than this needs the full contrast; ours is all taken to be.
CONTRAST = 4.5


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One browser for all tests here."""
    with browser() as tab:
        yield tab


@pytest.fixture(scope="module")
def real() -> Iterator[GatewayProcess]:
    """A gateway with its embedded pair and the default model."""
    with gateway(model="efficientnet-lite0") as process:
        yield process


@pytest.fixture(scope="module")
def quick() -> Iterator[GatewayProcess]:
    """A gateway whose model answers at once."""
    with gateway() as process:
        yield process


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """500 small pictures, one of them cut off."""
    folder = tmp_path_factory.mktemp("many")
    with Image.open(PHOTOS / "coffee.jpg") as coffee:
        coffee.resize((120, 80)).save(folder / "picture.jpg")
    data = (folder / "picture.jpg").read_bytes()
    paths = [folder / f"picture-{number:03}.jpg" for number in range(500)]
    for path in paths:
        path.write_bytes(data)
    paths[7].write_bytes(data[: len(data) // 2])
    return paths


def wait_for_jobs(page: Page, state: str, count: int = 1) -> None:
    """Until so many jobs are in a state."""
    eventually(lambda: len(page.find(f"[data-job][data-state={state}]")) >= count, what=f"{count} jobs {state}")


def test_six_pictures_get_six_true_labels(page: Page, real: GatewayProcess) -> None:
    page.open(real.url)
    page.choose([PHOTOS / name for name in SIX])
    eventually(lambda: len(page.find(".card[data-state=done]")) == 6, what="six labels")
    labels = dict(zip(page.texts(".card-name"), page.texts(".card-label"), strict=True))
    assert labels["coffee.jpg"] == "espresso"
    assert labels["rocket.jpg"] in ("missile", "projectile")
    assert labels["chelsea.jpg"] in ("tabby", "tiger cat", "Egyptian cat")
    assert len(page.find(".card .bar")) == 6 * 5
    assert page.one("#cards-count").text == "6 pictures"
    page.keep("six-pictures-wide-light")
    assert page.complaints() == []


def test_a_picture_that_cannot_be_read_says_why(page: Page, real: GatewayProcess) -> None:
    page.open(real.url)
    page.choose([PHOTOS / "broken.jpg"])
    card = page.one(".card[data-state=failed]")
    assert "No label" in card.text
    assert "truncated" in card.text
    assert page.one("#cards-count").text == "1 picture, 1 without a label"
    assert page.one("#announce").get_attribute("textContent") == "0 pictures labelled, 1 without a label"


def test_a_job_of_500_is_watched_to_its_end_and_downloaded(page: Page, real: GatewayProcess, many: list[Path]) -> None:
    page.open(real.url)
    page.choose(many)
    job = page.one("[data-job]")
    seen: set[str] = set()

    def done() -> bool:
        seen.add(job.find_element("css selector", ".job-text").text)
        return job.get_attribute("data-state") == "ended"

    eventually(done, what="the job has ended")
    assert [text for text in seen if re.search(r"\d+ of 500 images.* · .*/s, .* left", text)], seen
    assert "500 of 500 done" in job.find_element("css selector", ".progress").get_attribute("aria-valuetext")
    assert "499 of 500 images, 1 failed" in job.text
    page.keep("job-wide-light")

    page.button("Not labelled", "#opened").click()
    row = page.one("#opened-rows [data-status=failed]")
    assert "picture-007.jpg" in row.text
    assert "corrupt_image" in row.text

    page.button("JSONL", "[data-job]").click()
    lines = [json.loads(line) for line in page.downloaded(".jsonl").read_text().splitlines()]
    assert sorted(line["custom_id"] for line in lines) == [path.name for path in many]
    page.button("CSV", "[data-job]").click()
    assert len(page.downloaded(".csv").read_text().splitlines()) == 501

    page.button("Retry failed", "[data-job]").click()
    eventually(lambda: page.find("[data-job][data-state=ended] .badge[data-kind=bad]"), what="it has failed again")
    assert page.complaints() == []


def test_a_running_job_can_be_cancelled(page: Page, many: list[Path]) -> None:
    with redis_server() as redis, worker_process(redis) as worker, gateway(redis=redis) as web:
        worker.pause()
        page.open(web.url)
        page.choose(many[:60])
        wait_for_jobs(page, "in_progress")
        assert "0 of 60 images" in page.one("[data-job]").text
        page.button("Cancel", "[data-job]").send_keys("\ue007")
        wait_for_jobs(page, "ended")
        assert page.run("return document.activeElement.className") == "job-name"  # not back at the top of the page
        assert page.one("[data-job] .badge").text == "Cancelled"
        assert "60 cancelled" in page.one("[data-job]").text
        worker.resume()


def test_a_job_is_deleted_by_pressing_twice(page: Page, quick: GatewayProcess, many: list[Path]) -> None:
    page.open(quick.url)
    page.choose(many[:30])
    wait_for_jobs(page, "ended")
    page.button("Delete", "[data-job]").send_keys("\ue007")  # the Enter key: by keyboard, and by ear
    again = page.button("Press again to delete", "[data-job]")
    assert again.get_attribute("aria-label") == "Press again to delete: 30 pictures"
    assert page.one("#announce").get_attribute("textContent") == "Press again to delete"
    page.driver.switch_to.active_element.send_keys("\ue007")
    eventually(lambda: not page.find("[data-job]"), what="the job is gone")
    assert page.one("#announce").get_attribute("textContent") == "30 pictures is deleted"
    assert page.run("return document.activeElement.id") == "jobs-title"


def test_a_file_that_is_no_picture_has_no_broken_preview(page: Page, quick: GatewayProcess, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"page-{number}.jpg").write_bytes(b"<html>")
    page.open(quick.url)
    page.choose(sorted(tmp_path.iterdir()))
    eventually(lambda: len(page.find("#opened-rows .row")) == 25, what="rows")
    page.run("document.querySelectorAll('#opened-rows img').forEach((image) => { image.loading = 'eager'; })")
    eventually(lambda: not page.find("#opened-rows img"), what="no broken picture")
    quick.request("DELETE", f"/v1/jobs/{page.one('[data-job]').get_attribute('data-job')}?force=true")


def test_a_folder_keeps_the_paths_of_its_pictures(page: Page, quick: GatewayProcess, many: list[Path]) -> None:
    page.open(quick.url)
    page.choose([many[0].parent], "#folder")
    wait_for_jobs(page, "ended")
    folder = many[0].parent.name
    assert page.one("[data-job] .job-name").text == folder
    eventually(lambda: page.texts("#opened .row-name"), what="rows")
    assert all(name.startswith(f"{folder}/picture") for name in page.texts("#opened .row-name"))


def test_names_of_files_are_text_and_never_html(page: Page, quick: GatewayProcess, tmp_path: Path) -> None:
    name = "<img src=x onerror=document.title='owned'>&amp;.jpg"
    hostile = tmp_path / name
    hostile.write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    page.open(quick.url)
    page.choose([hostile])
    eventually(lambda: page.find(".card[data-state=done]"), what="a label")
    assert page.texts(".card-name") == [name]
    quick.post("/v1/jobs", files=[("files", (name, b"x"))], data={"metadata": json.dumps({"name": name})})
    eventually(lambda: page.texts("[data-job] .job-name")[:1] == [name], what="the job's name as text")
    page.button("<img", "[data-job]").click()
    eventually(lambda: page.texts("#opened .row-name") == [name], what="the result's name as text")
    assert page.driver.title == "Labelmill"
    assert page.find("img[src=x]") == []


def test_a_token_is_asked_for_and_kept_for_the_tab(page: Page, many: list[Path]) -> None:
    with gateway(env={"LABELMILL_API_TOKENS": "a-good-token,another-one"}) as web:
        page.open(web.url)
        eventually(lambda: page.find("#token-dialog[open]"), what="the token is asked for")
        page.keep("token-wide-light")
        page.one("#token").send_keys("a-wrong-token\n")
        eventually(lambda: "not valid" in page.one("#token-wrong").text, what="it says that it was wrong")
        page.one("#token").send_keys("another-one\n")
        eventually(lambda: page.one("#pulse").get_attribute("data-state") == "ready", what="the page is there")
        page.choose(many[:30])
        wait_for_jobs(page, "ended")
        page.button("JSONL", "[data-job]").click()
        assert len(page.downloaded(".jsonl").read_text().splitlines()) == 30
        page.run("sessionStorage.clear()")


def test_a_service_that_goes_away_is_said_and_comes_back(page: Page, many: list[Path]) -> None:
    with redis_server() as redis, gateway(redis=redis) as web:
        page.open(web.url)
        eventually(lambda: page.one("#pulse").text == "No worker is ready", what="no worker")
        assert page.one("#model").text == "none is served"
        assert not page.one("#model").is_enabled()
        with worker_process(redis):
            eventually(lambda: page.one("#pulse").text == "1 worker ready", what="a worker")
            assert page.one("#model").text == "noop"
        redis.kill9()
        eventually(lambda: page.one("#pulse").text == "Redis is away", what="Redis is away")
        assert page.one("#fleet").text == "Redis is away. This page looks again every few seconds."
        page.choose(many[:1])
        eventually(lambda: "trying again" in page.one(".card").text, what="the card says why it waits")
        page.choose(many[:30])
        eventually(
            lambda: "trying again" in page.one("[data-local] .job-text").text, what="the upload says why it waits"
        )
        page.keep("away-wide-light")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_text_can_be_read_and_nothing_sticks_out(
    page: Page, real: GatewayProcess, many: list[Path], size: tuple[int, int], dark: bool
) -> None:
    page.open(real.url, size=size, dark=dark)
    page.choose([PHOTOS / name for name in [*SIX, "broken.jpg"]])
    eventually(lambda: len(page.find(".card[data-state=done]")) == 6, what="six labels")
    page.choose(many[:30])
    eventually(lambda: page.find(".rows [data-status=failed]"), what="a row that failed")
    page.keep(f"all-{'phone' if size == PHONE else 'wide'}-{'dark' if dark else 'light'}")
    weak = page.run(CONTRASTS, CONTRAST)
    assert weak == []
    assert page.run("return document.documentElement.scrollWidth") <= size[0]


def test_every_control_has_a_name_and_is_reached_by_keyboard(page: Page, real: GatewayProcess) -> None:
    page.open(real.url)
    page.choose([PHOTOS / "coffee.jpg"])
    eventually(lambda: page.find("[data-job]") and page.find(".card[data-state=done]"), what="a job and a card")
    tree: Any = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
    controls = [
        node
        for node in tree["nodes"]
        if not node.get("ignored") and node["role"]["value"] in ("button", "link", "combobox", "progressbar", "textbox")
    ]
    assert len(controls) >= 8
    assert [node["role"]["value"] for node in controls if not node["name"].get("value")] == []

    reached = set()
    for _ in range(60):
        page.driver.switch_to.active_element.send_keys("\ue004")  # the Tab key
        reached.add(page.run("const e = document.activeElement; return e.id || e.textContent.trim()"))
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.run("return document.activeElement === document.body")
    assert {"choose-files", "choose-folder", "model", "top-k", "clear-cards"} <= reached


def test_nothing_comes_from_another_address_and_nothing_moves_for_those_who_ask(
    page: Page, quick: GatewayProcess
) -> None:
    page.open(quick.url)
    eventually(lambda: page.one("#pulse").get_attribute("data-state") == "ready", what="the page is there")
    loaded = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith(quick.url)] == []
    reduced = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", reduced)
    styles = "[...document.querySelectorAll('*')].map((e) => getComputedStyle(e))"
    assert set(page.run(f"return {styles}.map((style) => style.animationName)")) == {"none"}
    assert set(page.run(f"return {styles}.map((style) => style.transitionDuration)")) == {"0s"}


#: Every visible text whose contrast with what is behind it is below the argument (WCAG 2.2, 1.4.3).
CONTRASTS = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
  .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = parse(getComputedStyle(e).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const weak = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !e.checkVisibility() || e.closest('.visually-hidden, .skip, option, noscript')) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const what = `${e.className || e.tagName}: ${e.textContent.trim().slice(0, 40)}`;
  if (ratio < arguments[0]) weak.push(`${ratio.toFixed(2)} ${what}`);
}
return weak;
"""
