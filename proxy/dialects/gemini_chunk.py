"""What of Gemini's chunks is read."""

from __future__ import annotations

from typing import Any

import msgspec


class PartialArgument(msgspec.Struct, rename="camel"):
    """A leaf of a call's arguments, or a piece of one, and the JSONPath of its place."""

    json_path: str = ""
    string_value: str | msgspec.UnsetType = msgspec.UNSET
    number_value: float | int | msgspec.UnsetType = msgspec.UNSET
    bool_value: bool | msgspec.UnsetType = msgspec.UNSET
    null_value: Any = None

    @property
    def value(self) -> Any:
        """Whichever of the values is told; null where none is."""
        values = (self.string_value, self.number_value, self.bool_value)
        return next((value for value in values if value is not msgspec.UNSET), None)


class FunctionCall(msgspec.Struct, rename="camel"):
    """A call: whole, or a piece of one that ``will_continue``."""

    id: str | None = None
    name: str | None = None
    args: Any = None
    partial_args: list[PartialArgument] | None = None
    will_continue: bool | None = None


class Blob(msgspec.Struct, rename="camel"):
    """Data in the chunk, or at an address."""

    mime_type: str | None = None
    data: str | None = None
    file_uri: str | None = None


class ContentPart(msgspec.Struct, rename="camel"):
    """A piece of the answer, of one of these kinds; ``text`` may be a thought."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    file_data: Blob | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class Content(msgspec.Struct):
    """What a candidate says."""

    parts: list[ContentPart] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """One answer's piece of a chunk. The API leaves out an index of 0."""

    index: int | None = None
    content: Content | None = None
    finish_reason: Any = None
    finish_message: Any = None
    safety_ratings: Any = None
    citation_metadata: dict[str, Any] | None = None
    grounding_metadata: dict[str, Any] | None = None
    url_context_metadata: Any = None
    avg_logprobs: Any = None
    logprobs_result: Any = None

    @property
    def has_more(self) -> bool:
        """Whether there may be something that no part holds: in few chunks, of few models."""
        return bool(
            self.safety_ratings
            or self.grounding_metadata
            or self.finish_message
            or self.url_context_metadata
            or self.avg_logprobs
            or self.logprobs_result
        )


class UsageMetadata(msgspec.Struct, rename="camel"):
    """Tokens so far."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class PromptFeedback(msgspec.Struct, rename="camel"):
    """Why a prompt was blocked."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class Chunk(msgspec.Struct, rename="camel"):
    """A ``GenerateContentResponse``, or the error in its place."""

    candidates: list[Candidate] | None = None
    usage_metadata: UsageMetadata | None = None
    prompt_feedback: PromptFeedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None

    @property
    def means_nothing(self) -> bool:
        """Whether a chunk without candidates is no chunk at all."""
        told = (self.usage_metadata, self.prompt_feedback, self.model_version, self.response_id)
        return all(each is None for each in told)
