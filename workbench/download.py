"""Fetch one file whose size and sha256 are known beforehand: resumable, verified, complete or not there at all.

Bytes gather in `NAME.part` beside the target. A cut connection leaves it for the next call to go on from, and only a
file with the right sha256 is renamed to its final name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from workbench.errors import DownloadError
from workbench.files import atomic_write, sha256_of

Report = Callable[[int], None]

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
AGAIN = "Run the same command again: it goes on from there."
ELSEWHERE = "Or fetch the file by other means and give its folder: --from DIR."


class AddressFailed(DownloadError):
    """This address did not give the file; another one may."""


def verify(path: Path, accepted: Sequence[str], next_step: str | None = None) -> None:
    """Raise DownloadError unless the sha256 of `path` is one of `accepted`, the first being the recorded one."""
    found = sha256_of(path)
    if found not in accepted:
        expected = f"sha256 {accepted[0]}"
        raise DownloadError(str(path), "is not the recorded file", expected=expected, found=found, next_step=next_step)


def copy(source: Path, target: Path, accepted: Sequence[str]) -> None:
    """Copy a file whose sha256 is one of `accepted`; raises DownloadError for any other."""
    verify(source, accepted)
    write(target, source.read_bytes())


def write(target: Path, content: bytes) -> None:
    """Write a whole file or nothing, in a folder that is made where it is missing."""
    _make_folder(target, len(content))
    with atomic_write(target) as file:
        file.write(content)


def download(
    addresses: Sequence[str], target: Path, *, sha256: str, size_bytes: int, report: Report = lambda _: None
) -> None:
    """Fetch `target` from the first of `addresses` that gives the recorded file.

    `report(bytes_so_far)` is called as bytes arrive. Raises DownloadError where no address gives the file (the last one
    is named), the connection is cut (the bytes so far are kept), or the file cannot be written.
    """
    _make_folder(target, size_bytes)
    for address in addresses[:-1]:
        try:
            return _download_from(address, target, sha256, size_bytes, report)
        except AddressFailed:
            continue
    return _download_from(addresses[-1], target, sha256, size_bytes, report)


def _download_from(address: str, target: Path, sha256: str, size_bytes: int, report: Report) -> None:
    part = _part(target)
    resumed = _held_bytes(part, size_bytes) > 0
    _complete(address, part, size_bytes, report)
    if resumed and sha256_of(part) != sha256:
        # Bytes of an earlier run, perhaps of another address, do not belong to this file: once more, from the start.
        _discard(part)
        _complete(address, part, size_bytes, report)
    found = sha256_of(part)
    if found != sha256:
        _discard(part)
        expected = f"sha256 {sha256}"
        raise AddressFailed(address, "is not the recorded file", expected=expected, found=found, next_step=ELSEWHERE)
    os.replace(part, target)
    _etag(part).unlink(missing_ok=True)


def _complete(address: str, part: Path, size_bytes: int, report: Report) -> None:
    """Fetch what `part` still lacks, or all of it where the server does not know ranges."""
    start = _held_bytes(part, size_bytes)
    if start == size_bytes:
        return
    with _open(address, _range_headers(part, start)) as response:
        if response.status != 206:
            start = 0
        _check_announced(address, response, start, size_bytes)
        with _writing(part, size_bytes - start):
            _etag(part).write_text(response.headers.get("ETag", ""), encoding="ascii")
            with part.open("ab" if start else "wb") as file:
                _receive(address, response, file, start, size_bytes, report)


def _range_headers(part: Path, start: int) -> dict[str, str]:
    headers = {"User-Agent": "darknet-workbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        etag = _etag(part).read_text(encoding="ascii") if _etag(part).exists() else ""
        # A weak ETag is not allowed in If-Range (RFC 9110, 13.1.5); the sha256 catches a changed file all the same.
        if etag.startswith('"'):
            headers["If-Range"] = etag
    return headers


def _check_announced(address: str, response: HTTPResponse, start: int, size_bytes: int) -> None:
    """Refuse a file of another size before a byte of it is written."""
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        found = response.headers.get("Content-Range")
        raise AddressFailed(address, "the server sent another range", expected=f"bytes {start}-", found=found)
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and start + int(length) != size_bytes:
        expected, found = f"{size_bytes} bytes", f"{start + int(length)}"
        raise AddressFailed(address, "is not the recorded file", expected=expected, found=found, next_step=ELSEWHERE)


def _receive(
    address: str, response: HTTPResponse, file: IO[bytes], start: int, size_bytes: int, report: Report
) -> None:
    done = start
    for chunk in _chunks(address, response):
        done += len(chunk)
        if done > size_bytes:
            raise AddressFailed(address, "sends more than the recorded file", expected=f"{size_bytes} bytes")
        file.write(chunk)
        report(done)
    if done < size_bytes:
        raise _cut(address, expected=f"{size_bytes} bytes", found=f"{done}")


def _chunks(address: str, response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _cut(address, found=str(error)) from error


def _cut(address: str, *, found: str, expected: str | None = None) -> DownloadError:
    return DownloadError(address, "the connection was cut", expected=expected, found=found, next_step=AGAIN)


class _CheckedRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(address: str) -> None:
    url = urlsplit(address)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise AddressFailed(address, "is not an https address", next_step=ELSEWHERE)


def _open(address: str, headers: dict[str, str]) -> HTTPResponse:
    _check_address(address)
    try:
        response = build_opener(_CheckedRedirects).open(Request(address, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        problem = f"the server answered {error.code} {error.reason}"
        raise AddressFailed(address, problem, next_step=ELSEWHERE) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise AddressFailed(address, "cannot be reached", found=str(reason), next_step=ELSEWHERE) from error
    assert isinstance(response, HTTPResponse)
    return response


def _make_folder(target: Path, needed_bytes: int) -> None:
    with _writing(target, needed_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _writing(path: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise DownloadError(str(path), problem, expected=f"room for {needed_bytes} bytes") from error


def _held_bytes(part: Path, size_bytes: int) -> int:
    held = part.stat().st_size if part.exists() else 0
    if held > size_bytes:
        _discard(part)
        return 0
    return held


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag(part).unlink(missing_ok=True)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _etag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")
