"""Headless Chromium for tests of pages."""
import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def find_chromium() -> str | None:
    """A Chromium or Chrome of the system, or one that Playwright has fetched."""
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome', 'chromium-headless-shell'
    fetched = (Path.home() / '.cache/ms-playwright').glob('chromium*/chrome-*linux*/*')
    return next(filter(None, map(shutil.which, names)), None) or next(
        (str(path) for path in fetched if path.name in ('chrome', 'headless_shell')), None)


class Browser:
    """Headless Chromium, controlled by its DevTools protocol through two pipes."""

    def __init__(self, program: str, profile: Path):
        import fcntl  # not on Windows, where the other tests run

        to_browser, self._output = os.pipe()
        self._input, from_browser = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; copies beyond them, as one of the pipes may have these
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]

        def connect() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [program, '--headless', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu',
             '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update',
             '--disable-sync', '--no-first-run', '--force-color-profile=srgb', '--hide-scrollbars',
             f'--user-data-dir={profile}', 'about:blank'],
            preexec_fn=connect, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._received, self._number, self._session = b'', 0, None
        self.events: list[dict[str, Any]] = []
        self._session = self.new_user()

    def new_user(self) -> str:
        """A tab with cookies of its own, for `as_user`."""
        self._session = None
        context = self.call('Target.createBrowserContext')['browserContextId']
        target = self.call('Target.createTarget', url='about:blank', browserContextId=context)['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log', 'DOM'):
            self.call(f'{domain}.enable')
        return self._session

    def as_user(self, tab: str) -> None:
        """Use this tab from now on."""
        self._session = tab

    def close(self) -> None:
        for end in (self._output, self._input):
            os.close(end)
        self._process.kill()
        self._process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._output, json.dumps(message).encode() + b'\0')
        while (answer := self._read()).get('id') != self._number:
            self.events.append(answer)
        assert 'error' not in answer, f'{method}: {answer}'
        return answer['result']

    def _read(self) -> dict[str, Any]:
        while b'\0' not in self._received:
            assert select.select([self._input], [], [], 60)[0], 'Chromium does not answer'
            received = os.read(self._input, 1 << 20)
            assert received, 'Chromium has ended'
            self._received += received
        message, _, self._received = self._received.partition(b'\0')
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        result = self.call('Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def wait_for(self, script: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f'is still not true: {script}'
            time.sleep(0.02)

    def open(self, page: Path | str, *, width: int = 1000, dark: bool = False, touch: bool = False,
             ready: str = 'current !== null') -> None:
        """Open a file or an address, and wait until the condition `ready` holds in it."""
        address = page.as_uri() if isinstance(page, Path) else page
        # the page before may still ask a server that has ended; that is no complaint about this one
        self.call('Page.navigate', url='about:blank')
        self.wait_for('location.href === "about:blank" && document.readyState === "complete"')
        self.events.clear()
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=800, deviceScaleFactor=1, mobile=touch)
        self.call('Emulation.setTouchEmulationEnabled', enabled=touch)
        scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        self.call('Emulation.setEmulatedMedia', features=[scheme])
        self.call('Page.navigate', url=address)
        self.wait_for(f'location.href === {json.dumps(address)} && document.readyState === "complete"')
        self.wait_for(ready)

    def screenshot(self) -> np.ndarray:
        """(h, w, 3) RGB of the window."""
        self.run('new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))')
        data = base64.b64decode(self.call('Page.captureScreenshot', format='png')['data'])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window."""
        return tuple(self.run(f'(({{x, y, width, height}}) => [x, y, width, height])('
                              f'document.querySelector({json.dumps(selector)}).getBoundingClientRect())'))

    def mouse(self, kind: str, x: float, y: float, **params: Any) -> None:
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **({'button': 'left', 'clickCount': 1} | params))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse('mousePressed', *start)
        for part in np.linspace(0, 1, 6):
            self.mouse('mouseMoved', *((1 - part) * np.array(start) + part * np.array(end)), buttons=1)
        self.mouse('mouseReleased', *end)

    def click(self, selector: str) -> None:
        x, y, width, height = self.box(selector)
        self.drag((x + width / 2, y + height / 2), (x + width / 2, y + height / 2))

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        self.call('Input.dispatchTouchEvent', type=kind,
                  touchPoints=[{'x': x, 'y': y, 'id': i} for i, (x, y) in enumerate(points)])

    def key(self, key: str) -> None:
        text = {'text': key} if len(key) == 1 else {}
        self.call('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key)

    def complaints(self) -> list[dict[str, Any]]:
        """Errors, whatever was written to the console, and requests for anything but the page."""
        kinds = 'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'
        events = [event for event in self.events if event.get('sessionId') == self._session]
        requests = [event for event in events if event.get('method') == 'Network.requestWillBeSent']
        return [event for event in events if event.get('method') in kinds] + requests[1:]
