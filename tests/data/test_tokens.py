"""Tokenisers and packing, against a loop over single tokens."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clbench.data.tokens import END, ByteTokenizer, Packed, build_tokenizer, pack
from clbench.errors import UserError

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=8)


def slow_pack(documents: list[str], context: int) -> list[list[int]]:
    tokens: list[int] = []
    for document in documents:
        tokens += [*document.encode(), END]
    blocks = []
    start = 0
    while start + context < len(tokens):
        blocks.append(tokens[start : start + context + 1])
        start += context
    return blocks


@given(TEXTS, st.integers(1, 9), st.none() | st.integers(0, 6))
def test_packing_is_the_loop_over_tokens(documents: list[str], context: int, limit: int | None) -> None:
    packed = pack(documents, ByteTokenizer(), context, limit)
    blocks = packed.blocks
    expected = slow_pack(documents, context)[:limit]
    assert blocks.tolist() == expected
    assert blocks.dtype == np.int16 and blocks.shape[1] == context + 1
    assert packed.target_bytes.tolist() == [sum(token != END for token in block[1:]) for block in expected]
    targets = [token for block in expected for token in block[1:]]
    share = sum(token != END for token in targets) / len(targets) if targets else 0.0
    assert packed.bytes_per_target == pytest.approx(share, abs=1e-12)


@given(TEXTS, st.integers(1, 9))
def test_every_token_but_the_first_is_a_target_once(documents: list[str], context: int) -> None:
    blocks, _ = pack(documents, ByteTokenizer(), context)
    ids, _ = ByteTokenizer().encode(documents)
    targets = blocks[:, 1:].ravel()
    assert targets.tolist() == ids[1 : 1 + targets.size].tolist()
    assert max(0, len(ids) - 1) - targets.size < context


def test_a_limit_gives_the_first_blocks_of_many_documents() -> None:
    documents = [f"document {i} " * (i % 7) for i in range(1000)]
    everything, _ = pack(documents, ByteTokenizer(), 16)
    for limit in (1, 100, 1000):
        some, _ = pack(documents, ByteTokenizer(), 16, limit)
        assert np.array_equal(some, everything[:limit])


@given(TEXTS, st.randoms(), st.integers(0, 5))
def test_the_sample_by_hash_is_of_all_blocks(documents: list[str], random: Random, n: int) -> None:
    packed = pack([*documents, "some more text"], ByteTokenizer(), 3)
    order = list(range(len(packed.blocks)))
    random.shuffle(order)
    shuffled = Packed(packed.blocks[order], packed.target_bytes[order])
    sample = packed.first_by_hash(n)
    assert np.array_equal(sample.blocks, shuffled.first_by_hash(n).blocks)
    assert len(sample.blocks) == min(n, len(packed.blocks))
    assert sample.target_bytes.tolist() == (sample.blocks[:, 1:] != END).sum(1).tolist()
    rest = packed.first_by_hash(len(packed.blocks)).blocks.tolist()
    assert rest[:n] == sample.blocks.tolist() and sorted(rest) == sorted(packed.blocks.tolist())


def test_bytes_give_one_id_each_and_an_end() -> None:
    ids, sizes = ByteTokenizer().encode(["é", "", "a"])
    assert ids.tolist() == [0xC3, 0xA9, 256, 256, 97, 256]
    assert sizes.tolist() == [1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("name", ["byte", "hf:", "gpt2", "", "hf:./no/such/folder"])
def test_an_unknown_tokenizer_is_one_line(name: str) -> None:
    with pytest.raises(UserError) as error:
        build_tokenizer(name)
    assert "\n" not in str(error.value) and "tokenizer" in str(error.value)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        build_tokenizer(f"hf:{tmp_path}")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE of 300 ids, trained here and saved in the format of `transformers`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(["the cat and the hat, the rat and the bat"] * 5, trainer)
    folder = tmp_path_factory.mktemp("bpe")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>").save_pretrained(folder)
    return f"hf:{folder}"


DOCUMENTS = ["the cat and the hat", "čeština, 中文 and 😀😀 emoji", "", "  the rat\n\n and  "]


def test_subword_bytes_sum_to_the_text(trained: str) -> None:
    tokenizer = build_tokenizer(trained)
    for document in DOCUMENTS:
        ids, sizes = tokenizer.encode([document])
        assert ids[-1] == tokenizer.end and (ids[:-1] != tokenizer.end).all()
        assert sizes[-1] == 0 and (sizes >= 0).all()
        assert sizes.sum() == len(document.encode())
        assert ids.max() < tokenizer.vocabulary


def test_subword_packing_counts_the_bytes_of_targets(trained: str) -> None:
    tokenizer = build_tokenizer(trained)
    packed = pack(["the cat and the hat"] * 30, tokenizer, 8)
    blocks = packed.blocks
    decoded = [tokenizer.inner.decode([t for t in row if t != tokenizer.end]) for row in blocks[:, 1:].tolist()]
    assert packed.target_bytes.tolist() == list(map(len, decoded))
    assert packed.bytes_per_target == pytest.approx(sum(map(len, decoded)) / blocks[:, 1:].size)
    assert packed.bytes_per_target > 1.5


def test_a_tokenizer_without_an_end_is_refused(trained: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    inner = AutoTokenizer.from_pretrained(trained.removeprefix("hf:"))
    PreTrainedTokenizerFast(tokenizer_object=inner.backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="end-of-sequence"):
        build_tokenizer(f"hf:{tmp_path}")
