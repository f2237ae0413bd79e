"""An app's plain text, told as it is written."""

from __future__ import annotations

from types import MappingProxyType

from proxy.dialects.base import Decoder
from proxy.dialects.generic import Generic
from proxy.dialects.part import Finish, Part, Text
from proxy.dialects.payload import as_text
from proxy.stream import text
from proxy.stream.sse import named_data

#: Some frameworks stream without naming a type.
CONTENT_TYPES = ("text/plain", "text/markdown", "")


class PlainText(Generic):
    """As little is known of it as of an app's events: a clean close is its end, and nothing is injected."""

    __slots__ = ()

    name = "text"
    framings = MappingProxyType({**Generic.framings, **dict.fromkeys(CONTENT_TYPES, text.Text)})

    def decoder(self, salt: str) -> Decoder:
        """Return what reads one stream."""
        return TextDecoder()


class TextDecoder(Decoder):
    """Every block is a piece of the answer."""

    __slots__ = ()

    def decode(self, block: bytes) -> list[Part]:
        """Return the piece."""
        content = named_data(block)[1]
        return [Text(as_text(content))] if content else []

    def finish(self) -> list[Part]:
        """Return the reason for the end, which is the end itself."""
        return [Finish("stop", "")]
