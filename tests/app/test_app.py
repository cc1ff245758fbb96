"""The web app: its page in a browser, and what its server refuses."""
import http.client
import io
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import av
import pytest
from browser_util import Browser
from conftest import ROOT
from run_util import begin_anew
from video_util import moving_clip, write_video

from basicsr_stvsr.app.folder import own_folder
from basicsr_stvsr.app.guard import LOCAL
from basicsr_stvsr.app.jobs import Jobs
from basicsr_stvsr.app.server import make_server
from basicsr_stvsr.app.settings import models, read_settings
from basicsr_stvsr.cli.app import address_of, listen
from basicsr_stvsr.utils.file_lock import FileLock, is_free
from basicsr_stvsr.zoo.table import ZOO

NAME = 'a "film" & more.mp4'


@pytest.fixture(scope='module', autouse=True)
def server_of_processes() -> Iterator[None]:
    """The app's processes import networks only, which other tests must not inherit."""
    yield
    begin_anew()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class Server:
    """The app on a free port of this machine, in a thread."""

    def __init__(self, folder: Path, *, max_bytes: int = 10**7, keep_seconds: float = 3600, token: str | None = None,
                 host: str = LOCAL):
        folder.mkdir()
        self.listener = listen(LOCAL, 0)
        self.jobs = Jobs(folder, keep_seconds=keep_seconds)
        self.server = make_server(self.jobs, self.listener, host=host, max_bytes=max_bytes, token=token)
        self.address = address_of(self.listener)
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, kwargs={'sockets': [self.listener]})
        self._thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self._thread.join()
        self.jobs.close()

    def ask(self, path: str, method: str = 'GET', body: bytes | Iterable[bytes] | None = None,
            **headers: str) -> Answer:
        """A request as a browser sends it; further headers replace those."""
        connection = http.client.HTTPConnection(LOCAL, self.port, timeout=60)
        connection.request(method, path, body, {'Origin': self.address[:-1], 'Connection': 'close'} | headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def upload(self, path: Path, session: str) -> Answer:
        return self.ask(f'/api/uploads?name={quote(path.name)}', 'POST', path.read_bytes(),
                        Cookie=f'stvsr_session_{self.port}={session}')


@pytest.fixture(scope='module')
def running(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp('app') / 'files')
    yield server
    server.close()


@pytest.fixture
def server(running) -> Iterator[Server]:
    """The same server for most tests, without files."""
    yield running
    for upload in list(running.jobs.uploads.values()):
        running.jobs.delete_upload(upload)


@pytest.fixture
def another(tmp_path) -> Iterator[Callable[..., Server]]:
    """Makes servers with options."""
    servers: list[Server] = []

    def make(**options: Any) -> Server:
        servers.append(Server(tmp_path / f'files{len(servers)}', **options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope='module')
def clip(tmp_path_factory) -> Path:
    """25 frames of 96 x 64 in a second, with a name that neither HTML nor a shell takes as it is."""
    path = tmp_path_factory.mktemp('clips') / NAME
    write_video(path, moving_clip(25, height=64, width=96))
    return path


def choose(browser: Browser, path: Path) -> None:
    """Choose a file, as in the dialog of the browser."""
    document = browser.call('DOM.getDocument')['root']['nodeId']
    node = browser.call('DOM.querySelector', nodeId=document, selector='#file')['nodeId']
    browser.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node)


def press(browser: Browser, selector: str) -> None:
    browser.run(f'document.querySelector({json.dumps(selector)}).click()')


def text(browser: Browser, selector: str) -> str:
    return browser.run(f'document.querySelector({json.dumps(selector)}).innerText')


def wait_for_text(browser: Browser, selector: str, part: str) -> None:
    browser.wait_for(f'(document.querySelector({json.dumps(selector)})?.innerText ?? "").includes({json.dumps(part)})')


def set_value(browser: Browser, selector: str, value: str) -> None:
    browser.run(f'{{const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};'
                'field.dispatchEvent(new Event("change", {bubbles: true}));'
                'field.dispatchEvent(new Event("input", {bubbles: true}));}')


def session_of(browser: Browser, server: Server) -> str:
    cookies = browser.call('Network.getCookies', urls=[server.address])['cookies']
    assert all(cookie['httpOnly'] and cookie['sameSite'] == 'Strict' for cookie in cookies)
    return '; '.join(f'{cookie["name"]}={cookie["value"]}' for cookie in cookies)


def outside_requests(browser: Browser, server: Server) -> list[str]:
    urls = [event['params']['request']['url'] for event in browser.events
            if event.get('method') == 'Network.requestWillBeSent']
    assert urls
    return [url for url in urls if not url.startswith((server.address, 'data:', 'blob:'))]


# ---------------------------------------------------------------- in a browser

def test_from_a_file_to_its_download(browser, server, clip):
    """A preview, then a part of the clip; another user sees nothing of it."""
    browser.open(server.address, ready='document.querySelector("#limits").textContent !== ""')
    choose(browser, clip)
    wait_for_text(browser, '.upload .name', NAME)
    assert text(browser, '.facts') == '96\u00d764, 0:01, 25 frames a second'
    assert browser.run('[...document.querySelectorAll("[name=model] option")].map(option => option.value)') == [
        *ZOO, 'dis']
    set_value(browser, '[name=model]', 'dis')
    set_value(browser, '[name=start]', '0:00.4')
    press(browser, '[value=preview]')
    wait_for_text(browser, '.run .state', 'Done: 29 frames, 96\u00d764')  # 2 * 15 - 1
    browser.wait_for('!document.querySelector("iframe").hidden')
    assert text(browser, '.estimate').startswith('With the settings of the newest preview, all of it takes about')
    assert text(browser, '.run .settings') == 'dis, twice the rate, from 0:00.4'
    cookie = session_of(browser, server)
    path = browser.run('document.querySelector("iframe").src').removeprefix(server.address[:-1])
    page = server.ask(path, Cookie=cookie)
    assert page.status == 200 and "default-src 'none'" in page.headers['content-security-policy']
    shown = json.loads(re.search(r'id="data">(.*)</script>', page.body.decode())[1])
    assert shown['size'] == [96, 64] and len(shown['shown']) == 29

    set_value(browser, '[name=duration]', '0.2')
    set_value(browser, '[name=size]', 'x2')
    assert text(browser, '[value=all]') == 'Restore this part'
    press(browser, '[value=all]')
    wait_for_text(browser, '.run .state', 'Done: 9 frames, 192\u00d7128')
    result = server.ask(browser.run('document.querySelector(".download").href').removeprefix(server.address[:-1]),
                        Cookie=cookie)
    assert result.headers['content-disposition'].startswith('attachment;')
    with av.open(io.BytesIO(result.body)) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == 9 * [(128, 192, 3)]

    uploaded, = (path for path in server.jobs.folder.iterdir())
    assert (uploaded / 'input').read_bytes() == clip.read_bytes()  # not by the name of the user
    first = browser._session
    browser.as_user(browser.new_user())
    browser.open(server.address, ready='document.querySelector("#limits").textContent !== ""')
    assert browser.run('document.querySelector("#uploads").children.length') == 0
    assert server.ask(path, Cookie=session_of(browser, server)).status == 404
    browser.as_user(first)
    press(browser, '.upload .remove')
    browser.wait_for('!document.querySelector(".upload")')
    assert not list(server.jobs.folder.iterdir())
    assert not outside_requests(browser, server)
    assert not [event for event in browser.events if event.get('method') == 'Runtime.exceptionThrown']


def test_cancel_and_resume_on_a_phone(browser, server, tmp_path):
    """Another user waits until the first one cancels."""
    film = tmp_path / 'film.mp4'
    write_video(film, moving_clip(40, height=48, width=64))
    users = browser._session, browser.new_user()
    for user, model in zip(users, ('fstrn-small', 'dis'), strict=True):
        browser.as_user(user)
        browser.open(server.address, width=390, touch=True, dark=True,
                     ready='document.querySelector("#limits").textContent !== ""')
        choose(browser, film)
        wait_for_text(browser, '.upload .name', 'film.mp4')
        set_value(browser, '[name=model]', model)
    for user in users:
        browser.as_user(user)
        press(browser, '[value=all]')
    wait_for_text(browser, '.run .state', 'Waiting; 1 before it.')
    browser.as_user(users[0])
    wait_for_text(browser, '.run .state', 'of 40')
    assert browser.run('document.documentElement.scrollWidth') == 390
    press(browser, '.cancel')
    wait_for_text(browser, '.run .state', 'Stopped')
    browser.as_user(users[1])
    wait_for_text(browser, '.run .state', 'Done: 79 frames, 64\u00d748')
    browser.as_user(users[0])
    run, = server.jobs.uploads_of(session_of(browser, server).partition('=')[2])[0].runs.values()
    assert run.frames < 40 and (run.folder / 'result.mp4.parts' / 'state.json').is_file()
    press(browser, '.resume')
    wait_for_text(browser, '.run .state', 'Done: 40 frames, 256\u00d7192')
    assert browser.run('document.documentElement.scrollWidth') == 390


def test_a_broken_file_and_wrong_times_are_explained(browser, server, tmp_path, clip):
    browser.open(server.address, ready='document.querySelector("#limits").textContent !== ""')
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(clip.read_bytes()[:900])
    choose(browser, broken)
    wait_for_text(browser, '#problem', 'broken.mp4 cannot be restored: not a readable video (Invalid data found')
    playlist = tmp_path / 'list.mp4'
    playlist.write_text('#EXTM3U\n#EXTINF:10,\nhttp://example.com/a.ts\n')
    choose(browser, playlist)
    wait_for_text(browser, '#problem', 'list.mp4 is a playlist, not a video.')
    choose(browser, clip)
    wait_for_text(browser, '.upload .name', NAME)
    assert not browser.run('document.querySelector("#problem").innerText')
    set_value(browser, '[name=start]', 'soon')
    press(browser, '[value=preview]')
    wait_for_text(browser, 'form .error', 'Start "soon" is no time; write seconds, or minutes:seconds.')
    set_value(browser, '[name=start]', '9')
    press(browser, '[value=preview]')
    wait_for_text(browser, '.run .state', 'It failed: no frame from 9 s to 12 s; the video is 1 s long')


# ---------------------------------------------------------------- requests

def test_only_pages_of_this_server_may_ask(server, clip):
    assert server.ask('/').status == 200
    assert server.ask('/', Host=f'localhost:{server.port}').status == 200
    for host in (f'evil.example:{server.port}', f'10.0.0.1:{server.port}', ''):
        assert server.ask('/', Host=host).status == 421
    for origin in ('http://evil.example', 'null', f'http://{LOCAL}:1'):
        assert server.ask('/api/uploads?name=a.mp4', 'POST', b'...', Origin=origin).status == 403
    answer = server.ask('/')
    assert "default-src 'self'" in answer.headers['content-security-policy']
    assert not re.search(rb'https?://', b''.join(server.ask(path).body for path in ('/', '/page.css', '/page.js')))


def test_another_host_needs_the_token(another):
    server = another(token='secret', host='0.0.0.0')
    answer = server.ask('/')
    assert answer.status == 401 and b'needs a token' in answer.body
    assert server.ask('/?token=secre').status == 401
    assert server.ask('/api/about').status == 401
    answer = server.ask('/?token=secret')
    assert (answer.status, answer.headers['location']) == (303, '/')
    cookie = f'stvsr_token_{server.port}=secret'
    assert server.ask('/', Cookie=cookie).status == 200
    assert server.ask('/', Cookie=f'stvsr_token_{server.port}=other').status == 401
    # An address of this machine cannot be bound to another one, as a name can
    assert server.ask('/', Cookie=cookie, Host=f'10.0.0.1:{server.port}').status == 200
    assert server.ask('/', Cookie=cookie, Host=f'evil.example:{server.port}').status == 421


def test_uploads_are_limited_and_removed(another, clip):
    server = another(max_bytes=clip.stat().st_size, keep_seconds=0)
    answer = server.ask('/api/uploads?name=a.mp4', 'POST', bytes(clip.stat().st_size + 1))
    assert answer.status == 413 and 'takes at most' in answer.data['error']
    # Only the headers: the server closes the connection while a client is still sending
    assert server.ask('/api/uploads?name=a.mp4', 'POST', **{'Transfer-Encoding': 'chunked'}).status == 411
    answer = server.upload(clip, 40 * 'a')
    assert answer.status == 200 and answer.data['facts']['width'] == 96
    for session, count in (('a', 1), ('b', 0)):
        assert len(server.jobs.uploads_of(40 * session)) == count
    assert len(list(server.jobs.folder.iterdir())) == 1
    time.sleep(0.01)
    server.jobs.remove_old()
    assert not list(server.jobs.folder.iterdir()) and not server.jobs.uploads
    server.upload(clip, 40 * 'a')
    server.jobs.close()
    assert not server.jobs.folder.exists()


def test_folders_of_killed_apps_are_removed(tmp_path, monkeypatch):
    """Not that of a running app, one that just begins, or what a link of such a name leads to."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    held = FileLock(tmp_path / 'stvsr-app-running' / 'lock')
    for name in ('stvsr-app-killed', 'stvsr-app-running', 'stvsr-app-beginning', 'elsewhere'):
        (tmp_path / name / 'upload').mkdir(parents=True)
        (tmp_path / name / 'lock').touch()
        if name != 'stvsr-app-beginning':
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / 'stvsr-app-link').symlink_to(tmp_path / 'elsewhere')
    assert held.acquire()
    before = set(tmp_path.iterdir())
    with own_folder() as folder:
        assert set(tmp_path.iterdir()) - {folder} == before - {tmp_path / 'stvsr-app-killed'}
        assert not is_free(folder / 'lock') and (tmp_path / 'elsewhere' / 'upload').is_dir()
    assert not folder.exists()
    held.release()


def test_settings_become_arguments():
    def arguments(is_image: bool = False, **values: Any) -> str:
        return ' '.join(read_settings(values).arguments(is_image=is_image))

    assert arguments(model='mbnet-small') == '--model mbnet-small --space-only'
    assert arguments(model='mbnet-small', rate='double', scale=1.5) == '--model mbnet-small --scale 1.5'
    assert arguments(model='fstrn-small', rate=60, height=720) == (
        '--model fstrn-small --height 720 --interpolate dis --fps 60')
    assert arguments(model='dis', rate='double', start=90, duration=10) == '--model dis --start 90 --duration 10'
    assert arguments(model='dis', rate='double', start=90, duration=10, preview=True).endswith('--duration 3')
    assert arguments(True, model='fstrn-small', rate=60, start=3) == '--model fstrn-small'
    for values in ({'model': '../net.pth'}, {'model': 'dis', 'scale': -1}, {'model': 'dis', 'more': 1}, [], {}):
        with pytest.raises(ValueError, match='cannot be used'):
            read_settings(values)
    assert {model['name']: model['scale'] for model in models()}['dis'] == 1


def test_a_missing_extra_is_named(monkeypatch, capsys):
    from basicsr_stvsr.cli import app
    from stvsr.main import main

    monkeypatch.setattr(app, 'find_spec', lambda name: None)
    assert main(['app']) == 2
    assert capsys.readouterr().err == "error: stvsr app needs starlette and uvicorn: pip install 'basicsr_stvsr[app]'\n"
    assert "'app': ['starlette', 'uvicorn']" in (ROOT / 'setup.py').read_text()
