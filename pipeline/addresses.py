"""Addresses on the web: taken apart, and whether they are this machine's own."""

import ipaddress
import re
from urllib.parse import urlsplit


def scheme_and_host(text: str) -> tuple[str, str]:
    """Take an address apart; both are empty where that cannot be done."""
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        return "", ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "", ""
    return ("", "") if port == 0 else (parts.scheme, parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
