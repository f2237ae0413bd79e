"""AWS Bedrock's ConverseStream; botocore's model of the service is the authority."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import botocore.session
import pytest
from botocore.parsers import RestJSONParser

from proxy.dialects import DIALECTS, Failure, Verdict
from proxy.dialects.base import Decoder
from proxy.dialects.bedrock import EVENTS, EXCEPTIONS, MAX_NAME, REASONS
from proxy.dialects.part import (
    Citation,
    End,
    Error,
    File,
    Finish,
    Part,
    Raw,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolDelta,
    ToolFault,
    ToolResult,
    ToolStart,
    Usage,
)
from proxy.dialects.tool_calls import MAX_ARGUMENTS
from proxy.stream.event_message import EventMessages
from proxy.stream.sse import decode

BEDROCK = DIALECTS["bedrock"]
SERVICE = botocore.session.get_session().get_service_model("bedrock-runtime")
OPERATION = SERVICE.operation_model("ConverseStream")
STREAM = OPERATION.output_shape.members["stream"]


def block(event: str, **data: Any) -> bytes:
    """An event's block."""
    return f"event: {event}\ndata: {json.dumps(data)}".encode()


def start(index: int, **what: Any) -> bytes:
    """The start of a content block."""
    return block("contentBlockStart", contentBlockIndex=index, start=what)


def delta(index: int, **what: Any) -> bytes:
    """A piece of a content block."""
    return block("contentBlockDelta", contentBlockIndex=index, delta=what)


def stop(index: int) -> bytes:
    """The end of a content block."""
    return block("contentBlockStop", contentBlockIndex=index)


def new_decoder() -> Decoder:
    """A decoder of one stream."""
    decoder = BEDROCK.decoder("salt")
    assert decoder is not None
    return decoder


def told(*blocks: bytes) -> list[Part]:
    """What blocks say."""
    decoder = new_decoder()
    return [part for each in blocks for part in decoder.decode(each)] + decoder.finish()


MESSAGE_START = block("messageStart", role="assistant")
END_TURN = block("messageStop", stopReason="end_turn")
METADATA = block("metadata", usage={"inputTokens": 9, "outputTokens": 3}, metrics={"latencyMs": 7})
THROTTLED = block("throttlingException", message="Too many tokens")


def test_the_service_has_these_events_and_no_others() -> None:
    """What is known here is what AWS's own model of the service lists."""
    exceptions = {name: shape for name, shape in STREAM.members.items() if shape.metadata.get("exception")}
    assert set(STREAM.members) - set(exceptions) == EVENTS
    assert {name: shape.metadata["error"]["httpStatusCode"] for name, shape in exceptions.items()} == {
        name: EXCEPTIONS[name] for name in exceptions
    }


def test_every_stop_reason_of_the_service_is_known() -> None:
    """Those that no word of ours means are the two in which the model went wrong."""
    reasons = set(STREAM.members["messageStop"].members["stopReason"].enum)
    assert reasons - set(REASONS) == {"malformed_model_output", "malformed_tool_use"}
    assert set(REASONS) <= reasons


@pytest.mark.parametrize("first", [MESSAGE_START, THROTTLED, block("error", code="x"), METADATA])
def test_confirms(first: bytes) -> None:
    """A stream begins with one of the events, or with an exception."""
    assert BEDROCK.confirms(first)


@pytest.mark.parametrize("first", [b'data: {"messageStart":{}}', b"event: ping\ndata: {}"])
def test_does_not_confirm(first: bytes) -> None:
    """Anything else is not Bedrock's."""
    assert not BEDROCK.confirms(first)


@pytest.mark.parametrize(
    ("tail", "verdict"),
    [
        ([], Verdict.OPEN),
        ([MESSAGE_START, delta(0, text="Hi"), stop(0)], Verdict.OPEN),
        ([stop(0), END_TURN], Verdict.FINISHED),
        ([stop(0), END_TURN, METADATA], Verdict.COMPLETE),
        ([METADATA], Verdict.OPEN),
        ([END_TURN, delta(0, text="Hi")], Verdict.OPEN),
        ([stop(0), THROTTLED], Verdict.ERROR),
        ([block("error", code="InternalFailure"), END_TURN, METADATA], Verdict.ERROR),
    ],
)
def test_verdict(tail: list[bytes], verdict: Verdict) -> None:
    """The metadata after the stop reason are the end; an exception outweighs them."""
    assert BEDROCK.verdict(tail) is verdict


@pytest.mark.parametrize(
    ("path", "streams"),
    [
        ("model/m/converse-stream", True),
        ("model/m/converse", False),
        ("model/m/invoke-with-response-stream", False),
    ],
)
def test_paths_that_stream(path: str, streams: bool) -> None:
    """What a model's own stream says, nobody knows but the model: it passes as it is."""
    assert BEDROCK.streams_at(path.split("/")) is streams


def test_every_request_there_wants_a_stream() -> None:
    """The path has said so."""
    assert BEDROCK.wants_stream(b"{}")


def test_binary_messages_are_its_streams() -> None:
    """AWS's content type."""
    assert BEDROCK.framings["application/vnd.amazon.eventstream"] is EventMessages


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "validationException"),
        (429, "throttlingException"),
        (502, "modelStreamErrorException"),
        (503, "serviceUnavailableException"),
    ],
)
def test_a_failure_is_an_exception_of_the_service(status: int, name: str) -> None:
    """Its event is one that AWS's model knows, with the members that it has there."""
    failure = BEDROCK.failure_block(Failure("truncated", "cut", status))
    assert failure is not None
    event = decode(failure)
    said = json.loads(event.data or "")
    assert (event.event, said["message"]) == (name, "cut")
    assert set(said) <= set(STREAM.members[name].members)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (502, "InternalServerException"),
        (503, "ServiceUnavailableException"),
    ],
)
def test_an_error_body_is_read_by_botocore(status: int, code: str) -> None:
    """The code and the message of the exception that it raises."""
    answer = {"status_code": status, "headers": {}, "body": BEDROCK.error_body(status, "kind", "no")}
    error = RestJSONParser().parse(answer, OPERATION.output_shape)["Error"]
    assert (error["Code"], error["Message"]) == (code, "no")
    assert code in [shape.name for shape in OPERATION.error_shapes]


def test_a_text() -> None:
    """From the start to the end."""
    blocks = [MESSAGE_START, delta(0, text="Hi"), delta(0, text=""), stop(0), END_TURN, METADATA]
    assert told(*blocks) == [
        Start(),
        Text("Hi", 0),
        Finish("stop", "end_turn"),
        Usage(input_tokens=9, output_tokens=3),
        Raw("metadata", '{"usage": {"inputTokens": 9, "outputTokens": 3}, "metrics": {"latencyMs": 7}}'),
        End(),
    ]


def test_metadata_before_a_stop_reason_are_no_end() -> None:
    """What follows is still to come."""
    assert End() not in told(METADATA)


def test_what_the_cache_gave_was_sent_too() -> None:
    """The API counts it apart."""
    usage = {"inputTokens": 10, "outputTokens": 3, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    assert told(block("metadata", usage=usage))[0] == Usage(
        input_tokens=130, output_tokens=3, cached_input_tokens=100, cache_write_input_tokens=20
    )


@pytest.mark.parametrize(
    ("thought", "part"),
    [
        ({"text": "Hm"}, Thinking("Hm", 1)),
        ({"signature": "c2ln"}, Thinking(block=1, signature="c2ln")),
        ({"redactedContent": "cmVk"}, Thinking(block=1, redacted="cmVk")),
    ],
)
def test_reasoning(thought: dict[str, str], part: Thinking) -> None:
    """Its text, the proof of it, or what only the provider can read."""
    assert told(delta(1, reasoningContent=thought)) == [part]


def test_tool_calls_between_each_other() -> None:
    """Fragments belong to the call of their block; each call is told when its block ends."""
    parts = told(
        start(0, toolUse={"toolUseId": "t1", "name": "a"}),
        start(1, toolUse={"toolUseId": "t2", "name": "b"}),
        delta(1, toolUse={"input": '{"x":'}),
        delta(0, toolUse={"input": ""}),
        stop(0),
        delta(1, toolUse={"input": "1}"}),
        stop(1),
        block("messageStop", stopReason="tool_use"),
    )
    assert parts == [
        ToolStart(0, "t1", "a"),
        ToolStart(1, "t2", "b"),
        ToolDelta(1, "t2", '{"x":'),
        ToolCall(0, "t1", "a", {}, ""),
        ToolDelta(1, "t2", "1}"),
        ToolCall(1, "t2", "b", {"x": 1}, '{"x":1}'),
        Finish("tool_calls", "tool_use"),
    ]


def test_a_call_whose_block_does_not_end() -> None:
    """The stop reason ends it; its arguments are no JSON."""
    parts = told(
        start(0, toolUse={"toolUseId": "t1", "name": "a"}),
        delta(0, toolUse={"input": '{"x":'}),
        block("messageStop", stopReason="max_tokens"),
    )
    assert [type(part) for part in parts] == [ToolStart, ToolDelta, ToolFault, Finish]


def test_a_tool_of_the_service() -> None:
    """It runs the tool itself, and tells the result: a text, or a list where it is more than that."""
    parts = told(
        start(0, toolUse={"toolUseId": "t1", "name": "search", "type": "server_tool_use"}),
        stop(0),
        start(1, toolResult={"toolUseId": "t1", "status": "success"}),
        delta(1, toolResult=[{"text": "It "}]),
        delta(1, toolResult=[{"text": "rains"}]),
        stop(1),
        start(2, toolResult={"toolUseId": "t2", "type": "web_search_result", "status": "error"}),
        delta(2, toolResult=[{"text": "no"}, {"json": {"a": 1}}]),
        stop(2),
    )
    assert parts[1:] == [
        ToolCall(0, "t1", "search", {}, "", executed=True),
        ToolResult("t1", "search", "It rains"),
        ToolResult("t2", "web_search_result", [{"text": "no"}, {"json": {"a": 1}}], failed=True),
    ]


def test_long_names_are_not_kept() -> None:
    """Of a tool with such a name the result has the name of its kind."""
    tool = {"toolUseId": "t1", "name": "x" * (MAX_NAME + 1), "type": "server_tool_use"}
    result = start(1, toolResult={"toolUseId": "t1", "type": "web_search_result"})
    assert told(start(0, toolUse=tool), result, stop(1))[-1] == ToolResult("t1", "web_search_result", "")


def test_an_image() -> None:
    """It comes in pieces, each a base64 text of its own, and is told once."""
    pieces = [
        delta(0, image={"source": {"bytes": b64encode(piece).decode()}}) for piece in (b"\x89PNG", b"\r\n")
    ]
    assert told(start(0, image={"format": "png"}), *pieces, stop(0)) == [
        File("image/png", data=b64encode(b"\x89PNG\r\n").decode())
    ]


@pytest.mark.parametrize("piece", ["?", None])
def test_an_image_that_is_none(piece: str | None) -> None:
    """What is no base64 makes no file."""
    assert (
        told(start(0, image={"format": "png"}), delta(0, image={"source": {"bytes": piece}}), stop(0)) == []
    )


def test_results_are_bounded() -> None:
    """What a peer has put together here can not fill the memory: what is too much passes on as it is."""
    decoder = new_decoder()
    decoder.decode(start(0, toolResult={"toolUseId": "t1"}))
    piece = delta(0, toolResult=[{"text": "x" * (MAX_ARGUMENTS // 4)}])
    kinds = [[type(part) for part in decoder.decode(piece)] for _ in range(5)]
    assert kinds == [[], [], [], [Raw], [Raw]]


@pytest.mark.parametrize(
    ("citation", "part"),
    [
        (
            {"title": "T", "location": {"web": {"url": "https://a.example/", "domain": "a.example"}}},
            {"title": "T", "url": "https://a.example/"},
        ),
        (
            {
                "sourceContent": [{"text": "a "}, {"text": "b"}],
                "location": {"documentChar": {"documentIndex": 0}},
            },
            {"text": "a b", "document": "0"},
        ),
        ({"source": "Report", "location": {"documentPage": {"documentIndex": 2}}}, {"document": "Report"}),
        ({"location": {"searchResultLocation": {"searchResultIndex": 3}}}, {"document": "3"}),
        ({"location": None, "sourceContent": 7, "title": 1}, {}),
    ],
)
def test_citations(citation: dict[str, Any], part: dict[str, str]) -> None:
    """A page, a document by its name or number, and the words that are cited."""
    assert told(delta(1, citation=citation)) == [Citation(**part, block=1, source=citation)]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (THROTTLED, Error("Too many tokens", "throttlingException", 429)),
        (
            block("modelStreamErrorException", message="no", originalStatusCode=503),
            Error("no", "modelStreamErrorException", 503),
        ),
        (block("modelStreamErrorException", message="no"), Error("no", "modelStreamErrorException", 424)),
        (block("newException", message="no"), Error("no", "newException", 500)),
        (block("error", code="InternalFailure", message="no"), Error("no", "InternalFailure", 500)),
        (block("error"), Error("", "error", 500)),
    ],
)
def test_errors(event: bytes, error: Error) -> None:
    """An exception has its name as its code, a message of type ``error`` its code."""
    assert told(event) == [error]


@pytest.mark.parametrize(
    ("event", "raw"),
    [
        (block("somethingNew", a=1), Raw("somethingNew", '{"a": 1}')),
        (
            start(0, audio={"b": 1}),
            Raw("contentBlockStart", '{"contentBlockIndex": 0, "start": {"audio": {"b": 1}}}'),
        ),
        (delta(0, audio={}), Raw("contentBlockDelta", '{"contentBlockIndex": 0, "delta": {"audio": {}}}')),
    ],
)
def test_what_no_part_can_hold_is_raw(event: bytes, raw: Raw) -> None:
    """Events and blocks of a later version stay to be had."""
    assert told(event) == [raw]


def test_more_fields_of_a_model_are_raw() -> None:
    """They stand beside the stop reason."""
    event = block("messageStop", stopReason="end_turn", additionalModelResponseFields={"a": 1})
    assert [type(part) for part in told(event)] == [Raw, Finish]


@pytest.mark.parametrize("event", [b"", b": c", b"event: messageStop", b"event: contentBlockDelta\ndata: ["])
def test_what_can_not_be_read_says_nothing_of_an_answer(event: bytes) -> None:
    """No malformed event raises, and none becomes text."""
    assert {type(part) for part in told(event)} <= {Raw}
