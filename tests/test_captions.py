from __future__ import annotations

import pytest

from clbench.captions import Captions, ContrastConfig


def test_equal_texts_have_equal_ids() -> None:
    captions = Captions(
        ("a+++cat", "b+++cat", "b+++dog"), (("a cat", "cats"), ("a cat",), ("a dog",)), {7: ("cats", "x")}
    )
    assert captions.vocabulary == ("a cat", "cats", "a dog", "x")
    assert captions.ids["cats"] == 1
    assert [captions.primer(c) for c in range(3)] == ["a cat", "a cat", "a dog"]
    assert (captions.dataset(2), captions.class_name(2)) == ("b", "dog")


@pytest.mark.parametrize(
    ("texts", "rows"), [((("x",),), {}), ((("x",), ()), {}), ((("x",), ("y",)), {3: ()})], ids=["few", "none", "row"]
)
def test_nothing_is_without_a_caption(texts: tuple[tuple[str, ...], ...], rows: dict[int, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError):
        Captions(("a+++x", "a+++y"), texts, rows)


def test_settings_are_the_streams() -> None:
    made = ContrastConfig(loss="clip", recall_at=1).contrast()
    assert (made.loss, made.label_space, made.prompts, made.recall_at) == ("clip", "own", "primer", 1)
