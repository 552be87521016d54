"""How much may be asked at once. What is more is refused before it is looked into.

Other bounds stand where what they are about is read: of headers in `app.server` and `app.change_headers`, of pages and
cursors in `app.pages`, of tokens in `app.auth.identity`, of keys in `app.registry`, of values in the columns.
"""

from typing import Final

from flask import request

from app.problems import Problem

LONGEST_BODY: Final = 1024 * 1024
"""Bytes of a body."""

LONGEST_ADDRESS: Final = 8000
"""Characters of an address, path and query together: as many as all servers should take (RFC 9110, section 4.1)."""

MOST_PARAMETERS: Final = 50
"""Parameters of a query."""


def refuse_long_address() -> None:
    """Refuse an address of more than `LONGEST_ADDRESS` characters.

    :raises Problem: 414
    """
    length = len(request.environ.get("PATH_INFO", "")) + len(request.environ.get("QUERY_STRING", ""))
    if length > LONGEST_ADDRESS:
        detail = f"the address has {length} characters; at most {LONGEST_ADDRESS} are taken"
        raise Problem("uri-too-long", detail)


def refuse_many_parameters() -> None:
    """Refuse a query of more than `MOST_PARAMETERS` parameters.

    :raises Problem: 422
    """
    count = sum(len(values) for _, values in request.args.lists())
    if count > MOST_PARAMETERS:
        raise Problem("invalid", f"the query has {count} parameters; at most {MOST_PARAMETERS} are taken")
