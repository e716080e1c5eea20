"""Fetching one file: resumed with HTTP ranges, checked by its MD5, in place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from clbench.data.progress import progress
from clbench.errors import UserError

TIMEOUT = 30  # seconds without an answer
ATTEMPTS = 3  # for each address
BLOCK = 1 << 18


def fetch(urls: Sequence[str], md5: str, target: Path, advice: str | None = None) -> Path:
    """Make `target` hold the file with this MD5: as it is there already, else from the first address that works.

    An interrupted download leaves TARGET.part, which the next call continues. Raises `UserError` where no address
    works or the content is not as published; it ends in `advice`, by default what to fetch and where to put it.
    """
    if target.is_file():
        if file_md5(target) == md5:
            return target
        raise UserError(f"{target} is not the published file (its MD5 is not {md5}); remove it and try again")
    _make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    reason = ""
    for url in urls:
        for _ in range(ATTEMPTS):
            begun = part.exists()
            try:
                _continue(url, part)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = _reason(error)
                if isinstance(error, urllib.error.HTTPError) or not part.exists():
                    break  # refused, or unreachable: another attempt would not differ
                continue
            except OSError as error:
                raise UserError(f"{part} cannot be written ({error.strerror}); free or name another place") from None
            if file_md5(part) == md5:
                part.replace(target)
                return target
            reason = "what came is not the published file"
            part.unlink()
            if not begun:  # else the part may have been of another file: start over
                break
    advice = advice or f"fetch {urls[0]} (MD5 {md5}) and put it at {target}"
    raise UserError(f"cannot download {target.name} ({reason}); on a machine that can, {advice}, then try again")


def file_md5(path: Path) -> str:
    total = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _continue(url: str, part: Path) -> None:
    """Append to `part` what it lacks of the file; starts over where the server knows no ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lacks, or the part is no part of it: the checksum decides
            return
        raise
    with response:
        resumed = have > 0 and response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and re.fullmatch(r"\d+", length) else None
        with part.open("ab" if resumed else "wb") as file, progress(part.stem, total, unit="bytes") as advance:
            advance(start)
            while block := response.read(BLOCK):
                file.write(block)
                advance(len(block))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError("the connection broke off")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    return str(error) or type(error).__name__


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror}); name a writable place with CLBENCH_DATA or --data-root"
        ) from None
