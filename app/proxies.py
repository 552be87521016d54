"""Whose address a request has behind proxies: it is read from their headers only as far as they are trusted.

Taken are ``X-Forwarded-For`` and ``X-Forwarded-Proto``. ``X-Forwarded-Host`` and ``X-Forwarded-Prefix`` are not: links
are paths from the root, which neither would make better, and proxies that do not set them pass on what a client says.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX: Final = "unix"
"""What stands for the peers of a Unix socket, which have no address, in a list of trusted proxies."""


class ProxyError(ValueError):
    """A text that names no proxies to trust; the message says what would."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that are trusted.

    :ivar networks: where they are
    :ivar unix: is whoever connects to a Unix socket one?
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, text: str) -> "Proxies":
        """The proxies that a text names: IP networks, or ``unix``, separated by commas.

        :raises ProxyError: a part is no network, or one that holds every address
        """
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        return cls(tuple(_network(part) for part in parts if part != UNIX), UNIX in parts)

    def trust(self, peer: str) -> bool:
        """Is a peer, by its address as a WSGI server gives it, one of them?"""
        if not peer:
            return self.unix
        address = _address(peer)
        return address is not None and any(address in network for network in self.networks)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address of the client: the nearest one that is no trusted proxy.

        Each proxy adds at the end of the list whom it has the request from. So the list is believed from its end, as
        long as it was a trusted one that wrote it; what is left of there anyone can have made up.

        :param peer: the address that the request came from; empty on a Unix socket
        :param forwarded: what ``X-Forwarded-For`` lists, from left to right
        :return: an address, IPv4 in its own form also where it was mapped into IPv6; empty if nothing is known but
            the Unix socket
        """
        client = _text(peer)
        for hop in reversed([*forwarded]):
            address = _address(_without_port(hop.strip()))
            # Of what is no address nobody knows who wrote it, or what else he wrote before it.
            if not self.trust(client) or address is None:
                break
            client = str(address)
        return client


class TrustedProxies:
    """Middleware that gives a request the address of its client, and the scheme that the client used.

    Werkzeug's ``ProxyFix`` counts hops, whoever sends them: one who reaches the service without a proxy, or through
    fewer than are counted, chooses his address. Here it is asked of each hop who it is.
    """

    def __init__(self, app: "WSGIApplication", proxies: Proxies) -> None:
        self._app, self._proxies = app, proxies

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        if self._proxies.trust(peer):
            scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
            if scheme in {"http", "https"}:
                environ["wsgi.url_scheme"] = scheme
        # A server gives several lines of a header as one, joined by commas (RFC 9110, section 5.3).
        # Taken away: whatever read it later would believe all of it, as Flask-Login does.
        forwarded = environ.pop("HTTP_X_FORWARDED_FOR", None)
        client = self._proxies.client(peer, [] if forwarded is None else forwarded.split(","))
        environ.pop("REMOTE_ADDR", None)
        if client:
            environ["REMOTE_ADDR"] = client
        return self._app(environ, start_response)


def _network(text: str) -> Network:
    example = "write it as 10.0.0.0/8, 2001:db8::/32 or 127.0.0.1; or unix for whoever connects to a Unix socket"
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ProxyError(f"{text!r} is no IP network: {error}; {example}") from None
    if network.prefixlen == 0:
        raise ProxyError(f"{text} is every address: then everyone could choose his own; {example}")
    if isinstance(network.network_address, IPv6Address) and network.network_address.ipv4_mapped is not None:
        raise ProxyError(f"{text} is IPv4 mapped into IPv6; write it as IPv4")
    return network


def _address(text: str) -> Address | None:
    """The address that a text is, if it is one; IPv4 that is mapped into IPv6 as IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _text(peer: str) -> str:
    address = _address(peer)
    return peer if address is None else str(address)


def _without_port(hop: str) -> str:
    """What of a hop names its address: proxies write it with and without a port, IPv6 with and without brackets.

    Empty if it is none that another host can have: the zone of an address (RFC 4007) means something on its host only.
    """
    if "%" in hop:
        return ""
    if hop.startswith("["):
        address, bracket, port = hop[1:].partition("]")
        return address if bracket and ":" in address and (not port or _is_port(port)) else ""
    address, colon, port = hop.partition(":")
    return address if colon and _is_port(colon + port) else hop


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit() and len(text) <= len(":65535")
