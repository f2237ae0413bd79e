"""The wheel: one timer for all alarms, on a clock that the tests move."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.server.wheel import GRAIN, MAX_DEAD, Alarm, Wheel


class Clock(asyncio.AbstractEventLoop):
    """An event loop's timers, and nothing else; its time stands still until it is moved.

    ``wakes`` counts how often it had to call anybody. It runs its timers as a loop does: what a
    callback raises is caught, and kept in ``errors``.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[asyncio.TimerHandle] = []
        self.wakes = 0
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
        while self.timers and (timer := min(self.timers)).when() <= moment:
            self.timers.remove(timer)
            self.now = max(self.now, timer.when())
            self.wakes += 1
            timer._run()  # what the loop does; a handle has no public way to be run
        self.now = moment


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


def test_alarms_share_a_wake_up(clock: Clock, wheel: Wheel) -> None:
    """Those due within a grain ring together; ten thousand heartbeats are not ten thousand timers."""
    bells = [Bell() for _ in range(1000)]
    for index, bell in enumerate(bells):
        wheel.set(bell.alarm, 110 + index * GRAIN / 1000)
    assert len(clock.timers) == 1
    clock.pass_to(200)
    assert clock.wakes == 1
    assert all(bell.rang == [110] for bell in bells)


def test_a_wake_up_leads_to_one_more(clock: Clock, wheel: Wheel) -> None:
    """Alarms that ring together and look again together need one timer for it."""
    bells = [Bell(lambda now: now + 15 if now < 170 else None) for _ in range(50)]
    for bell in bells:
        wheel.set(bell.alarm, 110)
    clock.pass_to(109)
    clock.pass_to(180)
    assert all(bell.rang == [110, 125, 140, 155, 170] for bell in bells)
    assert clock.wakes == 5


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
    assert (len(wheel), clock.timers) == (0, [])


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
    """A busy server drops alarms all the time whose moment is far: the heap does not keep them."""
    stays = Bell()
    wheel.set(stays.alarm, 5000)
    for _ in range(20 * MAX_DEAD):
        bell = Bell()
        wheel.set(bell.alarm, 6000)
        wheel.drop(bell.alarm)
        assert len(wheel) == 1
        assert len(wheel._heap) <= MAX_DEAD + 2  # no public figure tells of dead entries
    clock.pass_to(7000)
    assert stays.rang == [5000]


def test_few_dead_among_many_are_left_where_they_are(wheel: Wheel) -> None:
    """The heap is not rebuilt for a minority: that would cost more than it frees."""
    living, dying = [Bell() for _ in range(3 * MAX_DEAD)], [Bell() for _ in range(2 * MAX_DEAD)]
    for bell in (*living, *dying):
        wheel.set(bell.alarm, 5000)
    for bell in dying:
        wheel.drop(bell.alarm)
    assert len(wheel) == 3 * MAX_DEAD
    assert len(wheel._heap) == 5 * MAX_DEAD


def test_an_alarm_that_fails_silences_no_other(clock: Clock, wheel: Wheel) -> None:
    """A bug in what one stream looks at must not stop the heartbeats of all."""

    def fail(now: float) -> None:
        raise RuntimeError("a bug")

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


async def test_on_a_real_loop() -> None:
    """The same on the event loop that the sidecar runs on."""
    loop = asyncio.get_running_loop()
    wheel, rang = Wheel(loop), asyncio.Event()
    wheel.set(Alarm(lambda now: rang.set()), loop.time() + 0.01)
    await asyncio.wait_for(rang.wait(), 5)
    wheel.close()


# Anything in any order


class AnyAlarms(RuleBasedStateMachine):
    """Alarms that are set, dropped, ring and ring again; the model is when each is due."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.due: dict[Bell, float] = {}
        self.bells: list[Bell] = []

    @precondition(lambda self: len(self.bells) < 8)
    @rule(period=st.sampled_from([None, None, 0.0, 0.003, 1.0, 7.0]))
    def make(self, period: float | None) -> None:
        """Make an alarm that rings once, or every so often."""
        bell = Bell()
        bell.again = lambda now: self._rang(bell, now, period)
        self.bells.append(bell)

    def _rang(self, bell: Bell, now: float, period: float | None) -> float | None:
        due = self.due.pop(bell)
        assert abs(now - due) <= GRAIN + 1e-9, "in time"
        if period is None:
            return None
        self.due[bell] = max(now + period, now + 2 * GRAIN)
        return now + period

    @precondition(lambda self: self.bells)
    @rule(data=st.data(), ahead=st.sampled_from([0.0, 0.001, 0.004, 0.02, 1.0, 1.001, 5.0, 5.0]))
    def set(self, data: st.DataObject, ahead: float) -> None:
        """Set an alarm that may be set already."""
        bell = data.draw(st.sampled_from(self.bells))
        due = self.clock.now + ahead
        self.wheel.set(bell.alarm, due)
        self.due[bell] = min(due, self.due.get(bell, due))

    @precondition(lambda self: self.bells)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Drop an alarm, set or not."""
        bell = data.draw(st.sampled_from(self.bells))
        self.bells.remove(bell)
        self.due.pop(bell, None)
        self.wheel.drop(bell.alarm)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pass_to(self.clock.now + seconds)
        assert self.clock.errors == []
        assert all(due >= self.clock.now - GRAIN for due in self.due.values()), "nobody was left out"

    @invariant()
    def one_timer_does_it(self) -> None:
        """As many alarms are set as should be, and there is a timer for the first of them."""
        assert len(self.wheel) == len(self.due)
        assert len(self.clock.timers) <= 1
        if self.due:
            assert self.clock.timers[0].when() <= min(self.due.values()) + GRAIN


AnyAlarms.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
test_any_alarms = AnyAlarms.TestCase
