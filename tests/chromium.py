"""A headless Chromium to open pages in, by its DevTools protocol over a pipe; nothing but the browser is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu-sandbox", "--use-gl=angle",
          "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run", "--disable-extensions",
          "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
          "--hide-scrollbars", "--disable-gpu-watchdog")
_PATIENCE = 60.0  # seconds for an answer


def found_or_skip() -> str:
    """Path of a Chromium; skips the test where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")
    return path


class Chromium:
    """One browser with one page; a context manager.

    Attributes:
        messages: errors and warnings of the page's console, and exceptions, since the last ``open``.
        requests: addresses that the page asked for since then, but for embedded data.
    """

    def __init__(self, path: str, profile: str):
        to_browser, write = os.pipe()
        read, from_browser = os.pipe()

        def place_pipes():  # the protocol's are 3 and 4; kept clear of each other first
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)
        self._process = subprocess.Popen([path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"], close_fds=False,
                                         preexec_fn=place_pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read, self._held, self._number, self._session = write, read, b"", 0, None
        self.messages, self.requests = [], []
        page, = (target for target in self._wait_for_page() if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _wait_for_page(self):
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            targets = self.call("Target.getTargets")["targetInfos"]
            if any(target["type"] == "page" for target in targets):
                return targets
            time.sleep(0.05)
        raise TimeoutError("Chromium opens no page")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    # ---------------------------------------------------------------- the protocol
    def call(self, method: str, **parameters):
        """The answer to a command of the protocol; what happens meanwhile is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _next(self, end):
        while b"\0" not in self._held:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            self._held += os.read(self._read, 1 << 20)
        line, self._held = self._held.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event):
        what, details = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.messages.append(details["exceptionDetails"])
        elif what == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.messages.append([part.get("value") for part in details["args"]])
        elif what == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.messages.append(details["entry"]["text"])
        elif what == "Network.requestWillBeSent" and not details["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(details["request"]["url"])

    # ---------------------------------------------------------------- a page
    def size(self, width: int, height: int, dark: bool = False, mobile: bool = False):
        """Sets the window's size in pixels, and which colours are preferred."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, path):
        """Opens a file."""
        self.messages, self.requests = [], []
        self.call("Page.navigate", url=path.as_uri())

    def value(self, script: str):
        """What an expression of JavaScript gives; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = _PATIENCE):
        """Waits until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.value(script)
            if found:
                return found
            time.sleep(0.03)
        raise TimeoutError(f"not true within {seconds} s: {script}")

    def key(self, key: str):
        """Presses a key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **text)

    def drag(self, start, stop):
        """Drags the mouse from one place of the window to another."""
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], button="left", clickCount=1)
        for part in (0.5, 1.0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1,
                      x=start[0] + part * (stop[0] - start[0]), y=start[1] + part * (stop[1] - start[1]))
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=stop[0], y=stop[1], button="left", clickCount=1)

    def picture(self, path, whole: bool = False):
        """Writes a screenshot, of the window or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
