"""`clbench data get`: download from the official source, verify, convert to the layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clbench.data import archives
from clbench.data.archives import Contents
from clbench.data.download import fetch
from clbench.data.layout import staging, write_image_set
from clbench.data.official import how_to_get, published
from clbench.data.root import canonical, data_root
from clbench.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Official:
    """Where a set is published: (file, MD5), the addresses of the folder, and how its files are read."""

    title: str
    folders: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    read: Callable[[list[Path]], Contents]
    licence: str


_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)

OFFICIAL = {
    "cifar10": Official(
        "CIFAR-10",
        ("https://www.cs.toronto.edu/~kriz/",),
        (("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
        archives.read_cifar10,
        "none stated; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    "cifar100": Official(
        "CIFAR-100",
        ("https://www.cs.toronto.edu/~kriz/",),
        (("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
        archives.read_cifar100,
        "none stated; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    "mnist": Official(
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        tuple(zip(_MNIST_FILES, _MNIST_MD5, strict=True)),
        archives.read_mnist,
        "none stated; Y. LeCun, C. Cortes, C. Burges",
    ),
    "fashion_mnist": Official(
        "Fashion-MNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        tuple(zip(_MNIST_FILES, _FASHION_MD5, strict=True)),
        archives.read_fashion_mnist,
        "MIT (Zalando SE)",
    ),
    "tiny_imagenet": Official(
        "Tiny-ImageNet-200",
        ("http://cs231n.stanford.edu/",),
        (("tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),),
        archives.read_tiny_imagenet,
        "research use (ImageNet terms)",
    ),
}


def get(name: str, root: str | Path | None = None) -> Path:
    """Fetch a set into ROOT/images/NAME (or ROOT/text/NAME) and return its folder; there already: no work.

    `name` is a key of `OFFICIAL`, or `hf:OWNER/NAME[:CONFIG]` for a set of the Hugging Face hub. Archives are
    kept in ROOT/downloads until the set is complete; one placed there by hand is used. Raises `UserError`.
    """
    place = data_root(root)
    if name.startswith("hf:"):
        from clbench.data.hub import get_from_hub

        return get_from_hub(name.removeprefix("hf:"), place)
    for key, official in OFFICIAL.items():
        if canonical(key) == canonical(name):
            return _get_official(key, official, place)
    known = published(name)
    if known:
        raise UserError(f"{known[0]} is not fetched by clbench; {how_to_get(known[0], place, known[1])}")
    advice = "sets of the Hugging Face hub are named hf:OWNER/NAME"
    raise UserError(f"no source is known for {name!r}{did_you_mean(name, OFFICIAL)} ({advice})")


def _get_official(key: str, official: Official, root: Path) -> Path:
    target = root / "images" / key
    if (target / "info.json").is_file():
        return target
    downloads = root / "downloads" / key
    names = [file for file, _ in official.files]
    advice = f"fetch {', '.join(official.folders[0] + file for file in names)} and put what you fetch in {downloads}"
    files = [
        fetch([folder + file for folder in official.folders], md5, downloads / file, advice)
        for file, md5 in official.files
    ]
    info = {"name": official.title, "source": official.folders[0], "licence": official.licence}
    write_contents(target, official.read(files), info)
    shutil.rmtree(downloads)
    return target


def write_contents(target: Path, contents: Contents, info: dict[str, str]) -> None:
    """Write all splits beside the target, then rename: the set is there whole or not at all."""
    with staging(target) as folder:
        for split, (images, labels) in contents.splits.items():
            write_image_set(folder, split, images, labels, contents.class_names, {**info, **contents.info})
