"""Containers without an engine: namespaces of the kernel, and what an engine would take from the image's config."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.image.building import Image

_NOTHING: Mapping[Path, str] = {}

# Its arguments: the files of the image, the working directory, user and group, how many volumes there are, the two ends
# of each, the command. The root is read-only; what docker-compose.yml has as tmpfs is writable, and what an engine
# always mounts is there. The network is loopback alone.
_START = """
set -eu
root=$1 workdir=$2 user=$3 group=$4 volumes=$5
shift 5
ip link set lo up
mount --bind "$root" "$root"
while [ "$volumes" -gt 0 ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}" && touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    shift 2
    volumes=$((volumes - 1))
done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs unshare --root="$root" --wd="$workdir" --setgid="$group" --setuid="$user" "$@"
"""
_REQUEST = """
import http.client, sys
method, path, token, body = sys.argv[1:]
service = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
known = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "X-Change-Rationale": "As asked"}
service.request(method, path, body or None, known)
sys.stdout.write(service.getresponse().read().decode())
"""


class Container:
    """A running container."""

    def __init__(self, image: Image, process: "subprocess.Popen[str]", environment: Mapping[str, str]) -> None:
        self._image, self._process, self._environment = image, process, environment

    @property
    def processes(self) -> list[int]:
        """All its processes, process 1 first, as this machine numbers them."""
        found = _children(self._process.pid)
        for pid in found:
            found += _children(pid)
        return found

    @property
    def is_its_users(self) -> bool:
        """Does the command run, and no longer what makes the container?"""
        user = int(self._image.config["User"].split(":")[0])
        return any(Path(f"/proc/{pid}").stat().st_uid == user for pid in self.processes)

    def execute(self, *command: str) -> tuple[int, str]:
        """What ``docker exec`` does, and a healthcheck: the exit status, and what is printed."""
        user, group = self._image.config["User"].split(":")
        target = f"--target={self.processes[0]}"
        done = subprocess.run(
            ["nsenter", target, "--mount", "--pid", "--net", "--root", "--wd", f"--setgid={group}", f"--setuid={user}",
             "--", *command],
            env=dict(self._environment),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def ask(self, method: str, path: str, token: str, body: Any = None) -> Any:
        """Send a request to the service from inside, with a reason, and return what is answered."""
        status, answer = self.execute("python", "-c", _REQUEST, method, path, token, json.dumps(body) if body else "")
        assert status == 0
        return json.loads(answer)

    def stop(self, seconds: float) -> int:
        """What ``docker stop`` does: its exit status.

        :raises subprocess.TimeoutExpired: it does not end by itself
        """
        os.kill(self.processes[0], signal.SIGTERM)
        return self._process.wait(seconds)


@contextmanager
def container(
    image: Image,
    command: Sequence[str],
    settings: Mapping[str, str],
    log: Path,
    volumes: Mapping[Path, str] = _NOTHING,
) -> Iterator[Container]:
    """A command as process 1 of a container, as the image's user, on a root that is read-only; it ends with the block.

    :param volumes: files and folders of this machine, and where they lie inside
    """
    with log.open("w") as written:
        process, environment = _start(image, command, settings, volumes, written.fileno())
        try:
            started = Container(image, process, environment)
            while not started.is_its_users and process.poll() is None:
                time.sleep(0.01)
            yield started
        finally:
            # The kernel ends all of a container with its process 1, which ends with ours.
            process.kill()
            process.wait()


def run(
    image: Image, command: Sequence[str], settings: Mapping[str, str], volumes: Mapping[Path, str] = _NOTHING
) -> tuple[int, str]:
    """The exit status of a command in a container of its own, and what it prints and complains of."""
    process, _ = _start(image, command, settings, volumes, subprocess.PIPE)
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed


def _start(
    image: Image, command: Sequence[str], settings: Mapping[str, str], volumes: Mapping[Path, str], output: int
) -> tuple["subprocess.Popen[str]", dict[str, str]]:
    environment = dict(line.split("=", 1) for line in image.config["Env"])
    environment.update(settings)
    user, group = image.config["User"].split(":")
    ends = [str(end) for volume in volumes.items() for end in volume]
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", _START, "sh", str(image.root),
         image.config["WorkingDir"], user, group, str(len(volumes)), *ends, *command],
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    return process, environment


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
