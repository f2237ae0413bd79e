"""The Realtime API: each event that comes is one of the SDK's, field by field."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from proxy.demo import Running, State, expected_text
from proxy.demo.realtime_conversation import HEARD_MS_PER_TOKEN, SPOKEN_MS_PER_TOKEN
from proxy.demo.tone import BYTES_PER_MS, WORD_MS, expected_audio, word_audio
from proxy.demo.voice import FAILURE

from .realtime_client import Caller, call, kinds, pick
from .sockets import joined

TEXT = ["text"]
SECOND = 1000 * BYTES_PER_MS

#: A sound, and the silence that ends a turn.
SOUND = word_audio(0)
SILENCE = bytes(SECOND // 2)

#: No voice detection.
PUSH_TO_TALK = {"input": {"turn_detection": None}}


def user_message(text: str, **fields: Any) -> dict[str, Any]:
    """An item."""
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **fields}


async def created(caller: Caller, **item: Any) -> Any:
    """Create an item, and return what became of it."""
    await caller.send("conversation.item.create", **item)
    await caller.expect("conversation.item.added")
    return await caller.expect("conversation.item.done")


async def spoken(caller: Caller) -> str:
    """Let the provider speak, and return the id of the item that it said."""
    await caller.send("response.create")
    *_, done = await caller.until("response.done")
    return str(done.response.output[0].id)


# The session


async def test_the_session_is_told_at_once(running: Running) -> None:
    """With the model of the URL; the browsers' subprotocol is chosen beside the one with their key."""
    offered = ["realtime", "openai-insecure-api-key.secret"]
    async with joined(running, "/v1/realtime?model=demo-7", protocols=offered) as peer:
        session = (await Caller(peer).expect("session.created")).session
        assert peer.connection.subprotocol == "realtime"
    assert (session.type, session.model, session.output_modalities) == ("realtime", "demo-7", ["audio"])
    assert session.audio.input.turn_detection.type == "server_vad"


async def test_an_update_changes_what_it_names(running: Running) -> None:
    """And nothing else; null switches the voice detection off."""
    async with call(running) as caller:
        before = await caller.configure(instructions="Be brief.")
        after = await caller.configure(audio=PUSH_TO_TALK)
    assert after.instructions == "Be brief."
    assert after.audio.input.turn_detection is None
    assert after.audio.input.format == before.audio.input.format
    assert after.audio.output == before.audio.output


async def test_one_kind_of_voice_detection_replaces_another(running: Running) -> None:
    """Nothing of the old one stays."""
    async with call(running) as caller:
        semantic = {"type": "semantic_vad", "eagerness": "high"}
        session = await caller.configure(audio={"input": {"turn_detection": semantic}})
    assert session.audio.input.turn_detection.to_dict() == semantic


# Responses


async def test_a_text_comes_word_by_word(running: Running) -> None:
    """From the response's beginning to its end, in the API's order."""
    async with call(running, "interval=0&tokens=7", output_modalities=TEXT) as caller:
        await caller.send("response.create")
        events = await caller.until("response.done")
    assert kinds(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    deltas = pick(events, "response.output_text.delta")
    assert len(deltas) == 7
    assert "".join(delta.delta for delta in deltas) == expected_text(7)
    assert pick(events, "response.output_text.done")[0].text == expected_text(7)
    response = events[-1].response
    assert (response.status, response.status_details) == ("completed", None)
    assert response.output[0].content[0].to_dict() == {"type": "output_text", "text": expected_text(7)}
    assert response.usage.output_token_details.to_dict() == {"text_tokens": 7, "audio_tokens": 0}


async def test_speech_comes_with_its_transcript(running: Running) -> None:
    """A session's answers are audio unless it says otherwise."""
    async with call(running, "interval=0&tokens=5") as caller:
        await caller.send("response.create")
        events = await caller.until("response.done")
    deltas = pick(events, "response.output_audio.delta")
    assert b"".join(base64.b64decode(delta.delta) for delta in deltas) == expected_audio(5)
    words = pick(events, "response.output_audio_transcript.delta")
    assert "".join(word.delta for word in words) == expected_text(5)
    assert kinds(events)[-6:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    usage = events[-1].response.usage
    assert usage.output_token_details.audio_tokens == 5 * WORD_MS // SPOKEN_MS_PER_TOKEN
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


async def test_a_response_can_differ_from_the_session(running: Running) -> None:
    """Its modality, voice and metadata are what its own event asked for."""
    async with call(running, "interval=0&tokens=1") as caller:
        asked = {"output_modalities": TEXT, "metadata": {"topic": "streams"}, "max_output_tokens": 99}
        await caller.send("response.create", response=asked | {"audio": {"output": {"voice": "cedar"}}})
        response = (await caller.until("response.done"))[-1].response
    assert {key: response.to_dict()[key] for key in asked} == asked
    assert response.audio.output.voice == "cedar"


async def test_a_response_can_stay_out_of_the_conversation(running: Running) -> None:
    """``conversation: none``: no item is added."""
    async with call(running, "interval=0&tokens=2") as caller:
        await caller.send("response.create", response={"conversation": "none", "output_modalities": TEXT})
        events = await caller.until("response.done")
        assert (await created(caller, item=user_message("first"))).previous_item_id is None
    assert events[-1].response.conversation_id is None
    assert not pick(events, "conversation.item.added")


async def test_no_two_ids_are_the_same(running: Running) -> None:
    """Over all the events of two sessions."""
    ids: list[str] = []
    for _ in range(2):
        async with call(running, "interval=0&tokens=3") as caller:
            await spoken(caller)
            await spoken(caller)
            ids += caller.ids
    assert len(set(ids)) == len(ids) > 40


async def test_words_come_at_an_interval(running: Running) -> None:
    """``first_delay`` lies before the item, ``interval`` before each word and the end."""
    async with call(running, "interval=0.01&first_delay=0.05&tokens=3", output_modalities=TEXT) as caller:
        clock = asyncio.get_running_loop().time
        began = clock()
        await caller.send("response.create")
        await caller.until("response.output_item.added")
        assert clock() - began >= 0.05
        await caller.until("response.done")
        assert clock() - began >= 0.05 + 4 * 0.01


async def test_no_voice_interrupts_what_is_not_part_of_the_conversation(running: Running) -> None:
    """Speech starts, and the response goes on."""
    async with call(running, "interval=0.001&tokens=300") as caller:
        await caller.send("response.create", response={"conversation": "none"})
        await caller.until("response.output_audio.delta")
        await caller.append(SOUND)
        events = await caller.until("response.done")
    assert pick(events, "input_audio_buffer.speech_started")
    assert events[-1].response.status == "completed"


# Cancel


@pytest.mark.parametrize("wrong", ["interval=0.001&tokens=500", "interval=0&endless=1"])
async def test_a_response_is_cancelled_in_the_middle(running: Running, wrong: str) -> None:
    """What was said stays, marked as incomplete; no word comes after, and another response may begin."""
    async with call(running, wrong, output_modalities=TEXT) as caller:
        await caller.send("response.create")
        before = await caller.until("response.output_text.delta")
        await caller.send("response.cancel", response_id=before[0].response.id)
        events = before + await caller.until("response.done")
        await caller.send("response.create")
        await caller.expect("response.created")
    said = pick(events, "response.output_text.delta")
    text = "".join(delta.delta for delta in said)
    assert pick(events, "response.output_text.done")[0].text == text
    response = events[-1].response
    assert response.status == "cancelled"
    assert response.status_details.to_dict() == {"type": "cancelled", "reason": "client_cancelled"}
    assert (response.output[0].status, response.output[0].content[0].text) == ("incomplete", text)
    assert response.usage.output_tokens == len(said)


async def test_a_response_is_cancelled_before_its_first_word(running: Running) -> None:
    """There is no item then."""
    async with call(running, "first_delay=60") as caller:
        await caller.send("response.create")
        await caller.expect("response.created")
        await caller.send("response.cancel")
        response = (await caller.expect("response.done")).response
    assert (response.status, response.output) == ("cancelled", [])


async def test_a_cancel_of_nothing_is_an_error(running: Running) -> None:
    """It names the client's event."""
    async with call(running) as caller:
        await caller.send("response.cancel", event_id="mine")
        error = (await caller.expect("error")).error
    assert (error.type, error.code) == ("invalid_request_error", "response_cancel_not_active")
    assert error.event_id == "mine"


async def test_a_cancel_of_another_response_is_an_error(running: Running) -> None:
    """The one that runs goes on, as its own cancel shows."""
    async with call(running, "first_delay=60") as caller:
        await caller.send("response.create")
        response_id = (await caller.expect("response.created")).response.id
        await caller.send("response.cancel", response_id="resp_of_another")
        assert (await caller.expect("error")).error.code == "response_cancel_not_active"
        await caller.send("response.cancel", response_id=response_id)
        await caller.expect("response.done")


async def test_a_second_response_is_an_error(running: Running) -> None:
    """The first one goes on, as a cancel shows."""
    async with call(running, "first_delay=60") as caller:
        await caller.send("response.create")
        first = await caller.expect("response.created")
        await caller.send("response.create")
        error = (await caller.expect("error")).error
        await caller.send("response.cancel")
        done = await caller.expect("response.done")
    assert error.code == "conversation_already_has_active_response"
    assert first.response.id in error.message
    assert done.response.id == first.response.id


# The client's audio


async def test_audio_is_committed(running: Running) -> None:
    """It becomes an item of the conversation, and counts for the next response."""
    async with call(running, "interval=0&tokens=1", audio=PUSH_TO_TALK) as caller:
        await caller.append(bytes(SECOND))
        await caller.send("input_audio_buffer.commit")
        committed = await caller.expect("input_audio_buffer.committed")
        added = await caller.expect("conversation.item.added")
        await caller.expect("conversation.item.done")
        await caller.send("response.create")
        usage = (await caller.until("response.done"))[-1].response.usage
    assert (added.item.id, added.item.role) == (committed.item_id, "user")
    assert added.item.content[0].type == "input_audio"
    assert usage.input_token_details.audio_tokens == 1000 // HEARD_MS_PER_TOKEN


async def test_there_must_be_audio_to_commit(running: Running) -> None:
    """A cleared buffer is empty."""
    async with call(running, audio=PUSH_TO_TALK) as caller:
        await caller.append(SOUND)
        await caller.send("input_audio_buffer.clear")
        await caller.expect("input_audio_buffer.cleared")
        await caller.send("input_audio_buffer.commit")
        error = (await caller.expect("error")).error
    assert error.code == "input_audio_buffer_commit_empty"


@pytest.mark.parametrize("audio", [SOUND, bytes(100)], ids=["sound", "zeros"])
async def test_a_voice_interrupts_the_response(running: Running, audio: bytes) -> None:
    """Audio while a response runs: speech has started, and the response ends as cancelled."""
    async with call(running, "interval=0.001&tokens=500") as caller:
        await caller.send("response.create")
        await caller.until("response.output_audio.delta")
        await caller.append(audio)
        events = await caller.until("response.done")
        (started,) = pick(events, "input_audio_buffer.speech_started")
        await caller.send("input_audio_buffer.commit")
        committed = await caller.expect("input_audio_buffer.committed")
    response = events[-1].response
    assert response.status_details.to_dict() == {"type": "cancelled", "reason": "turn_detected"}
    assert kinds(events)[-6:-4] == ["response.output_audio.done", "response.output_audio_transcript.done"]
    assert (started.audio_start_ms, started.item_id) == (0, committed.item_id)


@pytest.mark.parametrize(
    "detection", [None, {"type": "server_vad", "interrupt_response": False}], ids=["off", "polite"]
)
async def test_a_response_is_not_interrupted_where_the_session_forbids_it(
    running: Running, detection: dict[str, Any] | None
) -> None:
    """Neither without voice detection, nor when that may not interrupt."""
    audio = {"input": {"turn_detection": detection}}
    async with call(running, "interval=0.001&tokens=300", audio=audio) as caller:
        await caller.send("response.create")
        await caller.until("response.output_audio.delta")
        await caller.append(SOUND)
        events = await caller.until("response.done")
    assert events[-1].response.status == "completed"
    assert len(pick(events, "input_audio_buffer.speech_started")) == (0 if detection is None else 1)


async def test_a_silence_ends_the_turn(running: Running) -> None:
    """The audio is committed, and answered; the silence that goes on interrupts nothing."""
    async with call(running, "interval=0.001&tokens=20") as caller:
        await caller.append(SOUND)
        started = await caller.expect("input_audio_buffer.speech_started")
        await caller.append(SILENCE)
        events = await caller.until("response.created")
        await caller.append(SILENCE)
        done = (await caller.until("response.done"))[-1]
    assert kinds(events) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    stopped, committed, *_ = events
    assert stopped.item_id == committed.item_id == started.item_id
    assert stopped.audio_end_ms == (len(SOUND) + len(SILENCE)) // BYTES_PER_MS
    assert done.response.status == "completed"


# The conversation


async def test_items_have_their_places(running: Running) -> None:
    """At the end, behind another, or before all; an id of the client's own is kept."""
    async with call(running) as caller:
        first = await created(caller, item=user_message("one", id="mine"))
        last = await created(caller, item=user_message("three"))
        between = await created(caller, item=user_message("two"), previous_item_id="mine")
        system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "zero"}]}
        root = await created(caller, item=system, previous_item_id="root")
    assert (first.item.id, first.item.status, first.previous_item_id) == ("mine", "completed", None)
    assert last.previous_item_id == between.previous_item_id == "mine"
    assert root.previous_item_id is None


async def test_text_items_count_for_the_next_response(running: Running) -> None:
    """A word of a message is a token, whoever said it."""
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}
    output = {"type": "function_call_output", "call_id": "c", "output": "no message"}
    async with call(running, "interval=0&tokens=1") as caller:
        await created(caller, item=user_message("three words long"))
        await created(caller, item=system)
        await created(caller, item=output)
        await caller.send("response.create")
        usage = (await caller.until("response.done"))[-1].response.usage
    assert usage.input_token_details.text_tokens == 3 + 2


async def test_an_item_is_retrieved_and_deleted(running: Running) -> None:
    """After that it is unknown."""
    async with call(running) as caller:
        await created(caller, item=user_message("Hi", id="mine"))
        await caller.send("conversation.item.retrieve", item_id="mine")
        assert (await caller.expect("conversation.item.retrieved")).item.content[0].text == "Hi"
        await caller.send("conversation.item.delete", item_id="mine")
        assert (await caller.expect("conversation.item.deleted")).item_id == "mine"
        await caller.send("conversation.item.retrieve", item_id="mine")
        assert (await caller.expect("error")).error.code == "item_not_found"


async def test_what_was_said_is_truncated(running: Running) -> None:
    """The item loses its transcript, and can be cut further, but not beyond its end."""
    async with call(running, "interval=0&tokens=3") as caller:
        item_id = await spoken(caller)
        cut = {"item_id": item_id, "content_index": 0, "audio_end_ms": 2 * WORD_MS}
        await caller.send("conversation.item.truncate", **cut)
        truncated = await caller.expect("conversation.item.truncated")
        assert {key: truncated.to_dict()[key] for key in cut} == cut
        await caller.send("conversation.item.retrieve", item_id=item_id)
        item = (await caller.expect("conversation.item.retrieved")).item
        assert item.content[0].transcript is None
        await caller.send("conversation.item.truncate", **cut | {"audio_end_ms": 2 * WORD_MS + 1})
        assert (await caller.expect("error")).error.param == "audio_end_ms"


async def test_only_speech_of_the_assistant_is_truncated(running: Running) -> None:
    """A text has no audio to cut."""
    async with call(running) as caller:
        await created(caller, item=user_message("Hi", id="mine"))
        await caller.send("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=0)
        assert (await caller.expect("error")).error.code == "item_truncate_invalid_item_id"


# Mistakes


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_json", None),
        (b"\x00\x01", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ('{"a":' * 100_000, "invalid_json", None),
        ('{"type":"response.cancel","event_id":"\\ud800"}', "invalid_json", None),
        ("{}", "invalid_value", "type"),
        ('{"type":["response.create"]}', "invalid_value", "type"),
        ('{"type":"response.sing"}', "invalid_value", "type"),
        ('{"type":"output_audio_buffer.clear"}', "invalid_value", "type"),
        ('{"type":"input_audio_buffer.append"}', "invalid_value", "audio"),
        ('{"type":"input_audio_buffer.append","audio":"?"}', "invalid_value", "audio"),
        ('{"type":"input_audio_buffer.append","audio":"ä"}', "invalid_value", "audio"),
        ('{"type":"conversation.item.delete","item_id":7}', "invalid_value", "item_id"),
        ('{"type":"conversation.item.delete","item_id":"no"}', "item_not_found", "item_id"),
        ('{"type":"response.create","response":{"output_modalities":["smell"]}}', "invalid_value", None),
        ('{"type":"session.update","session":{"type":"realtime","tools":7}}', "invalid_value", None),
        ('{"type":"session.update","session":{"type":"transcription"}}', "invalid_value", "type"),
    ],
)
async def test_a_mistake_is_told_and_the_session_lives(
    running: Running, message: str | bytes, code: str, param: str | None
) -> None:
    """As an ``error`` event that says what was wrong."""
    async with call(running, "interval=0&tokens=1") as caller:
        await caller.peer.send(message)
        error = (await caller.expect("error")).error
        await spoken(caller)
    assert (error.type, error.code) == ("invalid_request_error", code)
    if param is not None:
        assert error.param == param
    assert error.message


@pytest.mark.parametrize("item", [user_message("again", id="mine"), user_message("late")])
async def test_an_item_without_a_place_is_an_error(running: Running, item: dict[str, Any]) -> None:
    """An id that is taken, or one to stand behind that is not there."""
    async with call(running) as caller:
        await created(caller, item=user_message("one", id="mine"))
        behind = {} if item.get("id") else {"previous_item_id": "nowhere"}
        await caller.send("conversation.item.create", item=item, event_id="e7", **behind)
        assert (await caller.expect("error")).error.event_id == "e7"


ULAW = {"format": {"type": "audio/pcmu"}}
MCP_ITEM = {"type": "mcp_approval_response", "id": "m", "approval_request_id": "a", "approve": True}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("session.update", {"session": {"type": "realtime", "audio": {"input": ULAW}}}),
        ("session.update", {"session": {"type": "realtime", "audio": {"output": ULAW}}}),
        ("response.create", {"response": {"audio": {"output": ULAW}}}),
        ("conversation.item.create", {"item": MCP_ITEM}),
    ],
)
async def test_what_the_demo_cannot_do_is_an_error(
    running: Running, kind: str, fields: dict[str, Any]
) -> None:
    """Better than to answer in another format than was asked for."""
    async with call(running) as caller:
        await caller.send(kind, **fields)
        error = (await caller.expect("error")).error
    assert "demo" in error.message


# How it ends, and how it goes wrong


async def test_the_client_may_close_in_the_middle(running: Running) -> None:
    """An endless response ends with its socket, and the ledger has the close."""
    async with call(running, "interval=0.001&endless=1") as caller:
        await caller.send("response.create")
        await caller.until("response.output_audio.delta")
        (record,) = running.requests
        assert (record.running, running.ledger.open_streams) == (True, 1)
        await caller.peer.connection.close(4002, "enough")
    await running.ledger.until(lambda: not record.running)
    assert (record.state, record.close_code, record.close_reason) == (State.FINISHED, 4002, "enough")


@pytest.mark.parametrize("wrong", ["interval=0.001&endless=1", "interval=0&endless=1", "first_delay=60"])
async def test_the_client_may_vanish_in_the_middle(running: Running, wrong: str) -> None:
    """However long the next word would have taken."""
    async with call(running, wrong) as caller:
        await caller.send("response.create")
        await caller.until("response.created")
        (record,) = running.requests
        caller.peer.connection.transport.abort()
        await running.ledger.until(lambda: not record.running)
    assert record.state is State.CLIENT_GONE


async def test_a_refusal_has_openais_form(running: Running) -> None:
    """Before the upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        async with joined(running, "/v1/realtime?model=demo-1&status=401"):
            pass
    response = refused.value.response
    assert response.status_code == 401
    assert json.loads(response.body or b"")["error"]["code"] == "invalid_api_key"


async def test_an_error_can_come_in_the_middle(running: Running) -> None:
    """``error_at``: an ``error`` event of the server's own, then a close with 1011."""
    async with call(running, "interval=0&error_at=6") as caller:
        await caller.send("response.create")
        *_, error = await caller.until("error")
        assert (error.error.type, error.error.message) == ("server_error", FAILURE)
        assert (await caller.peer.closing())[0] == 1011
    (record,) = running.requests
    assert (record.state, record.events) == (State.MISBEHAVED, 6)
