"""`register`: the price is shown and agreed to, nothing is paid unawares, and the uid is read back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp.test_utils import TestServer

from iota.chain.chain import Block, ChainInfo, Neuron, RegistrationTerms, Subnet, TxCode, TxResult
from iota.chain.errors import BadInput, RateLimited, Unavailable
from iota.chain.ledger.server import make_app
from iota.console.prompts import TerminalPrompts
from iota.identity.coldkey import Coldkey, coldkey_path, create_coldkey
from iota.identity.keys import Hotkey, WalletLocked, create_hotkey
from iota.protocol.messages import Role
from iota.registration.register import register
from iota.settings import WalletSettings

NETUID = 9
PASSWORD = "correct horse Battery 1"


@dataclass
class Market:
    """A chain that sells places: it charges the coldkey, and shows a uid some reads later."""

    price: float = 0.5
    open: bool = True
    shielded: bool = True
    finality_reads: int = 2
    answers: bool = True
    takes: bool = True
    risen_to: float | None = None
    """The price when the registration arrives, where it is another than the one shown."""
    balances: dict[str, float] = field(default_factory=dict)
    neurons: list[Neuron] = field(default_factory=list)
    reads_left: int = 0
    refusal: TxResult | None = None

    def connect(self, network: str, hotkey: Hotkey | None = None, *, coldkey: Coldkey | None = None) -> Any:
        return Seller(self, hotkey, coldkey)


@dataclass
class Seller:
    market: Market
    hotkey: Hotkey | None
    coldkey: Coldkey | None

    async def info(self) -> ChainInfo:
        return ChainInfo("test", "market", "spec 1", "0x00", 0.001, (NETUID,), False, "later", 50)

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        found = (await self.subnet(netuid)).neuron(hotkey)
        if found is None:
            return None
        self.market.reads_left -= 1
        return found.uid if self.market.reads_left <= 0 else None

    async def subnet(self, netuid: int) -> Subnet:
        block = Block(1, "0x01", 0.0)
        return Subnet(netuid, block, 360, None, tuple(self.market.neurons), 256, 100, False, 0, 5000)

    async def registration_terms(self, netuid: int) -> RegistrationTerms:
        return RegistrationTerms(
            self.market.open, self.market.price, self.market.shielded, needs_coldkey=True
        )

    async def balance(self, address: str) -> float:
        return self.market.balances.get(address, 0.0)

    async def register(
        self, netuid: int, role: Role = Role.MINER, *, max_cost_tao: float | None = None
    ) -> TxResult:
        assert self.hotkey is not None
        assert self.coldkey is not None
        price = self.market.price if self.market.risen_to is None else self.market.risen_to
        if max_cost_tao is not None and price > max_cost_tao:
            raise BadInput(f"the price is {price} TAO now, above {max_cost_tao}")
        if self.market.refusal is not None:
            return self.market.refusal
        if self.market.takes:
            self.market.balances[self.coldkey.ss58] -= price
            uid = len(self.market.neurons)
            self.market.neurons.append(
                Neuron(uid, self.hotkey.ss58, self.coldkey.ss58, 0.0, False, 0.0, 0.0, 1, 1)
            )
            self.market.reads_left = self.market.finality_reads
        if not self.market.answers:
            raise Unavailable("the connection broke", fate_unknown=True)
        return TxResult(True, TxCode.OK, None, "", 2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


@dataclass
class Owner:
    """A person who answers, and remembers what they were told."""

    yes: bool = True
    secret: str = PASSWORD
    told: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def show(self, text: str) -> None:
        self.told.append(text)

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.yes

    def password(self, path: Path) -> str:
        return self.secret


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WalletSettings:
    monkeypatch.chdir(tmp_path)
    create_hotkey("w", "h", tmp_path)
    return WalletSettings.load(wallet_name="w", wallet_hotkey="h", wallet_path=tmp_path, network="test")


@pytest.fixture
def coldkey(settings: WalletSettings) -> str:
    return create_coldkey("w", settings.wallet_path, PASSWORD)[0].ss58


async def test_the_terms_are_shown_agreed_to_and_paid_once(settings: WalletSettings, coldkey: str) -> None:
    market, owner = Market(balances={coldkey: 2.0}), Owner()
    said = await register(settings, Role.MINER, owner, connect=market.connect)
    hotkey = market.neurons[0].hotkey
    assert said == f"{hotkey} is uid 0 of subnet {NETUID}"
    shown = "\n".join(owner.told)
    for part in ("test", hotkey, coldkey, "0.5000 TAO", "hidden until", "2.0000 TAO", "1.5000 would remain"):
        assert part in shown
    wallet = f"--wallet.name w --wallet.hotkey h --wallet.path {settings.wallet_path}"
    assert f"{wallet} --network test --netuid 9`" in owner.told[-1]
    assert owner.questions == ["Pay 0.5000 TAO (at most 0.5500), for good?"]
    assert market.balances[coldkey] == 1.5


async def test_a_second_time_says_the_uid_and_asks_and_pays_nothing(
    settings: WalletSettings, coldkey: str
) -> None:
    market = Market(balances={coldkey: 2.0})
    first = await register(settings, Role.MINER, Owner(), connect=market.connect)
    again = Owner()
    assert await register(settings, Role.MINER, again, connect=market.connect) == first
    assert (again.questions, market.balances[coldkey]) == ([], 1.5)
    assert again.told[0].startswith("next: ")


async def test_a_price_that_rises_past_the_tolerance_is_not_paid(
    settings: WalletSettings, coldkey: str
) -> None:
    market = Market(balances={coldkey: 2.0}, risen_to=0.56)
    with pytest.raises(BadInput, match="price"):
        await register(settings, Role.MINER, Owner(), connect=market.connect)
    market = Market(balances={coldkey: 2.0}, risen_to=0.54)
    await register(settings, Role.MINER, Owner(), connect=market.connect)
    assert market.balances[coldkey] == pytest.approx(1.46)


@pytest.mark.parametrize(
    ("market", "max_burn", "owner", "message"),
    [
        (Market(open=False), None, Owner(), "is closed"),
        (Market(), 0.4, Owner(), r"above --max-burn 0\.4: nothing was sent"),
        (Market(), None, Owner(yes=False), "nothing was sent"),
        (Market(price=3.0), None, Owner(), "send TAO to {coldkey}"),
        (Market(price=2.0), None, Owner(), "for fees are needed: send TAO to {coldkey}"),
    ],
)
async def test_what_stands_against_it_is_said_and_nothing_is_paid(
    settings: WalletSettings, coldkey: str, market: Market, max_burn: float | None, owner: Owner, message: str
) -> None:
    market = replace(market, balances={coldkey: 2.0})
    with pytest.raises(ValueError, match=message.format(coldkey=coldkey)):
        await register(settings, Role.MINER, owner, max_cost_tao=max_burn, connect=market.connect)
    assert market.balances[coldkey] == 2.0


async def test_a_wrong_password_pays_nothing(settings: WalletSettings, coldkey: str) -> None:
    market = Market(balances={coldkey: 2.0})
    with pytest.raises(WalletLocked, match="does not open"):
        await register(settings, Role.MINER, Owner(secret="wrong"), connect=market.connect)
    assert market.balances[coldkey] == 2.0


@pytest.mark.parametrize("public_half", [True, False])
async def test_a_coldkey_elsewhere_is_sent_to_btcli_there(
    settings: WalletSettings, coldkey: str, public_half: bool
) -> None:
    path = coldkey_path("w", settings.wallet_path)
    path.unlink()
    if not public_half:
        path.with_name("coldkeypub.txt").unlink()
    owner = Owner()
    command = r"btcli subnets register --network test --netuid 9 --hotkey \w+ --wallet w`"
    with pytest.raises(ValueError, match=command):
        await register(settings, Role.MINER, owner, connect=Market(balances={coldkey: 2.0}).connect)
    assert "0.5000 TAO" in owner.told[0]
    assert (coldkey in owner.told[0]) is public_half
    assert owner.questions == []


async def test_where_btcli_refuses_the_hotkey_goes_to_the_coldkey(
    settings: WalletSettings, coldkey: str
) -> None:
    coldkey_path("w", settings.wallet_path).unlink()
    market = Market(shielded=False, balances={coldkey: 2.0})
    with pytest.raises(ValueError, match=r"run there `iota-miner register --network test --netuid 9`"):
        await register(settings, Role.MINER, Owner(), connect=market.connect)


async def test_without_the_public_half_the_coldkey_itself_tells_its_address(
    settings: WalletSettings, coldkey: str
) -> None:
    coldkey_path("w", settings.wallet_path).with_name("coldkeypub.txt").unlink()
    market = Market(balances={coldkey: 2.0})
    await register(settings, Role.MINER, Owner(), connect=market.connect)
    assert market.balances[coldkey] == 1.5


async def test_a_public_half_of_another_coldkey_is_noticed(settings: WalletSettings, coldkey: str) -> None:
    other = create_coldkey("other", settings.wallet_path, PASSWORD)[0].ss58
    theirs = coldkey_path("other", settings.wallet_path).with_name("coldkeypub.txt")
    coldkey_path("w", settings.wallet_path).with_name("coldkeypub.txt").write_bytes(theirs.read_bytes())
    market = Market(balances={coldkey: 2.0, other: 2.0})
    with pytest.raises(ValueError, match="restore the one that is wrong"):
        await register(settings, Role.MINER, Owner(), connect=market.connect)
    assert market.balances == {coldkey: 2.0, other: 2.0}


async def test_a_registration_whose_fate_is_unknown_is_looked_up(
    settings: WalletSettings, coldkey: str
) -> None:
    market = Market(balances={coldkey: 2.0}, answers=False)
    assert "uid 0" in await register(settings, Role.MINER, Owner(), connect=market.connect)
    assert market.balances[coldkey] == 1.5


async def test_a_registration_that_never_lands_is_given_up_in_bounded_time(
    settings: WalletSettings, coldkey: str
) -> None:
    market = Market(balances={coldkey: 2.0}, answers=False, takes=False)
    with pytest.raises(Unavailable, match="does not pay twice"):
        await register(settings, Role.MINER, Owner(), connect=market.connect)


async def test_who_interrupts_a_registration_hears_that_it_may_land(
    settings: WalletSettings, coldkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = asyncio.Event()

    async def hangs(*arguments: Any, **options: Any) -> TxResult:
        sent.set()
        return await asyncio.Future()

    monkeypatch.setattr(Seller, "register", hangs)
    owner = Owner()
    market = Market(balances={coldkey: 2.0})
    task = asyncio.create_task(register(settings, Role.MINER, owner, connect=market.connect))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "may still take the registration" in owner.told[-1]


async def test_a_refusal_keeps_its_kind(settings: WalletSettings, coldkey: str) -> None:
    refusal = TxResult(False, TxCode.RATE_LIMITED, "TooManyRegistrationsThisBlock", "wait", None)
    with pytest.raises(RateLimited, match="TooManyRegistrationsThisBlock"):
        await register(
            settings,
            Role.MINER,
            Owner(),
            connect=Market(balances={coldkey: 2.0}, refusal=refusal).connect,
        )


async def test_a_validator_hears_how_much_stake_a_permit_takes(
    settings: WalletSettings, coldkey: str
) -> None:
    others = [
        Neuron(n, Hotkey.generate().ss58, coldkey, stake, permit, 0.0, 0.0, 1, 1)
        for n, (stake, permit) in enumerate([(900.0, True), (120.5, True), (3.0, False)])
    ]
    owner = Owner()
    market = Market(balances={coldkey: 2.0}, neurons=others)
    await register(settings, Role.VALIDATOR, owner, connect=market.connect)
    assert "the least stake with one is 120.5" in owner.told[-1]
    assert "btcli stake add --network test --netuid 9 --hotkey" in owner.told[-1]


def test_nobody_at_a_terminal_must_have_agreed_before(
    settings: WalletSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 - pytest puts its own back
    with pytest.raises(ValueError, match="--yes"):
        TerminalPrompts(settings).confirm("Pay?")
    assert TerminalPrompts(settings, yes=True).confirm("Pay?")
    with pytest.raises(ValueError, match="BT_WALLET_PASSWORD_FILE"):
        TerminalPrompts(settings).password(Path("coldkey"))


def test_the_password_comes_from_the_environment_as_for_btcli(
    settings: WalletSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    monkeypatch.setenv("BT_WALLET_PASSWORD_FILE", str(tmp_path / "secret"))
    assert TerminalPrompts(WalletSettings.load()).password(Path("coldkey")) == "from the file"
    monkeypatch.setenv("BT_WALLET_PASSWORD_FILE", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"gone cannot be read .*BT_WALLET_PASSWORD_FILE"):
        TerminalPrompts(WalletSettings.load()).password(Path("coldkey"))
    monkeypatch.setenv("BT_WALLET_PASSWORD", "of the environment")
    given = WalletSettings.load()
    assert TerminalPrompts(given).password(Path("coldkey")) == "of the environment"
    assert "of the environment" not in repr(given)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[str]:
    async with TestServer(make_app(tmp_path / "ledger.db", netuid=NETUID)) as server:
        yield str(server.make_url("/"))


@pytest.mark.parametrize("role", ["miner", "validator"])
async def test_the_embedded_ledger_asks_for_no_coldkey_and_no_agreement(
    settings: WalletSettings, ledger: str, role: str
) -> None:
    """The real command, without a terminal."""
    flags = ["--network", ledger, "--wallet.name", "w", "--wallet.hotkey", "h"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{role}.cli", "register", *flags),
        *("--wallet.path", str(settings.wallet_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    stdout, stderr = await done.communicate()
    address = json.loads((settings.wallet_path / "w/hotkeys/h").read_text())["ss58Address"]
    assert (done.returncode, stdout.decode()) == (0, f"{address} is uid 1 of subnet {NETUID}\n"), stderr
    assert f"iota-{role} start" in stderr.decode()
