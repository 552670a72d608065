"""Recognises the variables that Kubernetes sets in every container for a service of the same namespace.

A service named `iota-store` gives IOTA_STORE_SERVICE_HOST, IOTA_STORE_SERVICE_PORT, IOTA_STORE_PORT=tcp://...,
IOTA_STORE_PORT_9000_TCP and so on (kubernetes.io/docs/concepts/services-networking/service, "Environment
variables"). They are nobody's settings, also where the name is one of ours.
"""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_PORT_NAME: Final = re.compile(r".+_PORT")
_PORT_VALUE: Final = re.compile(r"(tcp|udp|sctp)://\S+")


def is_service_variable(name: str, value: str) -> bool:
    """Whether a variable (name in upper case) has the form of those for a service."""
    collides = _PORT_NAME.fullmatch(name) is not None and _PORT_VALUE.fullmatch(value) is not None
    return collides or _NAMES.fullmatch(name) is not None
