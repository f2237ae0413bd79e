"""Gemini, read by Google's own SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from google import genai
from google.genai import errors, types

from proxy.demo import Running, expected_text

from .wire import connect, data_of, post

CALL = {"contents": [{"role": "user", "parts": [{"text": "Say something nice"}]}]}
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}
            ),
        )
    ]
)


@pytest.fixture
async def client(running: Running) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK, pointed at the provider."""
    options = types.HttpOptions(base_url=running.url, headers={"X-Misbehave": "interval=0"})
    async with genai.Client(api_key="demo", http_options=options).aio as sdk:
        yield sdk


def _misbehaving(request: str) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers={"X-Misbehave": request}))


async def test_a_stream_arrives_whole(client: genai.client.AsyncClient) -> None:
    """The pieces join to the text; the last one has the finish reason and the usage."""
    stream = await client.models.generate_content_stream(model="demo-1", contents="Say something nice")
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text or "" for chunk in chunks) == expected_text()
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    usage = chunks[-1].usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (3, 40, 43)


async def test_every_event_fits_the_schema(running: Running) -> None:
    """The SDK's model forbids what it does not know, and takes each event."""
    async with connect(running) as wire:
        wire.send(post("/v1beta/models/demo-1:streamGenerateContent?alt=sse&interval=0&tokens=2", CALL))
        assert (await wire.head())[0] == 200
        body = b"".join(await wire.chunks())
    assert b"id:" not in body.replace(b'Id":', b"")
    assert len(data_of(body)) == 3
    for data in data_of(body):
        types.GenerateContentResponse.model_validate_json(data)


async def test_without_alt_sse_a_stream_is_one_array(running: Running) -> None:
    """The API's other form: JSON, not events; it too comes piece by piece."""
    async with connect(running) as wire:
        wire.send(post("/v1beta/models/demo-1:streamGenerateContent?tokens=2&interval=0", CALL))
        _, headers = await wire.head()
        pieces = await wire.chunks()
    assert headers["content-type"].startswith("application/json")
    assert len(json.loads(b"".join(pieces))) == 3
    assert [piece[:3] for piece in pieces] == [b'[{"', b",\r\n", b",\r\n", b"\n]\n"]


@pytest.mark.parametrize(
    ("wrong", "elements", "end"),
    [("error_at=1", 2, b"\n]\n"), ("truncate_at=1", 1, b"}"), ("truncate_at=0", 0, b"")],
)
async def test_an_array_can_go_wrong(running: Running, wrong: str, elements: int, end: bytes) -> None:
    """The API's error is the last element; a truncated array has no closing bracket."""
    async with connect(running) as wire:
        wire.send(post(f"/v1beta/models/demo-1:streamGenerateContent?interval=0&{wrong}", CALL))
        await wire.head()
        body = b"".join(await wire.chunks())
    assert body.endswith(end)
    documents = json.loads(body if wrong.startswith("error") else body + b"]" if body else b"[]")
    assert len(documents) == elements
    assert [document["error"]["status"] for document in documents if "error" in document] == (
        ["UNAVAILABLE"] if wrong.startswith("error") else []
    )


async def test_an_answer_without_a_stream(client: genai.client.AsyncClient) -> None:
    """The same text at once, with the model that the URL names."""
    response = await client.models.generate_content(model="demo-1", contents="Say something nice")
    assert response.text == expected_text()
    assert response.model_version == "demo-1"


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_forced_function_is_called(client: genai.client.AsyncClient, streaming: bool) -> None:
    """Mode ANY makes a call with arguments that fit the schema."""
    config = types.GenerateContentConfig(
        tools=[WEATHER],
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
        ),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    if streaming:
        stream = await client.models.generate_content_stream(model="demo-1", contents="Hi", config=config)
        answers = [chunk async for chunk in stream]
    else:
        answers = [await client.models.generate_content(model="demo-1", contents="Hi", config=config)]
    [call] = [call for answer in answers for call in answer.function_calls or []]
    assert (call.name, call.args) == ("get_weather", {"city": "Zürich"})


async def test_a_failure_in_mid_stream_is_raised(client: genai.client.AsyncClient) -> None:
    """The error object reaches the program as an exception."""
    stream = await client.models.generate_content_stream(
        model="demo-1", contents="Hi", config=_misbehaving("interval=0; error_at=2")
    )
    with pytest.raises(errors.ServerError, match="UNAVAILABLE"):
        [chunk async for chunk in stream]


async def test_a_refusal_is_told_in_googles_form(client: genai.client.AsyncClient) -> None:
    """The status has its name."""
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED") as limited:
        await client.models.generate_content(model="demo-1", contents="Hi", config=_misbehaving("status=429"))
    assert limited.value.code == 429
