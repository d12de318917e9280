"""The sources of a campaign: a folder, a list, or a table (JSON lines, Parquet) of kernels."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.running.options import UsageError

LISTS, LINES, PARQUET = (".txt", ".list"), (".jsonl", ".ndjson"), (".parquet",)
_ATTRIBUTE = re.compile(r"(.+\.py)(?::([A-Za-z_][\w.]*))?")


@dataclass(frozen=True)
class Kernel:
    """One kernel: a text that ``check`` takes as a file. ``name``: unlike all others'.

    ``attribute``: which one of the file is meant; empty where it has but one. ``path``: where it
    lies, beside what it may import.
    """

    name: str
    text: str
    path: str
    attribute: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the text and of what is meant in it: the same under another name is known."""
        return digest_of(self.data, self.attribute)

    @property
    def data(self) -> bytes:
        """The file, byte by byte."""
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def target(self) -> str:
        """As ``check`` takes it."""
        return f"{self.path}:{self.attribute}" if self.attribute else self.path


def digest_of(text: bytes, attribute: str) -> str:
    return hashlib.sha256(attribute.encode() + b"\0" + text).hexdigest()


def read_sources(sources: Iterable[Path], texts: Path) -> list[Kernel]:
    """All kernels of ``sources``, in order. Those of tables are written to ``texts``.

    Raises UsageError, which names the source and the line.
    """
    kernels = [kernel for source in sources for kernel in _read(source, texts)]
    known: dict[str, Kernel] = {}
    for kernel in kernels:
        other = known.setdefault(kernel.name, kernel)
        if other.digest != kernel.digest:
            raise UsageError(
                f"two kernels are called {kernel.name}: {other.target} and {kernel.target}"
            )
    if not known:
        raise UsageError(f"no kernel in {', '.join(map(str, sources))}")
    return [*known.values()]


def _read(source: Path, texts: Path) -> Iterator[Kernel]:
    if source.is_dir():
        return _folder(source)
    if not source.is_file():
        raise UsageError(f"no such file or folder: {source}")
    if source.suffix == ".py":
        return iter([_file(source, source.stem, "")])
    if source.suffix in LISTS:
        return _list(source)
    if source.suffix in LINES:
        return _table(source, _lines(source), texts)
    if source.suffix in PARQUET:
        return _table(source, _parquet(source), texts)
    known = ", ".join((".py", *LISTS, *LINES, *PARQUET))
    raise UsageError(f"{source}: not a folder, and none of {known}")


def _folder(folder: Path) -> Iterator[Kernel]:
    """Every Python file in it, but those whose name, or whose folder's, begins with . or _."""
    for path in sorted(folder.rglob("*.py")):
        own = path.relative_to(folder)
        if not any(part[0] in "._" for part in own.parts):
            yield _file(path, ".".join(own.with_suffix("").parts), "")


def _list(source: Path) -> Iterator[Kernel]:
    """A file in each line, from where the list lies: ``path/file.py`` or ``path/file.py:name``."""
    for number, line in enumerate(_text(source).splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        found = _ATTRIBUTE.fullmatch(line)
        if found is None:
            raise UsageError(f"{source}:{number}: write path/file.py or path/file.py:attribute")
        path, attribute = source.parent / found[1], found[2] or ""
        if not path.is_file():
            raise UsageError(f"{source}:{number}: no such file: {path}")
        name = found[1].removesuffix(".py").replace("/", ".").lstrip(".")
        yield _file(path, f"{name}.{attribute}" if attribute else name, attribute)


def _file(path: Path, name: str, attribute: str) -> Kernel:
    shown = name.encode("utf-8", "backslashreplace").decode()  # it may be no text
    return Kernel(shown, _text(path), str(path.resolve()), attribute)


def _text(path: Path) -> str:
    try:
        # Bytes that are no text stay what they are: whether Python takes them is Python's to say.
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _lines(source: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(source).splitlines(), 1):
        if line.strip():
            try:
                yield f"{source}:{number}", json.loads(line)
            except ValueError as error:
                raise UsageError(f"{source}:{number}: not JSON: {error}") from None


def _parquet(source: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        extra = 'pip install "loss-conformance[parquet]"'
        raise UsageError(f"{source}: Parquet needs pyarrow: {extra}") from None
    try:
        rows = parquet.read_table(source).to_pylist()
    except (ArrowException, OSError) as error:
        raise UsageError(f"{source}: not a Parquet file: {error}") from None
    for number, row in enumerate(rows, 1):
        yield f"{source}, row {number}", row


def _table(source: Path, rows: Iterable[tuple[str, Any]], texts: Path) -> Iterator[Kernel]:
    """``name`` and ``source`` of each row, and ``attribute`` where it has one."""
    for place, row in rows:
        fields = row if isinstance(row, dict) else {}
        name, text, attribute = (fields.get(k) or "" for k in ("name", "source", "attribute"))
        if not all(isinstance(v, str) for v in (name, text, attribute)) or not (name and text):
            raise UsageError(f'{place}: a kernel has "name" and "source", which are texts')
        try:
            f"{name}{text}{attribute}".encode()
        except UnicodeEncodeError:
            raise UsageError(f"{place}: half a character, which no file can have") from None
        path = texts / f"{_as_file(name)}.py"
        yield Kernel(name, text, str(path.resolve()), attribute)


def written(kernels: Iterable[Kernel], texts: Path) -> None:
    """Write those that lie in ``texts`` as files, where they do not yet."""
    folder = texts.resolve()
    for kernel in kernels:
        path = Path(kernel.path)
        if path.parent == folder and not (path.is_file() and path.read_bytes() == kernel.data):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kernel.data)


def _as_file(name: str) -> str:
    """A name that a file can have; of two names that look alike as files each has its own."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:80] or "kernel"
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
