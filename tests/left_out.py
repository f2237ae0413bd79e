"""A pytest plugin: what could not be tested on this machine is said last, where nobody overlooks it.

A test that lacks something here skips itself with a reason that begins with ``LEFT OUT:``. With
``CI=true`` that fails the run: there, whatever was not tested counts as broken.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

MARK = "LEFT OUT:"


class LeftOut:
    """Collects the reasons of one run."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hear of a test."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Hear of a module that skipped itself whole."""
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run in CI."""
        if self.reasons and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Tell, behind everything else."""
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or not self.reasons:
            return
        lines = [f"{reason}  ({count} skipped)" for reason, count in self.reasons.items()]
        if os.environ.get("CI") == "true":
            lines.append("CI=true: what is left out counts as failed.")
        width = max(map(len, lines))
        bar = "#" * (width + 4)
        terminal.write_line("\n".join(["", bar, *(f"# {line:{width}} #" for line in lines), bar]), red=True)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason.startswith(MARK):
                self.reasons[reason] += 1


def pytest_configure(config: pytest.Config) -> None:
    """Register it."""
    config.pluginmanager.register(LeftOut(), "left-out")
