"""micro-clip's tokeniser: every text has tokens of its own, and gets them again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clbench.models.micro_clip import make_vocabulary
from clbench.models.micro_clip import tokenizer as tok

NAMES = ["sea_horse", "sea horse", "Sea horse", "SEA HORSE", "sea-horse", "seahorse", "sea  horse", "a", "A", "ChestCT"]
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="aAbB -_0é'\n"),
    st.lists(st.sampled_from([*tok.words()[:400], *NAMES, "-", "_", " "])).map(" ".join),
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("")
@example("a photo of a Café-au-lait_2, 12 ½ \ud800 ﬁ ǆ İ")
def test_tokens_say_what_the_text_was(text: str) -> None:
    tokens = tok.encode(text)
    assert tok.decode(tokens) == text
    assert all(tok.PAD < token < tok.START for token in tokens)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("the " * 40)
def test_a_row_ends_in_its_largest_token(text: str) -> None:
    row = tok.row(text)
    assert len(row) == tok.CONTEXT and row[0] == tok.START and row.count(tok.END) == 1 == row.count(tok.START)
    end = row.index(tok.END)
    assert set(row[end + 1 :]) <= {tok.PAD} and tok.PAD not in row[:end]
    if tok.CUT not in row:
        assert tok.decode(row) == text


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, unique=True, min_size=2, max_size=8), st.integers(0, 60))
def test_different_texts_have_different_rows_however_long(texts: list[str], more: int) -> None:
    head = " ".join(["photo"] * more)
    rows = {tuple(tok.row(head + text)) for text in texts}
    assert len(rows) == len(texts)


def test_names_that_differ_in_little() -> None:
    assert len({tuple(tok.row(f"a photo of a {name}")) for name in NAMES}) == len(NAMES)


def test_what_tokens_look_like() -> None:
    number = {word: tok.FIRST_WORD + i for i, word in enumerate(tok.words())}
    assert tok.encode("a photo of a dog") == [number[word] for word in ("a", "photo", "of", "a", "dog")]
    assert tok.encode("dog") == tok.encode("Dog")[1:] == tok.encode("DOG")[1:] == [number["dog"]]
    assert [len(tok.encode(text)) for text in ("Granny-Smith", "ChestCT", "end of 120")] == [4, 4, 3]
    assert tok.encode("zqx") == [tok.SPELL, *(tok.FIRST_BYTE + byte for byte in b"zqx")]


def test_rows_of_texts() -> None:
    import torch

    given = tok.tokenize(["a dog", "zebra crossing"])
    assert given.dtype == torch.int64 and given.shape == (2, tok.CONTEXT)
    assert given.tolist() == [tok.row("a dog"), tok.row("zebra crossing")]
    assert tok.tokenize([]).shape == (0, tok.CONTEXT)


def test_the_vocabulary_fills_its_ids() -> None:
    words = tok.words()
    assert len(words) == tok.WORDS == len(set(words))
    assert all(word == word.lower() and tok.PIECE.fullmatch(word) for word in words)


def test_making_a_vocabulary() -> None:
    made = make_vocabulary.vocabulary(["a Granny-Smith 120", "ChestCT granny"])
    assert len(made) == tok.WORDS and made[: len(make_vocabulary.SIGNS)] == list(make_vocabulary.SIGNS)
    rest = made[len(make_vocabulary.SIGNS) :]
    assert rest[:6] == ["granny", "smith", "120", "chest", "ct", "10"]
    with pytest.raises(ValueError, match="words"):
        make_vocabulary.vocabulary([" ".join("b" * n for n in range(2, 2000))])


@pytest.mark.skipif(not os.environ.get("CLBENCH_DATA"), reason="CLBENCH_DATA names no folder of real sets")
def test_no_class_of_the_usual_sets_is_spelled() -> None:
    folder = Path(os.environ["CLBENCH_DATA"]) / "images"
    import json

    for path in folder.glob("*/info.json"):
        names = [name.split(",")[0] for name in json.loads(path.read_text())["class_names"]]
        assert not any(tok.SPELL in tok.encode(name) for name in names if path.parent.name in KNOWN), path


KNOWN = {"cifar10", "cifar100", "tiny_imagenet", "caltech101", "gtsrb", "grocery_store", "medical_mnist", "pacs_photo"}
