"""Reads links as RFC 8288 writes them, strictly."""

import re
from dataclasses import dataclass
from typing import Any

_PARAMETER = r'[!#$&+\-.^_`|~0-9A-Za-z]+="[^"]*"'
_LINK = re.compile(rf"<([^<>\s\"]*)>((?:[ \t]*;[ \t]*{_PARAMETER})*)")


@dataclass(frozen=True)
class Link:
    """A link: where to, by which relation types, and what is told of it."""

    target: str
    relations: frozenset[str]
    datetime: str | None
    parameters: dict[str, str]


def parse_links(text: str, between: str = r"[ \t]*,[ \t]*") -> list[Link]:
    """The links of a header, or of a document.

    :param between: what stands between two links
    """
    links: list[Link] = []
    position = 0
    while position < len(text):
        if links:
            comma = re.compile(between).match(text, position)
            assert comma, f"no comma at {text[position : position + 40]!r}"
            position = comma.end()
        link = _LINK.match(text, position)
        assert link, f"no link at {text[position : position + 40]!r}"
        position = link.end()
        parameters = [parameter.split("=", 1) for parameter in re.findall(_PARAMETER, link[2])]
        told = {name: value[1:-1] for name, value in parameters}
        assert len(told) == len(parameters), f"a parameter twice in {link[0]}"
        links.append(Link(link[1], frozenset(told.pop("rel").split()), told.get("datetime"), told))
    return links


def links_by_relation(response: Any) -> dict[str, str]:
    """Where the links of an answer lead, by their relation types as they are written, sorted."""
    links = parse_links(response.headers["Link"])
    by_relation = {" ".join(sorted(link.relations)): link.target for link in links}
    assert len(by_relation) == len(links), "a relation twice"
    return by_relation


def parse_link_document(text: str) -> list[Link]:
    """The links of a document of link format, a link on each line."""
    assert text.endswith("\n")
    return parse_links(text[:-1], between=",\n")
