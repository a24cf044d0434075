"""Where messages may go: addresses by address families and disguises, names that change their mind, and what the wire gets."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webhooks.receiver import receiving
from tiled_stream.domain.errors import Malformed, Refused, Unsatisfiable
from tiled_stream.webhooks.egress import Egress, host_rules, network_rules, resolve
from tiled_stream.webhooks.sender import Sender

PUBLIC = "93.184.216.34"


class Names:
    """A resolver whose answers a test gives: one list for each look-up, the last one for all that follow."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1"),
        # IPv4 in the clothes of IPv6.
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2002:7f00:1::"),
    ],
)
async def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Unsatisfiable, match="private") as error:
        await Egress(find=Names([address])).check("https://host/hook")
    assert "allow_delivery_hosts" in str(error.value)
    await Egress(find=Names([address]), allow_private=True).check("https://host/hook")
    await Egress(find=Names([address]), hosts=["HOST"]).check("https://host/hook")


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
async def test_what_is_public_is_allowed(address: str) -> None:
    assert await Egress(find=Names([address])).addresses("host", 443) == [address]


@given(st.lists(st.sampled_from([PUBLIC, "8.8.8.8", "2606:4700::1111"]), max_size=4), st.ip_addresses(v=4), st.randoms())
async def test_one_bad_address_among_good_ones_is_enough(good: list[str], some: ipaddress.IPv4Address, random: Any) -> None:
    addresses = [*good, str(some)]
    random.shuffle(addresses)
    bad = not some.is_global or some.is_multicast or some.is_reserved
    if bad:
        with pytest.raises(Unsatisfiable):
            await Egress(find=Names(addresses)).addresses("host", 443)
    else:
        assert await Egress(find=Names(addresses)).addresses("host", 443) == addresses


async def test_blocked_networks() -> None:
    blocked = ["93.184.216.0/24", "2606:4700::/32"]
    for address in (PUBLIC, f"::ffff:{PUBLIC}", "2606:4700::1111"):
        with pytest.raises(Unsatisfiable, match="blocked network"):
            await Egress(networks=blocked, find=Names([address])).check("https://example.com/")
        await Egress(networks=blocked, hosts=["example.com"], find=Names([address])).check("https://example.com/")
        with pytest.raises(Unsatisfiable):
            await Egress(networks=blocked, hosts=["example2.com"], find=Names([address])).check("https://example.com/")
    await Egress(networks=blocked, find=Names(["8.8.8.8"])).check("https://example.com/")
    # A network that is blocked stays so where private addresses are allowed.
    with pytest.raises(Unsatisfiable, match=r"10\.1\.0\.0/16"):
        await Egress(networks=["10.1.0.0/16"], allow_private=True, find=Names(["10.1.2.3"])).check("https://host/")


async def test_a_host_is_allowed_by_its_name_in_the_url_only() -> None:
    with pytest.raises(Unsatisfiable):
        await Egress(hosts=["example.com"], find=Names(["10.0.0.1"])).check("https://evil.example.com/")
    await Egress(hosts=["example.com"], find=Names(["10.0.0.1"])).check("https://EXAMPLE.com./")


async def test_a_name_without_address() -> None:
    for failure in (OSError("unknown"), UnicodeError("label too long")):
        with pytest.raises(Unsatisfiable, match="cannot be resolved"):
            await Egress(find=Names(failure)).check("https://nowhere.invalid/")
    with pytest.raises(Unsatisfiable, match="cannot be resolved"):
        await Egress(find=Names([])).check("https://nowhere.invalid/")


@pytest.mark.parametrize(
    "url",
    [
        *("", "hook", "ftp://host/", "file:///etc/passwd", "gopher://host", "https://", "https:///hook", "//host/hook"),
        *("https://user:pw@host/", "https://user@host/", "https://host:0/", "https://host:99999/", "https://host:x/"),
        *("https://ho st/", "https://host/\n", "https://hößt/", "https://[::1/", "https://host/" + 2048 * "x"),
    ],
)
async def test_what_is_no_url_is_refused_before_anything_is_looked_up(url: str) -> None:
    names = Names([PUBLIC])
    with pytest.raises(Malformed, match="'url'"):
        await Egress(find=names, allow_http=True).check(url)
    assert names.asked == []


@given(st.text(max_size=60))
async def test_any_text_is_taken_or_refused(text: str) -> None:
    egress = Egress(find=Names([PUBLIC]), allow_http=True)
    for url in (text, f"https://{text}", f"http://host{text}"):
        with contextlib.suppress(Refused):  # anything else would be a 500
            await egress.check(url)


async def test_plain_http_is_refused_unless_allowed() -> None:
    with pytest.raises(Malformed, match="https://"):
        await Egress(find=Names([PUBLIC])).check("http://example.com/hook")
    await Egress(find=Names([PUBLIC]), allow_http=True).check("http://example.com/hook")
    with pytest.raises(Unsatisfiable):
        await Egress(find=Names(["10.0.0.1"]), allow_http=True).check("http://example.com/hook")


async def test_the_resolver_of_this_machine_knows_numbers_in_any_form() -> None:
    """Also where it reads 0x7f000001 or 2130706433 as an address: what comes out is what is checked."""
    for host in ("127.0.0.1", "0x7f000001", "2130706433", "127.1", "localhost"):
        with pytest.raises(Unsatisfiable):
            await Egress(find=resolve).check(f"https://{host}/")


def test_rules_that_cannot_be() -> None:
    assert network_rules(["10.0.0.0/8", "fd00::/8", "10.0.0.1/8"]) == []
    assert len(network_rules(["10.256.0.0/24", "abcdef/24", ""])) == 3
    assert host_rules(["example.com", "hooks"]) == []
    assert len(host_rules(["10.65.128.128", "::1", "https://x/", "a:1", ""])) == 5


@pytest.fixture
async def senders() -> AsyncIterator[list[Sender]]:
    senders: list[Sender] = []
    yield senders
    for sender in senders:
        await sender.close()


async def test_a_name_that_changes_its_mind_leads_nowhere(senders: list[Sender]) -> None:
    """DNS rebinding: public when it is registered, private when it is delivered."""
    names = Names([PUBLIC], ["127.0.0.1"])
    egress = Egress(find=names, allow_http=True)
    with receiving() as receiver:
        url = f"http://rebind.test:{receiver.port}/hook"
        await egress.check(url)
        senders.append(Sender(egress))
        answer = await senders[0].post(url, b"{}", {})
        assert receiver.got == []
    assert answer.status is None
    assert "private" in (answer.error or "")
    assert names.asked == [("rebind.test", receiver.port)] * 2  # once each: what was checked is what is connected to


async def test_the_connection_goes_to_the_address_that_was_checked(senders: list[Sender]) -> None:
    """A name that no resolver knows, and whose first address does not answer."""
    egress = Egress(find=Names(["127.0.0.2", "127.0.0.1"]), hosts=["receiver.test"], allow_http=True)
    senders.append(Sender(egress))
    with receiving() as receiver:
        answer = await senders[0].post(f"http://receiver.test:{receiver.port}/hook?a=1", b'{"x": 1}', {"X-A": "b"})
        (got,) = receiver.got
    assert (answer.status, answer.error, answer.is_taken) == (200, None, True)
    assert got.body == b'{"x": 1}'
    assert got.headers["host"] == f"receiver.test:{receiver.port}"
    assert (got.headers["x-a"], got.headers["content-type"]) == ("b", "application/json")


async def test_a_receiver_that_does_not_answer_in_time(senders: list[Sender]) -> None:
    senders.append(Sender(Egress(allow_http=True, allow_private=True), seconds=0.3))
    with receiving() as receiver:
        receiver.delay = 1.5
        answer = await senders[0].post(receiver.url, b"{}", {})
    assert answer == type(answer)(None, "no answer within 0.3 s")


async def test_a_proxy_of_the_environment_is_not_used(senders: list[Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    senders.append(Sender(Egress(allow_http=True, allow_private=True)))
    with receiving() as receiver:
        assert (await senders[0].post(receiver.url, b"{}", {})).is_taken


async def test_a_certificate_that_nobody_signed_is_not_trusted(senders: list[Sender]) -> None:
    """TLS to a receiver that speaks none, and whatever it says is an answer."""
    senders.append(Sender(Egress(allow_private=True), seconds=5))
    with receiving() as receiver:
        answer = await senders[0].post(f"https://127.0.0.1:{receiver.port}/", b"{}", {})
    assert answer.status is None
    assert "SSL" in (answer.error or "").upper() or "Connect" in (answer.error or "")
    assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
