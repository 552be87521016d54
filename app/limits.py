"""How often somebody may ask: whoever is known by who they are, else everyone at an address together.

Flask-Limiter counts. Every answer that a limit counted says by ``X-RateLimit-Limit``, ``X-RateLimit-Remaining`` and
``X-RateLimit-Reset`` (seconds since 1970) what is left of the one that is nearest to be reached; one that is refused
(429) says by ``Retry-After`` how many seconds to wait.

``OPTIONS`` is not counted: it takes no database, and a browser that was refused a preflight, which never says who asks,
would keep a page from what its user may ask. Nor is what `app.health` answers.
"""

import logging
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final, TypeVar

from flask import Flask, Response, g, request
from flask.logging import default_handler
from flask_limiter import ApplicationLimit, Limiter
from flask_login import current_user
from limits.errors import ConfigurationError

from app.settings import SettingError, Settings

FAILED_LOGINS_OF_ADDRESS: Final = "20 per minute; 200 per hour"
FAILED_LOGINS_OF_EMAIL_AT_ADDRESS: Final = "10 per minute; 50 per hour"

_TIMEOUT = 1.0
# What a client at an IPv6 address has at least: all its addresses count as one.
_IPV6_PREFIX = 64
_R = TypeVar("_R")


def init_limits(app: Flask, settings: Settings) -> Limiter:
    """Limit how often the service is asked, over all its operations together, if a setting says so.

    :raises SettingError: the counts cannot be kept where the setting says
    """
    if not logging.getLogger().handlers:
        # They are logged nowhere otherwise.
        logging.getLogger("flask-limiter").addHandler(default_handler)
    limits = [settings.rate_limits] if settings.rate_limits else []
    scheme = settings.rate_limit_storage.partition(":")[0]
    options: dict[str, Any] = {"socket_connect_timeout": _TIMEOUT, "socket_timeout": _TIMEOUT}
    limiter = Limiter(
        _address,
        application_limits=[
            ApplicationLimit(limit, key_function=_requester, error_message=_refusal) for limit in limits
        ],
        headers_enabled=True,
        # What is at no address is asked for as well.
        request_identifier=lambda: request.endpoint or "nothing",
        storage_uri=settings.rate_limit_storage,
        # Rather than that nobody is answered: each worker counts by itself until it is back.
        in_memory_fallback_enabled=True,
        storage_options=options if "redis" in scheme else {},
        key_prefix="chrononaut",
    )

    def identify() -> None:
        # Who is not counted need not be known, which can take the database.
        if not any(is_exempt() for is_exempt in limiter._request_filters):
            bool(current_user)

    # Before it counts, which takes errors for those of its storage; and before and after it has set its headers.
    app.before_request(identify)
    app.after_request(_keep_waiting_for_refused)
    if scheme.startswith("async+"):
        raise _no_storage(scheme, "there is no such storage")
    try:
        limiter.init_app(app)
    except (ConfigurationError, ValueError) as error:
        # The URL, which may hold a password, stands in the one and not in the other.
        reason = str(error) if "prerequisite" in str(error) else "there is no such storage"
        raise _no_storage(scheme, reason) from None
    if not limits:
        # It would look for limits of each request, and find none. Those of failed logins are asked by the login.
        app.before_request_funcs[None].remove(limiter._check_request_limit)
    app.after_request(_note_waiting)
    return limiter


def limit_failed_logins(limiter: Limiter, authenticate: Callable[[str, str], _R]) -> Callable[[str, str], _R]:
    """A check of an e-mail and a password which is refused (429) after too many that failed.

    They are counted by address, and by e-mail at an address; what is answered with 401 has failed. Those of an e-mail
    wherever they come from are not: anybody could lock out whom they know by name. Who guesses from many addresses has
    twelve characters to guess, at the pace of a slow hash.
    """

    def attempt(email: str, password: str) -> _R:
        return authenticate(email, password)

    for counts, key in ((FAILED_LOGINS_OF_ADDRESS, _address), (FAILED_LOGINS_OF_EMAIL_AT_ADDRESS, _email_at_address)):
        attempt = limiter.limit(
            counts, key_func=key, scope=key.__name__, deduct_when=_has_failed, error_message=_refusal
        )(attempt)

    def limited(email: str, password: str) -> _R:
        g.login_email = email.strip().lower()
        return attempt(email, password)

    return limited


def _no_storage(scheme: str, reason: str) -> SettingError:
    right = "memory:// or redis://host:6379"
    return SettingError(f"CHRONONAUT_RATE_LIMIT_STORAGE must be {right}, not {scheme}:…; {reason}")


def _requester() -> str:
    return f"user {current_user.email}" if current_user.is_authenticated else _address()


def _address() -> str:
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:
        return "address unknown"
    if isinstance(address, IPv6Address):
        return f"address {ip_network((int(address), _IPV6_PREFIX), strict=False)}"
    return f"address {address}"


def _email_at_address() -> str:
    return f"email {g.login_email} {_address()}"


def _has_failed(response: Response) -> bool:
    return response.status_code == HTTPStatus.UNAUTHORIZED


def _refusal() -> str:
    return "asked more often than the limits allow; wait for as many seconds as Retry-After says"


def _note_waiting(response: Response) -> Response:
    g.retry_after = response.headers.get("Retry-After")
    return response


def _keep_waiting_for_refused(response: Response) -> Response:
    # Flask-Limiter tells everyone to wait until the limits are whole again.
    if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
        response.headers.pop("Retry-After", None)
        if g.retry_after is not None:
            response.headers["Retry-After"] = g.retry_after
    return response
