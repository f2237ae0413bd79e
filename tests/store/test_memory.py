"""The embedded store: one bound for all logs, and who pays when it is reached."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.config import MemoryStore as Settings
from proxy.store.memory import LEAST_LOGS, Epitaph, MemoryStore
from proxy.stream.log import Log


class Stream:
    """The smallest thing that a store can hold."""

    def __init__(self, stream_id: str) -> None:
        self.id = stream_id
        self.log = Log(10**9, 10**9)
        self.forgotten_times = 0

    def epitaph(self) -> Epitaph:
        """Remember which stream this was by its route."""
        return Epitaph(f"route of {self.id}", "GET", None, True, self.log.last, None)

    def forgotten(self) -> None:
        """Count how often the store let go."""
        self.forgotten_times += 1


Store = MemoryStore[Stream]


def store_of(**settings: int) -> Store:
    """Return a store with these bounds, by default of 1000 bytes."""
    return MemoryStore(Settings(**{"max_bytes": 1000, **settings}))


def running(store: Store, stream_id: str, *sizes: int, now: float = 0) -> Stream:
    """Add a stream and let its log grow by blocks of these sizes."""
    stream = Stream(stream_id)
    store.add(stream)
    for size in sizes:
        grow(store, stream, size, now)
    return stream


def finished(store: Store, stream_id: str, *sizes: int) -> Stream:
    """Add a stream, let its log grow, and finish it."""
    stream = running(store, stream_id, *sizes)
    store.finished(stream)
    return stream


def grow(store: Store, stream: Stream, size: int, now: float = 0) -> None:
    """Log one block, and tell the store."""
    stream.log.extend([b"x" * size], size)
    store.grew(stream.log, size, now)


def test_streams_are_found_by_id() -> None:
    """Running or finished, while the log is held."""
    store = store_of()
    one, two = running(store, "one", 10), finished(store, "two", 20)
    assert store.get("one") is one
    assert store.get("two") is two
    assert store.get("three") is None
    assert (len(store), list(store), store.bytes, store.max_bytes) == (2, [one, two], 30, 1000)


def test_empty_logs_are_bounded_in_number() -> None:
    """A log costs memory without a byte in it: the attack is a great many streams that end at once."""
    store = store_of()
    for number in range(LEAST_LOGS + 5):
        assert store.has_room(0)
        finished(store, str(number))
    assert store.has_room(0)
    assert (len(store), store.bytes, store.evicted) == (LEAST_LOGS, 0, 5)
    assert store.get("4") is None
    assert store.get("5") is not None


def test_a_log_that_holds_something_already() -> None:
    """What a stream brings along counts."""
    store, stream = store_of(), Stream("one")
    stream.log.extend([b"x" * 30], 30)
    store.add(stream)
    assert store.bytes == 30


def test_a_log_that_shrank() -> None:
    """A log keeps its own bounds, so it can grow by less than nothing."""
    store = store_of()
    stream = running(store, "one", 30, 30, 10)
    store.grew(stream.log, -stream.log.shed(31), 0)
    assert store.bytes == stream.log.bytes == 10


# The bound for all


def test_finished_logs_go_first() -> None:
    """When the bound is passed, the longest finished log is evicted, and no more than is needed."""
    store = store_of()
    second, first = running(store, "second", 300), finished(store, "first", 300)
    store.finished(second)
    alive = running(store, "alive", 350, 100)
    assert list(store) == [second, alive]
    assert (first.forgotten_times, second.forgotten_times) == (1, 0)
    assert (store.bytes, store.evicted, len(alive.log)) == (750, 1, 2)


def test_a_bound_that_is_just_reached() -> None:
    """A full store is not yet too full."""
    store = store_of()
    old = finished(store, "old", 400)
    running(store, "alive", 600)
    assert store.get("old") is old
    assert store.bytes == 1000


def test_where_nothing_is_finished_the_one_that_grows_pays() -> None:
    """It holds on to less history; the others keep theirs."""
    store = store_of()
    quiet = running(store, "quiet", 200, 200, 200)
    loud = running(store, "loud", 200, 200, 200, 200)
    assert (len(quiet.log), len(loud.log), loud.log.first) == (3, 2, 3)
    assert (store.bytes, store.evicted) == (1000, 0)


def test_one_byte_too_many() -> None:
    """The bound is exact."""
    store = store_of()
    stream = running(store, "one", 500, 500)
    assert (len(stream.log), store.bytes) == (2, 1000)
    grow(store, stream, 1)
    assert (len(stream.log), store.bytes) == (2, 501)


def test_the_newest_block_is_always_held() -> None:
    """Even where one block alone is more than the bound: a reader must be able to get it."""
    store = store_of()
    stream = running(store, "big", 500, 5000)
    assert (len(stream.log), store.bytes) == (1, 5000)


def test_who_grows_keeps_what_is_still_to_be_read() -> None:
    """A floor says which of its blocks may go; the store tells whether its bound holds all the same."""
    store = store_of()
    stream = running(store, "slow", 400, 400)
    stream.log.extend([b"x" * 400], 400)
    assert not store.grew(stream.log, 400, 0, lambda: 0)
    assert (stream.log.first, store.bytes) == (1, 1200)
    assert store.grew(stream.log, 0, 0, lambda: 1)
    assert (stream.log.first, store.bytes) == (2, 800)


def test_a_floor_is_asked_for_only_where_it_is_needed() -> None:
    """It costs a look at every reader, so a store with room does not ask."""
    store = store_of()
    old, stream = finished(store, "old", 400), running(store, "new", 400)

    def floor() -> int:
        raise AssertionError("there is room")

    stream.log.extend([b"x" * 400], 400)
    assert store.grew(stream.log, 400, 0, floor)
    assert (old.forgotten_times, store.bytes) == (1, 800)


def test_room_for_one_more() -> None:
    """A new stream finds room while there is some, or while something finished is in the way."""
    store = store_of()
    assert store.has_room(0)
    old = finished(store, "old", 1000)
    assert store.has_room(0)
    assert (old.forgotten_times, store.evicted, store.bytes) == (1, 1, 0)
    running(store, "alive", 1000)
    assert not store.has_room(0)
    assert store.get("alive") is not None


def test_new_bounds() -> None:
    """A reload changes the bounds of a running store."""
    store = store_of()
    finished(store, "old", 400)
    store.configure(Settings(max_bytes=300, tombstones=1))
    assert store.max_bytes == 300
    assert store.has_room(0)
    assert store.get("old") is None


# What is remembered of the dead


def test_a_tombstone() -> None:
    """A stream that was dropped is known to have existed, for as long as the settings say."""
    store = store_of(tombstone_keep=100)
    stream = finished(store, "old", 10, 10)
    assert store.epitaph("old", 0) is None
    store.forget(stream, now=50)
    assert store.get("old") is None
    assert (stream.forgotten_times, store.bytes, store.evicted, store.tombstones) == (1, 0, 0, 1)
    assert store.epitaph("old", 149.9) == Epitaph("route of old", "GET", None, True, 2, None)
    assert store.epitaph("old", 150) is None
    assert store.epitaph("never", 50) is None


def test_forgetting_twice() -> None:
    """Whoever comes second finds it done."""
    store = store_of()
    stream = finished(store, "old", 10)
    store.forget(stream, 0)
    store.forget(stream, 0, evicted=True)
    assert (stream.forgotten_times, store.bytes, store.evicted) == (1, 0, 0)


def test_a_forgotten_stream_is_not_evicted_again() -> None:
    """A log whose time was over is no longer in the way."""
    store = store_of()
    store.forget(finished(store, "old", 10), 0)
    running(store, "alive", 1000)
    assert not store.has_room(0)
    assert store.evicted == 0


def test_tombstones_are_bounded_in_number() -> None:
    """The oldest go: a client that opens streams without end fills no memory with the dead."""
    store = store_of(tombstones=2)
    for name in ("a", "b", "c"):
        store.forget(finished(store, name, 10), 0)
    assert store.tombstones == 2
    assert [store.epitaph(name, 0) is not None for name in ("a", "b", "c")] == [False, True, True]


def test_tombstones_are_bounded_in_time() -> None:
    """Those that say nothing any more are removed when another is put up."""
    store = store_of(tombstone_keep=100)
    store.forget(finished(store, "a", 10), 0)
    store.forget(finished(store, "b", 10), 99)
    assert store.tombstones == 2
    store.forget(finished(store, "c", 10), 100)
    assert store.tombstones == 2
    assert store.epitaph("a", 0) is None


def test_no_tombstones() -> None:
    """A store may be told to remember nothing."""
    store = store_of(tombstones=0)
    store.forget(finished(store, "a", 10), 0)
    assert (store.tombstones, store.epitaph("a", 0)) == (0, None)


# All of it at once


class AnyStore(RuleBasedStateMachine):
    """Streams that come, grow, finish and are forgotten, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.settings = Settings()
        self.store: Store = MemoryStore(self.settings)
        self.running: list[Stream] = []
        self.kept: list[Stream] = []  # finished and held, the longest finished first
        self.dead: list[Stream] = []

    @initialize(max_bytes=st.integers(1, 400), tombstones=st.integers(0, 4), keep=st.integers(0, 20))
    def bound(self, max_bytes: int, tombstones: int, keep: int) -> None:
        """A store has bounds."""
        self.settings = Settings(max_bytes=max_bytes, tombstones=tombstones, tombstone_keep=keep)
        self.store = MemoryStore(self.settings)

    @rule()
    def begin(self) -> None:
        """A stream begins, if it finds room."""
        room = self.store.has_room(self.now)
        self._see_evicted()
        assert room == (self.store.bytes < self.settings.max_bytes)
        assert room or not self.kept, "something finished was in the way"
        if room:
            self.count += 1
            self.running.append(Stream(f"s{self.count}"))
            self.store.add(self.running[-1])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(1, 200), unread=st.integers(1, 3))
    def grow(self, data: st.DataObject, size: int, unread: int) -> None:
        """A log grows by one block; its newest few are still to be read."""
        stream = data.draw(st.sampled_from(self.running))
        others = [other.log.bytes for other in self.running if other is not stream]
        stream.log.extend([b"x" * size], size)
        floor = max(stream.log.last - unread, stream.log.first - 1)
        holds = self.store.grew(stream.log, size, self.now, lambda: floor)
        self._see_evicted()
        assert [other.log.bytes for other in self.running if other is not stream] == others
        assert stream.log.first <= floor + 1
        assert holds == (self.store.bytes <= self.settings.max_bytes)
        assert holds or (not self.kept and stream.log.first == floor + 1), "somebody could have made room"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A stream ends."""
        stream = data.draw(st.sampled_from(self.running))
        self.running.remove(stream)
        self.kept.append(stream)
        self.store.finished(stream)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """A finished stream's time is over."""
        stream = data.draw(st.sampled_from(self.kept))
        self.kept.remove(stream)
        self.dead.append(stream)
        self.store.forget(stream, self.now)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds

    def _see_evicted(self) -> None:
        gone = [stream for stream in self.kept if stream.forgotten_times]
        assert gone == self.kept[: len(gone)], "the longest finished go first"
        self.kept = self.kept[len(gone) :]
        self.dead += gone

    @invariant()
    def the_figures_are_true(self) -> None:
        """What is held is held once, and counted."""
        assert set(self.store) == {*self.running, *self.kept}
        assert len(self.store) == len(self.running) + len(self.kept)
        assert self.store.bytes == sum(stream.log.bytes for stream in self.store)
        assert self.store.evicted <= len(self.dead)
        assert all(stream.forgotten_times == 1 for stream in self.dead)
        assert not any(stream.forgotten_times for stream in self.store)

    @invariant()
    def the_dead_are_remembered(self) -> None:
        """The latest dead have a tombstone, unless it is too old; nobody alive has one."""
        assert self.store.tombstones <= self.settings.tombstones
        remembered = [stream for stream in self.dead if self.store.epitaph(stream.id, self.now)]
        assert remembered == self.dead[len(self.dead) - len(remembered) :]
        assert not any(self.store.epitaph(stream.id, self.now) for stream in self.store)


AnyStore.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
test_any_store = AnyStore.TestCase
