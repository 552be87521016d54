"""The image, built by buildah, which needs no engine, on a base made of Debian's packages, which needs no registry."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
CANARY = "canary-that-no-image-may-hold"
_CONTEXT = ("Dockerfile", ".dockerignore", "LICENSE", "app", "chrononaut", "requirements.txt")
# What the Dockerfile wants of its base: what python:…-slim has.
_PACKAGES = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates"


class PrerequisiteError(Exception):
    """What is missing on this machine, and where it comes from."""


@dataclass(frozen=True, slots=True)
class Image:
    """What was built.

    :ivar config: as an engine reads it
    :ivar root: the files of a container of it
    :ivar archive: all that would be pushed: layers that are not compressed, their history, the config
    """

    config: dict[str, Any]
    root: Path
    archive: Path


class Buildah:
    """Buildah with a store of its own, which `clean` leaves nothing of."""

    def __init__(self, folder: Path) -> None:
        for program in ("buildah", "debootstrap"):
            if shutil.which(program) is None:
                raise PrerequisiteError(f"there is no {program}; install it (on Debian: apt install {program})")
        self._folder = folder
        self._options = ("--root", str(folder / "store"), "--runroot", str(folder / "state"))

    def run(self, *command: str) -> str:
        """:raises subprocess.CalledProcessError: it failed; what it says goes to our error stream"""
        done = subprocess.run(["buildah", *self._options, *command], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.strip()

    def build(self, base: str | None) -> Image:
        """Build the image as `make image` does, with secrets lying about.

        :param base: the name of an image that can be pulled; ``None`` for one that is made here
        """
        pip = self._folder / "pip.conf"
        pip.write_text(f"# {CANARY}\n{_pip_config()}")
        volumes = [f"--volume={path}:{path}:ro" for path in _paths_of(pip.read_text())]
        options = ("--isolation=chroot", "--format=docker", f"--secret=id=pip,src={pip}", *volumes)
        self.run(
            "build", *options, "--build-arg", f"BASE={base or self._make_base()}", "--tag=chrononaut", self._context()
        )
        archive = self._folder / "image.tar"
        self.run("push", "--quiet", "chrononaut", f"docker-archive:{archive}:chrononaut")
        config = json.loads(self.run("inspect", "--type=image", "chrononaut"))["Docker"]["config"]
        container = self.run("from", "--pull-never", "chrononaut")
        return Image(config, Path(self.run("mount", container)), archive)

    def clean(self) -> None:
        self.run("umount", "--all")
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self._folder)

    def _make_base(self) -> str:
        """Python on Debian, of the release and from where this machine has its packages."""
        first = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
        release, place = subprocess.check_output(first, text=True).splitlines()[0].split()
        container = self.run("from", "scratch")
        files = self.run("mount", container)
        # Of what it does it tells much, and on standard output.
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", release, files, place],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.run("config", "--env", f"PATH={path}", container)
        self.run("commit", "--quiet", container, "base")
        self.run("rm", container)
        return "localhost/base"

    def _context(self) -> str:
        """What the image is built of, and what may lie beside it."""
        context = self._folder / "context"
        context.mkdir()
        for name in _CONTEXT:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, context / name)
        for name in (".env", "chrononaut.env", "app/__pycache__/left.cpython-311.pyc", "instance/demo-secret"):
            (context / name).parent.mkdir(exist_ok=True)
            (context / name).write_text(f"SECRET_KEY={CANARY}\n")
        # As files are where the umask lets nobody else read them.
        for path in (context / "app", context / "chrononaut"):
            for each in path.rglob("*"):
                each.chmod(0o700 if each.is_dir() else 0o600)
        return str(context)


def _pip_config() -> str:
    """A pip.conf that says what pip of this machine is told, by its files and by the environment."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    told = {}
    # Later lines win, as for pip: those of the environment come first, so they are taken last.
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        told[name.removeprefix(":env:").removeprefix("global.")] = value.strip("'").replace(r"\n", "\n  ")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in told.items() if "." not in name)


def _paths_of(config: str) -> list[Path]:
    """The files and folders of this machine that a pip.conf names."""
    # The files of an index lie beside it.
    named = [Path(urlsplit(word).path).parent for word in config.split() if word.startswith("file:///")]
    named += [Path(word) for word in config.split() if word.startswith("/")]
    return sorted({path for path in named if path.exists()})
