"""Links between resources (RFC 8288), as headers and as documents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LINK_FORMAT = "application/link-format"


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a resource of the service.

    :ivar target: its path
    :ivar relation: what it is to the one that has the link
    :ivar attributes: what else is told of it
    """

    target: str
    relation: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    def text(self, separator: str = "; ") -> str:
        """The link as text, with a separator before each of its parameters."""
        parameters = {"rel": self.relation, **self.attributes}
        return separator.join([f"<{self.target}>", *(f'{name}="{value}"' for name, value in parameters.items())])


def link_header(links: Iterable[Link]) -> str:
    """The value of a ``Link`` header."""
    return ", ".join(link.text() for link in links)


def link_document(links: Iterable[Link]) -> str:
    """A document of the type ``application/link-format`` (RFC 6690), with a link on each line."""
    return ",\n".join(link.text(";") for link in links) + "\n"
