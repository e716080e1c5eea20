"""Fetching and converting, with small files in the published formats, served on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clbench.data import archives
from clbench.data import get as getting
from clbench.data.download import fetch
from clbench.data.get import get
from clbench.data.images import load_images
from clbench.data.text import load_documents
from clbench.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; breaks a connection off after `cut` bytes while `cuts` are left; may ignore ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/f.bin": CONTENT}
        self.requests: list[str | None] = []
        self.cuts, self.ranges = 0, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404, "Not Found")
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[:100_000]
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def test_fetch_and_find_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "f.bin"
    for _ in range(2):
        assert fetch([server.url + "f.bin"], MD5, target).read_bytes() == CONTENT
    assert server.requests == [None]
    assert [path.name for path in target.parent.iterdir()] == ["f.bin"]


def test_broken_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    assert fetch([server.url + "f.bin"], MD5, tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=200000-"]


def test_interrupted_run_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(CONTENT[:250_000])
    assert fetch([server.url + "f.bin"], MD5, tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.requests == ["bytes=250000-"]


@pytest.mark.parametrize("part", [CONTENT, CONTENT[:10], b"x" * 50, b"x" * 400_000])
@pytest.mark.parametrize("ranges", [True, False])
def test_any_part_left_behind_ends_well(server: Server, tmp_path: Path, part: bytes, ranges: bool) -> None:
    server.ranges = ranges
    (tmp_path / "f.bin.part").write_bytes(part)
    assert fetch([server.url + "f.bin"], MD5, tmp_path / "f.bin").read_bytes() == CONTENT


def test_second_address_is_tried(server: Server, tmp_path: Path) -> None:
    urls = [server.url + "gone.bin", server.url + "f.bin"]
    assert fetch(urls, MD5, tmp_path / "f.bin").read_bytes() == CONTENT


def test_wrong_content_is_never_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the published file"):
        fetch([server.url + "f.bin"], "0" * 32, tmp_path / "f.bin")
    assert not list(tmp_path.glob("f.bin*"))


def test_file_put_there_by_hand_is_checked(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(CONTENT)
    assert fetch(["http://127.0.0.1:1/f.bin"], MD5, tmp_path / "f.bin") == tmp_path / "f.bin"
    (tmp_path / "f.bin").write_bytes(b"other")
    with pytest.raises(UserError, match="remove it and try again"):
        fetch(["http://127.0.0.1:1/f.bin"], MD5, tmp_path / "f.bin")


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    source = getting.OFFICIAL["cifar100"]
    offline = getting.Official(source.title, ("http://127.0.0.1:1/kriz/",), source.files, source.read, source.licence)
    monkeypatch.setitem(getting.OFFICIAL, "cifar100", offline)
    with pytest.raises(UserError) as caught:
        get("cifar-100", root)
    message = str(caught.value)
    assert "\n" not in message
    assert "http://127.0.0.1:1/kriz/cifar-100-binary.tar.gz" in message
    assert str(root / "downloads" / "cifar100") in message


def test_unknown_name(root: Path) -> None:
    with pytest.raises(UserError, match="did you mean cifar10"):
        get("cifar11", root)


def test_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        get("mnist", tmp_path / "file" / "root")


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def records(labels: list[list[int]], seed: int) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    data = b"".join(bytes(label) + row.tobytes() for label, row in zip(labels, pixels, strict=True))
    return data, pixels.reshape(-1, 3, 32, 32)


def test_cifar10_binary(tmp_path: Path, root: Path) -> None:
    members = {"cifar-10-batches-bin/batches.meta.txt": b"plane\ncar\n\n"}
    expected = []
    for number in range(1, 6):
        members[f"cifar-10-batches-bin/data_batch_{number}.bin"], x = records([[0], [1]], number)
        expected.append(x)
    members["cifar-10-batches-bin/test_batch.bin"], test = records([[1], [0]], 9)
    contents = archives.read_cifar10([tar(tmp_path / "c.tar.gz", members)])
    getting.write_contents(root / "images" / "cifar10", contents, {"name": "CIFAR-10"})
    found = load_images("cifar10", "train", root)
    np.testing.assert_array_equal(found.x, np.concatenate(expected))
    assert found.y.tolist() == [0, 1] * 5 and found.class_names == ["plane", "car"]
    assert found.info["name"] == "CIFAR-10"
    np.testing.assert_array_equal(load_images("cifar10", "test", root).x, test)


def test_get_cifar100_over_http(server: Server, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, x = records([[0, 2], [0, 1], [1, 0]], 1)
    test, _ = records([[1, 0], [0, 1], [0, 2]], 2)
    names = {"fine_label_names.txt": b"rose\nant\nbee\n", "coarse_label_names.txt": b"insect\nflower\n"}
    members = {f"cifar-100-binary/{n}": d for n, d in {**names, "train.bin": train, "test.bin": test}.items()}
    data = tar(tmp_path / "c.tar.gz", members).read_bytes()
    server.files["/cifar-100-binary.tar.gz"] = data
    files = (("cifar-100-binary.tar.gz", hashlib.md5(data).hexdigest()),)
    local = getting.Official("CIFAR-100", (server.url,), files, archives.read_cifar100, "none")
    monkeypatch.setitem(getting.OFFICIAL, "cifar100", local)
    for _ in range(2):
        assert get("CIFAR-100", root) == root / "images" / "cifar100"
    assert len(server.requests) == 1 and not (root / "downloads" / "cifar100").exists()
    found = load_images("cifar100", "train", root)
    np.testing.assert_array_equal(found.x, x)
    assert found.y.tolist() == [2, 1, 0]
    assert found.info["superclass_of"] == {"ant": "insect", "bee": "insect", "rose": "flower"}


def idx(path: Path, array: np.ndarray) -> Path:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))
    return path


def test_mnist_idx(tmp_path: Path, root: Path) -> None:
    x = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    y = (np.arange(20) % 10).astype(np.uint8)
    files = [idx(tmp_path / str(i), array) for i, array in enumerate((x, y, x[:10], y[:10]))]
    getting.write_contents(root / "images" / "mnist", archives.read_mnist(files), {})
    np.testing.assert_array_equal(load_images("mnist", "train", root, channels=1).x[:, 0], x)
    assert archives.read_fashion_mnist(files).class_names[9] == "Ankle boot"
    with pytest.raises(UserError, match="do not match"):
        archives.read_mnist([files[0], files[3], *files[2:]])


def test_tiny_imagenet_zip(tmp_path: Path, root: Path) -> None:
    def jpeg(seed: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
        return buffer.getvalue()

    top = "tiny-imagenet-200"
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr(f"{top}/wnids.txt", "n02\nn01\n")
        archive.writestr(f"{top}/words.txt", "n01\tcrane\nn02\tcrane\nn03\tother\n")
        for i, wnid in enumerate(("n01", "n01", "n02")):
            archive.writestr(f"{top}/train/{wnid}/images/{wnid}_{i}.JPEG", jpeg(i))
        archive.writestr(f"{top}/val/val_annotations.txt", "v0.JPEG\tn02\t0\t0\t9\t9\nv1.JPEG\tn01\t0\t0\t9\t9\n")
        for i in range(2):
            archive.writestr(f"{top}/val/images/v{i}.JPEG", jpeg(10 + i))
        archive.writestr(f"{top}/test/images/t.JPEG", jpeg(20))
    getting.write_contents(root / "images" / "tiny_imagenet", archives.read_tiny_imagenet([tmp_path / "t.zip"]), {})
    train, test = load_images("tiny-imagenet", "train", root), load_images("tiny-imagenet", "test", root)
    assert train.y.tolist() == [1, 1, 0] and test.y.tolist() == [0, 1]
    assert train.class_names == ["crane (n02)", "crane (n01)"] and train.x.shape == (3, 3, 64, 64)
    np.testing.assert_array_equal(test.x[0], np.asarray(Image.open(io.BytesIO(jpeg(10)))).transpose(2, 0, 1))


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"nothing of the kind")
    for read in (archives.read_cifar10, archives.read_cifar100, archives.read_mnist, archives.read_tiny_imagenet):
        with pytest.raises(UserError, match="not the archive it should be"):
            read([path] * 4)
    short = tar(tmp_path / "s.tar.gz", {"train.bin": b"xx", "test.bin": b"xx"})
    with pytest.raises(UserError, match="no file fine_label_names"):
        archives.read_cifar100([short])


def test_conversion_that_fails_leaves_nothing(root: Path) -> None:
    contents = archives.Contents({"train": ([b"x", b"y"], np.array([0]))}, ["a"], {})
    with pytest.raises(ValueError):
        getting.write_contents(root / "images" / "x", contents, {})
    assert not list((root / "images").iterdir())


def test_hub_sets(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder goes through the same code as a set of the hub."""
    from clbench.data.layout import write_image_set, write_text_set
    from clbench.data.text import Document

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    x = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    folder = tmp_path / "Pets-Small"
    write_image_set(folder, "train", x, [0, 1, 2] * 2, ["a", "b", "c"])
    write_image_set(folder, "test", x[:3], [2, 1, 0], ["a", "b", "c"])
    (folder / "info.json").unlink()
    assert get(f"hf:{folder}", root) == root / "images" / "pets_small"
    found = load_images("pets-small", "test", root)
    np.testing.assert_array_equal(found.x, x[:3])
    assert found.y.tolist() == [2, 1, 0] and found.class_names == ["a", "b", "c"]
    documents = [Document("one", "d1", 1999, "1999-01-01", "en"), Document("two", "d2")]
    write_text_set(tmp_path / "prose", "train", documents)
    (tmp_path / "prose" / "info.json").unlink()
    get(f"hf:{tmp_path / 'prose'}", root)
    assert load_documents("prose", "train", root) == documents
    with pytest.raises(UserError) as caught:
        get("hf:nobody/nothing", root)
    assert "\n" not in str(caught.value) and "huggingface.co/datasets/nobody/nothing" in str(caught.value)
