"""Write all bodies again: ``python -m tests.transcripts``."""

from __future__ import annotations

from tests.transcripts.scripts import SCRIPTS

for script in SCRIPTS:
    path = script.transcript.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(script.body)
