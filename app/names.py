"""Names in the OpenAPI document, each of which one thing has."""

from apispec.core import Components


class NameTakenError(Exception):
    """The message says what has the name already."""


def free_schema_name(components: Components, name: str) -> str:
    """The name of a schema that the document does not have yet.

    :raises NameTakenError: it has another one of this name; apispec would put a number behind it
    """
    if name in components.schemas or name in components.schemas_lazy:
        raise NameTakenError(f"a schema {name}")
    return name
