"""The page of a campaign, from a ledger of ten thousand kernels, in headless Chromium.

Needs the system's Chromium (``apt-get install chromium``). Without it these tests are skipped,
except in CI, where they fail.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from conformance.judging.cause import CAUSES
from conformance.report.campaign import CampaignRow, page, throughput
from conformance.report.campaign_exports import jsonl, junit, write_parquet
from conformance.report.campaign_progress import CampaignProgress
from conformance.running.campaign.command import rows
from conformance.running.campaign.kernels import Kernel
from conformance.running.campaign.ledger import Circumstances, Ledger
from conformance.running.campaign.task import Answer
from conformance.running.inprocess import judged
from conformance.running.observers import InProcess
from conformance.verdict.outcome import WORDS, Outcome
from tests.pages import chromium, tail_loss

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MANY = 10_000
OWN = Circumstances("mse 1.0", "0.1", "abc" * 20, "python 3.11")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def verdict(target: object) -> dict[str, Any]:
    """On a few clauses."""
    found = judged(InProcess.of(target, "cpu"), "quick", 0, clauses="value.none,value.mean")
    return found.to_json()


BROKEN = Outcome.of(verdict(tail_loss))
FOUND = (
    Outcome("conforms", "conforms"),
    BROKEN,
    Outcome("broken", "layout", "layout.value", "float32", "wrong", "strides_ignored", "They are."),
    Outcome("broken", "hang", message="the call did not return within 20 s"),
    Outcome("broken", "import", message=f"cannot import it: {HOSTILE}"),
    Outcome("incomplete", "time", message=WORDS["time"]),
)


def text(k: int) -> str:
    return f"# kernel {k} {HOSTILE}\n" + f"def loss(x, y):\n    return (x - y).square() * {k}\n" * 9


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[CampaignRow]:
    """Of a synthetic ledger, in which the kernels came in turns."""
    with Ledger(tmp_path_factory.mktemp("ledger")) as ledger:
        ledger._file.execute("pragma synchronous = off")
        kernels = [Kernel(f"model-{k % 7}.{k:05}", text(k), f"/k/{k}.py") for k in range(MANY)]
        ledger.register(kernels)
        for k, kernel in enumerate(kernels):
            answer = Answer(FOUND[k % len(FOUND)], None, 0.1, 1.5, True, "here:1")
            ledger.record(OWN, kernel.digest, ["screen"], answer)
        return rows(ledger, OWN)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as opened:
            yield opened
    except (FileNotFoundError, ModuleNotFoundError) as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"cannot open the page: {missing}")


@pytest.fixture(scope="module")
def file(found: list[CampaignRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page(found, OWN.spec, OWN.seed, CAUSES), encoding="utf-8")
    return path


@dataclass
class Opened:
    page: Page
    seconds: float
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Any]:
    """Opens the page; in the end there was no complaint, and no request but for the file."""
    seen: list[Opened] = []

    def open_it(width: int = 1280) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 800})
        found = Opened(context.new_page(), 0.0)
        seen.append(found)
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        start = time.monotonic()
        found.page.goto(file.as_uri())
        found.page.locator("#list li").first.wait_for()
        found.seconds = time.monotonic() - start
        return found

    yield open_it
    for one in seen:
        assert one.complaints == []
        assert {url for url in one.requests if not url.startswith("data:,")} == {file.as_uri()}
        one.page.context.close()


def test_ten_thousand_kernels_open_and_are_counted_by_defect(opened: Any, file: Path) -> None:
    one = opened()
    print(f"\n{file.stat().st_size / 2**20:.1f} MiB, open in {one.seconds:.2f} s")
    assert file.stat().st_size < 8 * 2**20
    assert one.page.locator("h1").inner_text() == "1,667 of 10,000 kernels conform"
    strides = one.page.locator(".defect", has_text="layout.value")
    assert strides.inner_text().startswith("1,667")
    assert CAUSES["strides_ignored"] in strides.inner_text()
    assert one.page.locator("#list li").count() == 100
    strides.click()
    assert one.page.locator("#shown").inner_text() == "1,667 of 10,000 kernels"
    one.page.locator("#more").click()
    assert one.page.locator("#list li").count() == 200
    one.page.locator("#clear").click()
    assert one.page.locator("#shown").inner_text() == "10,000 of 10,000 kernels"


def test_a_kernel_is_found_and_shows_its_case_script_and_source(opened: Any) -> None:
    one = opened()
    one.page.locator("#words").fill("model-1.00001")
    assert one.page.locator("#shown").inner_text() == "1 of 10,000 kernels"
    one.page.locator("#list summary").click()
    box = one.page.locator("#list details")
    box.locator("pre").nth(1).wait_for()
    script, source = (box.locator("pre").nth(k).inner_text() for k in range(2))
    assert script.strip() == BROKEN.script.strip()
    assert source.strip() == text(1).strip()
    facts = box.locator("dl").inner_text()
    assert BROKEN.message in facts
    assert BROKEN.clause in facts
    assert "reduction=" in facts
    assert one.page.locator("img").count() == 0


def test_the_list_shows_what_conforms_is_broken_or_unclear(opened: Any) -> None:
    one = opened()
    for value, count in (("0", "1,667"), ("1", "6,667"), ("2", "1,666")):
        one.page.locator("#outcome").select_option(value)
        assert one.page.locator("#shown").inner_text() == f"{count} of 10,000 kernels"


def test_on_a_phone_nothing_is_wider_than_the_screen(opened: Any) -> None:
    one = opened(width=360)
    one.page.locator("#list summary").first.click()
    width = one.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    small = "[...document.querySelectorAll('main button, main input, main select')]"
    small += ".filter((e) => !e.hidden && e.getBoundingClientRect().height < 40).length"
    assert one.page.evaluate(small) == 0


# -- for machines ----------------------------------------------------------------------------------


def test_a_line_has_one_number_and_one_word(found: list[CampaignRow]) -> None:
    lines = [json.loads(line) for line in jsonl(found[:6]).splitlines()]
    assert [(line["correct"], line["reason"]) for line in lines] == [
        (outcome.correct, outcome.reason) for outcome in (row.outcome for row in found[:6])
    ]
    assert {line["correct"] for line in lines} <= {0, 1, None}


def test_junit_has_a_test_for_each_kernel(found: list[CampaignRow]) -> None:
    suite = ElementTree.fromstring(junit(found, OWN.spec))
    assert len(suite) == MANY
    assert int(suite.get("failures", "")) == sum(r.outcome.correct == 0 for r in found)
    assert int(suite.get("errors", "")) == len(suite.findall("*/error"))


def test_parquet_is_what_duckdb_can_be_asked(found: list[CampaignRow], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert write_parquet(tmp_path / "results.parquet", found)
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.num_rows == MANY
    assert table.column("correct").null_count == sum(r.outcome.correct is None for r in found)


def test_duckdb_answers_what_the_docs_ask(found: list[CampaignRow], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    duckdb = pytest.importorskip("duckdb")
    text = (Path(__file__).parents[2] / "docs" / "campaign.md").read_text("utf-8")
    (block,) = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    write_parquet(tmp_path / "results.parquet", found)
    queries = block.replace("results/results.parquet", str(tmp_path / "results.parquet")).split(";")
    by_defect, by_reason = (duckdb.sql(query).fetchall() for query in queries if query.strip())
    assert ("strides_ignored", "layout.value", 1667) in by_defect
    assert {reason for reason, _ in by_reason} == {outcome.reason for outcome in FOUND}


# -- what it comes to ------------------------------------------------------------------------------


def test_of_a_verdict_the_first_clause_is_told_with_what_explains_it() -> None:
    assert (BROKEN.outcome, BROKEN.reason, BROKEN.correct) == ("broken", "value", 0)
    assert BROKEN.clause.startswith("value.")
    assert BROKEN.cause == "lost_tail"
    assert BROKEN.case
    assert "def deviations" in BROKEN.script
    assert Outcome.of(verdict("builtin")) == Outcome("conforms", "conforms")


def test_what_is_incomplete_is_neither_right_nor_wrong() -> None:
    cut = verdict("builtin") | {"conforms": False, "complete": False}
    assert Outcome.of(cut | {"interrupted": True}).reason == "time"
    assert (Outcome.of(cut).reason, Outcome.of(cut).correct) == ("unavailable", None)


def test_the_plot_leaves_out_when_nobody_was_at_work(found: list[CampaignRow]) -> None:
    from dataclasses import replace

    ends = [*range(100), *range(10_000, 10_100)]
    picture = throughput(
        [replace(row, begun=float(end)) for row, end in zip(found, ends, strict=False)]
    )
    assert picture
    assert "3 min" in picture
    assert throughput(found[:1]) is None


def test_progress_says_how_long_it_will_take() -> None:
    now = CampaignProgress(640, 80, 310, 2, 1, 392, 248, 784.0)
    assert str(now) == (
        "640 kernels: 80 conform, 310 broken, 2 unclear, 1 workers lost; 1,800 an hour, 8 min left"
    )
    assert str(CampaignProgress(3)) == "3 kernels: 0 conform, 0 broken; 0 an hour, begun"
