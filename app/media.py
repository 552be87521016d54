"""Which of several representations is answered (RFC 9110, section 12)."""

from flask import request
from werkzeug.datastructures import MIMEAccept

from app.problems import Problem

JSON = "application/json"


def acceptable(*offered: str) -> str:
    """The one of some media types that the client prefers (RFC 9110, section 12.5.1).

    Parameters of a type, as ``charset=utf-8``, are passed over: none of what is offered has any.

    :param offered: first the one for clients that prefer none
    :raises Problem: 406
    """
    named = [(type_.partition(";")[0].rstrip(), quality) for type_, quality in request.accept_mimetypes]
    chosen = MIMEAccept(named).best_match(offered) if named else offered[0]
    if chosen is None:
        raise Problem("not-acceptable", f"this is answered as {' or '.join(offered)}; say one of them in Accept")
    return chosen
