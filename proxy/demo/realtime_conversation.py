"""What one Realtime session remembers: the items of its conversation, in order."""

from __future__ import annotations

from dataclasses import dataclass

from openai.types import realtime as api

from proxy.demo.voice import word_count

#: Items remembered; the oldest give way, as they do in the API when its context is full.
MAX_ITEMS = 1000

#: Milliseconds of audio that count as one token, as the API counts them.
HEARD_MS_PER_TOKEN = 100
SPOKEN_MS_PER_TOKEN = 50

#: The items that a client can make; what belongs to MCP servers is not played here.
Item = (
    api.RealtimeConversationItemSystemMessage
    | api.RealtimeConversationItemUserMessage
    | api.RealtimeConversationItemAssistantMessage
    | api.RealtimeConversationItemFunctionCall
    | api.RealtimeConversationItemFunctionCallOutput
)


class UnknownItem(LookupError):
    """No item of that id is in the conversation."""


class TakenId(ValueError):
    """An item of that id is already in the conversation."""


@dataclass(slots=True)
class Entry:
    """An item, and how much audio belongs to it; the audio itself is not kept."""

    item: Item
    audio_ms: int = 0

    @property
    def said(self) -> bool:
        """Whether it is the assistant's."""
        return isinstance(self.item, api.RealtimeConversationItemAssistantMessage)

    def truncate(self, end_ms: int) -> None:
        """Keep the audio up to there; what was not heard is no part of the transcript, so that goes."""
        self.audio_ms = end_ms
        if isinstance(self.item, api.RealtimeConversationItemAssistantMessage):
            for part in self.item.content:
                part.transcript = None

    @property
    def text_tokens(self) -> int:
        """Words of a message's texts and transcripts."""
        match self.item:
            case api.RealtimeConversationItemSystemMessage(content=content):
                return sum(word_count(part.text or "") for part in content)
            case (
                api.RealtimeConversationItemUserMessage(content=content)
                | api.RealtimeConversationItemAssistantMessage(content=content)
            ):
                return sum(word_count(part.text or part.transcript or "") for part in content)
        return 0

    @property
    def audio_tokens(self) -> int:
        """What the audio counts for; the provider's own speech counts double."""
        return self.audio_ms // (SPOKEN_MS_PER_TOKEN if self.said else HEARD_MS_PER_TOKEN)


class Conversation:
    """The items, the oldest first."""

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self._entries: list[Entry] = []

    @property
    def text_tokens(self) -> int:
        """Words in all of it."""
        return sum(entry.text_tokens for entry in self._entries)

    @property
    def audio_tokens(self) -> int:
        """Tokens of audio in all of it."""
        return sum(entry.audio_tokens for entry in self._entries)

    @property
    def last_id(self) -> str | None:
        """The id of the newest item; None in an empty conversation."""
        return self._entries[-1].item.id if self._entries else None

    def add(self, item: Item, *, after: str | None = None, audio_ms: int = 0) -> str | None:
        """Put an item behind that of id ``after`` (``root``: before all others), or at the end.

        Returns the id of the item before it. UnknownItem for an ``after`` that is not there, TakenId for
        an item that is.
        """
        if any(entry.item.id == item.id for entry in self._entries):
            raise TakenId(item.id)
        place = len(self._entries) if after is None else self._place_behind(after)
        self._entries.insert(place, Entry(item, audio_ms))
        previous = self._entries[place - 1].item.id if place else None
        del self._entries[:-MAX_ITEMS]
        return previous

    def finish(self, item: Item, *, audio_ms: int) -> None:
        """An item that was added empty is whole now; nothing happens if it was deleted meanwhile."""
        for entry in self._entries:
            if entry.item.id == item.id:
                entry.item, entry.audio_ms = item, audio_ms

    def find(self, item_id: str) -> Entry:
        """The entry of that id, or UnknownItem."""
        return self._entries[self._index(item_id)]

    def remove(self, item_id: str) -> None:
        """Forget the item of that id, or UnknownItem."""
        del self._entries[self._index(item_id)]

    def _place_behind(self, item_id: str) -> int:
        return 0 if item_id == "root" else self._index(item_id) + 1

    def _index(self, item_id: str) -> int:
        for index, entry in enumerate(self._entries):
            if entry.item.id == item_id:
                return index
        raise UnknownItem(item_id)
