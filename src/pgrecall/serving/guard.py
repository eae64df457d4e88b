"""What stands before every request: who asks, by which name, how many at once, and for how long.

It is plain ASGI, so it guards whatever is mounted in the application as well.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgrecall.core.keys import parse_token
from pgrecall.errors import PgrecallError
from pgrecall.serving.access import EVERYTHING, Access, acting
from pgrecall.serving.faults import problem_of
from pgrecall.serving.problems import Problem, shown
from pgrecall.serving.store import Store

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/health", "/openapi.json"})
"""What may be asked without a key: nothing of a memory is in the answers."""

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(:\d{1,5})?", re.ASCII)
_AUTHENTICATE = 'Bearer realm="pgrecall"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Who is let in.

    Attributes:
        store: Where keys are looked up; None without a database, which has none.
        hosts: Names by which this server may be asked, in lower case; ``*`` for any.
        loopback: Whether it can be reached from this machine alone, and its addresses are names
            of it.
        requests: Most requests under way at once.
        seconds: How long one may take; None for ever.
        unhurried: Paths of requests that may take as long as they do, such as an import.
    """

    store: Store | None
    hosts: frozenset[str]
    loopback: bool
    requests: int
    seconds: float | None
    unhurried: Sequence[str] = ()


class Guard:
    """Lets requests in, each with what its caller may do (``access.current()``).

    Args:
        app: What gets them.
        doors: Who is let in.
    """

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_room(path)
            self._under_way += 1
            try:
                access = await self._access(path, headers)
                scope["pgrecall.access"] = access
                with acting(access):
                    await self._in_time(scope, receive, send)
            finally:
                self._under_way -= 1
        except Problem as problem:
            # A body that was not read would be taken for the next request.
            problem.headers = {**problem.headers, "Connection": "close"}
            await problem.response(path)(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's.

        A web page can have its own name lead to this machine (DNS rebinding), and then ask here
        as if it came from here; the name that it is asked by stays the page's.
        """
        doors = self._doors
        given = headers.getlist("host")
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        name = "" if found is None else found["name"].lower().rstrip(".")
        if found is not None and ("*" in doors.hosts or name in doors.hosts):
            return
        if doors.loopback and (name == "localhost" or _is_loopback(name)):
            return
        detail = (
            f"this server is not called {shown(given[0] if given else '')}: ask it by its address, "
            "or name it in PGRECALL_SERVE_ALLOWED_HOSTS"
        )
        raise Problem(421, "wrong-host", detail)

    def _check_room(self, path: str) -> None:
        if self._under_way >= self._doors.requests and path not in OPEN_PATHS:
            detail = (
                f"{self._doors.requests} requests are under way: send this one again later "
                "(PGRECALL_SERVE_MAX_REQUESTS)"
            )
            raise Problem(503, "busy", detail, headers={"Retry-After": "1"})

    async def _access(self, path: str, headers: Headers) -> Access:
        store = self._doors.store
        if store is None or path in OPEN_PATHS:
            return EVERYTHING
        try:
            if not await store.needs_keys():
                if self._doors.loopback:
                    return EVERYTHING
                raise _unauthenticated("there is no key, and this machine is not the only one")
            return await self._of_key(store, headers)
        except PgrecallError as error:
            raise problem_of(error) from error

    @staticmethod
    async def _of_key(store: Store, headers: Headers) -> Access:
        given = headers.getlist("authorization")
        if not given:
            raise _unauthenticated("this needs a key: send Authorization: Bearer TOKEN")
        scheme, _, text = given[0].partition(" ")
        token = parse_token(text.strip()) if scheme.lower() == "bearer" else None
        access = None
        if len(given) == 1 and token is not None:
            access = await store.access(token)
        if access is None:
            detail = (
                "this key is unknown, revoked or over: ask for another, pgrecall keys create "
                "makes them"
            )
            raise _unauthenticated(detail, ', error="invalid_token"')
        return access

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(tuple(self._doors.unhurried)):
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._doors.seconds):
                await self._app(scope, receive, watched)
        except TimeoutError as error:
            if begun:
                raise
            detail = (
                f"this took more than {self._doors.seconds:g} s and was given up; if it writes, "
                "send it again with the same external_id or Idempotency-Key "
                "(PGRECALL_SERVE_REQUEST_TIMEOUT)"
            )
            raise Problem(504, "timed-out", detail) from error


def _unauthenticated(detail: str, more: str = "") -> Problem:
    headers = {"WWW-Authenticate": _AUTHENTICATE + more}
    return Problem(401, "unauthenticated", detail, headers=headers)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
