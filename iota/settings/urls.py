"""URLs as people write them: normalised, or refused in a sentence."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

_HTTP: Final = ("http", "https")
_CHAIN: Final = ("ws", "wss", *_HTTP)
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?", re.IGNORECASE)
HTTP_FORM: Final = "give http://HOST:PORT or https://HOST"


def http_url(text: str) -> str:
    """An http(s) URL without white space around it, with lower-case scheme and host, and no slash at the end.

    Raises:
        ValueError: it is none, or has a user, a query or a fragment.
    """
    parts = _parts(text, _HTTP, HTTP_FORM)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"it has a user or password in it: {HTTP_FORM}")
    if parts.query or parts.fragment:
        raise ValueError(f"it has a '?' or '#' in it: {HTTP_FORM}")
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


def network(text: str) -> str:
    """The name of a network, or the URL of a chain node or ledger; without white space around it.

    A user, path and query stay as they are: providers of chain nodes put keys there.

    Raises:
        ValueError: it looks like a URL and is none.
    """
    name = text.strip()
    if not name or re.search(r"[\s/:]", name) is None:
        return name
    parts = _parts(name, _CHAIN, "give finney, test, local, or the ws://, wss:// or http:// URL of a node")
    return urlunsplit((parts.scheme, *parts[1:]))


def store_url(text: str) -> str:
    """The URL of an object store: `http_url` for an embedded one, or s3://BUCKET/PREFIX?endpoint=URL.

    Raises:
        ValueError: it is neither.
    """
    form = "give http://HOST:PORT (embedded) or s3://BUCKET/PREFIX"
    parts = _parts(text, (*_HTTP, "s3"), form)
    return http_url(text) if parts.scheme in _HTTP else urlunsplit((parts.scheme, *parts[1:]))


def host_port(text: str) -> str:
    """`HOST:PORT` without white space around it, with an IPv6 address in brackets; port 0 is any free one.

    Raises:
        ValueError: it is none.
    """
    form = "give HOST:PORT, as 0.0.0.0:8760 or [::]:8760"
    host, colon, port = text.strip().rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host:
        raise ValueError(f"its host or its port is missing: {form}")
    if (":" in inner) != (inner != host) or not _is_host(inner):
        raise ValueError(f"its host is none: {form}")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"its port is none (0 to 65535): {form}")
    return f"{host.lower()}:{int(port)}"


def own_host_port(text: str) -> str:
    """`host_port` to listen at, which has an IP address. Raises ValueError for other texts, and for names."""
    found = host_port(text)
    if _ip_of(found) is None:
        raise ValueError("its host is no IP address: give 0.0.0.0:8760 for all interfaces, or [::]:8760")
    return found


def public_host_port(text: str) -> str:
    """`host_port` that others can reach. Raises ValueError for other texts, port 0, and 0.0.0.0 or [::]."""
    found, form = host_port(text), "give what your router forwards, as 203.0.113.7:8760"
    if split_host_port(found)[1] == 0:
        raise ValueError(f"its port is 0: {form}")
    if (ip := _ip_of(found)) is not None and ip.is_unspecified:
        raise ValueError(f"nobody is reached at {ip}: {form}")
    return found


def split_host_port(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of what `host_port` returned."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _parts(text: str, schemes: tuple[str, ...], form: str) -> SplitResult:
    """The parts of a URL with one of `schemes`. Raises ValueError, which ends with `form`."""
    text = text.strip()
    if re.search(r"[\s\x00-\x1f]", text):
        raise ValueError(f"it has white space in it: {form}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"its host or port (1 to 65535) is none: {form}") from None
    if "://" not in text:
        raise ValueError(f"it has no scheme: {form}")
    if parts.scheme not in schemes:
        raise ValueError(f"its scheme is none of {', '.join(schemes)}: {form}")
    if port == 0 or not _is_host(parts.hostname):
        raise ValueError(f"its host or port (1 to 65535) is none: {form}")
    return parts


def _ip_of(found: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address of what `host_port` returned; None for a name."""
    try:
        return ipaddress.ip_address(split_host_port(found)[0])
    except ValueError:
        return None


def _is_host(host: str | None) -> bool:
    if host is None:
        return False
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return _HOST.fullmatch(host) is not None
