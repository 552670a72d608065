"""Contacts: where a member can be reached, signed by itself, versioned, and valid for a time.

Peers believe a contact by its signature alone; the orchestrator keeps the newest of each member and hands it
to other members (`POST /v1/contacts`).
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from iota.protocol.fields import Hotkey, Signature
from iota.spec import Count, Frozen, Hex32

CONTACT_DOMAIN: Final = "contact/1"
"""Domain of a contact's signature, and the version of its form."""
MAX_CONTACTS: Final = 256
"""Members that one call may ask for."""
MAX_DIRECT: Final = 8
"""Addresses of one kind in a contact."""
CONTACT_S: Final = 600.0
"""Longest time for which a contact may be valid, in seconds from when it is published."""

HostPort = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,100}):[0-9]{1,5}$")]
"""`HOST:PORT`, with an IPv6 address in brackets."""
Relay = Annotated[str, Field(pattern=r"^https?://[!-~]{1,200}$")]
"""The URL of a relay server."""


class IrohContact(Frozen):
    """How a member is dialled over iroh."""

    key: Hex32
    """Its network key (ed25519, public), which is its endpoint's identity."""
    relay: Relay | None = None
    """The relay server that it listens at."""
    addresses: tuple[HostPort, ...] = Field((), max_length=MAX_DIRECT)
    """UDP addresses at which it may be reached without a relay."""


class Contact(Frozen):
    """Where one member of a run can be reached."""

    run: Hex32
    hotkey: Hotkey
    version: Count
    """The larger one of the same hotkey counts: Unix milliseconds when it was made."""
    expires: Annotated[float, Field(gt=0, lt=1e12)]
    """Unix seconds."""
    direct: tuple[HostPort, ...] = Field((), max_length=MAX_DIRECT)
    """TCP addresses of its HTTP server; empty if it takes no connections."""
    certificate: Hex32 | None = None
    """SHA-256 of the certificate (DER) of that server where it speaks TLS; None for plain HTTP."""
    iroh: IrohContact | None = None


class SignedContact(Frozen):
    """A contact with its member's signature over `signing_bytes(CONTACT_DOMAIN, contact.canonical())`."""

    contact: Contact
    signature: Signature


class ContactsRequest(Frozen):
    """POST /v1/contacts: publishes the caller's contact, if there is one, and asks for those of other
    members."""

    contact: SignedContact | None = None
    wanted: tuple[Hotkey, ...] = Field((), max_length=MAX_CONTACTS, fail_fast=True)


class ContactsReply(Frozen):
    """Those of the wanted contacts that are known and valid."""

    contacts: tuple[SignedContact, ...] = Field(max_length=MAX_CONTACTS, fail_fast=True)
