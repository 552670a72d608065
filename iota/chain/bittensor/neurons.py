"""Reads metagraph, weights and commitments as values of `iota.chain.chain`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from bittensor import runtime_api, storage

from iota.chain.bittensor.view import RAO_PER_TAO, BlockView
from iota.chain.chain import Commitment, Endpoint, Neuron, Subnet, WeightsRow
from iota.chain.weight_rules import U16_MAX

_module = storage.SubtensorModule


async def read_subnet(view: BlockView, netuid: int) -> Subnet:
    """The metagraph. Raises BadInput for an unknown subnet."""
    await view.require_subnet(netuid)
    graph = await view.call(runtime_api.SubnetInfoRuntimeApi.get_metagraph, netuid)
    hotkeys = [str(hotkey) for hotkey in graph["hotkeys"]]
    owner = str(graph["owner_hotkey"])
    return Subnet(
        netuid=netuid,
        block=view.block,
        tempo=int(graph["tempo"]),
        owner_uid=hotkeys.index(owner) if owner in hotkeys else None,
        neurons=tuple(_neuron(graph, uid) for uid in range(len(hotkeys))),
        max_uids=int(graph["max_uids"]),
        weights_rate_limit=int(graph["weights_rate_limit"]),
        commit_reveal=bool(graph["commit_reveal_weights_enabled"]),
        weights_version=int(graph["weights_version"]),
        activity_cutoff=int(graph["activity_cutoff"]),
        reveal_tempos=int(graph["commit_reveal_period"]),
    )


async def read_weights(view: BlockView, netuid: int) -> tuple[WeightsRow, ...]:
    """The weights in force, ordered by uid. Raises BadInput for an unknown subnet."""
    await view.require_subnet(netuid)
    rows = {int(uid): _row(row) for uid, row in await view.entries(_module.Weights, netuid)}
    uids = sorted(uid for uid, row in rows.items() if row)
    if not uids:
        return ()
    hotkeys = await view.batch(_module.Keys, [[netuid, uid] for uid in uids])
    updated = await view.query(_module.LastUpdate, netuid)
    return tuple(
        WeightsRow(uid=uid, hotkey=str(hotkey), block=int(updated[uid]), weights=rows[uid])
        for uid, hotkey in zip(uids, hotkeys, strict=True)
    )


async def read_commitment(view: BlockView, netuid: int, hotkey: str) -> Commitment | None:
    """The hotkey's commitment as of the view's block. Raises BadInput for an unknown subnet."""
    await view.require_subnet(netuid)
    record = await view.query(storage.Commitments.CommitmentOf, netuid, hotkey)
    if not record:
        return None
    return Commitment(block=int(record["block"]), data=_raw_bytes(record["info"]["fields"]))


def _neuron(graph: Mapping[str, Any], uid: int) -> Neuron:
    return Neuron(
        uid=uid,
        hotkey=str(graph["hotkeys"][uid]),
        coldkey=str(graph["coldkeys"][uid]),
        stake=int(graph["total_stake"][uid]) / RAO_PER_TAO,
        validator_permit=bool(graph["validator_permit"][uid]),
        incentive=int(graph["incentives"][uid]) / U16_MAX,
        dividends=int(graph["dividends"][uid]) / U16_MAX,
        last_update=int(graph["last_update"][uid]),
        registered_at=int(graph["block_at_registration"][uid]),
        axon=_axon(graph["axons"][uid]),
    )


def _axon(served: Mapping[str, Any]) -> Endpoint | None:
    """The address that a neuron claims; None unless it is an address and a port."""
    port, number = int(served["port"]), int(served["ip"])
    make = ipaddress.IPv6Address if int(served["ip_type"]) == 6 else ipaddress.IPv4Address
    try:
        address = make(number)
    except ValueError:
        return None
    return Endpoint(str(address), port) if number and 0 < port <= U16_MAX else None


def _row(row: Sequence[Sequence[int]] | None) -> dict[int, int]:
    return {int(uid): int(weight) for uid, weight in row or () if int(weight)}


def _raw_bytes(fields: Sequence[Any]) -> bytes:
    """The bytes of the raw fields; other programs may commit hashes and sealed fields, which are skipped."""
    plain = (
        value
        for field in fields
        if isinstance(field, Mapping)
        for kind, value in field.items()
        if str(kind).startswith("Raw")
    )
    return b"".join(bytes.fromhex(str(value).removeprefix("0x")) for value in plain)
