"""No document on two sides, whatever the documents."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from clbench.streams.document_split import EVALUATION_FROM, SIDES, DocumentSplit, bucket, document_key
from clbench.streams.generated import documents, generate

TEXTS = st.lists(st.text(st.sampled_from("ab \n"), max_size=6), max_size=60)
SHARES = st.sampled_from([0.0, 0.1, 0.5])


def keys(split: DocumentSplit) -> list[str]:
    return [key for side in SIDES for key in split.sides[side]]


@given(TEXTS, SHARES, st.randoms())
def test_each_document_stands_on_one_side_once(texts: list[str], share: float, random: Random) -> None:
    split = DocumentSplit(share).by_hash(texts)
    assert sorted(keys(split)) == sorted({document_key(text) for text in texts if text.strip()})
    assert all(document_key(text) == key for side in SIDES for key, text in split.sides[side].items())
    shuffled = list(texts)
    random.shuffle(shuffled)
    again = DocumentSplit(share).by_hash(shuffled)
    for side in SIDES:
        assert again.sides[side].keys() == split.sides[side].keys()


@given(TEXTS, TEXTS, SHARES)
def test_a_given_split_is_kept_and_what_overlaps_can_be_dropped(
    train: list[str], evaluation: list[str], share: float
) -> None:
    split = DocumentSplit(share).as_given(train, evaluation)
    held_out = {document_key(text) for text in evaluation if text.strip()}
    trained = {document_key(text) for text in train if text.strip()}
    assert set(split.sides["evaluation"]) == held_out
    assert split.drop(held_out) == len(trained & held_out)
    assert set(split.sides["train"]) | set(split.sides["validation"]) == trained - held_out
    assert len(keys(split)) == len(set(keys(split)))


def test_the_shares_are_about_right() -> None:
    texts = generate("math", 1_000_000)
    split = DocumentSplit(0.2).by_hash(texts)
    assert abs(len(split.sides["evaluation"]) / len(texts) - (1 - EVALUATION_FROM / 1000)) < 0.015
    assert abs(len(split.sides["validation"]) / len(texts) - 0.2) < 0.03


def test_validation_takes_from_training_alone() -> None:
    texts = generate("math", 200_000)
    without, with_some = DocumentSplit().by_hash(texts), DocumentSplit(0.3).by_hash(texts)
    assert with_some.sides["evaluation"] == without.sides["evaluation"]
    assert with_some.sides["train"] | with_some.sides["validation"] == without.sides["train"]
    assert not without.sides["validation"] and with_some.sides["validation"]


def test_white_space_and_composition_do_not_make_a_new_document() -> None:
    assert document_key("caf\u00e9  noir\n") == document_key(" cafe\u0301 noir")
    assert document_key(" \n\t") == ""
    assert document_key("a b") != document_key("ab")
    assert 0 <= bucket(document_key("a")) < 1000


def test_texts_come_in_the_order_of_their_keys() -> None:
    split = DocumentSplit().by_hash(generate("prose", 50_000))
    order = [document_key(text) for text in split.texts("train")]
    assert order == sorted(order)


def test_reading_a_source_without_end_stops() -> None:
    enough = {"train": 20_000, "evaluation": 3_000}
    split = DocumentSplit().by_hash(documents("prose"), enough)  # type: ignore[arg-type]
    for side, amount in enough.items():
        texts = list(split.sides[side].values())  # type: ignore[index]
        assert sum(map(len, texts)) >= amount > sum(map(len, texts[:-1]))


def test_the_evaluation_side_does_not_depend_on_how_much_is_trained_on() -> None:
    few = DocumentSplit().by_hash(documents("code"), {"train": 10_000, "evaluation": 5_000})
    many = DocumentSplit().by_hash(documents("code"), {"train": 300_000, "evaluation": 5_000})
    assert few.sides["evaluation"] == many.sides["evaluation"]
