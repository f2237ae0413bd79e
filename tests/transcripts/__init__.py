"""What providers' streams look like, recorded: the bytes of each, and in words of no form what they say.

``TRANSCRIPTS`` is the table. The bodies lie beside it, ``<dialect>/<name>.<suffix>``; they are written by
``python -m tests.transcripts`` from ``scripts``, where each one stands together with its row. To add some,
write ``scripts/<dialect>.py`` with a tuple ``SCRIPTS``, add it to ``scripts``, and run that command.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tests.transcripts.scripts import SCRIPTS
from tests.transcripts.transcript import Call, Transcript
from tests.transcripts.translated import translated

__all__ = ["TRANSCRIPTS", "Call", "Transcript", "translated"]

#: By id: ``<dialect>/<name>``.
TRANSCRIPTS: Mapping[str, Transcript] = MappingProxyType(
    {script.transcript.id: script.transcript for script in SCRIPTS}
)
