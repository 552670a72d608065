"""Signs contacts, and says what is wrong with one. Pure."""

from __future__ import annotations

from iota.identity import signatures
from iota.identity.certificates import Signer, Verify
from iota.identity.signatures import signing_bytes
from iota.protocol.contacts import CONTACT_DOMAIN, CONTACT_S, Contact, SignedContact


def sign_contact(contact: Contact, signer: Signer) -> SignedContact:
    """The contact with its member's signature."""
    message = signing_bytes(CONTACT_DOMAIN, contact.canonical())
    return SignedContact(contact=contact, signature=signer.sign(message).hex())


def contact_fault(
    signed: SignedContact, run: str, now: float, verify: Verify = signatures.verify
) -> str | None:
    """Why nobody is to go by this contact, as the end of a sentence; None for a good one.

    `now` is in Unix seconds.
    """
    contact = signed.contact
    if contact.run != run:
        return "is of another run"
    if contact.expires <= now:
        return "has expired"
    if contact.expires > now + 2 * CONTACT_S:  # clocks may differ
        return f"is valid for longer than {CONTACT_S:g} s"
    message = signing_bytes(CONTACT_DOMAIN, contact.canonical())
    if not verify(message, bytes.fromhex(signed.signature), contact.hotkey):
        return "is not signed by its member"
    return None
