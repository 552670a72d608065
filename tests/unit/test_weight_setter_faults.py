"""Weights through everything that a chain can do to them: said once, waited out, and set when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iota.chain import Incompatible, KeyUnavailable, TxCode, TxResult, Unavailable, open_chain
from iota.protocol.messages import Role
from tests.support.weight_benches import BLOCK_S, KEY, MINERS, NETUID, TEMPO, bench

HOUR = 3600 // BLOCK_S


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if text in r.getMessage()]


async def test_an_outage_of_an_hour_is_ridden_out_with_the_last_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with bench(tmp_path) as b:
        await b.go(3)
        await b.stop()
        await b.go(2 * TEMPO)
        b.pauses.clear()
        await b.go(HOUR)
        assert {BLOCK_S <= pause <= 60 for pause in b.pauses} == {True}
        assert 6 <= len(said(caplog, "no ledger answers")) <= 8
        await b.serve()
        taken = len(b.chain.accepted)
        await b.go(10)
        assert len(b.chain.accepted) == taken + 1
        assert len(said(caplog, "weights cannot be set: over after")) == 1
        assert b.states[-1] == "in force"


async def test_an_outage_in_the_middle_of_a_write_doubles_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:

        async def breaks(*arguments: Any) -> Any:
            b.chain.instead.clear()
            await b.chain.send(*arguments)
            await b.stop()
            raise Unavailable("the connection broke", fate_unknown=True)

        b.chain.instead["set_weights"] = breaks
        await b.go(HOUR)
        assert len(b.chain.accepted) == 1
        assert b.states == ["planned"]
        await b.serve()
        await b.go(10)
        assert b.states[0] == "in force"
        assert len({block // TEMPO for block in b.chain.accepted}) == len(b.chain.accepted) == 2


async def _rate_limited(*arguments: Any) -> TxResult:
    return TxResult(False, TxCode.RATE_LIMITED, "SettingWeightsTooFast", "too soon", None)


async def _without_key(*arguments: Any) -> TxResult:
    raise KeyUnavailable("this connection has no hotkey")


async def _drifted(*arguments: Any) -> TxResult:
    raise Incompatible("the runtime is 300, and the SDK knows 299")


async def _unsent(*arguments: Any) -> TxResult:
    raise Unavailable("no node answers")


@pytest.mark.parametrize(
    ("fault", "text", "state"),
    [
        (_rate_limited, "SettingWeightsTooFast", "refused"),
        (_without_key, "no hotkey", "unsent"),
        (_unsent, "no node answers", "unsent"),
        (_drifted, "the SDK knows 299", "unsent"),
    ],
)
async def test_a_write_that_fails_is_told_seldom_and_repeated_at_growing_pauses(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[..., Any],
    text: str,
    state: str,
) -> None:
    async with bench(tmp_path) as b:
        b.chain.instead["set_weights"] = fault
        await b.go(HOUR)
        assert b.chain.attempts <= 70
        assert 3 <= len(said(caplog, text)) <= 8
        assert set(b.states[:-1]) == {state}
        b.chain.instead.clear()
        await b.to_next_tempo()
        await b.go(10)
        assert b.states[-1] == "in force"
        assert len({block // TEMPO for block in b.chain.accepted}) == len(b.chain.accepted)


async def test_a_registration_that_comes_late_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, registered=False) as b:
        await b.go(HOUR)
        assert b.chain.attempts == 0
        assert 6 <= len(said(caplog, "run `iota-validator register`")) <= 8
        async with open_chain(str(b.chain.chain._url), KEY) as chain:  # type: ignore[attr-defined]
            (await chain.register(NETUID, Role.VALIDATOR)).check()
        await b.go(20)
        assert b.states[-1] == "in force"


async def test_a_permit_that_comes_back_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as b:
        await b.set_stake(0)
        await b.go(HOUR)
        assert b.chain.attempts == 0
        assert 6 <= len(said(caplog, "no validator permit on subnet 9: it needs more stake")) <= 8
        await b.set_stake(1000)
        await b.go(10)
        assert b.states[-1] == "in force"


async def test_a_row_that_cannot_be_read_stops_no_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as b:

        async def unreadable(netuid: int) -> Any:
            raise Incompatible("weights in a form that nobody knows")

        b.chain.instead["weights"] = unreadable
        await b.go(4 * TEMPO)
        assert len(b.chain.accepted) >= 4
        assert len(said(caplog, "weights cannot be read back: ")) == 1
        b.chain.instead.clear()
        await b.go(2)
        assert "landed" not in b.states


async def test_a_node_that_stands_still_is_told_and_the_tempos_after_it_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with bench(tmp_path) as b:
        await b.go(3)
        for name, seen in {
            "subnet": await b.chain.chain.subnet(NETUID),
            "epoch_status": await b.chain.chain.epoch_status(NETUID),
            "head": await b.chain.chain.head(),
        }.items():
            b.chain.instead[name] = answering(seen)
        await b.go(40)
        assert not said(caplog, "the chain stands still")
        await b.go(HOUR)
        assert 3 <= len(said(caplog, "--subtensor.chain_endpoint")) <= 8
        b.chain.instead.clear()
        taken = len(b.chain.accepted)
        await b.go(10)
        assert len(b.chain.accepted) == taken + 1
        assert len(said(caplog, "the chain stands still: over after")) == 1


async def test_nothing_is_sent_over_a_head_that_is_far_ahead_of_the_final_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plan over a head that never comes would be open for ever, also after the node is replaced."""
    async with bench(tmp_path) as b:
        b.chain.instead["head"] = answering(replace(await b.chain.chain.head(), number=2**31))
        await b.go(TEMPO)
        assert b.chain.attempts == 0
        assert said(caplog, "a write lives no longer")
        b.chain.instead.clear()
        await b.go(10)
        assert b.states == ["in force"]


async def test_a_uid_that_changed_hands_before_the_weights_landed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as b:
        await b.go(1)
        loser = (await b.chain.chain.subnet(NETUID)).neuron(MINERS[1].ss58)
        assert loser is not None

        async def pruned(netuid: int) -> Any:
            subnet = await b.chain.chain.subnet(netuid)
            newcomer = replace(loser, hotkey="newcomer", registered_at=b.chain.accepted[-1])
            neurons = tuple(newcomer if n.uid == loser.uid else n for n in subnet.neurons)
            return replace(subnet, neurons=neurons)

        b.chain.instead["subnet"] = pruned
        await b.go(10)
        assert b.states[-1] == "in force"
        assert len(said(caplog, f"uid {loser.uid} changed hands before they landed")) == 1


def answering(value: Any) -> Callable[..., Any]:
    async def answer(*arguments: Any) -> Any:
        return value

    return answer
