"""The operation of ``/problems``: what the ``type`` of a problem means."""

from typing import Any

from marshmallow import fields

from app.answers import Answer
from app.api import Blueprint
from app.problems import KINDS, Problem, problem_type

_EXAMPLE = "precondition-failed"


class ProblemKindSchema(Answer):
    """A kind of problem."""

    type = fields.String(required=True, metadata={"format": "uri-reference", "description": "as problems have it"})
    title = fields.String(required=True, metadata={"description": "what is the same about all problems of the kind"})
    status = fields.Integer(required=True, metadata={"format": "int32", "minimum": 400, "maximum": 599})
    description = fields.String(required=True, metadata={"description": "when it comes, and what to do"})


def add_problem_kinds(blueprint: Blueprint) -> None:
    """Add ``GET /problems/{kind}``."""

    @blueprint.operation(
        "GET",
        "/problems/<kind>",
        "get_problem_kind",
        scope=None,
        public=True,
        answer=ProblemKindSchema,
        example=_described(_EXAMPLE),
        problems=["not-found"],
    )
    def get_problem_kind(query: dict[str, Any], kind: str) -> dict[str, Any]:
        """What a kind of problem is: when it comes, and what to do. Its address is the `type` of such problems."""
        if kind not in KINDS:
            raise Problem("not-found", f"there is no kind of problem {kind[:60]!r}; there are {', '.join(KINDS)}")
        return _described(kind)


def _described(name: str) -> dict[str, Any]:
    kind = KINDS[name]
    return {"type": problem_type(name), "title": kind.title, "status": kind.status, "description": kind.description}
