"""Whose address it is: what proxies vouch for counts, what a client claims about itself never does."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from switchboard.clientaddress import ClientAddress, counted_as, network_of, networks, parsed, within

PROXIES = networks("10.0.0.0/8, 192.0.2.7, fd00::/8")
BEHIND = ClientAddress(PROXIES)
PROXY = "10.1.2.3"
CLIENT = "203.0.113.9"
XFF, FORWARDED = "x-forwarded-for", "forwarded"


def headers(*lines: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in lines])


def of(*lines: tuple[str, str], peer: str | None = PROXY) -> str:
    return BEHIND.of(peer, headers(*lines))


# Without a proxy that is trusted.


@pytest.mark.parametrize("name", [XFF, FORWARDED])
@pytest.mark.parametrize("peer", [CLIENT, "192.0.2.8", "2001:db8::1", "11.0.0.1", "::1"])
def test_a_stranger_speaks_for_nobody(name, peer):
    assert of((name, "for=1.2.3.4" if name == FORWARDED else "1.2.3.4"), peer=peer) == peer


def test_nobody_is_trusted_unless_named():
    assert ClientAddress().of("127.0.0.1", headers((XFF, "1.2.3.4"))) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("::ffff:203.0.113.9", CLIENT),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "testclient"),
    ],
)
def test_a_peer_in_its_plain_form(peer, found):
    assert of((XFF, "1.2.3.4"), peer=peer) == found


# X-Forwarded-For.


@pytest.mark.parametrize("peer", [PROXY, "192.0.2.7", "fd00::99", "::ffff:10.1.2.3"])
def test_a_proxy_vouches_for_its_peer(peer):
    assert of((XFF, CLIENT), peer=peer) == CLIENT


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("203.0.113.9", CLIENT),
        (" 203.0.113.9 ,10.0.0.1,\t10.0.0.2", CLIENT),
        ("203.0.113.9:4711", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("[::ffff:203.0.113.9]:4711", CLIENT),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8:0::0:9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("fe80::9%eth0", "fe80::9"),
        ("203.0.113.9,, ,", CLIENT),
        # The client's own claims stand left of what the first proxy saw.
        ("1.2.3.4, 203.0.113.9", CLIENT),
        ("10.0.0.1, 203.0.113.9", CLIENT),
        ("1.2.3.4, 203.0.113.9, 10.0.0.1", CLIENT),
        ("<script>, 203.0.113.9, 10.0.0.1", CLIENT),
        # Where a trusted proxy says nothing that can be read, that proxy is as far as we know.
        ("203.0.113.9, unknown, 10.0.0.1", "10.0.0.1"),
        ("203.0.113.9, garbage", PROXY),
        ("203.0.113.09", PROXY),
        ("203.0.113", PROXY),
        ("203.0.113.9:port", PROXY),
        ("[2001:db8::9", PROXY),
        ("2001:db8::9]:80", PROXY),
        ("0x7f000001", PROXY),
        ("2130706433", PROXY),
        ("٢٠٣.0.113.9".encode().decode("latin-1"), PROXY),
        ("fe80::9%" + "z" * 100, PROXY),
        ("_hidden", PROXY),
        ("for=203.0.113.9", PROXY),
        # Only proxies: the farthest of them asked.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("", PROXY),
        (" , ", PROXY),
    ],
)
def test_x_forwarded_for(written, found):
    assert of((XFF, written)) == found


def test_several_lines_are_one_list():
    assert of((XFF, "1.2.3.4"), (XFF, f"5.6.7.8, {CLIENT}"), (XFF, "10.0.0.1")) == CLIENT


# Forwarded.


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("for=203.0.113.9", CLIENT),
        ("For=203.0.113.9;Proto=https;By=10.0.0.1", CLIENT),
        ('for="203.0.113.9"', CLIENT),
        ('for="203.0.113.9:4711"', CLIENT),
        ('for="203.0.113.9:_port"', CLIENT),
        ('proto=https; for="[2001:db8::9]:4711"; host=voice.example.com;', "2001:db8::9"),
        ('for="[2001:db8::9]"', "2001:db8::9"),
        ('for="[::ffff:203.0.113.9]"', CLIENT),
        ("for=1.2.3.4, for=203.0.113.9, for=10.0.0.1", CLIENT),
        ("for=1.2.3.4,for=203.0.113.9;by=10.0.0.1,for=10.0.0.1;by=10.0.0.2", CLIENT),
        # Not an address, or not well formed: no farther than that.
        ("for=203.0.113.9, for=unknown", PROXY),
        ("for=203.0.113.9, for=_hidden, for=10.0.0.1", "10.0.0.1"),
        ("for=203.0.113.9, proto=https", PROXY),
        ("203.0.113.9", PROXY),
        ("for=203.0.113.9;for=1.2.3.4", PROXY),
        ("for=203.0.113.9:80", PROXY),  # a port needs quotes
        ("for=[2001:db8::9]", PROXY),
        ('for="203.0.113.9', PROXY),
        ('for="203.0.113.9\\"', PROXY),
        ("for =203.0.113.9", PROXY),
        ("for=", PROXY),
        ("=203.0.113.9", PROXY),
        ("", PROXY),
        # An open quote swallows nothing that stands right of it.
        ('for="1.2.3.4, for=203.0.113.9', CLIENT),
        ('for=1.2.3.4;host="a, for=203.0.113.9', CLIENT),
        # What a client smuggles into a host that a proxy quotes is no element.
        ('for=203.0.113.9;host="a, for=1.2.3.4"', PROXY),
        ('for=203.0.113.9;host="a, for=1.2.3.4;x=\\""', PROXY),
    ],
)
def test_forwarded(written, found):
    assert of((FORWARDED, written)) == found


# Both: a proxy that appends to X-Forwarded-For passes a client's own `Forwarded` on.


def test_forwarded_is_not_read_beside_x_forwarded_for():
    assert of((FORWARDED, "for=1.2.3.4"), (XFF, CLIENT)) == CLIENT
    assert of((XFF, CLIENT), (FORWARDED, "for=1.2.3.4, for=10.0.0.1")) == CLIENT
    assert of((FORWARDED, "for=1.2.3.4"), (XFF, f"{CLIENT}, unknown")) == PROXY


def test_an_empty_x_forwarded_for_is_none():
    assert of((FORWARDED, f"for={CLIENT}"), (XFF, " ")) == CLIENT


# Sizes.


@pytest.mark.parametrize(("name", "entry"), [(XFF, "{}"), (FORWARDED, "for={}")])
def test_ten_thousand_entries_change_nothing(name, entry):
    claims = [entry.format(f"1.2.{number >> 8}.{number & 255}") for number in range(10_000)]
    genuine = entry.format(CLIENT)
    assert of((name, ", ".join([*claims, genuine]))) == CLIENT
    assert of(*((name, claim) for claim in claims), (name, genuine)) == CLIENT
    assert of((name, "," * 100_000 + genuine)) == CLIENT
    assert of((name, " " * 100_000 + genuine)) == PROXY  # nobody reads so far


def test_a_chain_ends_after_32_hops():
    chain = [f"10.0.0.{number}" for number in range(100)]
    assert of((XFF, ", ".join([CLIENT, *chain[:31]]))) == CLIENT
    assert of((XFF, ", ".join([CLIENT, *chain]))) == "10.0.0.68"


def test_no_entry_is_read_from_its_middle():
    """The bound on characters may fall into an entry, whose rest may look like another address."""
    for blanks in range(4060, 4100):
        assert of((XFF, f"{CLIENT},{' ' * blanks}10.0.0.1")) in {CLIENT, "10.0.0.1", PROXY}


# Whatever a client sends.

ADDRESSES = st.ip_addresses().map(str)
CLAIMS = st.one_of(
    ADDRESSES,
    ADDRESSES.map("for={}".format),
    st.sampled_from([PROXY, "for=10.0.0.1", 'for="', '"', "\\", ";", ",", "unknown", "", 'for=1.2.3.4;host="a']),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=50),
)
LINES = st.lists(st.lists(CLAIMS, max_size=5).map(", ".join), max_size=4)
STRANGERS = ADDRESSES.filter(lambda one: not within(parsed(one) or ip_address(one), PROXIES))


def appended(lines: list[str], entry: str, *, own_line: bool) -> list[str]:
    """What a proxy does: its peer at the end of the last line, or on a line of its own."""
    return [*lines, entry] if own_line or not lines else [*lines[:-1], f"{lines[-1]}, {entry}"]


@given(claimed=LINES, also=LINES, client=STRANGERS, inner=st.booleans(), own_line=st.booleans())
def test_nothing_on_the_left_changes_the_result(claimed, also, client, inner, own_line):
    written = appended(claimed, client, own_line=own_line)
    if inner:
        written = appended(written, "10.9.9.9", own_line=own_line)
    lines = [(XFF, line) for line in written] + [(FORWARDED, line) for line in also]
    assert of(*lines) == str(parsed(client))


@given(claimed=LINES, client=STRANGERS, inner=st.booleans(), own_line=st.booleans())
def test_nor_in_forwarded(claimed, client, inner, own_line):
    node = f'"[{client}]"' if ":" in client else client
    written = appended(claimed, f"for={node};proto=https", own_line=own_line)
    if inner:
        written = appended(written, "for=10.9.9.9", own_line=own_line)
    assert of(*((FORWARDED, line) for line in written)) == str(parsed(client))


@given(lines=LINES, also=LINES, peer=STRANGERS)
def test_nor_without_a_proxy(lines, also, peer):
    sent = [(XFF, line) for line in lines] + [(FORWARDED, line) for line in also]
    assert of(*sent, peer=peer) == str(parsed(peer))


@given(lines=LINES, also=LINES)
def test_it_is_always_an_address(lines, also):
    ip_address(of(*((XFF, line) for line in lines), *((FORWARDED, line) for line in also)))


# What shares one count.


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "unknown"),
    ],
)
def test_counted_as(address, counted):
    assert counted_as(address) == counted


# What operators write.


def test_networks():
    assert [str(one) for one in networks(" 10.0.0.0/8,192.0.2.7 ,, fd00::/8 ")] == [
        "10.0.0.0/8",
        "192.0.2.7/32",
        "fd00::/8",
    ]
    assert networks("") == ()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("10.0.0.0/8, proxy.example.com", "`proxy.example.com` is no address or network: write 10.0.0.0/8"),
        ("10.0.0.1/8", "host bits are set; 10.0.0.0/8 has none"),
        ("10.0.0.0/33", "`10.0.0.0/33` is no address"),
        ("10.0.0.0/8 fd00::/8", "is no address or network"),
        ("::ffff:10.0.0.0/104", "write the IPv4 network itself"),
        ("*", "`*` is no address"),
    ],
)
def test_mistakes_in_networks(written, says):
    with pytest.raises(ValueError, match=r".") as refused:
        networks(written)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("peer", "name", "overlooked"),
    [
        ("172.16.0.1", XFF, True),
        ("::1", FORWARDED, True),
        ("172.16.0.1", "x-real-ip", False),
        (PROXY, XFF, False),  # trusted
        ("9.9.9.9", XFF, False),  # anyone may send it
        (None, XFF, False),
    ],
)
def test_a_proxy_that_nobody_named_is_noticed(peer, name, overlooked):
    assert BEHIND.overlooks(peer, headers((name, CLIENT))) is overlooked


# What can be kept of it.


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("203.0.113.0", "203.0.113.0/24"),
        ("2001:db8:12:3456:789a::1", "2001:db8:12::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("unknown", "unknown"),
    ],
)
def test_the_network_of_an_address(address, network):
    assert network_of(address) == network
