"""A real browser: the system's Chromium, for whoever shows a page to it. A plugin of the tests' root."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

from tests.support.process import left_out

#: Names of the command, by distribution.
COMMANDS = ("chromium", "chromium-browser", "google-chrome")

#: No sandbox, since tests run as root in containers; nothing that talks to the world outside; and
#: names of which a page can come that is not ours.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
)


def find_chromium() -> str | None:
    """Path of a Chromium, if one is installed."""
    return next(filter(None, map(shutil.which, COMMANDS)), None)


@asynccontextmanager
async def launched(executable: str) -> AsyncIterator[Browser]:
    """A browser, ended on exit."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, headless=True, args=[*FLAGS])
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium. Without one these tests are left out, but not where they count."""
    found = find_chromium()
    return found or left_out(
        f"none of {', '.join(COMMANDS)} is installed, and these tests need a real browser"
    )
