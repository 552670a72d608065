"""What members and strangers might try on a miner's links, and what that comes to."""

from __future__ import annotations

import pytest

from tests.support.frames import frame_name
from tests.support.peer_ends import contact_of, open_end, signed_frame


@pytest.mark.parametrize("address", ["192.0.2.1:99999", "[....]:80", "a..b:70000", "[::1.2.3.999]:1", "192.0.2.1:0"])
async def test_an_address_that_is_none_sends_frames_by_the_store_and_ends_nobody(address: str) -> None:
    shelf = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf) as bob:
        contact = contact_of(bob.hotkey, 9).contact.model_copy(update={"direct": (address,)})
        alice.book.contacts[bob.hotkey.ss58] = contact
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert list(shelf) == [frame.notice.name]
