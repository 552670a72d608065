"""Which hosts are this machine, and through which proxy a URL is reached.

| URL | proxy |
|---|---|
| of loopback (127.0.0.0/8, ::1, localhost) | never |
| whose host `NO_PROXY` names | none |
| https://, wss:// | `HTTPS_PROXY` |
| http://, ws:// | `HTTP_PROXY` |

The lower-case names of these variables are read first. Certificates are checked against those of the system,
or of the file that `SSL_CERT_FILE` names.
"""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

_PLAIN = {"ws": "http", "wss": "https"}


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine. False for None and for any other name."""
    try:
        return host is not None and ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host is not None and host.lower() == "localhost"


def proxy_for(url: str) -> str | None:
    """The URL of the proxy through which `url` is reached; None for a direct connection.

    Raises ValueError for a proxy that is neither http:// nor https://.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    scheme = _PLAIN.get(parts.scheme, parts.scheme)
    proxy = getproxies_environment().get(scheme)
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    kind = proxy.partition("://")[0]
    if kind not in ("http", "https"):
        raise ValueError(f"{scheme.upper()}_PROXY names a {kind}:// proxy: give an http:// or https:// one")
    return proxy


def certificates_file() -> str | None:
    """File of the trusted certificates; None where the system keeps them in a folder alone."""
    return ssl.get_default_verify_paths().cafile
