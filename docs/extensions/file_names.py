"""Above the code of a file that the reader saves or changes, a built page shows the file's name."""

import re
from typing import Any

_BLOCK = re.compile(r"^```(python|diff) (\S+)$", re.MULTILINE)


def with_captions(page: str) -> str:
    """A page whose blocks ```` ```python PATH ```` and ```` ```diff PATH ```` have their path as caption."""
    return _BLOCK.sub(r"```{code-block} \1\n:caption: \2\n", page)


def _read(app: Any, name: str, source: list[str]) -> None:
    source[0] = with_captions(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Caption the blocks of each page as it is read."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
