"""What answers have in common."""

from flask import Response
from marshmallow import Schema


class Answer(Schema):
    """What an answer says. The document does not close it: clients pass over fields that were added since."""

    class Meta:
        """Tell of no limit to the fields."""

        unknown = "exclude"


def no_content() -> Response:
    """An answer without a body, and so of no media type (RFC 9110, section 8.3)."""
    response = Response(status=204)
    response.headers.remove("Content-Type")
    return response
