"""The HTML report in headless Chromium, from a file: what a reader sees and does.

Needs the system's Chromium (``apt-get install chromium``). Without it these tests are skipped,
except in CI, where they fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.report.html import page
from tests.pages import chromium, verdict
from tests.sampling import VERDICTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.full, VERDICTS]
SHOWN = ("tutorial-function", "tail_loss")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as found:
            yield found
    except (FileNotFoundError, ModuleNotFoundError) as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"cannot open the report: {missing}")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page([verdict(name) for name in SHOWN]), encoding="utf-8")
    return path


@dataclass
class Opened:
    """A page that is open, and all that it asked for or complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Any]:
    """Opens the report; in the end there was no complaint, and no request but for the file."""
    contexts, seen = [], []

    def open_it(**options: Any) -> Opened:
        options = {"viewport": {"width": 1280, "height": 900}} | options
        context = browser.new_context(**options)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        found = Opened(context.new_page())
        seen.append(found)
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("websocket", lambda socket: found.requests.append(socket.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(report.as_uri())
        return found

    yield open_it
    assert seen
    for found in seen:
        assert found.complaints == []
        assert {url for url in found.requests if not url.startswith("data:,")} == {report.as_uri()}
    for context in contexts:
        context.close()


def rows(page: Page) -> list[str]:
    """The clauses in the rows of the matrix that are to be seen."""
    found: list[str] = page.eval_on_selector_all(
        ".matrix tr[data-clause]",
        "rows => rows.filter(r => r.offsetHeight).map(r => r.dataset.clause)",
    )
    return found


def test_the_matrix_is_seen(opened: Any) -> None:
    page = opened().page
    clauses = {row["id"] for name in SHOWN for row in verdict(name)["clauses"]}
    assert set(rows(page)) == clauses
    table = page.get_by_role("table")
    assert table.get_by_role("columnheader", name="tutorial-function").is_visible()
    cell = page.locator(".matrix tr[data-clause='gradient.target'] td").first
    assert cell.get_by_role("link", name="broken").inner_text() == "✗"
    good = page.locator(".matrix tr[data-clause='value.mean'] td").first
    assert good.get_by_role("img", name="passed").is_visible()


def test_filters_by_status_family_and_words(opened: Any) -> None:
    page = opened().page
    everything = rows(page)
    shown = page.get_by_role("search").get_by_role("status")
    page.locator("button.kind[data-kind=fail]").click()
    broken = rows(page)
    expected = {
        row["id"]
        for name in SHOWN
        for row in verdict(name)["clauses"]
        if row["status"] == "fail" and row["level"] == "must"
    }
    assert set(broken) == expected
    assert shown.inner_text() == f"{len(expected)} of {len(everything)} clauses"
    assert page.locator("details.failure.should").first.is_hidden()
    page.get_by_label("Family").select_option("gradient")
    assert set(rows(page)) == {c for c in expected if c.startswith("gradient.")}
    page.get_by_role("button", name="Reset").click()
    page.locator("tr[data-clause][hidden]").first.wait_for(state="detached")
    assert rows(page) == everything
    page.get_by_label("Search").fill("subnormal flushed")
    assert set(rows(page)) == {"value.subnormal", "gradient.subnormal"}
    page.get_by_label("Search").fill("no such thing")
    assert rows(page) == []
    assert page.locator("#matrix .nothing").is_visible()


def test_a_broken_cell_leads_to_its_details(opened: Any) -> None:
    page = opened().page
    details = page.locator("[id='v0-gradient.target']")
    assert details.get_attribute("open") is None
    page.locator(".matrix tr[data-clause='gradient.target'] td a").first.click()
    page.locator("summary:focus").wait_for()
    assert details.get_attribute("open") is not None
    assert details.get_by_text("no gradient for target (None)").last.is_visible()
    assert details.get_by_text("The gradient of target is the negative").first.is_visible()
    assert details.get_by_text("import torch").first.is_visible()


def test_the_copy_button_copies_the_script(opened: Any) -> None:
    page = opened().page
    page.locator("[id='v0-gradient.target'] > summary").click()
    page.get_by_role("button", name="Copy the script for gradient.target").first.click()
    page.get_by_text("Copied to the clipboard.").wait_for(state="attached")
    script = page.locator("[id='v0-gradient.target-script']").text_content()
    assert page.evaluate("navigator.clipboard.readText()") == script
    assert script in [
        row["counterexample"]["script"]
        for row in verdict(SHOWN[0])["clauses"]
        if row["id"] == "gradient.target"
    ]


def test_the_pictures_are_seen(opened: Any) -> None:
    page = opened().page
    for picture in ("#accuracy .charts svg", "#coverage .coverage"):
        first = page.locator(picture).first
        first.scroll_into_view_if_needed()
        box = first.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
        assert first.locator("title").text_content()
    assert page.locator("#accuracy .charts svg").count() == 2 * 2 * 4
    places = page.locator("#v1 .where")
    assert places.count() > 0
    places.first.evaluate("e => e.closest('details').open = true")
    assert places.first.is_visible()


def test_nothing_moves_sideways_on_a_phone(opened: Any) -> None:
    page = opened(viewport={"width": 360, "height": 740}).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator(".box")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")  # it scrolls inside


def test_the_keyboard_reaches_the_filter(opened: Any) -> None:
    page = opened().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the matrix"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.kind") == "fail":
            break
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    everything = len(rows(page))
    page.keyboard.press("Space")
    assert 0 < len(rows(page)) < everything
    page.keyboard.press("Escape")
    page.locator("tr[data-clause][hidden]").first.wait_for(state="detached")


def test_dark_is_dark(opened: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened(color_scheme="light").page.evaluate(background)
    dark = opened(color_scheme="dark").page.evaluate(background)
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(20, 23, 26)"


def test_all_of_it_is_there_without_scripts(opened: Any) -> None:
    found = opened(java_script_enabled=False)
    assert found.page.get_by_role("table").is_visible()
    assert found.page.get_by_label("Search").is_hidden()
    found.page.locator("[id='v0-gradient.target'] > summary").click()
    assert found.page.locator("[id='v0-gradient.target-script']").is_visible()


def test_on_paper_everything_is_open_and_no_control_is_left(opened: Any) -> None:
    page = opened().page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("[id='v0-gradient.target-script']").is_visible()
    assert page.get_by_role("button", name="Copy the script for gradient.target").count() == 0
    assert page.get_by_label("Search").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("[id='v0-gradient.target']").get_attribute("open") is None


def test_what_a_stranger_smuggled_in_would_neither_run_nor_be_fetched(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    """Even if the escaping failed; and the complaints that other tests look for do come."""
    smuggled = (
        "<script>document.title = 'taken over'</script><img src='http://localhost:9/x.png'>"
        "<p onclick=\"document.title = 'taken over'\" id=trap>here</p>"
    )
    path = tmp_path / "smuggled.html"
    path.write_text(report.read_text("utf-8").replace("<main", smuggled + "<main"), "utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri())
        page.locator("#trap").click()
        assert page.title() != "taken over"
        assert sum("Content Security Policy" in text for text in complaints) >= 3
