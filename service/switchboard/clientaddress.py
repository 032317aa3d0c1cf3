"""Whose address a request comes from, and as what it is counted.

Anyone may send `X-Forwarded-For` or `Forwarded`; each proxy adds its own peer at the right. So they are believed only
from proxies that the operator named, and read from the right: the first address that is none of theirs is the client's,
and whatever stands left of it is what that client claims.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""A request without a peer, from a Unix socket say; all of them are counted as one client."""

MAX_HOPS = 32  # no chain of real proxies is half as long
MAX_HEADER = 4096  # characters: 32 hops of the longest form
MAX_NODE = 64  # an IPv6 address with brackets and port holds 55
KNOWN = 4096  # texts that are remembered with what they mean: each request needs its own several times

# Subscribers get a /64 (RFC 6177) and can use each address of it.
COUNTED_PREFIX = 64

_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of RFC 9110's grammar
_PAIR = re.compile(rf'\s*({_TOKEN})=(?:({_TOKEN})|"([^"\\]*)")\s*')


class Headers(Protocol):
    """The lines of a request's header, as Starlette gives them."""

    def getlist(self, key: str) -> list[str]:
        """Every line of that name, from the top down."""


class ClientAddress:
    """Finds the client behind trusted proxies; holds no state.

    `X-Forwarded-For` alone counts if both headers are there: nearly every proxy appends to that one and passes a
    client's own `Forwarded` on untouched. A proxy that writes `Forwarded` has to remove `X-Forwarded-For`.
    """

    def __init__(self, trusted: Collection[Network] = ()) -> None:
        self._trusted = trusted

    def of(self, peer: str | None, headers: Headers) -> str:
        """The client's address: the peer's own, or the one that trusted proxies vouch for."""
        found = parsed(peer or "")
        if found is None:
            return peer or UNKNOWN
        if not within(found, self._trusted):
            return str(found)
        for hop in _hops(headers):
            if hop is None:  # what a proxy could not or would not say hides all that stands left of it
                break
            found = hop
            if not within(hop, self._trusted):
                break
        return str(found)

    def overlooks(self, peer: str | None, headers: Headers) -> bool:
        """Whether a private peer speaks for others and is not believed: most likely a proxy that nobody named."""
        if not (headers.getlist("x-forwarded-for") or headers.getlist("forwarded")):
            return False
        address = parsed(peer or "")
        return address is not None and address.is_private and not within(address, self._trusted)


@lru_cache(KNOWN)
def counted_as(address: str) -> str:
    """What shares one count with the address: its /64 if it is IPv6, itself otherwise."""
    found = parsed(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), COUNTED_PREFIX), strict=False))
    return address if found is None else str(found)


def network_of(address: str) -> str:
    """What can be kept of an address without naming a household: its /24, or its /48 if it is IPv6."""
    found = parsed(address)
    if found is None:
        return address
    return str(ip_network((int(found), 24 if isinstance(found, IPv4Address) else 48), strict=False))


@lru_cache(KNOWN)
def parsed(text: str) -> Address | None:
    """An address with or without brackets and port, in its one plain form; None if it is not one."""
    text = text.strip()
    if len(text) > MAX_NODE:
        return None
    node = _NODE.fullmatch(text)
    try:
        found = ip_address(node[1] or node[2] if node else text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        # A zone is a name on the sender's own machine, and could be any text.
        return found.ipv4_mapped or IPv6Address(int(found))
    return found


def within(address: Address, networks: Collection[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def networks(text: str) -> tuple[Network, ...]:
    """A list of networks and addresses, separated by commas.

    Raises:
        ValueError: one of them is neither; the message says what would be right.
    """
    return tuple(_network(part.strip()) for part in text.split(",") if part.strip())


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(
            f"`{text}` is no address or network{_meant(text)}: write 10.0.0.0/8, 192.0.2.7, fd00::/8"
        ) from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"`{text}` is IPv4 in IPv6's clothes: write the IPv4 network itself, like 10.0.0.0/8")
    return network


def _meant(text: str) -> str:
    try:
        return f" (its host bits are set; {ip_network(text, strict=False)} has none)"
    except ValueError:
        return ""


def _hops(headers: Headers) -> Sequence[Address | None]:
    """The addresses that proxies wrote down, nearest first; None stands for what is not an address."""
    written = _last(headers.getlist("x-forwarded-for"))
    if written:
        return [parsed(entry) for entry in written]
    return [_for(element) for element in _last(headers.getlist("forwarded"))]


def _last(lines: Sequence[str]) -> list[str]:
    """The last entries of a list header, from the right; empty ones do not count (RFC 9110, section 5.6.1)."""
    text = ",".join(lines)
    # No proxy has to write a comma into a quoted string here; who does makes entries that are no addresses.
    entries = text[-MAX_HEADER:].rsplit(",", MAX_HOPS)
    if len(text) > MAX_HEADER or len(entries) > MAX_HOPS:
        del entries[0]  # the rest, or a piece of an entry
    return [entry for entry in reversed(entries) if entry.strip()]


def _for(element: str) -> Address | None:
    """The `for` of one element of `Forwarded` (RFC 7239, section 4), if that is an address."""
    pairs: dict[str, str] = {}
    for part in filter(str.strip, element.split(";")):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair[1].lower() in pairs:
            return None
        pairs[pair[1].lower()] = pair[2] or pair[3] or ""
    return parsed(pairs.get("for", ""))
