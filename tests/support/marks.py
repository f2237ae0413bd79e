"""What stands between two marks of a Markdown page: a program writes it, and a test reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Marks:
    """``<!-- name -->`` and ``<!-- /name -->``."""

    name: str

    @property
    def opening(self) -> str:
        """The mark before it."""
        return f"<!-- {self.name} -->"

    @property
    def closing(self) -> str:
        """The mark behind it."""
        return f"<!-- /{self.name} -->"

    def write(self, text: str, page: Path) -> None:
        """Put ``text`` between the page's marks. ValueError where it has none."""
        before, opening, rest = page.read_text("utf-8").partition(self.opening)
        _, closing, after = rest.partition(self.closing)
        if not closing:
            raise ValueError(f"{page} has no {self.opening} … {self.closing}")
        page.write_text(f"{before}{opening}\n{text}\n{closing}{after}", "utf-8")

    def lines(self, page: Path) -> list[str]:
        """Return the lines between the page's marks; none where it has none."""
        return page.read_text("utf-8").partition(self.opening)[2].partition(self.closing)[0].splitlines()
