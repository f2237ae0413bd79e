"""The wheel: one timer for all alarms, on a clock that the tests move."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sys
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.server.wheel import GRAIN, ROOM, TOLERANCE, Alarm, Wheel

#: What a float of a year in seconds leaves out.
ROUNDING = 1e-6

#: By how much timers may be early, in seconds: all that the wheel allows for, but for the rounding.
EARLIEST = 0.0009


def latest(due: float, now: float) -> float:
    """The moment at which an alarm rings at the latest that is set for ``due`` at ``now``."""
    return max(due, now) + min(max(GRAIN, (due - now) / 64), 0.25) + ROUNDING


class Clock(asyncio.AbstractEventLoop):
    """An event loop's timers, and nothing else; its time stands still until it is moved.

    ``wakes`` counts how often it had to call anybody, ``made`` how often it was asked to. It runs its
    timers as a loop does: what a callback raises is caught, and kept in ``errors``. They run ``early``
    seconds before their time, as uvloop's may, which are rounded to milliseconds.
    """

    def __init__(self, now: float = 100.0, early: float = 0.0) -> None:
        self.now = now
        self.early = early
        self.timers: list[asyncio.TimerHandle] = []
        self.wakes = 0
        self.made = 0
        self.errors: list[BaseException] = []

    def time(self) -> float:
        """The moment that the test has set."""
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.timers.append(timer)
        self.made += 1
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what went wrong."""
        self.errors.append(context["exception"])

    def get_debug(self) -> bool:
        """Handles ask whether to remember where they come from."""
        return False

    def pass_to(self, moment: float) -> None:
        """Let time pass, and run what is due on the way, each at its moment."""
        while self.timers and (timer := min(self.timers)).when() - self.early <= moment:
            self.timers.remove(timer)
            self.now = max(self.now, timer.when() - self.early)
            self.wakes += 1
            timer._run()  # what the loop does; a handle has no public way to be run
        self.now = max(self.now, moment)

    def jump_to(self, moment: float) -> None:
        """Let time pass while the loop is busy, then run what became due."""
        self.now = moment
        self.pass_to(moment)


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 seconds."""
    return Clock()


@pytest.fixture
def wheel(clock: Clock) -> Wheel:
    """A wheel on that clock."""
    return Wheel(clock)


class Bell:
    """An alarm that writes down when it rang, and then does as it was told."""

    def __init__(self, again: Callable[[float], float | None] = lambda now: None) -> None:
        self.rang: list[float] = []
        self.again = again
        self.alarm = Alarm(self.ring)

    def ring(self, now: float) -> float | None:
        """Ring."""
        self.rang.append(now)
        return self.again(now)


def test_an_alarm_rings_when_it_is_due(clock: Clock, wheel: Wheel) -> None:
    """Not before, and once."""
    bell = Bell()
    wheel.set(bell.alarm, 110)
    assert len(wheel) == 1
    clock.pass_to(109.9)
    assert bell.rang == []
    clock.pass_to(200)
    assert bell.rang == [110]
    assert len(wheel) == 0
    assert clock.timers == []


def test_it_names_the_next_moment(clock: Clock, wheel: Wheel) -> None:
    """What an alarm returns is when it wants to look again; None and never are the same."""
    bell = Bell(lambda now: now + 10 if now < 130 else None)
    wheel.set(bell.alarm, 110)
    clock.pass_to(500)
    assert bell.rang == [110, 120, 130]
    forever = Bell(lambda now: math.inf)
    wheel.set(forever.alarm, 510)
    clock.pass_to(600)
    assert forever.rang == [510]
    assert (len(wheel), clock.timers) == (0, [])


def test_no_alarm_can_spin(clock: Clock, wheel: Wheel) -> None:
    """One that wants to look again at once, or in the past, waits two grains all the same."""
    bell = Bell(lambda now: now - 5)
    wheel.set(bell.alarm, 110)
    clock.pass_to(111)
    assert len(bell.rang) == pytest.approx(1 / (2 * GRAIN), abs=2)


def test_never(clock: Clock, wheel: Wheel) -> None:
    """An alarm that is set for never is not set."""
    wheel.set(Bell().alarm, math.inf)
    assert (len(wheel), clock.timers) == (0, [])


def test_set_again(clock: Clock, wheel: Wheel) -> None:
    """The earlier of two moments holds: an alarm looks for itself whether it was too early."""
    bell = Bell()
    wheel.set(bell.alarm, 110)
    wheel.set(bell.alarm, 120)
    wheel.set(bell.alarm, 110)
    wheel.set(bell.alarm, 105)
    assert len(wheel) == 1
    clock.pass_to(200)
    assert bell.rang == [105]


def test_an_old_moment_means_nothing(clock: Clock, wheel: Wheel) -> None:
    """One that was set for later, rang earlier, and wants to ring at that later moment, rings once then."""
    bell = Bell(lambda now: 120 if now < 120 else None)
    wheel.set(bell.alarm, 120)
    wheel.set(bell.alarm, 105)
    clock.pass_to(200)
    assert bell.rang == [105, 120]
    assert len(wheel) == 0


def test_one_that_is_due_now_rings_soon(clock: Clock, wheel: Wheel) -> None:
    """A deadline that has come, or has passed long ago, waits a grain at the most."""
    clock.now += 0.001
    due, overdue = Bell(), Bell()
    wheel.set(due.alarm, clock.now)
    wheel.set(overdue.alarm, clock.now - 99)
    clock.pass_to(clock.now)
    assert (due.rang, overdue.rang) == ([], [100.001])
    clock.pass_to(200)
    assert due.rang == [100 + GRAIN]


@given(start=st.floats(0, 4e7), ahead=st.one_of(st.floats(0, 1), st.floats(0, 100), st.floats(0, 4e7)))
def test_in_time(start: float, ahead: float) -> None:
    """Never before its time, nor later than it may be."""
    clock = Clock(start)
    bell, due = Bell(), start + ahead
    Wheel(clock).set(bell.alarm, due)
    clock.pass_to(due + 1)
    [rang] = bell.rang
    assert due <= rang <= latest(due, start)


def test_alarms_share_a_wake_up(clock: Clock, wheel: Wheel) -> None:
    """Those in one slot ring together, first come, first served: ten thousand heartbeats are not ten thousand
    timers.
    """
    order: list[int] = []
    moments = [
        109.875 + 0.125 * (index * 7 % 1000 + 1) / 1000 for index in range(1000)
    ]  # in no order of time
    for index, moment in enumerate(moments):
        wheel.set(Alarm(lambda now, index=index: order.append(index)), moment)  # type: ignore[misc]
    assert len(clock.timers) == 1
    clock.pass_to(200)
    assert clock.wakes == 1
    assert order == list(range(1000))


def test_set_again_for_about_the_same_moment(clock: Clock, wheel: Wheel) -> None:
    """It keeps its place among those that ring together."""
    order: list[int] = []
    first, second = Alarm(lambda now: order.append(1)), Alarm(lambda now: order.append(2))
    wheel.set(first, 110)
    wheel.set(second, 110)
    wheel.set(first, 109.99)
    clock.pass_to(200)
    assert order == [1, 2]


def test_thousands_of_heartbeats_wake_the_loop_a_few_times_a_second(clock: Clock, wheel: Wheel) -> None:
    """5,000 alarms of 15 seconds, each at a moment of its own, ring in eight portions a second."""
    bells = [Bell(lambda now: now + 15) for _ in range(5000)]
    chance = random.Random(3)
    for bell, moment in zip(bells, sorted(chance.uniform(100, 115) for _ in bells), strict=True):
        clock.pass_to(moment)
        wheel.set(bell.alarm, moment + 15)
    clock.pass_to(115)
    assert clock.wakes == 0
    clock.pass_to(175)
    assert clock.wakes <= 8 * 60 + 1
    assert all(len(bell.rang) == 4 for bell in bells)


def test_a_wake_up_leads_to_one_more(clock: Clock, wheel: Wheel) -> None:
    """Alarms that ring together and look again together need one timer for it."""
    bells = [Bell(lambda now: now + 15 if now < 170 else None) for _ in range(50)]
    for bell in bells:
        wheel.set(bell.alarm, 110)
    clock.pass_to(109)
    clock.pass_to(180)
    assert all(bell.rang == [110, 125, 140, 155, 170] for bell in bells)
    assert clock.wakes == clock.made == 5


def test_an_earlier_alarm_moves_the_timer(clock: Clock, wheel: Wheel) -> None:
    """There is one timer at any moment, for the first alarm."""
    late, early = Bell(), Bell()
    wheel.set(late.alarm, 110)
    wheel.set(early.alarm, 105)
    assert [timer.when() for timer in clock.timers] == [105]
    clock.pass_to(105)
    assert (early.rang, late.rang) == ([105], [])
    assert [timer.when() for timer in clock.timers] == [110]


def test_drop(clock: Clock, wheel: Wheel) -> None:
    """A dropped alarm never rings, and cannot be set again."""
    bell = Bell()
    wheel.set(bell.alarm, 110)
    wheel.drop(bell.alarm)
    wheel.drop(bell.alarm)
    assert len(wheel) == 0
    wheel.set(bell.alarm, 110)
    assert len(wheel) == 0
    clock.pass_to(200)
    assert bell.rang == []


def test_dropped_while_it_rings(clock: Clock, wheel: Wheel) -> None:
    """What an alarm returns is not heard any more when it has dropped itself."""
    bell = Bell()

    def stop(now: float) -> float:
        wheel.drop(bell.alarm)
        return now + 1

    bell.again = stop
    wheel.set(bell.alarm, 110)
    clock.pass_to(200)
    assert bell.rang == [110]
    assert len(wheel) == 0


def test_alarms_that_touch_each_other(clock: Clock, wheel: Wheel) -> None:
    """An alarm may drop another that is due at the same moment, and set a third for now."""
    victim, third = Bell(), Bell()

    def act(now: float) -> None:
        wheel.drop(victim.alarm)
        wheel.set(third.alarm, now)

    first = Bell(act)
    wheel.set(first.alarm, 110)
    wheel.set(victim.alarm, 110)
    clock.pass_to(110)
    assert (first.rang, victim.rang, third.rang) == ([110], [], [110])
    assert (len(wheel), clock.timers, clock.errors) == (0, [], [])


def test_one_that_is_about_to_ring_is_set_for_earlier(clock: Clock, wheel: Wheel) -> None:
    """It rings once for both: there is no way to ring it earlier than now."""
    second = Bell()
    first = Bell(lambda now: wheel.set(second.alarm, now - 1))
    wheel.set(first.alarm, 110)
    wheel.set(second.alarm, 110)
    clock.pass_to(200)
    assert (first.rang, second.rang) == ([110], [110])
    assert (len(wheel), clock.timers) == (0, [])


def test_alarms_that_set_each_other_let_the_loop_go_on(clock: Clock, wheel: Wheel) -> None:
    """Even two that set each other for now, for ever, ring but once before the loop has a turn."""
    ping, pong = Bell(), Bell()
    ping.again = lambda now: wheel.set(pong.alarm, now)
    pong.again = lambda now: wheel.set(ping.alarm, now) if len(pong.rang) < 10 else None
    wheel.set(ping.alarm, 110)
    clock.pass_to(200)
    assert len(ping.rang) == len(pong.rang) == 10
    assert clock.wakes == 20


@pytest.mark.parametrize("early", [0.0005, EARLIEST])
def test_a_timer_that_is_early(early: float) -> None:
    """A loop may run a timer a little before its time. The alarm is told its own, and so rings once."""
    clock = Clock(early=early)
    wheel, bell = Wheel(clock), Bell()
    bell.again = lambda now: None if now >= 110 else 110
    wheel.set(bell.alarm, 110)
    clock.pass_to(200)
    assert bell.rang == [110]
    assert clock.wakes == 1


def test_a_loop_that_was_busy(clock: Clock, wheel: Wheel) -> None:
    """What became due meanwhile rings in one wake-up, in the order of time, and hears how late it is."""
    order: list[float] = []
    for due in (108, 106, 107, 120):
        wheel.set(Alarm(lambda now, due=due: order.append(due)), due)  # type: ignore[misc]
    bell = Bell(lambda now: now + 15 if now < 120 else None)
    wheel.set(bell.alarm, 105)
    clock.jump_to(109.1)
    assert order == [106, 107, 108]
    assert clock.wakes == 1
    clock.pass_to(200)
    assert bell.rang == [109.1, 124.125]


def test_a_dropped_alarm_is_let_go(wheel: Wheel) -> None:
    """The stream behind a dropped alarm can be freed, long before the alarm would have rung."""
    bell = Bell()
    alarm, gone = bell.alarm, weakref.ref(bell)
    wheel.set(alarm, 1e9)
    wheel.drop(alarm)
    del bell
    gc.collect()
    assert gone() is None


def test_dropped_alarms_take_no_room(clock: Clock, wheel: Wheel) -> None:
    """A busy server drops alarms all the time, each of another far moment: nothing is left of them."""
    stays = Bell()
    wheel.set(stays.alarm, 5000)
    for index in range(20 * ROOM):
        bell = Bell()
        wheel.set(bell.alarm, 6000 + index)
        wheel.drop(bell.alarm)
        assert len(wheel) == 1
        assert len(wheel._moments) == len(wheel._slots) <= ROOM + 2  # no public figure tells of empty slots
    clock.pass_to(30000)
    assert stays.rang == [5000]
    assert clock.wakes <= 2


def test_many_dropped_from_one_slot_take_no_room(wheel: Wheel) -> None:
    """A dict keeps the room that it once needed. A slot may have an hour to go, so it gives it back."""
    bells = [Bell() for _ in range(5000)]
    for bell in bells:
        wheel.set(bell.alarm, 5000)
    for bell in bells:
        wheel.drop(bell.alarm)
    assert [sys.getsizeof(slot) for slot in wheel._slots.values()] == [sys.getsizeof({})]


def test_empty_slots_among_many_are_left_where_they_are(wheel: Wheel) -> None:
    """They are not looked for while most are in use: that would cost more than it frees."""
    living, dying = [Bell() for _ in range(3 * ROOM)], [Bell() for _ in range(2 * ROOM)]
    for index, bell in enumerate((*living, *dying)):
        wheel.set(bell.alarm, 5000 + index)
    for bell in dying:
        wheel.drop(bell.alarm)
    wheel.set(Bell().alarm, 4000)
    assert len(wheel) == 3 * ROOM + 1
    assert len(wheel._slots) == 5 * ROOM + 1


def test_those_that_live_outlive_a_clearing(clock: Clock, wheel: Wheel) -> None:
    """Where empty slots are removed, the others keep their place."""
    living, dying = [Bell() for _ in range(2 * ROOM)], [Bell() for _ in range(8 * ROOM)]
    for index, bell in reversed([*enumerate(dying)]):
        if index % 4 == 0:
            wheel.set(living[index // 4].alarm, 5000 + index)
        wheel.set(bell.alarm, 5000.5 + index)
        wheel.drop(bell.alarm)
    assert len(wheel) == 2 * ROOM
    assert len(wheel._slots) <= 6 * ROOM
    clock.pass_to(20000)
    assert [bell.rang for bell in living] == [[5000 + 4 * index] for index in range(2 * ROOM)]


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
def test_an_alarm_that_fails_silences_no_other(clock: Clock, wheel: Wheel, kind: type[BaseException]) -> None:
    """A bug in what one stream looks at must not stop the heartbeats of all."""

    def fail(now: float) -> None:
        raise kind("a bug")

    bad, good, later = Bell(fail), Bell(), Bell()
    wheel.set(bad.alarm, 110)
    wheel.set(good.alarm, 110)
    wheel.set(later.alarm, 120)
    clock.pass_to(200)
    assert [str(error) for error in clock.errors] == ["a bug"]
    assert (bad.rang, good.rang, later.rang) == ([110], [110], [120])
    assert len(wheel) == 0


def test_close(clock: Clock, wheel: Wheel) -> None:
    """After the end nothing rings, and no timer is left or made."""
    bell, dropped = Bell(), Bell()
    wheel.set(bell.alarm, 110)
    wheel.set(dropped.alarm, 110)
    wheel.drop(dropped.alarm)
    wheel.close()
    assert (len(wheel), clock.timers) == (0, [])
    wheel.set(Bell().alarm, 105)
    wheel.set(Bell().alarm, 120)
    clock.pass_to(200)
    assert (bell.rang, clock.wakes, clock.timers) == ([], 0, [])
    Wheel(clock).close()


def test_closed_by_an_alarm(clock: Clock, wheel: Wheel) -> None:
    """Nothing rings even where the end comes while it is about to."""
    victim = Bell()

    def act(now: float) -> float:
        wheel.close()
        return now + 1

    wheel.set(Alarm(act), 110)
    wheel.set(victim.alarm, 110)
    clock.pass_to(110)
    wheel.set(victim.alarm, 120)
    clock.pass_to(200)
    assert (victim.rang, clock.wakes, clock.errors) == ([], 1, [])
    assert (len(wheel), clock.timers) == (0, [])


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_a_real_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The same on the event loops that the sidecar runs on, uvloop's early timers included."""

    async def ring_many() -> None:
        loop = asyncio.get_running_loop()
        wheel, over = Wheel(loop), asyncio.Event()
        bells: dict[float, Bell] = {}
        for index in range(300):
            due = loop.time() + 0.02 + index / 3000
            bells[due] = Bell(lambda now, due=due: look(now, due))  # type: ignore[misc]
            wheel.set(bells[due].alarm, due)
        wheel.set(Alarm(lambda now: over.set()), loop.time() + 0.3)

        def look(now: float, due: float) -> None:
            assert now >= due
            assert loop.time() >= due - TOLERANCE

        await asyncio.wait_for(over.wait(), 30)
        assert [len(bell.rang) for bell in bells.values()] == [1] * 300
        wheel.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ring_many())


# Anything in any order


class AnyAlarms(RuleBasedStateMachine):
    """Alarms that are set, dropped, ring and ring again; the model is when each may and must ring."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.due: dict[Bell, float] = {}
        self.latest: dict[Bell, float] = {}
        self.jumped_to = -math.inf  # the clock's moment behind its last jump: what it skipped may ring then
        self.bells: list[Bell] = []

    @initialize(
        start=st.sampled_from([0.0, 100.0, 31536000.1]), early=st.sampled_from([0.0, 0.0005, EARLIEST])
    )
    def begin(self, start: float, early: float) -> None:
        """A machine may have been up for a year, and its loop's timers be a little early."""
        self.clock.now, self.clock.early = start, early

    @precondition(lambda self: len(self.bells) < 8)
    @rule(period=st.sampled_from([None, None, 0.0, 0.003, 0.3, 1.0, 7.0, 15.0]))
    def make(self, period: float | None) -> None:
        """Make an alarm that rings once, or every so often."""
        bell = Bell()
        bell.again = lambda now: self._rang(bell, now, period)
        self.bells.append(bell)

    def _rang(self, bell: Bell, now: float, period: float | None) -> float | None:
        due, latest = self.due.pop(bell), self.latest.pop(bell)
        assert self.clock.now >= due - TOLERANCE - ROUNDING, "not early"
        assert self.clock.now <= latest or self.clock.now == self.jumped_to, "in time"
        assert due <= now <= max(self.clock.now, latest), "nobody is told that it is early"
        if period is None:
            return None
        self._is_set(bell, max(now + period, now + 2 * GRAIN))
        return now + period

    def _is_set(self, bell: Bell, due: float) -> None:
        self.due[bell] = min(due, self.due.get(bell, due))
        bound = latest(due, self.clock.now)
        self.latest[bell] = min(bound, self.latest.get(bell, bound))

    @precondition(lambda self: self.bells)
    @rule(
        data=st.data(),
        ahead=st.sampled_from(
            [-5.0, 0.0, 0.001, 0.004, 0.02, 1.0, 1.001, 4.99, 5.0, 5.0, 15.0, 40.0, 4000.0]
        ),
    )
    def set(self, data: st.DataObject, ahead: float) -> None:
        """Set an alarm that may be set already."""
        bell = data.draw(st.sampled_from(self.bells))
        due = self.clock.now + ahead
        self.wheel.set(bell.alarm, due)
        self._is_set(bell, due)

    @precondition(lambda self: self.bells)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Drop an alarm, set or not."""
        bell = data.draw(st.sampled_from(self.bells))
        self.bells.remove(bell)
        self.due.pop(bell, None)
        self.latest.pop(bell, None)
        self.wheel.drop(bell.alarm)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.5, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pass_to(self.clock.now + seconds)
        self._nobody_was_left_out()

    @rule(seconds=st.sampled_from([0.001, 0.1, 3.0, 60.0]))
    def jump(self, seconds: float) -> None:
        """Let time pass while the loop is busy."""
        self.jumped_to = self.clock.now + seconds
        self.clock.jump_to(self.jumped_to)
        self._nobody_was_left_out()

    def _nobody_was_left_out(self) -> None:
        assert self.clock.errors == []
        assert all(latest >= self.clock.now for latest in self.latest.values())

    @invariant()
    def one_timer_does_it(self) -> None:
        """As many alarms are set as should be, and there is a timer for the first of them."""
        assert len(self.wheel) == len(self.due)
        assert len(self.clock.timers) <= 1
        if self.due:
            assert self.clock.timers[0].when() <= min(self.latest.values())


AnyAlarms.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
test_any_alarms = AnyAlarms.TestCase
