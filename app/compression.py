"""Large answers as gzip (RFC 9110, section 8.4.1.3), for clients that ask for it.

Another coding is another representation: it has an entity tag of its own, and the same bytes each time, as
a strong tag promises.
"""

from flask import Flask, Response, request
from flask_compress import Compress

from app.conditional import CODING
from app.json_patch import JSON_PATCH
from app.links import LINK_FORMAT
from app.media import JSON
from app.problems import MEDIA_TYPE

_SMALLEST = 1024
_MTIME = slice(4, 8)


def init_compression(app: Flask) -> None:
    """Compress answers of 1 KiB and more: documents and problems. Streamed answers are sent as they are."""
    app.config.update(
        COMPRESS_ALGORITHM=[CODING],
        COMPRESS_MIMETYPES=[JSON, MEDIA_TYPE, JSON_PATCH, LINK_FORMAT],
        COMPRESS_MIN_SIZE=_SMALLEST,
        COMPRESS_STREAMS=False,
        # `app.conditional` knows which entity tags there are.
        COMPRESS_EVALUATE_CONDITIONAL_REQUEST=False,
        COMPRESS_REGISTER=False,
    )
    compress = Compress(app)

    @app.after_request
    def code(response: Response) -> Response:
        response.vary.add("Accept-Encoding")
        # Flask-Compress takes `gzip;q=0` as a wish. Who accepts nothing at all gets the plain answer.
        if request.accept_encodings.quality(CODING) <= 0 or _holds_a_secret(response):
            return response
        response = compress.after_request(response)
        if response.content_encoding == CODING:
            data = bytearray(response.get_data())
            # The time of compression stands in it (RFC 1952, section 2.3.1); zero says that there is none.
            data[_MTIME] = bytes(4)
            response.set_data(bytes(data))
        return response


def _holds_a_secret(response: Response) -> bool:
    """Is it an answer whose length, once compressed, would tell of a secret in it (BREACH)?

    What holds one, as the CSRF token of a session, is what no cache may store.
    """
    return bool(response.cache_control.no_store)
