"""Who may talk to the server: checks of each request, and cookies."""
import hmac
import ipaddress
import secrets
import socket
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = '127.0.0.1'
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'self'; "
                               "base-uri 'none'; form-action 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store'}


class Guard:
    """Refuse requests of other sites and, with a token, of others than its holders; set the cookie of the session.

    The Host header must name this server, so that a name that is bound to this address later (DNS rebinding) is
    refused. Requests that change something must come from a page of this server (Origin header).

    Args:
        app: what answers the other requests; it finds the session in `request.state.session`.
        host: the address that the server is bound to.
        port: its port; cookies are named after it, because all ports of a host share them.
        token: the token; None: none is required.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, token: str | None):
        self.app, self.host, self.token = app, host, token
        self.session_cookie, self.token_cookie = f'stvsr_session_{port}', f'stvsr_token_{port}'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        cookies = {}
        session = request.cookies.get(self.session_cookie, '')
        if len(session) < 40:
            session = cookies[self.session_cookie] = secrets.token_urlsafe(32)
        scope.setdefault('state', {})['session'] = session

        answer = self._refusal(request)
        given = parse_qs(scope['query_string'].decode('latin-1')).get('token', [''])[0]
        if answer is None and self.token is not None and given:
            if self._is_token(given):  # hide it from the address, and so from the history
                answer = RedirectResponse('/', HTTPStatus.SEE_OTHER)
                cookies[self.token_cookie] = self.token
            else:
                answer = refuse(HTTPStatus.UNAUTHORIZED, 'The token in this address is wrong.')

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(raw=message['headers'])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                for name, value in cookies.items():
                    headers.append('Set-Cookie', f'{name}={value}; Path=/; HttpOnly; SameSite=Strict')
                message['headers'] = headers.raw
            await send(message)

        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that is refused."""
        host = request.headers.get('host', '')
        if not self._is_own(host):
            return refuse(HTTPStatus.MISDIRECTED_REQUEST, 'This server has another name. Open the address that '
                          '`stvsr app` printed.')
        if request.method not in ('GET', 'HEAD') and not is_same_site(request.headers, host):
            return refuse(HTTPStatus.FORBIDDEN, 'This request came from a page of another site.')
        has_token = self.token is None or self._is_token(request.cookies.get(self.token_cookie, ''))
        if not has_token and not request.query_params.get('token'):
            return refuse(HTTPStatus.UNAUTHORIZED, 'This page needs a token. Open the address that `stvsr app` '
                          'printed; it ends in ?token=...')
        return None

    def _is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def _is_own(self, host: str) -> bool:
        """Return whether a Host header names this server. An address, unlike a name, cannot be bound anew."""
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name in ('localhost', self.host):
            return True
        return self.host != LOCAL and (name == socket.gethostname().lower() or _is_address(name))


def is_same_site(headers: Headers, host: str) -> bool:
    """Return whether the Origin header names this server."""
    origin = urlsplit(headers.get('origin', ''))
    return origin.scheme in ('http', 'https') and origin.netloc == host


def refuse(status: HTTPStatus, sentence: str) -> Response:
    return PlainTextResponse(sentence, status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
