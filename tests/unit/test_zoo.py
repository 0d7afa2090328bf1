"""The samples: fetching from a real server on this machine, and every recorded sha256 against real files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from workbench import zoo
from workbench.download import download
from workbench.errors import DownloadError, OptionError, ToolMissing
from workbench.samples import Sample, SampleFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    etag: str = '"one"'
    ranges: bool = True
    cut_after: int | None = None
    status: int = 200
    location: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    behaviour: Behaviour


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        does = self.server.behaviour
        does.asked.append({name.lower(): value for name, value in self.headers.items()})
        if does.status != 200:
            self.send_response(does.status)
            self.send_header("Location", does.location)
            self.end_headers()
            return
        start = self._start(does)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(does.content) - 1}/{len(does.content)}")
        if does.etag:
            self.send_header("ETag", does.etag)
        self.send_header("Content-Length", str(len(does.content) - start))
        self.end_headers()
        self.wfile.write(does.content[start : does.cut_after])

    def _start(self, does: Behaviour) -> int:
        asked = does.asked[-1]
        unchanged = asked.get("if-range", does.etag) == does.etag
        return int(asked["range"][len("bytes=") : -1]) if does.ranges and unchanged and "range" in asked else 0

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.behaviour = Behaviour()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/model.weights"


def get(
    server: Server, target: Path, *, before: Sequence[str] = (), report: Callable[[int], None] = lambda _: None
) -> None:
    addresses = [*before, address(server)]
    download(addresses, target, sha256=SHA256, size_bytes=len(CONTENT), report=report)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "model.weights"


def part(target: Path) -> Path:
    target.parent.mkdir(exist_ok=True)
    return target.with_name("model.weights.part")


def test_a_whole_download_reports_every_byte_and_leaves_only_the_file(server: Server, target: Path) -> None:
    reported: list[int] = []
    get(server, target, report=reported.append)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["model.weights"]
    assert reported == sorted(reported) and len(reported) > 2 and reported[-1] == len(CONTENT)


def test_a_cut_download_says_so_and_goes_on_where_it_was(server: Server, target: Path) -> None:
    server.behaviour.cut_after = 700_000
    with pytest.raises(DownloadError) as caught:
        get(server, target)
    assert str(caught.value) == (
        f"{address(server)}: the connection was cut; expected 1048576 bytes, found 700000. "
        "Run the same command again: it goes on from there."
    )
    assert not target.exists() and part(target).read_bytes() == CONTENT[:700_000]

    server.behaviour.cut_after = None
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.behaviour.asked[1]["range"] == "bytes=700000-"
    assert server.behaviour.asked[1]["if-range"] == '"one"'


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server: Server, target: Path) -> None:
    server.behaviour = Behaviour(content=bytes(len(CONTENT)), etag='"old"', cut_after=1000)
    with pytest.raises(DownloadError, match="cut"):
        get(server, target)
    server.behaviour = Behaviour()
    get(server, target)
    assert target.read_bytes() == CONTENT and len(server.behaviour.asked) == 1


def test_a_server_without_ranges_sends_all_again(server: Server, target: Path) -> None:
    part(target).write_bytes(CONTENT[:1000])
    server.behaviour = Behaviour(ranges=False, etag="")
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.behaviour.asked[0]["range"] == "bytes=1000-" and "if-range" not in server.behaviour.asked[0]


@pytest.mark.parametrize("held", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)], ids=len)
def test_a_spoilt_part_is_thrown_away_once(server: Server, target: Path, held: bytes) -> None:
    part(target).write_bytes(held)
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert "range" not in server.behaviour.asked[-1]


def test_a_complete_part_needs_no_network(target: Path) -> None:
    part(target).write_bytes(CONTENT)
    download(["https://unused.invalid/x"], target, sha256=SHA256, size_bytes=len(CONTENT))
    assert target.read_bytes() == CONTENT


def test_another_content_is_refused_and_not_kept(server: Server, target: Path) -> None:
    server.behaviour.content = CONTENT[::-1]
    with pytest.raises(DownloadError) as caught:
        get(server, target)
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert str(caught.value) == (
        f"{address(server)}: is not the recorded file; expected sha256 {SHA256}, found {found}. "
        "Or fetch the file by other means and give its folder: --from DIR."
    )
    assert list(target.parent.iterdir()) == []
    assert len(server.behaviour.asked) == 1


def test_another_length_is_refused_before_a_byte_is_written(server: Server, target: Path) -> None:
    server.behaviour.content = b"<html>Please log in to this network</html>"
    with pytest.raises(DownloadError, match="is not the recorded file; expected 1048576 bytes, found 42"):
        get(server, target)
    assert list(target.parent.iterdir()) == []


def test_a_missing_page_names_its_status(server: Server, target: Path) -> None:
    server.behaviour.status = 404
    with pytest.raises(DownloadError, match=r"model\.weights: the server answered 404 Not Found\. Or fetch"):
        get(server, target)


def test_the_next_address_is_tried(server: Server, target: Path) -> None:
    get(server, target, before=["http://127.0.0.1:9/nobody-listens"])
    assert target.read_bytes() == CONTENT


def test_no_network_is_said_plainly(target: Path) -> None:
    with pytest.raises(DownloadError, match=r"^http://127\.0\.0\.1:9/x: cannot be reached; found .*refused"):
        download(["http://127.0.0.1:9/x"], target, sha256=SHA256, size_bytes=1)


@pytest.mark.parametrize("wrong", ["http://example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_only_https_is_asked(target: Path, wrong: str) -> None:
    with pytest.raises(DownloadError, match=f"^{wrong}: is not an https address"):
        download([wrong], target, sha256=SHA256, size_bytes=1)


@pytest.mark.parametrize("wrong", ["http://example.com/x", "ftp://127.0.0.1/x"])
def test_only_redirects_to_https_are_followed(server: Server, target: Path, wrong: str) -> None:
    server.behaviour = Behaviour(status=302, location=wrong)
    with pytest.raises(DownloadError, match=f"^{wrong}: is not an https address"):
        get(server, target)


def test_a_full_disk_is_said_plainly(server: Server, target: Path) -> None:
    part(target).symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot be written: No space left on device; expected room for 1048576"):
        get(server, target)
    assert not target.exists()


def test_a_folder_that_is_a_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written: "):
        download(["https://unused.invalid/x"], tmp_path / "kept" / "x", sha256=SHA256, size_bytes=1)


@pytest.fixture
def sample(server: Server, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """A sample on the local server, with its three files of the same content, kept in the user's cache."""
    files = [SampleFile(f"little.{kind}", len(CONTENT), SHA256, (address(server),)) for kind in ("cfg", "names", "w")]
    sample = Sample("little", "for tests", "MIT", *files)
    monkeypatch.setattr(zoo, "SAMPLES", (sample,))
    return sample


def test_fetch_keeps_samples_in_the_cache(
    server: Server, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reported: list[tuple[int, int]] = []
    paths = zoo.fetch("little", progress=lambda done, total: reported.append((done, total)))
    assert paths.weights == tmp_path / "darknet-workbench" / "little" / "little.w"
    assert reported[-1] == (3 * len(CONTENT), 3 * len(CONTENT)) and reported == sorted(reported)

    assert zoo.fetch("little") == paths
    assert len(server.behaviour.asked) == 3


def test_fetch_overwrites_nothing(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "little.cfg").write_text("my own work")
    with pytest.raises(
        DownloadError, match=r"little\.cfg: is not the recorded file.*Nothing is overwritten: move it away"
    ):
        zoo.fetch("little", into=tmp_path)
    assert (tmp_path / "little.cfg").read_text() == "my own work"


def test_a_folder_stands_in_for_the_network(sample: Sample, server: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads" / "deeper").mkdir(parents=True)
    for name in ("little.cfg", "little.names", "deeper/renamed.w"):
        (tmp_path / "downloads" / name).write_bytes(CONTENT)
    paths = zoo.fetch("little", into=tmp_path / "new", source=tmp_path / "downloads")
    assert paths.weights.read_bytes() == CONTENT
    assert server.behaviour.asked == []


def test_a_folder_without_the_file_says_where_it_comes_from(sample: Sample, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        zoo.fetch("little", into=tmp_path / "new", source=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no little.cfg there or in the folders in it. It comes from {address(server)}."
    )


def test_a_folder_with_another_file_of_that_name_is_refused(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "little.cfg").write_text("[net]")
    with pytest.raises(
        DownloadError, match=rf"little\.cfg: is not the recorded file; expected sha256 {SHA256}, found "
    ):
        zoo.fetch("little", into=tmp_path / "new", source=tmp_path)
    assert not (tmp_path / "new").exists()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        OptionError, match=r"^yolov9: no such sample; expected one of shapes-tiny3, shapes-tiny4, yolov3-tin"
    ):
        zoo.fetch("yolov9")


@pytest.mark.parametrize("sample", [sample for sample in zoo.samples() if not sample.shipped], ids=lambda s: s.name)
def test_every_recorded_sha256_is_that_of_the_real_file(shared: Path, sample: Sample, tmp_path: Path) -> None:
    paths = zoo.fetch(sample.name, into=tmp_path, source=shared / "models")
    for file, path in zip(sample.files, (paths.cfg, paths.names, paths.weights), strict=True):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found in file.accepted
        if found != file.sha256:
            # The only other accepted form: the same text without its last newline.
            assert hashlib.sha256(path.read_bytes() + b"\n").hexdigest() == file.sha256
        else:
            assert path.stat().st_size == file.size_bytes


@pytest.mark.parametrize(("mine", "debian"), [("cfg", "cfg/yolov3-tiny.cfg"), ("names", "data/coco.names")])
def test_yolov3_tiny_is_the_one_debian_ships(darknet: Path, mine: str, debian: str) -> None:
    file: SampleFile = getattr(zoo.find_sample("yolov3-tiny"), mine)
    content = (Path("/usr/share/darknet") / debian).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size_bytes, file.sha256)


def test_every_address_is_https_and_pinned_where_it_can_be() -> None:
    addresses = {address for sample in zoo.samples() for file in sample.files for address in file.addresses}
    assert len(addresses) > 15
    for each in addresses:
        assert each.startswith(
            ("https://raw.githubusercontent.com/", "https://pjreddie.com/", "https://data.pjreddie.com/")
        )
        if "githubusercontent" in each:
            commit = each.split("/")[5]
            assert len(commit) == 40 and int(commit, 16)


@pytest.mark.parametrize("name", ["shapes-tiny3", "shapes-tiny4"])
def test_shipped_samples_need_no_download(name: str, tmp_path: Path) -> None:
    paths = zoo.fetch(name)
    assert paths.weights.parent == zoo.data_dir()
    assert all(path.stat().st_size > 0 for path in (paths.cfg, paths.names, paths.weights))
    copied = zoo.fetch(name, into=tmp_path)
    assert copied.weights.read_bytes() == paths.weights.read_bytes()


@pytest.mark.parametrize(("folder", "what"), [("data_dir", "data"), ("notebooks_dir", "notebooks")])
def test_a_broken_installation_says_what_is_missing(
    folder: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "workbench" / "zoo.py"))
    with pytest.raises(ToolMissing, match=rf"the shipped {what} are missing\. Install darknet-workbench again\."):
        getattr(zoo, folder)()
