"""The built pages fetch nothing from elsewhere: no script, style, font or image. A page that does is a warning."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

# What a browser loads by itself. A link of an anchor is followed by the reader alone.
_LOADING = {"audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "track", "video"}
_OUTSIDE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Loaded(HTMLParser):
    """Collects the addresses that a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value or "" for name, value in attrs if name in {"href", "src", "srcset", "data", "poster"}]
        if tag in _LOADING:
            self.outside += [value for value in values if _OUTSIDE.match(value)]
        self.outside += [found for name, value in attrs if name == "style" for found in _IN_STYLE.findall(value or "")]


def loaded_from_elsewhere(folder: Path) -> Iterator[str]:
    """What pages and styles load that is not in their folder: ``page: address``."""
    for page in sorted(folder.rglob("*.html")):
        reader = _Loaded()
        text = page.read_text()
        reader.feed(text)
        inline = [
            found for style in re.findall(r"<style.*?</style>", text, re.DOTALL) for found in _IN_STYLE.findall(style)
        ]
        yield from (f"{page.relative_to(folder)}: {address}" for address in (*reader.outside, *inline))
    for style in sorted(folder.rglob("*.css")):
        yield from (f"{style.relative_to(folder)}: {address}" for address in _IN_STYLE.findall(style.read_text()))


def _check(app: Any, exception: Exception | None) -> None:
    # There is no Sphinx where the rest is tested.
    from sphinx.util.logging import getLogger  # noqa: PLC0415

    for outside in () if exception else loaded_from_elsewhere(Path(app.outdir)):
        getLogger(__name__).warning("loads from elsewhere: %s", outside)


def setup(app: Any) -> dict[str, bool]:
    """Look at what was built."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
