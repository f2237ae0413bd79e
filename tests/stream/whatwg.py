"""What an event stream means: the WHATWG HTML standard, §9.2.5 and §9.2.6, sentence by sentence.

This is the client that all others are measured by: slow, literal, and written without a look at
``proxy.stream``. It decodes the whole stream first, cuts it into lines, and does with each line what
the standard says. The quotes are the standard's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

END_OF_LINE = re.compile("\r\n|\n|\r")
ASCII_DIGITS = re.compile("[0-9]+")


@dataclass(frozen=True)
class Message:
    """An event as it is dispatched to the page."""

    type: str
    data: str
    last_event_id: str


class EventSource:
    """Interprets one event stream; ``messages`` are the events it dispatched, in order.

    ``last_event_id`` is what a reconnect would send, ``reconnection_time`` (milliseconds) how long it
    would wait, None where the stream did not say.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.last_event_id = ""
        self.reconnection_time: int | None = None
        # "… a data buffer, an event type buffer, and a last event ID buffer. These buffers must be
        # initialized to the empty string."
        self.data_buffer = ""
        self.event_type_buffer = ""
        self.last_event_id_buffer = ""

    def line(self, line: str) -> None:
        """Process one line, without its end."""
        if line == "":  # "If the line is empty (a blank line): Dispatch the event, as defined below."
            self.dispatch()
        elif line.startswith(":"):  # "If the line starts with a U+003A COLON character (:)"
            pass  # "Ignore the line."
        elif ":" in line:  # "If the line contains a U+003A COLON character (:)"
            # "Collect the characters on the line before the first U+003A COLON character (:), and let
            # field be that string. Collect the characters on the line after the first …, and let value
            # be that string. If value starts with a U+0020 SPACE character, remove it from value."
            colon = line.index(":")
            field, value = line[:colon], line[colon + 1 :]
            if value.startswith(" "):
                value = value[1:]
            self.field(field, value)
        else:  # "… using the whole line as the field name, and the empty string as the field value."
            self.field(line, "")

    def field(self, field: str, value: str) -> None:
        """Process one field. "Field names must be compared literally, with no case folding"."""
        if field == "event":  # "Set the event type buffer to field value."
            self.event_type_buffer = value
        elif field == "data":
            # "Append the field value to the data buffer, then append a single U+000A LINE FEED (LF)
            # character to the data buffer."
            self.data_buffer += value
            self.data_buffer += "\n"
        elif field == "id":
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to
            # the field value. Otherwise, ignore the field."
            if "\0" not in value:
                self.last_event_id_buffer = value
        elif field == "retry" and ASCII_DIGITS.fullmatch(value):
            # "If the field value consists of only ASCII digits, then interpret the field value as an
            # integer in base ten, and set the event stream's reconnection time to that integer.
            # Otherwise, ignore the field." An empty value has no digits to interpret (the platform
            # tests' format-field-retry-empty).
            self.reconnection_time = int(value)
        # "Otherwise: The field is ignored."

    def dispatch(self) -> None:
        """Dispatch the event."""
        # "1. Set the last event ID string of the event source to the value of the last event ID buffer.
        # The buffer does not get reset"
        self.last_event_id = self.last_event_id_buffer
        # "2. If the data buffer is an empty string, set the data buffer and the event type buffer to
        # the empty string and return."
        if self.data_buffer == "":
            self.event_type_buffer = ""
            return
        # "3. If the data buffer's last character is a U+000A LINE FEED (LF) character, then remove the
        # last character from the data buffer."
        if self.data_buffer.endswith("\n"):
            self.data_buffer = self.data_buffer[:-1]
        # "5. … type to 'message', data to data, … lastEventId to the last event ID string"
        # "6. If the event type buffer has a value other than the empty string, change the type"
        type_ = "message"
        if self.event_type_buffer != "":
            type_ = self.event_type_buffer
        self.messages.append(Message(type_, self.data_buffer, self.last_event_id))
        # "7. Set the data buffer and the event type buffer to the empty string."
        self.data_buffer = ""
        self.event_type_buffer = ""


def interpret(stream: bytes) -> EventSource:
    """Return what a client has understood when ``stream`` is over."""
    # "Streams must be decoded using the UTF-8 decode algorithm", which "strips one leading UTF-8 Byte
    # Order Mark (BOM), if any".
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    client = EventSource()
    lines = END_OF_LINE.split(text)
    # "Once the end of the file is reached, any pending data must be discarded." What stands behind the
    # last end of a line is no line.
    for line in lines[:-1]:
        client.line(line)
    return client
