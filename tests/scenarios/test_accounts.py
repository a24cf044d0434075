"""Two servers in processes of their own, one database of accounts, and the real client: people log in to either of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.run.running import Running

pytest.importorskip("tiled")

ADMIN = {"provider": "toy", "id": "alice"}
USERS = {"alice": "secret1", "bob": "secret2"}
#: Other processes may remember a key for this long, in seconds.
BOUND = 5.0


@pytest.fixture
def server_at(tmp_path: Path, new_postgres: str) -> Iterator[Callable[..., Running]]:
    """Makes servers by name: each with a catalog of its own, all with the same accounts."""
    running: list[Running] = []

    def make(name: str, **authentication: Any) -> Running:
        provider = {"provider": "toy", "authenticator": "tiled.authenticators:DictionaryAuthenticator"}
        config = {
            "catalog": {
                "uri": str(tmp_path / f"{name}.db"),
                "writable_storage": [str(tmp_path / name)],
                "init_if_not_exists": True,
            },
            "authentication": {
                "providers": [provider | {"args": {"users_to_passwords": USERS}}],
                "tiled_admins": [ADMIN],
                "secret_keys": ["a secret that both servers know"],
                **authentication,
            },
            "database": {"uri": new_postgres, "init_if_not_exists": True},
        }
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "tiled_stream", "serve", "config", str(path), "--port", "0"]
        running.append(Running(command, tmp_path / f"{name}.log"))
        return running[-1]

    yield make
    for one in running:
        one.kill()


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the real client opened; closed afterwards. Its tokens lie in a place of this test."""
    monkeypatch.setenv("TILED_CACHE_DIR", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("TILED_") and name != "TILED_CACHE_DIR"]:
        monkeypatch.delenv(name)
    opened: list[Any] = []
    yield opened
    for context in opened:
        context.close()


def logged_in(server: Running, name: str, contexts: list[Any]) -> Any:
    """A context of the real client."""
    from tiled.client.context import Context, password_grant

    context = Context(server.url)
    contexts.append(context)
    provider = context.server_info.authentication.providers[0]
    tokens = password_grant(context.http_client, provider.links["auth_endpoint"], provider.provider, name, USERS[name])
    context.configure_auth(tokens)
    return context


def test_the_real_client_at_two_servers(server_at: Callable[..., Running], contexts: list[Any]) -> None:
    from tiled.client import from_context, from_uri

    def with_key(server: Running, secret: str) -> Any:
        client = from_uri(server.url, api_key=secret)
        contexts.append(client.context)
        return client

    first, second = server_at("first"), server_at("second")
    bob, alice = logged_in(first, "bob", contexts), logged_in(second, "alice", contexts)
    assert bob.whoami()["identities"][0]["id"] == "bob"
    assert {role["name"] for role in alice.whoami()["roles"]} == {"user", "admin"}
    from_context(bob).write_array([1, 2, 3], key="x")
    secret = bob.create_api_key(scopes=["read:metadata"], note="elsewhere")["secret"]
    for server in (first, second):
        with_key(server, secret)  # a key made at one server opens the other
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        with_key(first, secret)["x"].read()
    # An administrator finds and revokes it at the other server.
    principal = next(p for p in alice.admin.list_principals() if p["identities"][0]["id"] == "bob")
    assert [key["first_eight"] for key in principal["api_keys"]] == [secret[:8]]
    alice.admin.revoke_api_key(principal["uuid"], secret[:8])
    headers = {"Authorization": f"Apikey {secret}"}
    assert httpx.get(f"{second.url}/metadata/", headers=headers).status_code == 401  # at once
    end = time.monotonic() + BOUND + 3
    while httpx.get(f"{first.url}/metadata/", headers=headers).status_code != 401:
        assert time.monotonic() < end
        time.sleep(0.2)
    service = alice.admin.create_service_principal(role="user")
    with_key(first, alice.admin.create_api_key(service["uuid"])["secret"])
    for server in (first, second):
        log = server.errors.read_text()
        assert "secret1" not in log
        assert secret[8:] not in log
        assert server.stop() == 0


def test_tokens_are_renewed_at_the_other_server(server_at: Callable[..., Running], contexts: list[Any]) -> None:
    first, second = (server_at(name, access_token_max_age=1) for name in ("first", "second"))
    tokens = httpx.post(f"{first.url}/auth/provider/toy/token", data={"username": "bob", "password": USERS["bob"]}).json()
    time.sleep(1.1)
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert httpx.get(f"{second.url}/metadata/", headers=headers).status_code == 401
    again = httpx.post(f"{second.url}/auth/session/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    headers = {"Authorization": f"Bearer {again['access_token']}"}
    assert httpx.get(f"{first.url}/metadata/", headers=headers).status_code == 200
    context = logged_in(first, "bob", contexts)
    time.sleep(1.1)
    assert context.whoami()["identities"][0]["id"] == "bob"  # the client renewed its token by itself
    context.logout()
