"""A headless Chromium that tests drive over its DevTools protocol, through tornado's WebSocket client."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

from adamerging_study.book.build import BROWSERS

CHROMIUM = next((found for name in BROWSERS if (found := shutil.which(name))), None)
START, ANSWER = 120, 300  # seconds; the machine may be busy


class Page:
    """One page of a headless Chromium; close it, or use it in a ``with``."""

    def __init__(self, folder: Path, width: int = 1400, height: int = 900) -> None:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
        command = [CHROMIUM, *flags, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._runner, self._ids, self.errors = asyncio.Runner(), itertools.count(1), []
        self._socket = None
        try:
            self._socket = self._runner.run(self._connect(folder))
            for domain in ("Page", "Runtime", "Log"):
                self.send(f"{domain}.enable")
            self.size(width, height)
        except BaseException:
            self.close()
            raise

    async def _connect(self, folder: Path):
        port = folder / "DevToolsActivePort"
        if not wait(lambda: port.is_file() and "\n" in port.read_text(), START):
            raise TimeoutError(f"{CHROMIUM} opened no port within {START} s")
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        with urllib.request.urlopen(address, timeout=START) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        return await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=2**28)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result; what the page reported meanwhile goes into ``errors``."""
        return self._runner.run(asyncio.wait_for(self._send(method, parameters), ANSWER))

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        own = next(self._ids)
        await self._socket.write_message(json.dumps({"id": own, "method": method, "params": parameters}))
        while True:
            told = json.loads(await self._socket.read_message())
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(told["params"]["exceptionDetails"])
            if told.get("id") == own:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]

    def open(self, address: str) -> None:
        """Load a page, until its scripts have run."""
        self.send("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"]["exception"].get("description", told))
        return told["result"].get("value")

    def wait(self, script: str, seconds: float = ANSWER) -> None:
        """Wait until an expression is true in the page."""
        if not wait(lambda: self.run(script), seconds):
            raise TimeoutError(f"after {seconds} s not yet: {script}")

    def press(self, key: str, code: int) -> None:
        """One key stroke, as from a keyboard."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def size(self, width: int, height: int) -> None:
        """Another size of the window."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot, of the window or of the whole page."""
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def close(self) -> None:
        """End the browser that this page started."""
        if self._socket is not None:
            self._runner.run(self._hang_up())
        self._process.terminate()
        self._process.wait(START)
        self._runner.close()

    async def _hang_up(self) -> None:
        self._socket.close()
        await asyncio.sleep(0.1)  # so that the connection ends in this loop

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def wait(done, seconds: float) -> bool:
    """Whether something came true in so many seconds."""
    end = time.monotonic() + seconds
    while not (found := done()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(found)
