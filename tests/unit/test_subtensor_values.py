"""The model chain's values against the runtime's own metadata: what memory shows is what the codec would."""

from __future__ import annotations

from typing import Any

import pytest
from bittensor._transport.codec import RuntimeCodec

from tests.support.subtensor.chain import Call, Extrinsic, Subtensor
from tests.support.subtensor.encoding import Runtime
from tests.support.subtensor.metadata import RuntimeKind
from tests.support.subtensor.storage_items import ACCOUNT, STORAGE_ITEMS

NETUID = 9
COLDKEY = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"
HOTKEY = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy"


@pytest.fixture(scope="module")
def codec() -> RuntimeCodec:
    return Runtime(RuntimeKind.FITTING, 461, 12_000).codec


@pytest.fixture(scope="module")
def chain() -> Subtensor:
    """A chain on which everything has happened once."""
    chain = Subtensor(commit_reveal=True)
    chain.fund(COLDKEY, 10)
    chain.enroll(HOTKEY, COLDKEY, stake=5.0, permit=True)
    chain.shield_key(b"\xff" * 1184)
    axon = {"version": 1, "ip": 16_909_060, "port": 80, "ip_type": 4, "protocol": 4}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("SubtensorModule", "serve_axon", {**axon, "placeholder1": 0, "placeholder2": 0}),
        ("Commitments", "set_commitment", {"info": {"fields": [{"Raw2": "0x0a0b"}]}}),
        (
            "SubtensorModule",
            "commit_timelocked_mechanism_weights",
            {"mecid": 0, "commit": "0x0102ff", "reveal_round": 7, "commit_reveal_version": 4},
        ),
    ]
    for nonce, (module, function, params) in enumerate(calls):
        call = Call(module, function, {"netuid": NETUID, **params})
        chain.submit(Extrinsic(call, HOTKEY, nonce, None, f"0x{nonce:064x}"))
    chain.make_block()
    return chain


@pytest.mark.parametrize("item", STORAGE_ITEMS, ids=".".join)
def test_an_item_has_the_keys_and_the_default_of_the_metadata(
    codec: RuntimeCodec, item: tuple[str, str]
) -> None:
    entry, expected = codec.storage_entry(*item), STORAGE_ITEMS[item]
    kinds = [codec.type_name_of(int(each.split("::")[1])) for each in entry.param_types]
    assert [kind == "AccountId32" for kind in kinds] == [key is ACCOUNT for key in expected.keys]
    default = codec.decode(entry.value_type, entry.default_bytes) if entry.modifier == "Default" else None
    assert expected.default == default


@pytest.mark.parametrize("item", sorted(set(STORAGE_ITEMS) - {("System", "Events")}), ids=".".join)
def test_what_is_stored_comes_out_of_the_codec_as_it_went_in(
    codec: RuntimeCodec, chain: Subtensor, item: tuple[str, str]
) -> None:
    entry = codec.storage_entry(*item)
    for _, value in chain.entries(*item):
        assert codec.decode(entry.value_type, codec.encode(entry.value_type, value)) == value


@pytest.mark.parametrize(
    ("method", "netuid"),
    [
        ("get_metagraph", NETUID),
        ("get_metagraph", 77),
        ("get_subnet_hyperparams_v3", NETUID),
        ("get_subnet_hyperparams_v3", 77),
        ("get_next_epoch_start_block", NETUID),
    ],
)
def test_so_do_the_answers_of_runtime_apis(
    codec: RuntimeCodec, chain: Subtensor, method: str, netuid: int
) -> None:
    value = chain.runtime_call("SubnetInfoRuntimeApi", method, [netuid])
    output = codec.runtime_api_map["SubnetInfoRuntimeApi"][method]["output"]
    assert codec.decode(output, codec.encode(output, value)) == value


@pytest.mark.parametrize("method", ["get_neurons", "get_neurons_lite"])
def test_and_the_neurons(codec: RuntimeCodec, chain: Subtensor, method: str) -> None:
    value = chain.runtime_call("NeuronInfoRuntimeApi", method, [NETUID])
    output = codec.runtime_api_map["NeuronInfoRuntimeApi"][method]["output"]
    assert codec.decode(output, codec.encode(output, value)) == value
