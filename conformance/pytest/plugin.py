"""The pytest plugin: ``pytest --pyargs conformance --target TARGET -n auto``.

It is loaded in every pytest run on the user's machine, so it imports neither torch nor hypothesis;
without ``--target`` it does nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest

RESULT = "loss-conformance"  # the user property that carries a shard's result to the controller


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("loss-conformance", "judge implementations of a loss")
    group.addoption("--target", action="append", default=[], help="an implementation to judge")
    group.addoption("--conformance-device", default="cpu", help="cpu, cuda or cuda:N")
    group.addoption("--conformance-profile", default="default", help="quick, default or release")
    group.addoption("--conformance-seed", default=0, type=int, help="0 unless told")
    group.addoption("--conformance-report", default=None, help="write DIR/TARGET/verdict.json")


@pytest.fixture
def conformance_check(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The check of one clause, for tests made by ``conformance.pytest``."""
    from conformance.pytest import check_of

    folder = tmp_path_factory.getbasetemp()
    return check_of(request, folder.parent if hasattr(request.config, "workerinput") else folder)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: a shard of the conformance suite")
    if not config.getoption("--target"):
        return
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config), "loss-conformance-collector")


class Collector:
    """Gathers the results of all shards, from whichever worker, and prints the verdicts."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.start = config, time.monotonic()
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.verdicts: list[dict[str, Any]] = []

    @pytest.hookimpl(trylast=True)  # pytest-xdist's workers have been started then
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if not self.config.getoption("collectonly"):
            from conformance.pytest.verdicts import begin_session

            begin_session(self.config)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, value in report.user_properties:
                if name == RESULT:
                    data = json.loads(str(value))
                    self.results.setdefault(data["target"], []).append(data["result"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Conclude, and let a verdict that is not "conforms" fail a session that looks green."""
        if self.config.getoption("collectonly"):
            return
        from conformance.pytest.verdicts import conclude_session

        duration = time.monotonic() - self.start
        self.verdicts = conclude_session(self.config, self.results, duration)
        if exitstatus == 0 and not all(v["conforms"] for v in self.verdicts):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        from conformance.clauses import CLAUSES
        from conformance.report.terminal import in_style
        from conformance.report.text import render

        sentences = {c.id: c.sentence for c in CLAUSES}
        columns = shutil.get_terminal_size().columns
        for verdict in self.verdicts:
            terminalreporter.section(f"conformance of {verdict['target']}")
            styled = terminalreporter.hasmarkup
            text = in_style(verdict, sentences, None, columns) if styled else None
            terminalreporter.write_line(text or render(verdict, sentences))
