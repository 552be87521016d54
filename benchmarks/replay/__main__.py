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

from benchmarks.changes import Change, ChangeFileError, History, Key, check_dated, fold, read
from benchmarks.replay.asking import ask
from benchmarks.replay.errors import GaveUpError, ReplayError, UnusableError
from benchmarks.replay.importing import compare_years, database
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
--import needs the service's settings in the environment (DATABASE_URL, SECRET_KEY), and the URL only to verify.
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
        run = _run_import if options.own_times else _run
        return run(changes, options, token, environ)
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
    if options.own_times and options.resume:
        raise UnusableError("--resume is about sending; an import is there as a whole, or not at all")
    token = options.token or environ.get(ENVIRONMENT, "")
    if options.own_times and not (options.verify or options.verify_only):
        return options, token
    if options.url is None:
        raise UnusableError("no URL: give that of the running service (see --help)")
    if not token:
        raise UnusableError(f"no token: give --token or set {ENVIRONMENT}")
    return options, token


def _service(changes: Sequence[Change], options: argparse.Namespace, token: str) -> Service:
    service = Service(options.url, token, connections=options.connections, stop=Event())
    service.check(changes[0].key)
    return service


def _complain(text: str, status: int) -> int:
    print(f"replay: {text}", file=sys.stderr)
    return status


def _run_import(changes: Sequence[Change], options: argparse.Namespace, token: str, environ: Mapping[str, str]) -> int:
    check_dated(changes, options.file)
    failed = False
    verifies = options.verify or options.verify_only
    # Ahead of the writes: nobody wants to wait for these to learn of a wrong token.
    service = _service(changes, options, token) if verifies else None
    with database(environ) as own:
        if not options.verify_only:
            written, seconds = own.write(changes)
            print(f"imported: {written:,} changes in {seconds:,.1f} seconds, {written / seconds:,.0f} per second")
        if service is not None:
            options.verify_only = True
            failed = _verify(service, fold(changes), dated=True)
            for compared in compare_years(service, changes, own):
                print(*compared.first, compared.summary(), sep="\n", flush=True)
                failed = failed or bool(compared.differences or compared.error)
    return _FAILED if failed else 0


def _run(changes: Sequence[Change], options: argparse.Namespace, token: str, environ: Mapping[str, str]) -> int:
    service = _service(changes, options, token)
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
        failed = _verify(service, histories) or failed
    return _FAILED if failed else 0


def _verify(service: Service, histories: Mapping[Key, History], *, dated: bool = False) -> bool:
    """:return: whether there are differences or errors"""
    findings = verify(service, list(histories.values()), dated=dated)
    for difference in findings.first:
        print(difference)
    if findings.differences > len(findings.first):
        print(f"and {findings.differences - len(findings.first):,} more differences")
    print(findings.summary(), flush=True)
    _print_errors(findings.errors)
    return bool(findings.differences or findings.errors)


def _print_errors(errors: Sequence[str]) -> None:
    for error in errors[:_SHOWN_ERRORS]:
        print(f"replay: {error}", file=sys.stderr)
    if len(errors) > _SHOWN_ERRORS:
        print(f"replay: and {len(errors) - _SHOWN_ERRORS:,} more errors", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    """Spell the command that goes on where this one ends; without the token, which is a secret."""
    words = [str(options.file), *([options.url] if options.url else [])]
    if options.token:
        words += ["--token", "TOKEN"]
    words += ["--connections", str(options.connections)]
    if options.limit is not None:
        words += ["--limit", str(options.limit)]
    if options.own_times:
        words.append("--import")
    elif not options.verify_only:
        words.append("--resume")
    if options.verify_only:
        words.append("--verify-only")
    elif options.verify:
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
    parser.add_argument("url", metavar="URL", nargs="?", help="where the service is, http://host:port")
    parser.add_argument("--token", metavar="T", help=f"the bearer token; by default what {ENVIRONMENT} holds")
    parser.add_argument(
        "--connections", metavar="N", type=_count, default=4, help="connections at once (default: %(default)s)"
    )
    parser.add_argument("--limit", metavar="N", type=_count, help="only the first N changes of the file")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run ended")
    parser.add_argument(
        "--import",
        dest="own_times",
        action="store_true",
        help="write the changes straight into the service's database instead, with the times that the file gives; "
        "verifying compares these too, and the table as of each 1 January from 2022 to 2026",
    )
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
