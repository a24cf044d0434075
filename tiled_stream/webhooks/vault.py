"""Secrets at rest, encrypted with Fernet. The first key encrypts and all of them decrypt, so that keys can be replaced."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256

__all__ = ["Sealed", "Vault", "signature"]

_FERNET_BYTES = 32


class Sealed(Exception):
    """A secret that none of the keys opens."""


class Vault:
    """`keys`: Fernet keys, or any other texts, of which a key is derived. At least one."""

    def __init__(self, keys: Sequence[str]) -> None:
        from cryptography.fernet import Fernet, MultiFernet  # heavy, and only where there are webhooks

        self._fernet = MultiFernet([Fernet(_fernet_key(key)) for key in keys])

    def seal(self, secret: str) -> str:
        """Encrypted."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypted; `Sealed` if it was encrypted with a key that is not among these."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise Sealed(
                "the secret was encrypted with a key that is not in webhooks.secret_keys any more; put it back, or register anew"
            ) from None


def signature(secret: str, body: bytes) -> str:
    """Value of `X-Tiled-Signature`: the HMAC-SHA256 of the body, so that a receiver knows who sent it."""
    return "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()


def _fernet_key(text: str) -> bytes:
    """Operators also write ``openssl rand -hex 32``, which is no Fernet key."""
    try:
        if len(base64.urlsafe_b64decode(text)) == _FERNET_BYTES:
            return text.encode()
    except (binascii.Error, ValueError):
        pass
    return base64.urlsafe_b64encode(sha256(text.encode()).digest())
