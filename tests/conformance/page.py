"""What the comparisons found, as a page of the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from tests.conformance.comparison import REPETITIONS, Comparison, Seen
from tests.conformance.suite import About, Outcome

_INTRODUCTION = """\
# WebSocket conformance

What [Autobahn's test suite](https://github.com/crossbario/autobahn-testsuite) sees of a WebSocket server, and
what it sees of the same server through a route with `websocket: passthrough`. Nothing may differ: a
pass-through hands on the server's behaviour, the good and the bad.

{result}

The suite is autobahntestsuite {autobahntestsuite}, with autobahn {autobahn}, Twisted {Twisted} and
Python {Python}. `make test-all` makes the comparison, and this page is written by the program that makes it:

```sh
tests/install.sh test-all
.venv/bin/python -m tests.conformance > docs/conformance.md
```
"""

_METHOD = """\
## What is compared

The suite is the client. Each case is one connection, run once at the echo server and once at a sidecar in
front of that server, whose route says `websocket: passthrough` and nothing else. An outcome is all that the
suite reports of a case and that does not depend on the clock:

- its verdict on the behaviour, and its verdict on the end of the connection;
- the status line of the handshake, and the extensions and subprotocol that were agreed to;
- the server's close code and reason, whether the end was clean, and who closed, failed or dropped the
  connection;
- the frames that the server sent: opcode, final and reserved bits, length, the first octets of the payload,
  in order. Of long cases, the suite counts them by opcode, and looks itself at what came back: at its length
  (section 9) or its hash (sections 12 and 13).

The tables show the suite's words: “non-strict” is what it would have liked stricter, “informational” what has
no right or wrong, and a second word, where there is one, is about how the connection ended.

A server may race with itself: whether its echo of one message overtakes its refusal of the next, say. A
case whose outcomes differ is run again at each of the two, at most {repetitions} times. It counts as a
difference if any run through the sidecar had an outcome that the echo server alone never had.
"""


def markdown(about: About, comparisons: Sequence[Comparison]) -> str:
    """Return the page."""
    parts = [_INTRODUCTION.format(result=_result(comparisons), **about.versions)]
    for comparison in comparisons:
        parts += [*_sections(about, comparison), *_differences(comparison), *_blemishes(comparison)]
    parts.append(_METHOD.format(repetitions=REPETITIONS))
    return "\n".join(parts)


def _result(comparisons: Sequence[Comparison]) -> str:
    cases = sum(len(comparison.cases) for comparison in comparisons)
    differing = sum(len(_differing(comparison)) for comparison in comparisons)
    return (
        f"**{cases} comparisons; {differing or 'no'} case{'' if differing == 1 else 's'} with a difference.**"
    )


def _sections(about: About, comparison: Comparison) -> Iterator[str]:
    minutes = max(1, round(comparison.seconds / 60))
    yield f"## Echo server made with {comparison.library} {version(comparison.library)}\n"
    yield f"{len(comparison.cases)} cases, in about {minutes} minute{'' if minutes == 1 else 's'}.\n"
    yield "| section | cases | echo server alone | through the sidecar | different |"
    yield "|---|--:|---|---|--:|"
    for number, name in sorted(about.sections.items()):
        cases = [case for case in comparison.cases if case.split(".")[0] == str(number)]
        if cases:
            alone, through = _verdicts(comparison.alone, cases), _verdicts(comparison.through, cases)
            different = len(_differing(comparison).intersection(cases))
            yield f"| {number} {name} | {len(cases)} | {alone} | {through} | {different} |"
    yield ""


def _differing(comparison: Comparison) -> set[str]:
    return {difference.case for difference in comparison.differences()}


def _verdicts(seen: Seen, cases: Iterable[str]) -> str:
    counts = Counter(_verdict(seen[case]) for case in cases)
    by_count = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{count} {verdict}" for verdict, count in by_count)


def _verdict(outcomes: Iterable[Outcome | None]) -> str:
    """All the words that the suite found for a case."""
    return " or ".join(sorted({_words(outcome) for outcome in outcomes}))


def _words(outcome: Outcome | None) -> str:
    """The suite's word, and the one on the connection's end where that was not as it should be."""
    if outcome is None:
        return "unreached"
    words = [outcome.verdict]
    if outcome.close_verdict not in ("OK", outcome.verdict):
        words.append(outcome.close_verdict)
    return " / ".join(words).lower()


def _differences(comparison: Comparison) -> Iterator[str]:
    if found := list(comparison.differences()):
        yield "Differences:\n"
        yield from (f"- {difference}" for difference in found)
        yield ""
    if unsteady := comparison.unsteady():
        yield f"Cases in which the echo server alone has several outcomes: {', '.join(unsteady)}.\n"


def _blemishes(comparison: Comparison) -> Iterator[str]:
    """Name the echo server's own faults, which a reader might take for the sidecar's."""
    grouped: dict[str, list[str]] = {}
    for case in comparison.cases:
        grouped.setdefault(_verdict(comparison.alone[case]), []).append(case)
    grouped.pop("ok", None)
    if grouped:
        yield "Not ok at the echo server alone:\n"
        yield from (f"- {verdict}: {', '.join(cases)}" for verdict, cases in grouped.items())
        yield ""
