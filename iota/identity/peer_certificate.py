"""A certificate of one process for TLS with peers, who know it by its digest in the process's signed contact.

No authority is asked: what vouches for it is the hotkey under the contact. The key never leaves the process,
but for the moment in which OpenSSL reads it from a file that only this user may read.
"""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "iota-miner")])
_VALID: Final = dt.timedelta(days=3650)
"""Nobody looks at its dates: a contact expires in minutes."""


def make_certificate() -> tuple[ssl.SSLContext, str]:
    """The context of a server with a new certificate, and the SHA-256 (hex) of that certificate's DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(_NAME, _NAME, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as folder:  # a folder of mode 700
        file = Path(folder) / "certificate.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
    return context, sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
