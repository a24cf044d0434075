"""Secrets at rest: not readable without a key, readable with an old one, and the signature as the protocol has it."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.webhooks.vault import Sealed, Vault, signature

SECRETS = st.text(min_size=1, max_size=60)
KEYS = st.one_of(
    st.text(min_size=1, max_size=80), st.binary(min_size=32, max_size=32).map(lambda b: base64.urlsafe_b64encode(b).decode())
)


@given(SECRETS, st.lists(KEYS, min_size=1, max_size=3), KEYS)
def test_old_keys_open_what_they_sealed(secret: str, old: list[str], new: str) -> None:
    sealed = Vault(old).seal(secret)
    assert sealed != secret
    assert Vault([new, *old]).open(sealed) == secret
    assert Vault([*old, new]).open(sealed) == secret


def test_another_key_does_not() -> None:
    sealed = Vault(["right"]).seal("s3cret")
    with pytest.raises(Sealed, match=r"webhooks\.secret_keys"):
        Vault(["wrong"]).open(sealed)
    with pytest.raises(Sealed):
        Vault(["right"]).open("no token")


def test_a_fernet_key_is_used_as_it_is() -> None:
    key = Fernet.generate_key().decode()
    assert Fernet(key).decrypt(Vault([key]).seal("s3cret").encode()) == b"s3cret"


def test_signature_by_a_known_answer() -> None:
    """RFC 4231, test case 2."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature("Jefe", b"what do ya want for nothing?") == f"sha256={expected}"
