"""What the database undoes because another transaction was in the way is made anew, before anybody is told.

It is safe, as nothing is left of it, and what it goes by is read again: a merge patch is one of what is there now, and
a write with ``If-Match`` finds the version that it names, or is refused. A commit whose outcome is not known is another
thing (`app.db.OutcomeUnknownError`), and never repeated.
"""

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from flask import current_app
from sqlalchemy.exc import DBAPIError

from app.database_errors import is_undone
from app.db import start_over
from chrononaut import ConcurrentChangeError

ATTEMPTS: Final = 4
"""How often a request is made at the most."""
_LATEST = 5.0  # seconds after which none is made anew: who asks has waited long enough
_PAUSE = 0.05  # seconds at the most before the second attempt, and twice as long before each next one


def made_anew(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that is called again, with a session of its own, where another transaction was in its way.

    :param view: commits at most once, as the last thing that it does with the database
    """

    @wraps(view)
    def attempting(*args: Any, **kwargs: Any) -> Any:
        ends_at = time.monotonic() + _LATEST
        for attempt in range(1, ATTEMPTS):
            try:
                return view(*args, **kwargs)
            except (DBAPIError, ConcurrentChangeError) as error:
                if not _was_in_the_way(error) or time.monotonic() > ends_at:
                    raise
                current_app.logger.info("another transaction was in the way: attempt %d of %d", attempt, ATTEMPTS)
            start_over()
            # Those that were in each other's way do not come back together.
            time.sleep(random.uniform(0, _PAUSE * 2 ** (attempt - 1)))  # noqa: S311  it is no secret
        return view(*args, **kwargs)

    return attempting


def _was_in_the_way(error: DBAPIError | ConcurrentChangeError) -> bool:
    return not error.own if isinstance(error, ConcurrentChangeError) else is_undone(error)
