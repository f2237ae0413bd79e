"""The doctor at real chains: it names what is broken, and finds no fault with what is not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from proxy.demo import start_provider
from tests.doctor.chains import BROKEN, GOOD, SENDERS, Chain
from tests.doctor.examination import Examined, examine
from tests.doctor.page import promised, rows

#: Chains that are examined at once: on two cores, more would make events late by themselves.
AT_ONCE = 4

#: How often the good ones are examined on a busy machine.
ROUNDS = 3

#: In the order of the tests.
ALL = (*BROKEN, *GOOD, *SENDERS)

every = pytest.mark.asyncio(loop_scope="module")


class Practice:
    """Lets the doctor examine chains in front of one provider, only some of them at once."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._free = asyncio.Semaphore(AT_ONCE)

    async def examine(self, chain: Chain) -> Examined:
        """Examine one, when its turn comes."""
        async with self._free:
            return await examine(chain, self._provider)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def practice() -> AsyncIterator[Practice]:
    """A practice, and the demo's provider."""
    provider = await start_provider()
    yield Practice(provider.url)
    await provider.close()


class Verdicts:
    """What the doctor says of each chain.

    Whoever asks for one, lets the next ones begin as well: chains spend their time waiting. All of them at
    once would be examined by every process that runs only some of the tests.
    """

    def __init__(self, practice: Practice) -> None:
        self._practice = practice
        self._begun: dict[str, asyncio.Task[Examined]] = {}

    async def on(self, chain: Chain) -> Examined:
        """Wait for what it says of this one."""
        place = ALL.index(chain)
        for each in ALL[place : place + 2 * AT_ONCE]:
            if each.name not in self._begun:
                examining = asyncio.create_task(self._practice.examine(each), name=each.name)
                self._begun[each.name] = examining
        return await self._begun[chain.name]

    async def leave(self) -> None:
        """Examine no more."""
        for task in self._begun.values():
            task.cancel()
        await asyncio.gather(*self._begun.values(), return_exceptions=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def verdicts(practice: Practice) -> AsyncIterator[Verdicts]:
    """Verdicts on all chains, as the tests ask for them."""
    verdicts = Verdicts(practice)
    yield verdicts
    await verdicts.leave()


def named(chain: Chain) -> str:
    """Return a test's id."""
    return chain.name.replace("`", "").replace(" ", "-")


@every
@pytest.mark.parametrize("chain", BROKEN, ids=named)
async def test_a_broken_chain_is_named(chain: Chain, verdicts: Verdicts) -> None:
    """The right check finds it, its mend is the right one, and no other check finds what is not there."""
    examined = await verdicts.on(chain)
    assert not examined.complaint, f"{examined.complaint}\n{examined.told()}"


@every
@pytest.mark.parametrize("chain", [*GOOD, *SENDERS], ids=named)
async def test_a_good_chain_is_left_in_peace(chain: Chain, verdicts: Verdicts) -> None:
    """No fault, no warning, exit status 0, whatever its sender is like."""
    examined = await verdicts.on(chain)
    assert not examined.complaint, f"{examined.complaint}\n{examined.told()}"


def test_the_page_shows_these_chains() -> None:
    """docs/doctor.md has a row for each, with its fault and the check that finds it; a run wrote the rest."""
    told = rows()
    assert [row[: len(promised(chain))] for row, chain in zip(told, ALL, strict=True)] == [
        promised(chain) for chain in ALL
    ]
    assert all(all(row) for row in told)


@every
@pytest.mark.long
async def test_a_busy_machine_is_no_fault(practice: Practice) -> None:
    """While both cores are busy with something else, good chains stay good, time after time."""
    chains = [chain for _ in range(ROUNDS) for chain in (*GOOD, *SENDERS)]
    async with busy(2):
        examined = await asyncio.gather(*map(practice.examine, chains))
    complaints = [f"{each.chain.name}: {each.complaint}" for each in examined if each.complaint]
    assert not complaints, "\n".join(complaints)


@asynccontextmanager
async def busy(processes: int) -> AsyncIterator[None]:
    """Keep so many cores busy."""
    spin = (sys.executable, "-c", "while True: pass")
    spinning = [await asyncio.create_subprocess_exec(*spin) for _ in range(processes)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            await each.wait()
