"""The public keys of an identity provider (JWK Sets, RFC 7517), from a file or a URL.

PyJWT reads the keys. Its ``PyJWKClient``, which would fetch them as well, forgets the keys that it has when they grow
old and cannot be fetched anew, asks again with every request while the provider fails, takes an answer of any size, and
lets all threads wait for one that asks.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""What tokens may be signed with: whoever can verify one can never make one (RFC 8725, sections 3.1 and 3.2)."""

LIFETIME: Final = 300.0
"""Seconds for which fetched keys are taken to be the provider's, without asking again."""

PAUSE: Final = 10.0
"""Seconds between two fetches at the least, whatever comes of them and whatever keys tokens name."""

_TIMEOUT = 5.0
_LONGEST = 256 * 1024

_logger = logging.getLogger(__name__)


class KeysError(Exception):
    """A place that gives no keys; the message says which and why."""


class KeysUnavailableError(KeysError):
    """No keys are known, and none can be had now.

    :ivar retry_after: seconds until it can be tried again
    """

    def __init__(self, message: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Keys(Protocol):
    """The keys of a provider."""

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of an id (``kid``); ``None`` if the provider has none.

        :raises KeysUnavailableError: nobody knows
        """


def read_keys(place: str) -> Keys:
    """The keys at a place: the path of a file, which is read at once, or a URL, which is asked when keys are needed.

    :raises KeysError: the file holds no keys
    """
    return FetchedKeys(place) if place.startswith(("http://", "https://")) else KeyFile(Path(place))


class KeyFile:
    """Keys in a file, which is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """:raises KeysError: the file holds no keys"""
        self._path = path
        self._state = self._look()
        self._keys = self._read()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of an id; of what the file held last, while it cannot be read."""
        # Before it is read: what is written meanwhile is seen the next time.
        state = self._look()
        if state != self._state:
            self._state = state
            try:
                self._keys = self._read()
            except KeysError as error:
                _logger.warning("%s; the keys that it held before are used", error)
        return self._keys.get(key_id)

    def _look(self) -> tuple[int, int, int] | None:
        """What is another as soon as the file is, or who may read it."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns, status.st_size

    def _read(self) -> Mapping[str, jwt.PyJWK]:
        try:
            with self._path.open("rb") as file:
                return _parse(file.read(_LONGEST + 1), str(self._path))
        except OSError as error:
            raise KeysError(f"{self._path} cannot be read: {error.strerror}") from None


class FetchedKeys:
    """Keys at a URL: fetched when the first are needed, when they are old, and when a token names an unknown one."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._lock = threading.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of an id; of those that were fetched last, while none can be fetched."""
        # One thread asks. The others wait for it only if they cannot go on with what is there.
        if self._is_due(key_id) and self._lock.acquire(blocking=key_id not in self._keys):
            try:
                if self._is_due(key_id):
                    self._fetch()
            finally:
                self._lock.release()
        if not self._keys:
            wait = max(1, round(self._tried_at + PAUSE - self._clock()))
            raise KeysUnavailableError("the keys of the identity provider cannot be fetched", wait)
        return self._keys.get(key_id)

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        is_wanted = key_id not in self._keys or now - self._fetched_at > LIFETIME
        return is_wanted and now - self._tried_at >= PAUSE

    def _fetch(self) -> None:
        try:
            self._keys = _parse(_get(self._url), self._url)
            self._fetched_at = self._clock()
        except KeysError as error:
            _logger.warning(
                "%s; %s", error, "the keys that it gave before are used" if self._keys else "there are none"
            )
        finally:
            # When it was answered: a slow provider gets a pause as well.
            self._tried_at = self._clock()


class _NoRedirects(HTTPRedirectHandler):
    """Keys are at the place that was set, and nowhere that it sends to."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none."""


def _get(url: str) -> bytes:
    request = Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310  http or https
    try:
        with build_opener(_NoRedirects).open(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_LONGEST + 1)
    except HTTPError as error:
        error.close()
        raise KeysError(f"{url} answers {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise KeysError(f"{url} cannot be read: {error or type(error).__name__}") from None
    return content


def _parse(content: bytes, place: str) -> Mapping[str, jwt.PyJWK]:
    """The keys of a JWK Set that verify signatures, by their ids.

    Keys without an id are left out, private ones, and those that are used for something else (RFC 7517, sections 4.2
    and 4.5).

    :raises KeysError: there are none
    """
    if len(content) > _LONGEST:
        raise KeysError(f"{place} has more than {_LONGEST} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise KeysError(f"{place} holds no JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeysError(f'{place} holds no JWK Set, which is {{"keys": […]}}')
    public = [key for key in listed if isinstance(key, dict) and "d" not in key]
    try:
        keys = jwt.PyJWKSet(public).keys
    except jwt.PyJWTError:
        keys = []
    usable = {
        key.key_id: key
        for key in keys
        if isinstance(key.key_id, str) and key.public_key_use in {None, "sig"} and key.algorithm_name in ALGORITHMS
    }
    if not usable:
        raise KeysError(f"{place} holds no public key that has a kid and verifies signatures")
    return usable
