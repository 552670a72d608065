"""Links and draws: committed before, reproducible by anyone, and nobody's choice."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from blake3 import blake3

from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec
from validator.core.draw import choose, draw
from validator.core.links import LinkChain, commitment, committed_tip, verify_link
from validator.link_seed import SeedUnreadable, load_or_create_seed

RUN = "ab" * 32
SEED = bytes(range(32))


def receipts(count: int) -> list[Receipt]:
    return [
        Receipt(
            seq=n + 1, epoch=0, step=0, microbatch=n, stage=0, kind=OpKind.FORWARD,
            version=0, output="0" * 64, started=0, ended=0, device="cpu",
        )
        for n in range(count)
    ]  # fmt: skip


def chosen(number: int, audit: AuditSpec, given: list[Receipt], validators: int = 1) -> tuple[Receipt, ...]:
    return choose(blake3(b"%d" % number).digest(), audit, given, validators, certain=False)


# ---- links ------------------------------------------------------------------------------------


def test_each_epochs_link_hashes_to_the_committed_tip() -> None:
    chain = LinkChain(SEED, 5)
    for epoch in range(5):
        assert verify_link(chain.link(epoch), epoch, chain.tip)


def test_a_link_fits_no_other_epoch_and_no_other_tip() -> None:
    chain = LinkChain(SEED, 5)
    assert not verify_link(chain.link(1), 2, chain.tip)
    assert not verify_link(chain.link(1), 0, chain.tip)
    assert not verify_link(chain.link(1), 1, LinkChain(SEED[::-1], 5).tip)
    assert not verify_link("zz", 0, chain.tip)


def test_later_links_do_not_follow_from_earlier_ones_but_earlier_from_later() -> None:
    chain = LinkChain(SEED, 5)
    assert blake3(bytes.fromhex(chain.link(3))).hexdigest() == chain.link(2)


def test_there_is_no_link_after_the_last_epoch() -> None:
    with pytest.raises(ValueError, match="epochs 0 to 4"):
        LinkChain(SEED, 5).link(5)


def test_a_commitment_names_one_run() -> None:
    tip = LinkChain(SEED, 5).tip
    data = commitment(RUN, tip)
    assert len(data) <= 128
    assert committed_tip(data, RUN) == tip
    assert committed_tip(data, "cd" * 32) is None
    assert committed_tip(b"something else", RUN) is None


def test_the_seed_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "links.seed"
    seed = load_or_create_seed(path)
    assert load_or_create_seed(path) == seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_seed_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "links.seed"
    path.write_bytes(b"short")
    with pytest.raises(SeedUnreadable, match="restore it"):
        load_or_create_seed(path)
    assert path.read_bytes() == b"short"


# ---- draws ------------------------------------------------------------------------------------


def test_the_draw_depends_on_everything_it_names() -> None:
    same = draw(RUN, "0x" + "01" * 32, "02" * 32, 3, "miner")
    assert draw(RUN, "01" * 32, "02" * 32, 3, "miner") == same
    others = {
        draw("cd" * 32, "01" * 32, "02" * 32, 3, "miner"),
        draw(RUN, "03" * 32, "02" * 32, 3, "miner"),
        draw(RUN, "01" * 32, "03" * 32, 3, "miner"),
        draw(RUN, "01" * 32, "02" * 32, 4, "miner"),
        draw(RUN, "01" * 32, "02" * 32, 3, "minor"),
    }
    assert len(others | {same}) == 6


def test_one_op_of_each_half_is_drawn() -> None:
    for number in range(50):
        first, second = chosen(number, AuditSpec(), receipts(20))
        assert first.seq <= 10 < second.seq


@pytest.mark.parametrize("validators", [1, 3, 20])
def test_all_validators_together_draw_as_many_ops_whatever_their_number(validators: int) -> None:
    """Each by its own link: 2 of a miner and epoch on average."""
    epochs = 6000 // validators
    drawn = [len(chosen(n, AuditSpec(ops=2), receipts(10), validators)) for n in range(epochs * validators)]
    # Standard deviation below 0.034: five of them.
    assert abs(sum(drawn) / epochs - 2) < 0.17


def test_with_fewer_receipts_than_audits_all_are_drawn() -> None:
    assert [r.seq for r in chosen(1, AuditSpec(), receipts(1))] == [1]
    assert chosen(1, AuditSpec(), []) == ()


def test_every_op_has_the_same_chance() -> None:
    counts = dict.fromkeys(range(1, 11), 0)
    for number in range(4000):
        for receipt in chosen(number, AuditSpec(ops=2), receipts(10)):
            counts[receipt.seq] += 1
    # 800 expected each, standard deviation 25: five of them
    assert all(abs(count - 800) < 130 for count in counts.values()), counts
