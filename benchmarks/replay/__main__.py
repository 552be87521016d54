"""The command line of the replay."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Final, NoReturn

from benchmarks.changes import Change, ChangeFileError, fold, read
from benchmarks.replay.asking import ask
from benchmarks.replay.errors import GaveUpError, ReplayError, UnusableError
from benchmarks.replay.sending import send, starting_points
from benchmarks.replay.service import Service
from benchmarks.replay.verifying import verify

COMMAND: Final = "python -m benchmarks.replay"
ENVIRONMENT: Final = "REPLAY_TOKEN"

_SHOWN_ERRORS: Final = 20
_FAILED: Final = 1
_INTERRUPTED: Final = 130

_EPILOG: Final = f"""\
The token needs the scopes read and write; better give it in {ENVIRONMENT} than where other users see it.
Exit status: 0 all went well; 1 errors or differences, or the service stopped answering; 2 a bad argument, file, URL or
token; 130 interrupted."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UnusableError(f"{message} (see --help)")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command.

    :param arguments: those of the command line by default
    :return: the exit status
    """
    try:
        options, token = _options(arguments, environ)
    except UnusableError as error:
        return _complain(str(error), error.exit_status)
    try:
        changes = read(options.file, options.limit)
        service = Service(options.url, token, connections=options.connections, stop=Event())
        service.check(changes[0].key)
        return _run(service, changes, options)
    except KeyboardInterrupt:
        return _complain(f"interrupted; go on with: {_command(options)}", _INTERRUPTED)
    except GaveUpError as error:
        return _complain(f"{error}; go on with: {_command(options)}", error.exit_status)
    except ReplayError as error:
        return _complain(str(error), error.exit_status)
    except ChangeFileError as error:
        return _complain(str(error), UnusableError.exit_status)


def _options(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> tuple[argparse.Namespace, str]:
    options = _parser().parse_args(arguments)
    if options.verify_only and options.resume:
        raise UnusableError("--resume is about sending, and --verify-only sends nothing")
    token = options.token or environ.get(ENVIRONMENT)
    if not token:
        raise UnusableError(f"no token: give --token or set {ENVIRONMENT}")
    return options, token


def _complain(text: str, status: int) -> int:
    print(f"replay: {text}", file=sys.stderr)
    return status


def _run(service: Service, changes: Sequence[Change], options: argparse.Namespace) -> int:
    histories = fold(changes)
    failed = False
    if not options.verify_only:
        # Ahead of all writes, so that these are measured alone.
        starts = starting_points(histories, ask(service, list(histories)), resume=options.resume)
        tally, seconds = send(service, changes, starts, resume=options.resume)
        print(tally.summary(seconds), flush=True)
        _print_errors(tally.errors)
        failed = bool(tally.errors)
    if options.verify or options.verify_only:
        # What an interruption says to go on with: from here on there is nothing left to send.
        options.verify_only = True
        findings = verify(service, list(histories.values()))
        for difference in findings.first:
            print(difference)
        if findings.differences > len(findings.first):
            print(f"and {findings.differences - len(findings.first):,} more differences")
        print(findings.summary(), flush=True)
        _print_errors(findings.errors)
        failed = failed or bool(findings.differences or findings.errors)
    return _FAILED if failed else 0


def _print_errors(errors: Sequence[str]) -> None:
    for error in errors[:_SHOWN_ERRORS]:
        print(f"replay: {error}", file=sys.stderr)
    if len(errors) > _SHOWN_ERRORS:
        print(f"replay: and {len(errors) - _SHOWN_ERRORS:,} more errors", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    """Spell the command that goes on where this one ends; without the token, which is a secret."""
    words = [str(options.file), options.url]
    if options.token:
        words += ["--token", "TOKEN"]
    words += ["--connections", str(options.connections)]
    if options.limit is not None:
        words += ["--limit", str(options.limit)]
    if options.verify_only:
        words.append("--verify-only")
    else:
        words.append("--resume")
        if options.verify:
            words.append("--verify")
    return f"{COMMAND} {shlex.join(words)}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=COMMAND,
        description="Send a stream of changes to a running service as its users would, and verify its histories.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the changes, .ndjson or .ndjson.gz")
    parser.add_argument("url", metavar="URL", help="where the service is, http://host:port")
    parser.add_argument("--token", metavar="T", help=f"the bearer token; by default what {ENVIRONMENT} holds")
    parser.add_argument(
        "--connections", metavar="N", type=_count, default=4, help="connections at once (default: %(default)s)"
    )
    parser.add_argument("--limit", metavar="N", type=_count, help="only the first N changes of the file")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run ended")
    reading = parser.add_mutually_exclusive_group()
    reading.add_argument("--verify", action="store_true", help="read all histories back and compare them with the file")
    reading.add_argument("--verify-only", action="store_true", help="the same, without sending anything")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
