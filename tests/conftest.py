"""What holds for the whole suite, and nothing else: fixtures live beside the tests that use them.

- A hung test can be asked where it stands: `kill -USR1 <pid>` prints every thread's stack (the timeout prints them too).
- Hypothesis runs a fixed, smaller set of examples where `CI` is set, so that a red run can be repeated as it was.
- Some database packages complain when there is no runtime directory; the session has one of its own.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shared two-core machine stalls for longer than Hypothesis expects of an example; slowness is not what it is asked about.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    parent=settings.get_profile("dev"),
    max_examples=30,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_configure(config: pytest.Config) -> None:
    """SIGUSR1 shows where a run stands. `__stderr__`: the real one, while pytest captures the other."""
    if hasattr(signal, "SIGUSR1") and sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)


@pytest.fixture(scope="session", autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`XDG_RUNTIME_DIR` for this session, private to the user as the specification asks."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("runtime")
        path.chmod(0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(path))
        yield path


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests share: each keeps to a prefix of its own."""
    from tests.servers.redis import shared_redis

    with shared_redis() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url(runtime_directory: Path) -> Iterator[str]:
    """A PostgreSQL that all tests share: each makes databases of its own."""
    from tests.servers.postgres import shared_postgres

    with shared_postgres() as url:
        yield url


@pytest.fixture
def new_postgres(postgres_url: str) -> Iterator[str]:
    """URL of an empty database."""
    from tests.servers.postgres import new_database

    with new_database(postgres_url) as url:
        yield url
