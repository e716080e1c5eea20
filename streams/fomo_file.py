"""Stream files: a JSON list of `DATASET+++class`, the format in which FoMo-in-Flux publishes its streams.

`python -m clbench.streams.fomo_file STREAM FILE [--set KEY=VALUE ...]` writes that of a stream.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from clbench.captions import SEPARATOR
from clbench.data.root import canonical
from clbench.errors import UserError, did_you_mean


def text_of(keys: Sequence[str]) -> str:
    """The file's text."""
    return json.dumps(list(keys), ensure_ascii=False)


def digest_of(keys: Sequence[str]) -> str:
    """SHA-256 of the file that would be written, hexadecimal."""
    return sha256(text_of(keys).encode()).hexdigest()


def write_stream_file(path: Path, keys: Sequence[str]) -> None:
    """Write the concepts in their order. Raises UserError."""
    try:
        path.write_text(text_of(keys), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another place") from None


def read_stream_file(path: Path, known: Sequence[str]) -> list[str]:
    """The keys of `known` that the file lists, in its order. Raises UserError for anything it does not know.

    Sets are told by name without regard to capitals, `-` and `_`; classes too, where no class has the very name and
    one alone is meant.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"stream file {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"stream file {path} is not valid JSON ({error})") from None
    if not isinstance(listed, list) or not all(isinstance(item, str) and SEPARATOR in item for item in listed):
        raise UserError(f"stream file {path} holds no list of 'DATASET{SEPARATOR}class'")
    exact, alike = {_exact(key): key for key in known}, Counter(_loose(key) for key in known)
    loose = {_loose(key): key for key in known if alike[_loose(key)] == 1}
    found: list[str] = []
    for item in listed:
        key = exact.get(_exact(item)) or loose.get(_loose(item))
        if key is None:
            raise UserError(f"stream file {path}: {_unknown(item, known)}")
        found.append(key)
    twice = next((key for key in found if found.count(key) > 1), None) if len(set(found)) < len(found) else None
    if twice is not None:
        raise UserError(f"stream file {path}: a concept twice: {twice}")
    if not found:
        raise UserError(f"stream file {path} lists no concept")
    return found


def _exact(key: str) -> tuple[str, str]:
    name, _, class_name = unicodedata.normalize("NFC", key).partition(SEPARATOR)
    return canonical(name), class_name


def _loose(key: str) -> tuple[str, str]:
    name, class_name = _exact(key)
    return name, canonical(class_name.replace(" ", ""))


def _unknown(item: str, known: Sequence[str]) -> str:
    name, _, class_name = item.partition(SEPARATOR)
    sets = {key.partition(SEPARATOR)[0] for key in known}
    mine = next((each for each in sets if canonical(each) == canonical(name)), None)
    if mine is None:
        return f"{item!r} is of the set {name!r}, which is none that the stream adapts to{did_you_mean(name, sets)}"
    classes = [key.partition(SEPARATOR)[2] for key in known if key.partition(SEPARATOR)[0] == mine]
    return f"{mine} has no class {class_name!r}, or a limit has dropped it{did_you_mean(class_name, classes)}"


def main(arguments: Sequence[str]) -> None:
    """`STREAM FILE [--set KEY=VALUE ...]`: write the stream's order of concepts."""
    import argparse

    from .fomo_report import built

    parser = argparse.ArgumentParser(prog="clbench.streams.fomo_file", description=main.__doc__)
    parser.add_argument("stream")
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--order-seed", type=int, default=0)
    given = parser.parse_args(arguments)
    stream = built(given.stream, given.set, given.order_seed)
    assert stream.captions is not None
    order = [stream.captions.concepts[label] for task in stream.tasks for label in task.classes]
    write_stream_file(given.file, order)
    print(f"{given.file}: {len(order)} concepts, sha256 {digest_of(order)}")


if __name__ == "__main__":
    import sys

    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
