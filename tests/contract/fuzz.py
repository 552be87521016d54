"""Requests made from the OpenAPI document, sent to the running service: ``python -m tests.contract.fuzz``.

schemathesis runs with all of its checks and phases against gunicorn on PostgreSQL, once with a token that may write and
once without one, in rounds until so many requests were made. Then histories must still agree with their records, and
the log hold no failure of the service's own. What is not checked, and why, stands in ``schemathesis/``.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa

from tests.conftest import postgres_server
from tests.contract.service import ROOT, PrerequisiteError, Service, running_service, tool

_CONFIGURATION = Path(__file__).parent / "schemathesis" / "schemathesis.toml"
_ROUND = 30
"""Requests per operation and phase in a round of the short run."""


def main() -> None:
    """Send so many requests at least; fail on the first round with a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.fuzz", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=1, help="requests at least; by default one round")
    parser.add_argument("--max-examples", type=int, default=_ROUND, help="requests per operation and phase in a round")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="of the first round; shown in the log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        url = sa.make_url(server.get_uri(driver="psycopg")).render_as_string(hide_password=False)
        with running_service(url, Path(folder)) as service:
            try:
                failed, cases = _rounds(service, Path(folder), options)
            except PrerequisiteError as error:
                sys.exit(f"fuzz: {error}")
            verified = service.flask("history", "verify")
        complaints = service.complaints()
    print(f"\n{cases} requests\n{verified}", *complaints, sep="\n")
    if failed or complaints:
        sys.exit(f"fuzz: {failed or 'the log tells of failures of the service'}")


def _rounds(service: Service, folder: Path, options: argparse.Namespace) -> tuple[str | None, int]:
    """Run rounds until there were enough requests.

    :return: what failed, and how many requests were made
    """
    cases, seed = 0, options.seed
    while cases < options.cases:
        for who, headers in (
            ("with a token", ["--header", f"Authorization: Bearer {service.token}"]),
            ("without a token", []),
        ):
            print(f"\n── {who}, seed {seed}, {cases} requests so far", flush=True)
            report = folder / "report.json"
            command = [
                *(str(tool("schemathesis")), "--config-file", str(_CONFIGURATION), "--no-color"),
                *("run", f"{service.url}/openapi.json", "--generation-database", "none", *headers),
                *("--max-examples", str(options.max_examples), "--seed", str(seed)),
                *("--report", "json", "--report-json-path", str(report)),
            ]
            environment = {**_bare_environment(), "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=folder, env=environment, check=False)
            cases += json.loads(report.read_text())["test_cases"]["generated"]
            if done.returncode:
                return f"{who}, seed {seed}", cases
        seed += 1
    return None, cases


def _bare_environment() -> dict[str, str]:
    """What schemathesis needs, without what the service's own environment would add to its."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


if __name__ == "__main__":
    main()
