"""A real browser: Debian's chromium, driven by playwright. Without one the tests are skipped with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.served import KEY, Served
from tests.servers.processes import missing

CHROMIUM = shutil.which("chromium")
#: WebGL without a graphics card; as root there is no sandbox.
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--enable-precise-memory-info"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(missing("chromium"))
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; `make setup` does")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server


class Tab:
    """A page, and what went wrong in it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self._url = url
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)
        page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: Any) -> None:
        # A lost connection is said by the browser itself; that is what some tests are about.
        if message.type == "error" and not any(
            w in message.text for w in ("ERR_CONNECTION", "WebSocket", "Failed to load resource")
        ):
            self.errors.append(message.text)

    def open(self, query: str = "", key: str | None = KEY) -> None:
        """Open the page; the key comes with the link."""
        words = [f"api_key={key}"] * (key is not None) + [query] * bool(query)
        self.page.goto(f"{self._url}/?{'&'.join(words)}")

    def ask(self, expression: str) -> Any:
        """Something of the page's own state."""
        return self.page.evaluate(f"__tiled_stream__.{expression}")

    def until(self, expression: str, *, seconds: float = 20) -> None:
        """Wait until it is true."""
        try:
            self.page.wait_for_function(f"() => {{ const page = __tiled_stream__; return {expression}; }}", timeout=1e3 * seconds)
        except Exception as error:
            state = self.page.evaluate("JSON.stringify({...__tiled_stream__})")
            raise AssertionError(f"{expression} did not become true in {seconds} s: {state} {self.errors}") from error


@pytest.fixture
def tabs(browser: Any, served: Served) -> Iterator[Any]:
    """Makes tabs; each in a context of its own, and none may have had an error."""
    made: list[tuple[Any, Tab]] = []

    def make(url: str = served.url, **options: Any) -> Tab:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        tab = Tab(context.new_page(), url)
        made.append((context, tab))
        return tab

    yield make
    for context, tab in made:
        context.close()
        assert tab.errors == []


@pytest.fixture
def tab(tabs: Any) -> Tab:
    return tabs()


@pytest.fixture
def images() -> Path:
    """Where pictures of the documentation are."""
    return Path(__file__).parents[2] / "docs" / "images"
