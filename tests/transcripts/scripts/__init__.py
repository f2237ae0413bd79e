"""The bodies, written in Python, each beside its row."""

from __future__ import annotations

from tests.transcripts.scripts import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    gemini_array,
    ollama,
    openai,
    openai_responses,
)
from tests.transcripts.transcript import Script

SCRIPTS: tuple[Script, ...] = (
    *openai.SCRIPTS,
    *openai_responses.SCRIPTS,
    *anthropic.SCRIPTS,
    *gemini.SCRIPTS,
    *gemini_array.SCRIPTS,
    *ollama.SCRIPTS,
    *bedrock.SCRIPTS,
    *cohere.SCRIPTS,
)
