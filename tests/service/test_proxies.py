"""A client's address is what trusted proxies say, and never what the client says."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.proxies import Proxies, TrustedProxies
from tests.service.api import Api

_TRUSTED = ("10.0.0.0/8", "2001:db8:aaaa::/48", "192.0.2.1/32")
_PROXIES = Proxies.parse(", ".join(_TRUSTED))


def _is_trusted(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return any(address in ip_network(network) for network in _TRUSTED)


_ADDRESSES = st.one_of(st.ip_addresses(), *(st.ip_addresses(network=network) for network in _TRUSTED))
_OUTSIDE = _ADDRESSES.filter(lambda address: not _is_trusted(address))
_INSIDE = st.one_of(*(st.ip_addresses(network=network) for network in _TRUSTED))


def _written(address: IPv4Address | IPv6Address) -> st.SearchStrategy[str]:
    """An address as proxies write it."""
    if isinstance(address, IPv4Address):
        return st.sampled_from([f"{address}", f"{address}:8080", f"::ffff:{address}", f"[::ffff:{address}]:1"])
    return st.sampled_from([f"{address}", f"[{address}]", f"[{address}]:8080", address.exploded])


def _plain(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@given(_ADDRESSES, st.lists(_ADDRESSES, max_size=6), st.data())
def test_client_is_the_nearest_that_is_no_trusted_proxy(
    peer: IPv4Address | IPv6Address, hops: list[IPv4Address | IPv6Address], data: st.DataObject
) -> None:
    way = [*hops, peer]
    outside = [address for address in way if not _is_trusted(address)]
    expected = outside[-1] if outside else way[0]
    forwarded = [data.draw(_written(hop)) for hop in hops]
    assert _PROXIES.client(str(peer), forwarded) == _plain(expected)


@given(_OUTSIDE, st.lists(st.one_of(st.text(max_size=40), _ADDRESSES.map(str))), st.lists(_INSIDE), st.data())
def test_nobody_outside_chooses_his_address(
    attacker: IPv4Address | IPv6Address,
    claimed: list[str],
    way: list[IPv4Address | IPv6Address],
    data: st.DataObject,
) -> None:
    *seen, peer = [attacker, *way]
    header = ",".join([*claimed, *(data.draw(_written(hop)) for hop in seen)])
    environ: dict[str, Any] = {"REMOTE_ADDR": str(peer), "HTTP_X_FORWARDED_FOR": header}
    TrustedProxies(lambda environ, start_response: [], _PROXIES)(environ, lambda *_: lambda _: None)
    assert environ["REMOTE_ADDR"] == _plain(attacker)


@given(st.text(max_size=40))
def test_address_is_an_address_or_the_peer_whatever_is_forwarded(text: str) -> None:
    client = _PROXIES.client("10.0.0.1", text.split(","))
    assert str(ip_address(client)) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7:4711 ", "198.51.100.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.2.0.1", "198.51.100.7"),
        ("10.3.0.1, 10.2.0.1", "10.3.0.1"),
        ("198.51.100.7, unknown, 10.2.0.1", "10.2.0.1"),
        ("198.51.100.7, , 10.2.0.1", "10.2.0.1"),
        ("198.51.100.7,", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ("[198.51.100.7]", "10.0.0.1"),
        ("[2001:db8::7", "10.0.0.1"),
        ("[2001:db8::7]:x", "10.0.0.1"),
        ("198.51.100.7:", "10.0.0.1"),
        ("198.51.100.7:123456", "10.0.0.1"),
        ("fe80::1%eth0", "10.0.0.1"),
        ("198.51.100.07", "10.0.0.1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(forwarded: str, client: str) -> None:
    assert _PROXIES.client("10.0.0.1", forwarded.split(",")) == client


def test_peer_that_is_mapped_into_ipv6_is_the_ipv4_that_it_is() -> None:
    assert _PROXIES.client("::ffff:10.0.0.1", ["198.51.100.7"]) == "198.51.100.7"
    assert _PROXIES.client("::ffff:198.51.100.7", ["203.0.113.9"]) == "198.51.100.7"


def test_unix_socket_is_trusted_only_by_its_name() -> None:
    assert Proxies.parse("unix").client("", ["198.51.100.7"]) == "198.51.100.7"
    assert _PROXIES.client("", ["198.51.100.7"]) == ""
    assert Proxies.parse("unix").client("203.0.113.9", ["198.51.100.7"]) == "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "HTTPS", "https"),
        ("10.0.0.1", "http, https", "https"),
        ("10.0.0.1", "https, gopher", "http"),
        ("203.0.113.9", "https", "http"),
    ],
)
def test_scheme_is_what_a_trusted_proxy_says(peer: str, said: str, scheme: str) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_PROTO": said, "wsgi.url_scheme": "http"}
    TrustedProxies(lambda environ, start_response: [], _PROXIES)(environ, lambda *_: lambda _: None)
    assert environ["wsgi.url_scheme"] == scheme


def _recorded(app: Flask, api: Api, peer: str) -> Any:
    headers = {**api.headers, "X-Forwarded-For": "198.51.100.7"}
    body = {"email": f"{peer}@example.com"}
    created = app.test_client().post("/records/user", json=body, headers=headers, environ_base={"REMOTE_ADDR": peer})
    record: Any = created.json
    return api.get(record["links"]["history"] + "/changes")["changes"][0]["change_info"]["remote_addr"]


def test_change_info_has_the_address_of_the_client(api: Api, app_with: Callable[..., Flask]) -> None:
    behind = app_with(CHRONONAUT_TRUSTED_PROXIES="10.0.0.0/8")
    assert _recorded(behind, api, "10.0.0.1") == "198.51.100.7"
    assert _recorded(behind, api, "203.0.113.9") == "203.0.113.9"


def test_no_proxy_is_trusted_by_default(app: Flask, api: Api) -> None:
    assert _recorded(app, api, "127.0.0.1") == "127.0.0.1"
