"""The reasons that come with a write, by its ``X-Change-*`` headers, and those that a model requires."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import request

from app.change_headers import change_info_of
from app.registry import Resource
from chrononaut import RequiredChangeInfoError, extra_change_info
from chrononaut.change_info import says_something
from chrononaut.options import ANY_TEXT
from chrononaut.reasons import refuse_without_required

View = Callable[..., Any]
RATIONALE = "change_rationale"
"""The key of the change info that ``X-Change-Rationale`` sets."""


def with_reasons(resource: Resource | None, *, needs_rationale: bool = False) -> Callable[[View], View]:
    """Let all that a view changes carry the reasons that the request's headers give.

    They are read before anything else of the request is, so that what is wrong with them is told first.

    :param resource: the model that the view writes; the reasons that it requires must be among those given
    :param needs_rationale: must a rationale be among them, whatever the model requires?
    :return: raises `ChangeHeaderError` and `RequiredChangeInfoError`
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def reasoned(*args: Any, **kwargs: Any) -> Any:
            extra = change_info_of(request.headers)
            if resource is not None:
                refuse_without_required(resource.versioning, "write", {"extra": extra})
            if needs_rationale and resource is not None and not says_something(extra.get(RATIONALE)):
                raise RequiredChangeInfoError(resource.versioning.name, "write", {RATIONALE: ANY_TEXT.pattern}, {})
            with extra_change_info(**extra):
                return view(*args, **kwargs)

        return reasoned

    return decorate
