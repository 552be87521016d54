"""A problem of each kind as the service answers it, for the OpenAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.problems import Problem, problem_document


def _problems() -> Iterator[Problem]:
    yield Problem(
        "malformed-request", "the body is no JSON that can be taken: Expecting value: line 1 column 10 (char 9)"
    )
    yield Problem("change-header-invalid", "x-change-rationale holds a control character; send plain text on one line")
    said = "missing or blank; send a text that matches ^(?:[A-Z]+-\\d+)$"
    yield Problem(
        "change-info-required",
        "a write of Invoice needs X-Change-Ticket; errors say what each must be",
        errors={"headers": {"X-Change-Ticket": [said]}},
    )
    yield Problem(
        "unauthenticated",
        "the token is unknown, expired or revoked; send a valid token as Authorization: Bearer …, or log in",
    )
    yield Problem("login-failed", "the e-mail or the password is wrong, or the login is disabled")
    yield Problem("forbidden", "this takes the scope write or user:write; yours is read")
    yield Problem(
        "csrf-failed", "send the csrf_token of GET /session as X-CSRF-Token, as what changes something takes it"
    )
    yield Problem("not-found", "there is nothing at /record/user/42; /docs tells what there is")
    yield Problem("unknown-model", "there is no model 'users'; there are release, user")
    yield Problem("unknown-record", "there never was a user with the key '42'; a key is {id}")
    yield Problem("unknown-version", "the record has no version 7")
    yield Problem(
        "unknown-transaction",
        "no transaction 01990e5c-7d2a-7a31-9c1f-0d6a54b1f0aa has changed what may be read",
    )
    yield Problem("method-not-allowed", "this address takes GET, HEAD, OPTIONS, not 'DELETE'")
    yield Problem("not-acceptable", "this is answered as application/json; say one of them in Accept")
    yield Problem("request-timeout", "the request did not arrive in time; send it anew")
    exists = Problem("record-exists", "there is a release with the key 'python,3.13' already")
    yield exists
    yield Problem("conflict", "a value that must be unique is taken")
    yield Problem("concurrent-change", "another request was in the way; read again what is there, and repeat")
    yield _bulk("bulk-failed", 2, [(1, exists)])
    yield Problem("deleted", "the release was deleted; /history/release/python,3.12 tells its history")
    yield Problem("purged", "User 42: versions 0 to 3 were purged, the last of them at 2026-03-01T09:00:00Z")
    yield Problem("precondition-failed", 'it is at "v1" now; read it again before you decide what to do')
    yield Problem("content-too-large", "a body may have 1048576 bytes at the most")
    yield Problem("uri-too-long", "the address has 8013 characters; at most 8000 are taken")
    yield Problem(
        "unsupported-media-type",
        "send the body as application/merge-patch+json or application/json, in UTF-8; its Content-Type was text/plain",
    )
    yield Problem("expectation-failed", "the only expectation that can be met is 100-continue")
    wrong = "Must be greater than or equal to 1 and less than or equal to 500."
    yield Problem(
        "invalid",
        "not as it must be: limit in the query; errors say what is wrong with each",
        errors={"query": {"limit": [wrong]}},
    )
    missing = Problem(
        "invalid",
        "not as it must be: record",
        errors={"json": {"record": {"cycle": ["is missing, and must be given"]}}},
    )
    yield _bulk("bulk-invalid", 2, [(0, missing), (1, exists)])
    yield Problem(
        "too-many-requests",
        "asked more often than the limits allow; wait for as many seconds as Retry-After says",
    )
    yield Problem("headers-too-large", "there are too many headers, or one is longer than 16 KiB")
    yield Problem("internal-error", "the error was logged; nothing was changed")
    yield Problem("not-implemented", "the only transfer coding that is taken is chunked")
    yield Problem("unavailable", "the database does not answer; try again")
    yield Problem(
        "outcome-unknown",
        "the connection to the database was lost during the commit; read what is there before you repeat it",
    )
    yield Problem("http-version-not-supported", "speak HTTP/1.1")


def _bulk(kind: str, sent: int, wrong: list[tuple[int, Problem]]) -> Problem:
    items = [{"index": index, "problem": problem_document(problem)} for index, problem in wrong]
    return Problem(
        kind,
        f"{len(items)} of {sent} items cannot be written, so none was; items say what is wrong with each",
        items=items,
    )


EXAMPLES: Mapping[str, Mapping[str, Any]] = {problem.kind: problem_document(problem) for problem in _problems()}
"""Kind → a problem of it, as a document."""
