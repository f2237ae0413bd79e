"""The comparison itself: what it takes for a difference, and that it finds one."""

from __future__ import annotations

import dataclasses

from tests.conformance.comparison import Comparison
from tests.conformance.suite import Outcome

ECHOED = Outcome(
    verdict="OK",
    close_verdict="OK",
    handshake=("HTTP/1.1 101 Switching Protocols",),
    close=(1000, None),
    ending=(("wasClean", True),),
    frames=((1, True, 0, 5, "hello"), (8, True, 0, 2, "0x03e8")),
    counts=(("1", 1), ("8", 1)),
)
REFRAMED = dataclasses.replace(ECHOED, counts=(("0", 1), ("1", 1), ("8", 1)))


def comparison(*runs: tuple[Outcome | None, Outcome | None]) -> Comparison:
    """A comparison of one case, run so often, with these outcomes alone and through the sidecar."""
    result = Comparison("websockets", ["1.1.1"])
    for alone, through in runs:
        result.add({"1.1.1": alone} if alone else {}, {"1.1.1": through} if through else {}, cases=["1.1.1"])
    return result


def test_equal_outcomes_are_no_difference() -> None:
    """The suite's verdicts, and all the frames, are the same."""
    assert list(comparison((ECHOED, ECHOED)).differences()) == []


def test_another_frame_is_a_difference_whatever_the_verdict() -> None:
    """The suite may be content with both: a message that comes in two frames is still another behaviour."""
    (difference,) = comparison((ECHOED, REFRAMED)).differences()
    assert str(difference) == (
        "1.1.1 (1 of 1 times): counts: (('0', 1), ('1', 1), ('8', 1)), not (('1', 1), ('8', 1))"
    )


def test_a_server_that_cannot_be_reached_is_a_difference() -> None:
    """A case that has no report is not one that was passed."""
    (difference,) = comparison((ECHOED, None)).differences()
    assert str(difference) == "1.1.1 (1 of 1 times): only the echo server alone could be reached"


def test_once_is_enough() -> None:
    """What was seen once through the sidecar and never without it is not forgiven for five good runs."""
    (difference,) = comparison((ECHOED, REFRAMED), *[(ECHOED, ECHOED)] * 5).differences()
    assert difference.frequency == (1, 6)


def test_an_unsteady_server_excuses_what_it_does_itself() -> None:
    """An outcome that the echo server alone had too, in any run, is its own."""
    unsteady = comparison((ECHOED, REFRAMED), (REFRAMED, ECHOED))
    assert list(unsteady.differences()) == []
    assert unsteady.unsteady() == ["1.1.1"]
