"""A headless Chromium for tests, driven through the DevTools protocol: what a person would see and what the page logs.

with open_browser() as browser:
    browser.set_width(390)
    browser.open(url)
    browser.wait_until("document.querySelector('h1') !== null")
    assert browser.evaluate("document.title") == "..." and not browser.errors
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
OPTIONS += ("--disable-breakpad", "--hide-scrollbars", "--remote-allow-origins=*", "--remote-debugging-port=0")
PATIENCE = 120  # seconds, on a machine that is busy with other work


def find_chromium() -> str | None:
    """The browser's program; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab. `errors` holds what went wrong in its pages: exceptions, console errors, files that did not load."""

    def __init__(self, address: str) -> None:
        self.errors: list[str] = []
        self._numbers = count(1)
        self._socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict[str, Any]:
        """Answer of a method of the protocol. RuntimeError where the browser refuses it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what an event tells of an error."""
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in about["args"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}".strip())

    def open(self, url: str) -> None:
        """Go to a page and wait until it and its pictures are loaded."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise RuntimeError(f"{url}: {failed}")
        self.wait_until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise. RuntimeError where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait_until(self, expression: str, seconds: float = PATIENCE) -> None:
        """Wait until a JavaScript expression is true. TimeoutError after so many seconds."""
        _wait(lambda: self.evaluate(f"Boolean({expression})"), expression, seconds)

    def set_width(self, width: int, height: int = 900) -> None:
        """The size of the window, CSS pixels; narrower ones than a desktop's window can be, too."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def set_media(self, kind: str = "", scheme: str = "light") -> None:
        """What the page is shown on: kind "screen" or "print", colour scheme "light" or "dark"."""
        wish = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=wish)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of what the window shows."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_browser(width: int = 1280) -> Iterator[Browser]:
    """A browser with an empty tab, whose processes and files are gone afterwards, whatever happened."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find_chromium(), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            browser = Browser(_address_of_tab(Path(profile), process))
            try:
                browser.set_width(width)
                yield browser
            finally:
                browser.close()
        finally:
            _end(process)


def _address_of_tab(profile: Path, process: subprocess.Popen) -> str:
    """Where the tab listens, once the browser has said so."""
    file = profile / "DevToolsActivePort"
    _wait(lambda: process.poll() is not None or (file.exists() and "\n" in file.read_text()), "a browser", PATIENCE)
    if process.poll() is not None:
        raise RuntimeError(f"the browser ended at once with status {process.returncode}")
    port = file.read_text().splitlines()[0]
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


def _wait(holds: Callable[[], bool], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(PATIENCE)
