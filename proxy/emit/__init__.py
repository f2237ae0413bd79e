"""What a client asked to receive: one file and one row of ``EMITS`` per form.

``passthrough`` is no form of its own: the provider's blocks leave as they came. Any other one is told from
the parts that a dialect's decoder finds (``proxy.dialects.part``), by a ``Writer``; ``translation`` joins
the two.

To add one, write ``proxy/emit/<name>.py`` with a ``Writer`` and a subclass of ``Emit``, add it to the tuple
below, and its name to ``proxy.config.model.EmitForm``, which a route's setting is checked by.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proxy.dialects import Dialect
from proxy.emit.ag_ui import AgUi
from proxy.emit.ai_sdk import AiSdk
from proxy.emit.base import Emit, Writer
from proxy.emit.openai import OpenAI
from proxy.emit.translation import Translation
from proxy.emit.unified import Unified

__all__ = ["EMITS", "Emit", "Translation", "Writer", "emit_for", "translation"]

#: By name, as a route's ``emit`` setting spells it. ``passthrough`` is none of them.
EMITS: Mapping[str, Emit] = MappingProxyType(
    {emit.name: emit for emit in (Unified(), OpenAI(), AiSdk(), AgUi())}
)


def emit_for(form: str, dialect: Dialect) -> Emit | None:
    """Return the emit in which streams of ``dialect`` leave on a route that asks for ``form``.

    None where they leave as they came: the route asks for nothing else (``passthrough``), they are of the
    form already, or nobody knows what their events mean.
    """
    emit = EMITS.get(form)
    return None if emit is None or emit.speaks(dialect) or dialect.decoder("") is None else emit


def translation(
    emit: Emit, dialect: Dialect, salt: str, began: float, *, raw: bool, keep: int
) -> Translation:
    """Return what turns one stream of ``dialect`` into ``emit``, which ``emit_for`` has found.

    ``salt`` goes into the names that have to be made up, and is another one for each stream. ``began`` is the
    time of the request in seconds. ``raw``: events that have no other place are wanted too. ``keep``: how
    many of the last blocks are remembered.
    """
    decoder = dialect.decoder(salt)
    assert decoder is not None, f"streams of {dialect.name} leave as they came"
    return Translation(decoder, emit.writer(salt, raw=raw), began, keep=keep)
