"""Fixtures for all tests. Where CI is set a skipped test fails, unless what is missing is a CUDA GPU."""

import os
import sys

import pytest

PERMITTED = "no CUDA GPU"


@pytest.fixture(scope="session")
def needs_tool():
    """needs_tool("Chromium", found) skips the test, or the fixture that asks, and names the tool."""

    def need(name, available):
        if not available:
            pytest.skip(f"{name} is missing")

    return need


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return forbid_skip((yield))


def forbid_skip(report):
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not reason.startswith(PERMITTED):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report


@pytest.fixture(autouse=True)
def denormals_as_before():
    """Training flushes denormals for the whole process (runs.begin_run); the next test must not feel it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
