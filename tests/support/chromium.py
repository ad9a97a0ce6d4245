"""A headless Chromium that tests drive by its remote debugging protocol (Chrome DevTools Protocol)."""

import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import wait_until


class Tab:
    """A page: console messages, requests, and its JavaScript."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0
        self.messages, self.requests, self._events = [], [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Result of a command; events that come meanwhile are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._keep(message)

    def _keep(self, message):
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.messages.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(params["exceptionDetails"])[:2000])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, url, ready="window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle"):
        """Open an address, and wait until an expression holds."""
        self.call("Page.navigate", url=url)
        wait_until(lambda: self.run(f"Boolean({ready})"))

    def run(self, expression):
        """Value of a JavaScript expression."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def move_to(self, x, y):
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path=None, whole=True):
        """PNG of the page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        picture = base64.b64decode(found["data"])
        if path is not None:
            Path(path).write_bytes(picture)
        return picture


def chromium():
    """Path of a Chromium; the test is skipped without one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium")
    return found


@contextmanager
def open_tab(width=1200, height=900):
    """A tab of a Chromium with a folder of its own."""
    websocket = pytest.importorskip("websocket")
    program = chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             "--remote-allow-origins=*", f"--user-data-dir={folder}", f"--window-size={width},{height}",
             "--no-first-run", "--disable-background-networking", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            told = Path(folder) / "DevToolsActivePort"
            wait_until(lambda: told.exists() and len(told.read_text().splitlines()) == 2, process)
            port = told.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                address = next(t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page")
            socket = websocket.create_connection(address, timeout=60)
            yield Tab(socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(20)
