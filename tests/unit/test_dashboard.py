"""The dashboard on real sizes of screens: everything that matters is there, and nothing is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from iota.simulate.names import fake_hotkey
from iota.swarm.chart import loss_chart
from iota.swarm.display import Dashboard, Lines, display_on
from iota.swarm.members import bottleneck
from iota.swarm.progress import Progress
from iota.swarm.view import Shown, line, page
from tests.support.screens import FOLDER, screen, screens
from tests.support.statuses import names_of, run_status

SIZES = [(80, 24), (200, 24), (200, 50), (100, 30)]


@pytest.mark.parametrize("name", screens())
def test_a_screen_is_as_it_was_captured(name: str) -> None:
    assert screens()[name] == (FOLDER / name).read_text()
    assert "…" not in screens()[name]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("members", [0, 1, 3, 7, 48])
def test_a_page_fits_its_screen(width: int, height: int, members: int) -> None:
    status = run_status(members, waiting="stage 1 is loading its base") if members else run_status(3)
    rows = screen(status, width, height).splitlines()
    assert len(rows) < height
    assert max(map(len, rows)) <= width
    assert "…" not in "".join(rows)


@pytest.mark.parametrize("members", [3, 7])
def test_every_member_is_on_the_smallest_screen(members: int) -> None:
    status = run_status(members)
    shown = screen(status, 80, 24)
    for hotkey, name in names_of(status).items():
        assert name in shown
        assert hotkey[:8] in shown


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_owners_stand_beside_their_workers_and_nowhere_else(width: int, height: int) -> None:
    status = run_status(3)
    owner = fake_hotkey(77)
    status["members"][1] |= {"owner": owner, "revoked": True, "live": False}
    status["weights"] = {status["members"][-1]["hotkey"]: {owner: 0.25}}
    rows = screen(status, width, height).splitlines()
    (worker,) = [row for row in rows if owner[:8] in row]
    assert fake_hotkey(1)[:8] in worker
    assert "revoked" in worker
    assert "0.250" in worker
    assert any("weights by 1 validator, each row its owner's" in row for row in rows)
    assert max(map(len, rows)) <= width
    assert "…" not in "".join(rows)
    assert "owner" not in screen(run_status(3), width, height)


def test_every_member_of_many_comes_on_one_of_the_pages() -> None:
    status = run_status(48)
    pages = [screen(status, 80, 24, number) for number in range(6)]
    assert all(any(name in shown for shown in pages) for name in names_of(status).values())
    assert "members 1-9 of 49, page 1 of 6" in pages[0]
    assert pages[0] == screen(status, 80, 24, 6)


def test_members_of_a_run_that_has_ended_have_ended_but_for_lost_ones() -> None:
    status = run_status(phase="finished", finished=True)
    status["members"][1]["live"] = False
    rows = [row for row in screen(status, 80, 24).splitlines() if row[:2] in ("0 ", "1 ", "2 ", "va")]
    assert ["lost" if "lost" in row else "ended" for row in rows] == ["ended", "lost", "ended", "ended"]
    assert sum("ended" in row for row in rows) == 3


def test_lost_and_late_members_are_named_on_every_page() -> None:
    status = run_status(48)
    status["members"][40]["live"] = False
    status["members"][41]["stalled"] = True
    for number in range(6):
        assert "lost or late: miner-40, miner-41" in screen(status, 80, 24, number)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_a_person_asks_for_is_on_the_page(width: int, height: int) -> None:
    shown = screen(run_status(3), width, height)
    asked = [
        "epoch 1 (last: 2) step 12/20", "95 s left", "loss 2.5539", "held-out 3.6100", "8,123 tokens/s",
        "bottleneck: stage 1 (works 86%)", "▲", "●", "RTX 4090", "2+ 1-", "0.333", "61%",
        "audits 6+ 1-", "missed a deadline",
    ]  # fmt: skip
    for text in asked:
        assert text in shown


def test_no_colour_is_needed_and_none_is_sent_where_none_is_wanted() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, no_color=True, width=80, height=24)
    console.print(page(run_status(3), Shown(speed=1.0), 80, 23))
    assert "\x1b[3" not in file.getvalue()


def test_a_merge_and_its_held_out_loss_stand_at_the_same_step() -> None:
    rows = str(loss_chart([5.0, 4.0, 3.0, 2.0], 12, 6, merges=[2], heldout={0: 5.0, 2: 3.9})).splitlines()
    axis = next(row for row in rows if "▲" in row)
    assert axis.index("▲") == 8 + 1
    assert [row.index("●") for row in rows if "●" in row] == [8, 9]


def test_the_axis_says_the_first_and_the_last_step() -> None:
    rows = str(loss_chart([5.0 - i / 1000 for i in range(3000)], 48, 8, first=500)).splitlines()
    assert {len(row) for row in rows} == {48}
    assert rows[-1].split()[0] == "501"
    assert rows[-1].split()[-1] == "3500"


def test_a_falling_loss_falls_on_the_chart() -> None:
    rows = str(loss_chart([5.0, 4.0, 3.0, 2.0], 12, 6)).splitlines()[:4]
    heights = [sum(row[8 + column] == "█" for row in rows) for column in range(4)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 4


def test_the_stage_that_waits_least_is_the_bottleneck() -> None:
    assert bottleneck(run_status(6)) == (1, pytest.approx(62 / 72))
    assert bottleneck(run_status(2, stages=1)) is None


def console(*, terminal: bool, term: str = "xterm") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), force_terminal=terminal, width=80, height=24,
                   _environ={"TERM": term})  # fmt: skip


def test_a_page_is_drawn_only_where_the_cursor_moves() -> None:
    assert isinstance(display_on(console(terminal=True), {}), Dashboard)
    assert isinstance(display_on(console(terminal=True, term="dumb"), {}), Lines)
    assert isinstance(display_on(console(terminal=False), {}), Lines)


@pytest.mark.parametrize("finished", [True, False])
def test_the_page_of_an_ended_run_stays_and_another_goes(finished: bool) -> None:
    shown, progress = console(terminal=True), Progress(began=0.0)
    with Dashboard(shown) as dashboard:
        progress.observe(1.0, {**run_status(3), "finished": finished})
        dashboard.show(1.0, progress)
        shown.file.flush()
        before = len(shown.file.buffer.getvalue())  # type: ignore[attr-defined]
    shown.file.flush()
    ended = shown.file.buffer.getvalue()[before:]  # type: ignore[attr-defined]
    assert ended.endswith(b"\x1b[2K") is not finished, "the page is drawn once more, and erased at the end"


def test_lines_come_at_once_for_what_is_new_and_else_each_half_minute() -> None:
    file = io.StringIO()
    lines, progress = Lines(Console(file=file, width=80)), Progress(began=0.0)

    def said(now: float, **changes: object) -> int:
        progress.observe(now, run_status(3, **changes))
        lines.show(now, progress)
        return len(file.getvalue().splitlines())

    assert said(0.0, losses=[]) == 1
    assert said(1.0) == 2  # the first loss
    assert said(2.0) == 2
    assert said(31.5) == 3
    assert said(32.0, phase="merging") == 4
    assert said(33.0, waiting="validator 5x still audits epoch 0, for 60 s at most") == 5
    assert said(34.0, waiting="validator 5x still audits epoch 0, for 59 s at most") == 5
    assert "\x1b" not in file.getvalue()
    assert file.getvalue().isascii()


def test_a_line_says_what_a_page_says() -> None:
    shown = line(run_status(3), 8123.0, 95.0)
    for text in (
        "epoch 1 (last: 2) step 12/20",
        "loss 2.5539",
        "held-out 3.6100",
        "8,123 tokens/s",
        "95 s left",
    ):
        assert text in shown


def test_no_text_of_a_member_commands_the_terminal_or_is_read_as_markup() -> None:
    evil = "\x1b[2J\u202e[red]x"
    status = run_status(3, waiting=evil, name=evil, named=[evil])
    status["members"][0]["device"] = evil
    status["nodes"][status["members"][0]["hotkey"]]["state"] = evil
    status["verdicts"][0]["reason"] = evil
    shown = screen(status, 200, 50)
    assert all(row.isprintable() for row in shown.split("\n"))
    assert shown.count("[red]x") == 6
    assert line(status, 1.0).isprintable()
