"""The app's microphone socket: an echo, and a transcript while audio comes in."""

from __future__ import annotations

import pytest

from proxy.demo import Running, State, expected_text
from proxy.demo.audio import PROTOCOL, WORD_BYTES

from .sockets import Peer, joined

URL = "/api/audio"


async def heard(peer: Peer, audio: bytes) -> None:
    """Send audio, and take its echo."""
    await peer.send(audio)
    assert await peer.receive() == audio


async def test_every_message_comes_back(running: Running) -> None:
    """As it came, an empty one too."""
    async with joined(running, URL) as peer:
        for audio in (b"\x01\x02", b"", bytes(3)):
            await heard(peer, audio)


async def test_words_come_with_the_audio(running: Running) -> None:
    """One for every so many bytes, wherever the messages end; the texts join to what is known."""
    async with joined(running, URL) as peer:
        await heard(peer, bytes(WORD_BYTES - 1))
        await heard(peer, bytes(1))
        first = await peer.receive_json()
        await heard(peer, bytes(2 * WORD_BYTES + 5))
        more = await peer.receive_json()
    assert first == {"type": "transcript", "text": expected_text(1), "final": False}
    assert first["text"] + more["text"] == expected_text(3)


async def test_stop_brings_the_whole_transcript_and_the_end(running: Running) -> None:
    """Then the provider closes with 1000."""
    async with joined(running, URL) as peer:
        await heard(peer, bytes(2 * WORD_BYTES + 7))
        await peer.receive_json()
        await peer.send('{"type":"stop"}')
        assert await peer.receive_json() == {
            "type": "transcript",
            "text": expected_text(2),
            "final": True,
            "words": 2,
            "bytes": 2 * WORD_BYTES + 7,
        }
        assert await peer.closing() == (1000, "stopped")
    (record,) = running.requests
    await running.ledger.until(lambda: not record.running)
    assert (record.state, record.events, record.close_code) == (State.FINISHED, 3, 1000)


@pytest.mark.parametrize("text", ["hello", "[]", '{"type":"start"}', "{}"])
async def test_a_text_that_is_not_understood_harms_nothing(running: Running, text: str) -> None:
    """The error tells what would do, and the audio goes on."""
    async with joined(running, URL) as peer:
        await peer.send(text)
        error = await peer.receive_json()
        assert error["type"] == "error"
        assert '{"type":"stop"}' in error["message"]
        await heard(peer, b"still here")


async def test_sixteen_mebibytes_are_one_message(running: Running) -> None:
    """They come back, with all the words that they are worth in one frame."""
    audio = bytes(16 * 1024 * 1024)
    async with joined(running, URL) as peer:
        await heard(peer, audio)
        assert (await peer.receive_json())["text"] == expected_text(len(audio) // WORD_BYTES)


async def test_the_subprotocol_is_chosen_among_others(running: Running) -> None:
    """Only where it was offered."""
    async with joined(running, URL, protocols=["other", PROTOCOL]) as peer:
        assert peer.connection.subprotocol == PROTOCOL
    async with joined(running, URL, protocols=["other"]) as peer:
        assert peer.connection.subprotocol is None
