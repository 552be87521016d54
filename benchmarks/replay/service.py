"""The service as its clients see it: requests, answers, pages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from threading import Event
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from urllib3 import exceptions
from urllib3.util import Timeout, parse_url

from benchmarks.changes import Key
from benchmarks.replay.errors import GaveUpError, NoAnswerError, RecordError, StoppedError, UnusableError
from benchmarks.replay.wire import RECORDS, changes_path, history_path

PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0)
"""Seconds between the tries of one request, which are one more: together long enough for a service to restart."""
_SHORT_PAUSES: Final = PAUSES[:2]
"""The same for the first request of all, where a wrong URL is likelier than a restart."""
PAGE: Final = 500
"""Rows in a page."""
COME_AGAIN: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers that do not say what became of the request, or that ask for patience."""

_CONNECT_TIMEOUT: Final = 5.0
_READ_TIMEOUT: Final = 30.0
_LONGEST_PAUSE: Final = 30.0
_PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to one request.

    :ivar retry_after: seconds that the service asks to wait; 0.0 where it does not say
    """

    status: int
    content_type: str
    retry_after: float
    body: bytes

    @property
    def is_problem(self) -> bool:
        """Whether the service itself refuses, and not something between."""
        return self.content_type == _PROBLEM

    def document(self) -> dict[str, Any]:
        """Read the body.

        :raises RecordError: it is not a JSON object
        """
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise RecordError(f"answered {self.status} without a JSON object")
        return document

    def __str__(self) -> str:
        try:
            problem = self.document()
        except RecordError:
            problem = {}
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = ""
        text = f"{self.status} {problem.get('title', title)}".strip()
        detail = problem.get("detail") or problem.get("errors")
        return f"{text}: {detail}" if detail else text


class Service:
    """A client of one service; its connections are shared by threads and kept open.

    :param url: where the service is, a path included if it has one
    :param connections: how many connections may be open at once
    :param stop: set when the run is over; ends all waiting
    :ivar stop: the same
    :ivar connections: the same
    :raises UnusableError: the URL or the token cannot be used
    """

    def __init__(self, url: str, token: str, *, connections: int, stop: Event) -> None:
        self.url = url
        self.connections = connections
        self.stop = stop
        try:
            parts = parse_url(url)
        except exceptions.LocationValueError as error:
            raise UnusableError(f"{url} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
            raise UnusableError(f"the URL must look like http://host:port, not {url}")
        # A token with a line break would write a header of its own.
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UnusableError("the token must be printable ASCII without spaces")
        self._prefix = (parts.path or "").rstrip("/")
        self._pool = urllib3.connection_from_url(
            url,
            maxsize=connections,
            block=True,
            retries=False,
            timeout=Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT),
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/json",
                "User-Agent": "chrononaut-replay",
            },
        )

    def check(self, key: Key) -> None:
        """Make sure that the URL is of a service that keeps releases and lets the token in.

        :param key: any key; it need not exist
        :raises UnusableError: it is not, or does not
        """
        try:
            answer = self.read(f"{history_path(key)}?limit=1", pauses=_SHORT_PAUSES)
        except GaveUpError as error:
            raise UnusableError(str(error)) from error
        is_missing = answer.status == HTTPStatus.NOT_FOUND and answer.is_problem
        if answer.status != HTTPStatus.OK and not is_missing:
            raise UnusableError(f"{self.url} does not serve {history_path(key)}: it answered {answer}")
        try:
            document = answer.document()
        except RecordError as error:
            raise UnusableError(f"{self.url} is not the service: it {error}") from error
        if not is_missing and "versions" not in document:
            raise UnusableError(f"{self.url} is not the service: it answered without versions")

    def request(self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request, once.

        :param path: from the service's root, with a query if need be
        :param body: sent as JSON unless ``None``
        :raises NoAnswerError: it may have been carried out, or not
        :raises UnusableError: the service does not let the token in, or wants to be asked elsewhere
        """
        sent = {**self._pool.headers, **(headers or {})}
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            response = self._pool.urlopen(
                method, self._prefix + path, body=content, headers=sent, redirect=False, retries=False
            )
        except exceptions.HTTPError as error:
            raise NoAnswerError(_reason(error)) from error
        answer = Answer(
            response.status,
            response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            _seconds(response.headers.get("Retry-After")),
            response.data,
        )
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise UnusableError(f"{self.url} does not accept the token: it answered {answer}")
        if answer.status == HTTPStatus.FORBIDDEN:
            raise UnusableError(f"the token may not {method} {path.partition('?')[0]}: the service answered {answer}")
        if response.get_redirect_location():
            raise UnusableError(f"{self.url} sends elsewhere, to {response.headers['Location']}: use that URL")
        return answer

    def read(self, path: str, *, pauses: Sequence[float] = PAUSES) -> Answer:
        """Send a GET, again if there is no answer to it.

        :param pauses: seconds between the tries
        :raises GaveUpError: there was none, after all tries
        :raises StoppedError: the run ended meanwhile
        """
        for pause in (*pauses, None):
            wait = 0.0
            try:
                answer = self.request("GET", path)
            except NoAnswerError as error:
                failure = str(error)
            else:
                if answer.status not in COME_AGAIN:
                    return answer
                failure, wait = str(answer), answer.retry_after
            if pause is not None:
                self.wait(max(pause, wait))
        raise GaveUpError(f"gave up on {self.url} after {len(pauses) + 1} tries: {failure}")

    def wait(self, seconds: float) -> None:
        """Wait, unless the run is over.

        :raises StoppedError: it is
        """
        if self.stop.wait(min(seconds, _LONGEST_PAUSE)):
            raise StoppedError

    def change_count(self, key: Key) -> int:
        """Ask how many changes a record has gone through, all its lives together.

        :raises RecordError: the answer makes no sense
        """
        answer = self.read(f"{history_path(key)}?limit=1&order=desc")
        if answer.status == HTTPStatus.NOT_FOUND:
            return 0
        if answer.status != HTTPStatus.OK:
            raise RecordError(f"answered {answer} for its history")
        document = answer.document()
        try:
            # Row -1 is the insert: state v is the work of v + 1 changes, and the delete that replaced it is one more.
            if document["current"] is not None:
                return int(document["current"]["version"]) + 1
            return int(document["versions"][0]["version"]) + 2
        except (KeyError, IndexError, TypeError, ValueError):
            raise RecordError("answered a history from which its number of changes cannot be told") from None

    def history(self, key: Key) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Read all prior versions of a record, oldest first.

        :return: the last page, and the versions of all pages; ``None`` if the service does not know the record
        """
        return self._pages(history_path(key), "versions", order="asc")

    def changes(self, key: Key) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Read all changes of a record, oldest first.

        :return: the last page, and the changes of all pages; ``None`` if the service does not know the record
        """
        return self._pages(changes_path(key), "changes", order="asc")

    def records_as_of(self, at: datetime) -> list[dict[str, Any]]:
        """Read all records as they were at an instant, in the order of the answer."""
        read = self._pages(RECORDS, "records", as_of=at.isoformat())
        if read is None:
            raise RecordError(f"does not serve {RECORDS}")
        return read[1]

    def _pages(self, path: str, field: str, **query: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        rows: list[dict[str, Any]] = []
        document: dict[str, Any] = {}
        for document in self._each_page(path, query):
            page = document.get(field)
            if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
                raise RecordError(f"answered a page of {path} without a list of {field}")
            rows += page
        return (document, rows) if document else None

    def _each_page(self, path: str, asked: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            query = {"limit": str(PAGE), **asked}
            if cursor is not None:
                query["cursor"] = cursor
            answer = self.read(f"{path}?{urlencode(query)}")
            if answer.status == HTTPStatus.NOT_FOUND and answer.is_problem and cursor is None:
                return
            if answer.status != HTTPStatus.OK:
                raise RecordError(f"answered {answer} for {path}")
            document = answer.document()
            yield document
            following = document.get("next")
            if following is None:
                return
            if not isinstance(following, str) or following == cursor:
                raise RecordError(f"answered a page of {path} that does not lead on: next is {following!r}")
            cursor = following


def _reason(error: exceptions.HTTPError) -> str:
    """Say in a few words why there was no answer; the texts of urllib3 hold addresses of objects."""
    if isinstance(error, exceptions.NameResolutionError):
        return "its host name is not known"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if isinstance(error, exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, exceptions.ProtocolError):
        return "the connection was dropped"
    if isinstance(error, exceptions.SSLError):
        return f"no secure connection: {error}"
    return f"{type(error).__name__}: {error}"


def _seconds(header: str | None) -> float:
    # A date is allowed too; our own pause serves then.
    return float(header) if header and header.isascii() and header.isdigit() else 0.0
