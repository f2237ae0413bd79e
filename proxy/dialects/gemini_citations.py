"""Where a Gemini answer comes from: grounding metadata, and the citations of recited texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

from proxy.dialects.json_value import whole_number, word
from proxy.dialects.part import Citation

#: Most characters of an answer that are kept, to find out the places of its citations: they come in bytes.
MAX_TEXT = 1024 * 1024

#: Most citations that are remembered, so that none is told twice: some models repeat them in every chunk.
MAX_CITATIONS = 4096

Told = tuple[str, str, int | None, int | None]


class Citations:
    """Those of one candidate."""

    __slots__ = ("_choice", "_kept", "_length", "_sources", "_told")

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._kept = StringIO()
        self._length = 0
        self._sources: list[Any] = []
        self._told: set[int] = set()  # hashes: the texts may be long

    def hear(self, text: str) -> None:
        """Take in a piece of the answer."""
        self._length += len(text)
        if self._length <= MAX_TEXT:
            self._kept.write(text)

    def grounded(self, metadata: dict[str, Any]) -> Iterator[Citation]:
        """Yield what ``groundingMetadata`` tells: who supports which segment, then who supports none."""
        self._sources = _list(metadata.get("groundingChunks")) or self._sources
        supports = [each for each in _list(metadata.get("groundingSupports")) if isinstance(each, dict)]
        text = self._text()
        places = _characters(text, _offsets(map(_segment, supports)))
        used: set[int] = set()
        for support in supports:
            segment = _segment(support)
            start, end = _place(segment, places)
            if not _is_there(segment.get("text"), text, start, end):
                start = end = None  # the segment is of another text than this one
            for number in _list(support.get("groundingChunkIndices")):
                if type(number) is int and 0 <= number < len(self._sources):
                    used.add(number)
                    yield from self._cite(
                        self._sources[number], word(segment.get("text")), start, end, support
                    )
        for number, source in enumerate(self._sources):
            if number not in used:
                yield from self._cite(source, "", None, None, None)

    def recited(self, metadata: dict[str, Any]) -> Iterator[Citation]:
        """Yield what ``citationMetadata`` tells. The Gemini API and Vertex AI spell its list in two ways."""
        told = _list(metadata.get("citations")) or _list(metadata.get("citationSources"))
        citations = [each for each in told if isinstance(each, dict)]
        places = _characters(self._text(), _offsets(citations))
        for citation in citations:
            url, title = word(citation.get("uri")), word(citation.get("title"))
            start, end = _place(citation, places)
            if self._is_new((url, title, start, end)):
                yield Citation(url, title, "", "", start, end, 0, self._choice, citation)

    def _cite(
        self, source: Any, text: str, start: int | None, end: int | None, support: Any
    ) -> Iterator[Citation]:
        kinds = source.values() if isinstance(source, dict) else ()
        for kind in kinds:  # one: web, retrievedContext, maps, image
            told = kind if isinstance(kind, dict) else {}
            url = word(told.get("uri")) or word(told.get("sourceUri"))
            title, document = word(told.get("title")), word(told.get("documentName"))
            if self._is_new((url or document, title, start, end)):
                whole = {"chunk": source} if support is None else {"chunk": source, "support": support}
                cited = text or word(told.get("text"))
                yield Citation(url, title, cited, document, start, end, 0, self._choice, whole)

    def _is_new(self, told: Told) -> bool:
        known = hash(told)
        if known in self._told:
            return False
        if len(self._told) < MAX_CITATIONS:
            self._told.add(known)
        return True

    def _text(self) -> str:
        """Return the answer so far; nothing of one that is too long."""
        return self._kept.getvalue() if self._length <= MAX_TEXT else ""


def _characters(text: str, offsets: Iterable[int]) -> dict[int, int]:
    """Return the places, in characters, of offsets in bytes: of those inside of the text."""
    whole = text.encode("utf-8", "surrogatepass")
    places: dict[int, int] = {}
    before = count = 0
    for offset in sorted(set(offsets)):
        if offset > len(whole):
            break
        count += len(whole[before:offset].decode("utf-8", "ignore"))
        places[offset], before = count, offset
    return places


def _place(told: dict[str, Any], places: dict[int, int]) -> tuple[int | None, int | None]:
    """Return where a segment begins and ends; None for what is not inside of the text."""
    start, end = (places.get(whole_number(told.get(name)) or 0) for name in ("startIndex", "endIndex"))
    return start, end


def _is_there(segment: Any, text: str, start: int | None, end: int | None) -> bool:
    """Whether a segment stands at its place. Its length is looked at first: no text is cut out in vain."""
    if start is None or end is None or not isinstance(segment, str):
        return False
    return len(segment) == end - start and text.startswith(segment, start)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _segment(support: dict[str, Any]) -> dict[str, Any]:
    segment = support.get("segment")
    return segment if isinstance(segment, dict) else {}


def _offsets(told: Iterable[dict[str, Any]]) -> set[int]:
    """Return the offsets that are told. The API leaves out a 0."""
    found = {whole_number(each.get(name)) or 0 for each in told for name in ("startIndex", "endIndex")}
    return {offset for offset in found if offset >= 0}
