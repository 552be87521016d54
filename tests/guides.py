"""Pages of Markdown, followed as a reader would: files saved, changes made, commands run, outputs compared.

Of the fenced blocks of a page, in their order:

- ```` ```console ```` holds commands after ``$ ``, each followed by what it prints, or by nothing where that is not
  told. A ``…`` stands for anything, and lines may be broken where the output has none.
- ```` ```console NAME ```` is followed only where the caller names it, as what takes a network or further tools.
- ```` ```python PATH ```` is a file that the reader saves, ```` ```diff PATH ```` a change to one: lines that go and
  come with the lines around them, and ``@@`` between two places.

All other blocks are left alone.
"""

import os
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
_DONE = "\x1e"


class GuideError(AssertionError):
    """A page that does not lead where it says."""


class Shell:
    """One shell for all commands of a page: variables and programs in the background stay for the next."""

    def __init__(self, process: subprocess.Popen[str], complaints: Path) -> None:
        self._process, self._complaints = process, complaints

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, environment: Mapping[str, str], seconds: float) -> Iterator["Shell"]:
        """A shell in a folder, which ends with the block, and what it has started too.

        :param seconds: after which it is killed, if it hangs
        """
        complaints = folder / "stderr.txt"
        with complaints.open("w") as written:
            process = subprocess.Popen(
                ["bash", "--norc", "-u", "-o", "pipefail"],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                start_new_session=True,
            )
        alarm = Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        alarm.daemon = True
        alarm.start()
        try:
            yield cls(process, complaints)
            # The shell reads its last line, and waits for what is still in the background.
            process.communicate("kill $(jobs -p) 2>&-; wait\n")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            alarm.cancel()
            process.communicate()

    def run(self, command: str) -> str:
        """Run a command.

        :return: what it prints to standard output
        :raises GuideError: it fails; with what it complains of
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self._complaints.stat().st_size
        self._process.stdin.write(f"{{ {command}\n}} </dev/null; printf '{_DONE}%s\\n' $?\n")
        self._process.stdin.flush()
        output = ""
        for line in self._process.stdout:
            output += line
            if _DONE in line:
                break
        printed, _, status = output.partition(_DONE)
        if status.strip() != "0":
            complaint = self._complaints.read_text()[before:]
            raise GuideError(f"ends with {status.strip() or 'the shell'}\n{printed}{complaint}")
        return printed


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """What a page asks its reader to do.

    :ivar line: where in the page
    """

    line: int

    @abstractmethod
    def take(self, folder: Path, shell: Shell) -> None:
        """Do it.

        :raises GuideError: it cannot be done, or comes to something else than the page shows
        """


@dataclass(frozen=True, slots=True)
class Command(Step):
    """A command for the shell.

    :ivar shown: what it prints; empty if the page does not show it
    """

    text: str
    shown: str

    def take(self, folder: Path, shell: Shell) -> None:
        printed = shell.run(self.text)
        if self.shown and not re.fullmatch(_pattern(self.shown), _in_one_line(printed), re.DOTALL):
            raise GuideError(f"prints\n{printed}and not, as shown,\n{self.shown}")


@dataclass(frozen=True, slots=True)
class File(Step):
    """A file to be saved."""

    path: str
    text: str

    def take(self, folder: Path, shell: Shell) -> None:
        place = folder / self.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(self.text)


@dataclass(frozen=True, slots=True)
class Edit(Step):
    """A file to be changed in some places."""

    path: str
    text: str

    def take(self, folder: Path, shell: Shell) -> None:
        place = folder / self.path
        text = place.read_text()
        for lines in re.split(r"^@@.*\n", self.text, flags=re.MULTILINE):
            before, after = _without("+", lines), _without("-", lines)
            places = [found.start() for found in re.finditer(f"^{re.escape(before)}", text, re.MULTILINE)]
            if len(places) != 1:
                raise GuideError(f"{self.path} has {len(places)} times\n{before}in\n{text}")
            text = text[: places[0]] + after + text[places[0] + len(before) :]
        place.write_text(text)


def steps(page: str, *names: str) -> Iterator[Step]:
    """What a page asks its reader to do, in its order.

    :param page: Markdown
    :param names: of console blocks that are followed beside those without a name
    """
    for block in _FENCE.finditer(page):
        language, name, text = block.groups()
        line = page.count("\n", 0, block.start()) + 1
        if language == "console" and (name is None or name in names):
            for found in _COMMAND.finditer(text):
                yield Command(line + 1 + text.count("\n", 0, found.start()), found[1], found[2].strip())
        elif language == "python" and name is not None:
            yield File(line, name, text)
        elif language == "diff" and name is not None:
            yield Edit(line, name, text)


def follow(page: Path, folder: Path, environment: Mapping[str, str], *names: str, seconds: float = 300) -> None:
    """Do what a page asks for, in its order.

    :param folder: where its reader works
    :param environment: of the shell. What the page exports under one of these names is the reader's to choose, and is
        left out
    :param names: of console blocks that are followed beside those without a name
    :param seconds: after which a page that hangs is given up
    :raises GuideError: it does not lead where it says
    """
    with Shell.opened(folder, environment, seconds) as shell:
        for step in steps(page.read_text(), *names):
            if isinstance(step, Command) and _exported(step.text) in environment:
                continue
            try:
                step.take(folder, shell)
            except GuideError as error:
                what = step.text if isinstance(step, Command) else type(step).__name__
                raise GuideError(f"{page.name}, line {step.line}: {what}\n{error}") from None


def _exported(command: str) -> str | None:
    found = re.match(r"export (\w+)=", command)
    return found[1] if found else None


def _pattern(shown: str) -> str:
    """What is shown, with a line break where it is wrapped and a ``…`` for what is left out."""
    return ".*".join(map(re.escape, _in_one_line(shown).split("…")))


def _in_one_line(text: str) -> str:
    return re.sub(r"\n *", "", text.strip())


def _without(sign: str, change: str) -> str:
    """The lines before a change (without ``+``) or after it (without ``-``)."""
    return "".join(line[1:] or line for line in change.splitlines(keepends=True) if not line.startswith(sign))
