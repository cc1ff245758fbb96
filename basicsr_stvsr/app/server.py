"""The web server of the app: its pages, and what its page asks for as JSON."""
import shutil
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from .guard import Guard
from .jobs import Jobs, Run, Upload
from .settings import PREVIEW_SECONDS, models, read_settings

MOST_RUNS = 20  # of a user, in the queue or finished
FILES = {'/': ('page.html', 'text/html'), '/page.css': ('page.css', 'text/css'),
         '/page.js': ('page.js', 'text/javascript')}
# The comparison page brings its script and its pictures along; as a frame it may do nothing else
COMPARISON_POLICY = ("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob:; "
                     "sandbox allow-scripts; frame-ancestors 'self'")


class AppError(Exception):
    """A request that is refused, with a sentence for the user."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class Pages:
    """The handlers of all requests.

    Args:
        jobs: the work of all users.
        max_bytes: size limit of an upload.
    """

    def __init__(self, jobs: Jobs, *, max_bytes: int):
        self.jobs, self.max_bytes = jobs, max_bytes
        self.models = models()

    def routes(self) -> list[Route]:
        def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str = 'GET') -> Route:
            return Route(path, handler, methods=[method])

        return [
            *(route(path, self.file) for path in FILES),
            route('/api/about', self.about),
            route('/api/uploads', self.uploads),
            route('/api/uploads', self.upload, 'POST'),
            route('/api/uploads/{upload}', self.delete_upload, 'DELETE'),
            route('/api/uploads/{upload}/runs', self.start, 'POST'),
            route('/api/runs/{run}', self.delete_run, 'DELETE'),
            route('/api/runs/{run}/cancel', self.cancel, 'POST'),
            route('/api/runs/{run}/resume', self.resume, 'POST'),
            route('/api/runs/{run}/result', self.result),
            route('/api/runs/{run}/comparison', self.comparison)]

    async def file(self, request: Request) -> Response:
        name, media_type = FILES[request.url.path]
        return Response(resources.files(__package__).joinpath(name).read_bytes(), media_type=media_type)

    async def about(self, request: Request) -> Response:
        return JSONResponse({'models': self.models, 'max_bytes': self.max_bytes, 'preview_seconds': PREVIEW_SECONDS,
                             'keep_hours': self.jobs.keep_seconds / 3600})

    async def uploads(self, request: Request) -> Response:
        uploads = self.jobs.uploads_of(request.state.session)
        return JSONResponse({'uploads': [self._shown(upload) for upload in uploads]})

    def _shown(self, upload: Upload) -> dict[str, Any]:
        runs = [run.to_json() | {'num_before': self.jobs.num_before(run)} for run in upload.runs.values()]
        return upload.to_json() | {'runs': runs}

    async def upload(self, request: Request) -> Response:
        """Store the body of the request, which is the file."""
        length = request.headers.get('content-length', '')
        if not length.isdecimal():
            raise AppError(HTTPStatus.LENGTH_REQUIRED, 'The size of the file is missing.')
        if int(length) > self.max_bytes:
            raise AppError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                           f'The file has {int(length) / 1e6:,.0f} MB; this server takes at most '
                           f'{self.max_bytes / 1e6:,.0f} MB.')
        if int(length) > shutil.disk_usage(self.jobs.folder).free:
            raise AppError(HTTPStatus.INSUFFICIENT_STORAGE, 'The disk of the server is full.')
        upload = self.jobs.add_upload(request.state.session, request.query_params.get('name', ''))
        try:
            await self._receive(request, upload)
            await to_thread.run_sync(self.jobs.examine, upload)
        except BaseException as error:
            shutil.rmtree(upload.folder, ignore_errors=True)
            if isinstance(error, ValueError):
                raise AppError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            raise
        return JSONResponse(upload.to_json())

    async def _receive(self, request: Request, upload: Upload) -> None:
        received = 0
        with upload.path.open('wb') as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > self.max_bytes:  # more than was stated
                    raise AppError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 'The file is larger than its stated size.')
                await to_thread.run_sync(file.write, chunk)

    async def delete_upload(self, request: Request) -> Response:
        await to_thread.run_sync(self.jobs.delete_upload, self._upload(request))
        return JSONResponse({})

    async def start(self, request: Request) -> Response:
        upload = self._upload(request)
        try:
            settings = read_settings(await request.json())
        except ValueError as error:
            raise AppError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        if sum(len(other.runs) for other in self.jobs.uploads_of(request.state.session)) >= MOST_RUNS:
            raise AppError(HTTPStatus.CONFLICT, f'You have {MOST_RUNS} results; remove one first.')
        return JSONResponse(self.jobs.start(upload, settings).to_json())

    async def cancel(self, request: Request) -> Response:
        self.jobs.cancel(self._run(request))
        return JSONResponse({})

    async def resume(self, request: Request) -> Response:
        self.jobs.resume(self._run(request))
        return JSONResponse({})

    async def delete_run(self, request: Request) -> Response:
        await to_thread.run_sync(self.jobs.delete_run, self._run(request))
        return JSONResponse({})

    async def result(self, request: Request) -> Response:
        run = self._run(request)
        name = f'{Path(run.upload.name).stem}_{"preview" if run.settings.preview else "restored"}{run.output.suffix}'
        return _stored(run.output, filename=name)

    async def comparison(self, request: Request) -> Response:
        return _stored(self._run(request).page, headers={'Content-Security-Policy': COMPARISON_POLICY})

    def _upload(self, request: Request) -> Upload:
        wanted = request.path_params['upload']
        for upload in self.jobs.uploads_of(request.state.session):
            if upload.id == wanted:
                return upload
        raise AppError(HTTPStatus.NOT_FOUND, 'This file was removed.')

    def _run(self, request: Request) -> Run:
        run = self.jobs.find_run(request.state.session, request.path_params['run'])
        if run is None:
            raise AppError(HTTPStatus.NOT_FOUND, 'This result was removed.')
        return run


def _stored(path: Path, **options: Any) -> Response:
    if not path.is_file():
        raise AppError(HTTPStatus.NOT_FOUND, 'This result is not there yet.')
    return FileResponse(path, **options)


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return JSONResponse({'error': str(error)}, error.status)


async def _ignore(request: Request, error: Exception) -> Response:
    """Answer a user who went away during an upload."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


def make_app(jobs: Jobs, *, max_bytes: int, host: str, port: int, token: str | None) -> Starlette:
    return Starlette(routes=Pages(jobs, max_bytes=max_bytes).routes(),
                     middleware=[Middleware(Guard, host=host, port=port, token=token)],
                     exception_handlers={AppError: _explain, ClientDisconnect: _ignore})


def make_server(jobs: Jobs, listener: socket.socket, *, host: str, max_bytes: int, token: str | None) -> uvicorn.Server:
    """Return the server for a socket that is bound to `host`; call `run(sockets=[listener])`."""
    port = listener.getsockname()[1]
    app = make_app(jobs, max_bytes=max_bytes, host=host, port=port, token=token)
    return uvicorn.Server(uvicorn.Config(app, log_level='warning', access_log=False, server_header=False,
                                         timeout_graceful_shutdown=2, lifespan='off'))
