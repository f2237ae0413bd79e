"""One stream from its first byte to the last: what its beginning and its end mean, and who may wait how long.

The way of its events is ``lane``'s; a relay is a lane with a life. Its deadlines are looked at by one
alarm that nobody moves when an event passes; its dialect looks at the first block and at the last few.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from proxy.dialects import DIALECTS, Dialect, Failure, Verdict, confirm, segments_of
from proxy.dialects.summary import Summary
from proxy.emit import Emit, Translation, emit_for, translation
from proxy.server import report
from proxy.server.exchange import Birth
from proxy.server.headers import Fields
from proxy.server.hub import Hub
from proxy.server.lane import Lane, Tap
from proxy.server.observation import NOTHING, Heard, Observer, answer, heard
from proxy.server.source import Source
from proxy.server.tally import Tally
from proxy.server.wheel import Alarm
from proxy.store.memory import Epitaph
from proxy.stream.framing import Framing
from proxy.stream.lifecycle import Happening, State, next_state
from proxy.stream.log import Log, Reason, Terminal
from proxy.stream.numbering import Ids, Numbering
from proxy.stream.sse import Parser, has_data
from proxy.telemetry.answers import label

#: So many of the last blocks are shown to the dialect when a stream ends.
VERDICT_BLOCKS = 16

#: The window of a stream that is not recorded, in blocks and bytes: what its slowest moment may leave
#: unsent, and what its dialect wants to see at the end.
UNRECORDED = (VERDICT_BLOCKS, 64 * 1024)

#: The statuses that would have told of an end, had the headers not been sent; SDKs choose the class of
#: the error they raise by them. 499 is nginx's word for a client that closed its request.
STATUSES = {Reason.CANCELLED: 499, Reason.IDLE_TIMEOUT: 504, Reason.TOTAL_TIMEOUT: 504}

#: What the terminal record says where the stream's own blocks tell what went wrong.
PROVIDER_ERROR = "the provider reported an error in the stream"

#: A new stream whose first reader does not come, because its client left in between, ends after this.
FIRST_READER_SECONDS = 10.0


class Relay(Lane):
    """One stream: an upstream response, its log, and everybody who reads it."""

    __slots__ = (
        "_alarm",
        "_began",
        "_heard",
        "_hub",
        "_linger_until",
        "_stats",
        "birth",
        "dialect",
        "emit",
        "fields",
        "finished_at",
        "id",
        "on_end",
        "on_forgotten",
        "reopen",
        "state",
        "was_answered",
        "was_read",
    )

    def __init__(self, hub: Hub, birth: Birth, fields: Fields, *, recorded: bool) -> None:
        route, now = birth.route, hub.loop.time()
        self.id = hub.new_stream_id()
        self.birth = birth
        self.dialect = birth.dialect
        self.fields = fields
        self._hub = hub
        self._stats = hub.telemetry.route(route.name)
        recorded = recorded and route.replay.enabled
        window = (route.replay.max_events, route.replay.max_bytes) if recorded else UNRECORDED
        super().__init__(hub, route, Log(*window), Tally(self._stats, birth.at), recorded=recorded)
        self.translation = self._new_translation()
        self.numbering = self._new_numbering()
        self.state = State.OPENING
        self.reopen: Callable[[], None] | None = None  # asks the upstream again, where the route says so
        self.was_answered = False
        self.was_read = False  # whether a reader has been given everything, with an end that it could see
        self.finished_at = math.inf
        self._began = time.time() - (now - birth.at)
        self._heard: Heard | None = None  # once it has ended
        self._linger_until = now + FIRST_READER_SECONDS
        self._alarm = Alarm(self._look)
        self.on_end: list[Callable[[], None]] = []
        self.on_forgotten: list[Callable[[], None]] = []
        self._stats.streams += 1
        hub.running.add(self)
        if self.recorded:
            hub.store.add(self)
        else:
            hub.unrecorded[self.id] = self
            self._stats.unrecorded += route.replay.enabled
        self._set_alarm()

    # What a stream is

    @property
    def feed(self) -> bool:
        """Whether this is an app's feed: a GET of no provider's dialect."""
        asked = self.birth.method == "GET" and self.route.prompt is None
        return asked and self.dialect is DIALECTS["generic"]

    @property
    def form(self) -> Dialect | Emit:
        """What the stream is when it leaves, and so what its readers survive."""
        return self.emit or self.dialect

    @property
    def emit_name(self) -> str:
        """The form in which it leaves, as a route's ``emit`` spells it."""
        return "passthrough" if self.emit is None else self.emit.name

    @property
    def signal_gaps(self) -> bool:
        """Whether a reader is told of a gap in the stream instead of being refused."""
        return self.route.gap == "signal" or (self.route.gap == "auto" and self.feed)

    @property
    def retry(self) -> int | None:
        """The reconnection time that a new connection's first block carries, in milliseconds."""
        if not self.form.ids_safe or self.route.ids == "upstream":
            return None
        return self.numbering.retry if self.numbering.retry is not None else round(self.route.retry * 1000)

    @property
    def verbatim(self) -> bool:
        """Whether comments pass, or may come to."""
        if self.translation is not None:
            return False
        return self.numbering.as_it_came or (self.numbering.follows and not self.dialect.llm)

    @property
    def age(self) -> float:
        """Seconds since the request that began it."""
        return self._hub.loop.time() - self.birth.at

    @property
    def started(self) -> datetime:
        """When the request that began it came."""
        return datetime.fromtimestamp(self._began, UTC)

    @property
    def finished(self) -> bool:
        """Whether the log has its terminal record."""
        return self.log.terminal is not None

    @property
    def heard(self) -> Heard:
        """What it has told of its answer so far."""
        if self._heard is not None:
            return self._heard
        return heard(self._summary, self._model) if self._observed else NOTHING

    @property
    def _observed(self) -> bool:
        """Whether its answer is a model's, and counted."""
        return self.route.observe and bool(self.dialect.provider)

    @property
    def _model(self) -> str:
        """Its model as it tells it, or else as the request's path does."""
        return self._summary.model or self.dialect.model_at(segments_of(self.birth.path))

    @property
    def _summary(self) -> Summary:
        source = self.translation or self.observer
        return source.summary if source is not None else Summary(self.birth.at)

    def _new_numbering(self) -> Numbering:
        """Choose who writes the ids: the route's word, and what the dialect's clients survive."""
        word, safe = self.route.ids, self.form.ids_safe
        if word == "upstream":
            return Numbering(self.id, Ids.UPSTREAM)
        own = self.recorded and (word == "always" or (word == "auto" and safe))
        follow = self.translation is None and word == "auto" and safe
        return Numbering(self.id, Ids.OWN if own else Ids.NONE, follow=follow, retries=safe)

    def _new_translation(self) -> Translation | None:
        """Begin to turn the stream into the route's form, where there is anything to turn."""
        wanted = self.route.emit
        self.emit = None if self.route.ids == "upstream" else emit_for(wanted.form, self.dialect)
        if self.emit is None:
            return None
        return translation(
            self.emit, self.dialect, _salt(self.id), self.birth.at, raw=wanted.raw, keep=VERDICT_BLOCKS
        )

    # The way of an event

    def answered(self, source: Source, framing: Framing | None = None) -> None:
        """Begin to re-emit an upstream's response, cut by ``framing`` where it is no event stream."""
        if framing is not None:
            self.parser = framing
        self.was_answered = True
        self._source = source
        self._last_received = self._clock()
        self.state = next_state(self.state, Happening.ANSWERED)
        self._set_alarm()
        source.start(self._hub.spawn)
        if self.paused:
            source.pause()

    def recognize(self, blocks: list[bytes]) -> bool:
        """Let the first block with data say whether the path's dialect is the stream's."""
        first = next((block for block in blocks if has_data(block)), None)
        if first is not None and self.route.dialect == "auto":
            dialect = confirm(self.dialect, first)
            if dialect is not self.dialect:
                self.dialect = dialect
                self.translation = self._new_translation()
                before, self.numbering = self.numbering, self._new_numbering()
                self.numbering.retry, self.numbering.last_id = before.retry, before.last_id
        if first is not None:
            self.observer = self._new_observer()
        return first is not None

    def _new_observer(self) -> Observer | None:
        """Begin to look at what the stream tells of itself, where no translation does."""
        if self.translation is not None or not self._observed:
            return None
        decoder = self.dialect.decoder(salt="")
        return Observer(decoder, self.birth.at) if decoder is not None else None

    def overflowed(self, size: int) -> None:
        """End the stream: a block has grown to ``size`` bytes."""
        self.end(
            Reason.OVERFLOW, f"a block of {size} bytes came; max_event_bytes is {self.route.max_event_bytes}"
        )

    def malformed(self, why: str) -> None:
        """End the stream: its body is not of the format that it should be of."""
        if self._is_whole():  # what comes after a stream's end is nobody's loss
            self.end(Reason.COMPLETE)
        else:
            self.end(Reason.UPSTREAM_ERROR, f"the upstream's body is malformed: {why}")

    def poll(self) -> None:
        """Take what the upstream has sent so far, without waiting for the loop's next turn."""
        if self._source is not None and not self.verbatim:
            self._source.poll()

    # The end

    def ended(self, error: str | None) -> None:
        """Hear that the upstream's response is over."""
        if self.log.terminal is None and error is None:
            self._finish_framing()
        if self.log.terminal is not None:
            return
        verdict = self.dialect.verdict(self._tail())
        if verdict is Verdict.FINISHED and self.dialect.lacks(self._tail(), self.parser.pending):
            error = error or "inside of a block"
        if verdict is Verdict.COMPLETE or (verdict is Verdict.FINISHED and error is None):
            self.end(Reason.COMPLETE)
        elif verdict is Verdict.ERROR:
            self.end(Reason.UPSTREAM_ERROR, PROVIDER_ERROR, told=True)
        elif self.reopen is not None and self.feed:
            self._source = None
            self._emit(self.numbering.flush(self.parser.pending), [], self._hub.loop.time())
            self.parser = Parser(self.route.max_event_bytes)  # a half-received block is dropped
            self.unsettle()
            for reader in self.readers:
                reader.pump()
            self.reopen()
        elif error is not None:
            self.end(Reason.TRUNCATED, f"the upstream's response broke off: {error}")
        elif self.dialect.llm:
            self.end(
                Reason.TRUNCATED,
                f"the upstream closed the stream without its terminal marker{self._riddle()}",
            )
        else:
            self.end(Reason.COMPLETE)

    def _riddle(self) -> str:
        """Say so where nothing of a stream was understood: its route may name the wrong dialect."""
        if self.translation is None or not self.translation.summary.empty or not self.tally.bytes_in:
            return ""
        return f"; nothing in its {self.tally.bytes_in} bytes is {self.dialect.name}'s"

    def _provider_error(self) -> str:
        """Say that the provider told an error, and its code, where that is known; never what it said."""
        error = self._summary.error
        return PROVIDER_ERROR if error is None else f"{PROVIDER_ERROR}: {label(error.code)}"

    def _finish_framing(self) -> None:
        """Take what the body's good end completes."""
        blocks = self.parser.finish()
        if blocks:
            self._take(blocks, self._hub.loop.time())
        if self.parser.broken:
            self.malformed(self.parser.broken)

    def cancel(self, by: str, message: str) -> None:
        """Close the upstream request at once; what was logged stays readable. Idempotent."""
        if self.log.terminal is None:
            self._stats.cancels[by] += 1
            self.end(Reason.CANCELLED, message)

    def cancel_unread(self, message: str) -> None:
        """Stop a stream that nobody has come to read, and cannot resume. Idempotent."""
        if not self.tally.readers:
            self.cancel("disconnect", message)

    def failed(self, message: str, status: int, quote: str = "") -> None:
        """Hear that the upstream did not answer with a stream, after the client was answered early."""
        self.end(Reason.UPSTREAM_ERROR, message, status=status, quote=quote)

    def end(
        self,
        reason: Reason,
        message: str = "",
        *,
        told: bool = False,
        status: int | None = None,
        quote: str = "",
    ) -> None:
        """Write the terminal record, tell the readers, and let go of the upstream.

        ``told``: the upstream's own blocks already say what went wrong. ``status`` would have said it
        before the stream began. ``quote`` is for the readers alone: what an upstream says may hold a
        key, which must not come into logs.
        """
        if self.log.terminal is not None:  # what happens to a stream that has ended is of no interest
            return
        now = self._hub.loop.time()
        if self.translation is None:
            self._emit(self.numbering.flush(self.parser.pending), [], now)
        if reason not in (Reason.COMPLETE, Reason.UPSTREAM_ERROR) and self._is_whole():
            reason = Reason.COMPLETE
        if self.observer is not None:
            self.observer.read_last(
                self._tail(), self.log.last, self.tally.last_sent, whole=reason is Reason.COMPLETE
            )
        if message == PROVIDER_ERROR:
            message = self._provider_error()
        failure = Failure(reason.value, message + quote, status or STATUSES.get(reason, 502))
        terminal = Terminal(reason, message, told or reason is Reason.COMPLETE)
        terminal = self._tell_end(terminal, failure, now)
        self.tally.ended(now)
        self.log.end(terminal)
        self._close(terminal.reason, now)

    def _tell_end(self, terminal: Terminal, failure: Failure, now: float) -> Terminal:
        """Tell the readers of the end, as far as nothing has; return the record, true to what they heard."""
        if self.translation is None:
            return terminal if terminal.told else replace(terminal, told=self._tell(failure, now))
        whole = terminal.reason is Reason.COMPLETE
        told = self._translate_end(self.translation, None if whole else failure, now)
        if told and whole:  # a prompt that a filter blocked is no answer
            return Terminal(Reason.UPSTREAM_ERROR, self._provider_error(), told=True)
        return replace(terminal, told=told or whole)

    def _close(self, reason: Reason, now: float) -> None:
        """Let go of the upstream, and let everybody know that the stream is over."""
        self.unsettle()
        self.state = next_state(self.state, Happening.ENDED)
        self.finished_at = now
        if self._source is not None:
            self._source.close()
            self._source = None
        self.tally.settle(self.log.last)
        for callback in self.on_end:
            callback()
        self.on_end.clear()
        self._hub.running.discard(self)
        self._stats.streams -= 1
        for reader in self.readers:
            reader.pump()
        self._count_answer(reason)
        self._hub.telemetry.stream_ended(report.facts(self))
        if self.recorded:
            self._hub.store.finished(self)
            self._hub.wheel.set(self._alarm, now + self.route.replay.keep)
        else:
            del self._hub.unrecorded[self.id]
            self._let_go()

    def _count_answer(self, reason: Reason) -> None:
        """Count what the stream has told of its answer, and keep what is shown of it alone."""
        self._heard = self.heard
        if self._observed:
            told = answer(self.dialect, self._summary, self._model, reason, self.age)
            self._hub.telemetry.answered(self.route.name, told)
        self.observer = None
        if self.translation is not None:
            self.translation.let_go()

    def _is_whole(self) -> bool:
        """A stream whose terminal marker came is complete, whatever happened to it afterwards."""
        return self.dialect.llm and self.dialect.verdict(self._tail()) is Verdict.COMPLETE

    def _tail(self) -> Sequence[bytes]:
        if self.translation is not None:
            return self.translation.tail.blocks
        return [entry.removesuffix(b"\n\n") for entry in self.log.tail(VERDICT_BLOCKS)]

    def _tell(self, failure: Failure, now: float) -> bool:
        """Put the failure into the stream in the form in which the dialect's SDKs raise."""
        block = self.dialect.failure_block(failure, self._tail())
        if block is None:
            return False
        self._add([block], now)
        return True

    def _translate_end(self, translation: Translation, failure: Failure | None, now: float) -> bool:
        """Let the translation tell the end; return whether it has told one that is not good."""
        self._add(translation.close(now) if failure is None else translation.fail(failure, now), now)
        return translation.told_error

    def _add(self, blocks: list[bytes], now: float) -> None:
        """Put blocks of ours into the stream."""
        numbered = self.numbering.number(blocks)
        self._emit(numbered.wire, numbered.entries, now)

    def shut_down(self) -> None:
        """Let go of everything: the process ends."""
        if self.log.terminal is None:
            self.end(Reason.PRODUCER_LOST, "the sidecar shut down")

    # Readers

    def join(self, tap: Tap) -> None:
        """Add a reader. It stands in the log wherever its cursor is, and pumps itself."""
        self.readers.append(tap)
        self.tally.reader_came()
        self.state = next_state(self.state, Happening.JOINED)
        self._linger_until = math.inf

    def leave(self, tap: Tap) -> None:
        """Remove a reader; after the last one the stream lingers."""
        self.readers.remove(tap)
        self.tally.reader_left(tap.replayed)
        if not self.readers:
            self.abandon()

    def abandon(self) -> None:
        """Go on without a reader for as long as the route says; then stop paying for it. Idempotent."""
        if self.readers or self.state is State.LINGERING:
            return
        self.state = next_state(self.state, Happening.ABANDONED)
        if self.log.terminal is None:
            linger = self.route.linger if self.recorded else 0.0
            if linger <= 0:
                self.cancel("disconnect", "the last reader left")
                return
            self._linger_until = self._hub.loop.time() + linger
            self._set_alarm()

    # Deadlines

    def _set_alarm(self) -> None:
        self._hub.wheel.set(self._alarm, self._next_deadline())

    def _next_deadline(self) -> float:
        route = self.route
        deadlines = [self._linger_until]
        if route.timeouts.total is not None:
            deadlines.append(self.birth.at + route.timeouts.total)
        idle = route.idle_for(self.feed)
        if idle is not None:
            deadlines.append(self._last_received + idle)
        return min(deadlines)

    def _look(self, now: float) -> float | None:
        if self.log.terminal is not None:
            return self._look_at_finished(now)
        route = self.route
        idle = route.idle_for(self.feed)
        if route.timeouts.total is not None and now >= self.birth.at + route.timeouts.total:
            self.end(Reason.TOTAL_TIMEOUT, f"the stream ran for {route.timeouts.total:g}s (timeouts.total)")
        elif now >= self._linger_until:
            self.cancel("linger", self._why_abandoned())
        elif self._source is None or self.paused:
            self._last_received = now  # nobody reads upstream: its silence means nothing
        elif idle is not None and now >= self._last_received + idle:
            self.end(Reason.IDLE_TIMEOUT, f"the upstream sent nothing for {idle:g}s (timeouts.idle)")
        due = self._next_deadline()
        return None if self.log.terminal is not None or due == math.inf else due

    def _why_abandoned(self) -> str:
        if not self.tally.readers:
            return "its first reader did not come"
        return f"no reader for {self.route.linger:g}s (linger)"

    def _look_at_finished(self, now: float) -> float | None:
        due = self.finished_at + self.route.replay.keep
        if now < due:
            return due
        if self.readers:
            return now + 1.0
        self._hub.store.forget(self, now)
        return None

    # What the store and the operator ask

    def epitaph(self) -> Epitaph:
        """What is remembered when the log is gone."""
        return Epitaph(
            self.route.name,
            self.birth.method,
            self.birth.owner,
            self.feed,
            self.log.last,
            self.numbering.last_id,
        )

    def forgotten(self) -> None:
        """Hear that the store let go of the log."""
        self.state = next_state(self.state, Happening.FORGOTTEN)
        self._let_go()

    def _let_go(self) -> None:
        self._hub.wheel.drop(self._alarm)
        for callback in self.on_forgotten:
            callback()
        self.on_forgotten.clear()


def _salt(stream_id: str) -> str:
    """Return what tells a stream's names from another's. It does not tell the id, which lets readers in."""
    return hashlib.blake2b(stream_id.encode("ascii"), digest_size=9).hexdigest()
