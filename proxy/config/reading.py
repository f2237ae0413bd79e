"""One pass over a document: which faults it has, and how reading goes on after each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from proxy.config.document import Item
from proxy.errors import ConfigProblem

Fields = dict[str, Any]
Rule = Callable[[Fields, Item, "Reading"], None]
"""Checks what spans fields: gets those that could be read, reports faults, fills in computed fields."""


class Fault(Exception):
    """A value cannot be used. The message says why; it is empty when that has been reported already."""


class Reading:
    """One pass over a document: the rules to apply and every problem found so far."""

    def __init__(self, rules: Mapping[type[msgspec.Struct], Rule]) -> None:
        self.rules = rules
        self.faults = 0
        self._problems: dict[ConfigProblem, None] = {}

    @property
    def problems(self) -> list[ConfigProblem]:
        """Each problem once (a fault in ``defaults`` is met again in every route), by line."""
        return sorted(self._problems, key=lambda problem: problem.line)

    def report(self, problem: ConfigProblem) -> None:
        """Note ``problem``."""
        self.faults += 1
        self._problems[problem] = None

    def refuse(self, item: Item, what: str) -> None:
        """Note that ``item``'s value cannot be used."""
        self.report(ConfigProblem(item.where, item.line, what))

    def refuse_key(self, item: Item, what: str) -> None:
        """Note that ``item`` should not be there at all."""
        self.report(ConfigProblem(item.where, item.key_line, what))

    @contextmanager
    def caught(self, item: Item) -> Iterator[None]:
        """Goes on after a :class:`Fault` in ``item``, noting it."""
        try:
            yield
        except Fault as fault:
            self.faults += 1
            if fault.args:
                self.refuse(item, str(fault))


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` when ``word`` looks like a slip of a known one, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
