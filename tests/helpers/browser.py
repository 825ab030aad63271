"""A headless Chromium for tests, driven through the DevTools protocol: it tells what a page shows and logs."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

from utils.lab.bench.cluster import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
OPTIONS += ("--disable-breakpad", "--hide-scrollbars", "--remote-allow-origins=*", "--remote-debugging-port=0")
PATIENCE = 120  # seconds to wait for an answer, enough for a busy machine


def find_chromium() -> str | None:
    """The path of the browser's program, or None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. `errors` lists the faults of its pages: exceptions, console errors, files that did not load."""

    def __init__(self, address: str) -> None:
        self.errors: list[str] = []
        self._numbers = count(1)
        self._socket = websocket.create_connection(address, timeout=PATIENCE, suppress_origin=True)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict[str, Any]:
        """Call a method of the protocol and return its answer. Raises RuntimeError if the browser refuses it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv())).get("id") != number:
            self._note_error(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _note_error(self, event: dict[str, Any]) -> None:
        """Append the error that an event reports, if any, to `errors`."""
        details = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(_text_of(details["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and details["type"] == "error":
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in details["args"]))
        elif event.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(f"{details['entry']['text']} {details['entry'].get('url', '')}".strip())

    def open(self, url: str) -> None:
        """Go to a page, and wait until it and its pictures are loaded. Raises RuntimeError if there is no such page."""
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            raise RuntimeError(f"{url}: {error}")
        self.wait_until("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises RuntimeError if the expression throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(_text_of(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_until(self, expression: str, seconds: float = PATIENCE) -> None:
        """Wait until a JavaScript expression is true. Raises TimeoutError if it is not true within `seconds`."""
        wait_for(lambda: self.evaluate(f"Boolean({expression})"), seconds)

    def set_width(self, width: int) -> None:
        """Set the width of the page in CSS pixels. It may be narrower than a window can be."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def set_media(self, kind: str = "", scheme: str = "light") -> None:
        """Set the medium, "screen" or "print", and the colour scheme, "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def close(self) -> None:
        self._socket.close()


def _text_of(details: dict[str, Any]) -> str:
    """The message of a JavaScript exception."""
    return details.get("exception", {}).get("description", details["text"])


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser with an empty tab. At the end all of its processes and files are removed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find_chromium(), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        try:
            with closing(Browser(_address_of_tab(Path(profile), process))) as browser:
                browser.set_width(1280)
                yield browser
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the browser and the processes that it started
            process.wait(PATIENCE)


def _address_of_tab(profile: Path, process: subprocess.Popen) -> str:
    """The address of the tab's debugger, which the browser writes when it has started."""
    file = profile / "DevToolsActivePort"
    wait_for(lambda: process.poll() is not None or (file.exists() and "\n" in file.read_text()), PATIENCE)
    if process.poll() is not None:
        raise RuntimeError(f"the browser ended at once with status {process.returncode}")
    port = file.read_text().splitlines()[0]
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
