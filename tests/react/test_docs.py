"""docs/ai-sdk.md shows the page that is tested."""

from __future__ import annotations

import re

from tests.react.conftest import DOCS, REACT

#: What an app does not need: it only says which chat the tests want to see.
OF_THE_TESTS = {"main.jsx"}


def test_the_code_that_is_shown_is_the_pages() -> None:
    """Each block is one whole file, and each file is shown."""
    shown = re.findall(r"```jsx?\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    sources = {path.name: path.read_text("utf-8") for path in (REACT / "src").iterdir()}
    assert sorted(shown) == sorted(text for name, text in sources.items() if name not in OF_THE_TESTS)
