"""The text-shift stream: budgets, splits, hashes, order, and what it says about bad settings and data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clbench.config import parse_config
from clbench.data.layout import write_text_set
from clbench.data.text import Document
from clbench.data.tokens import END
from clbench.errors import UserError
from clbench.objectives.base import build_objective
from clbench.samples import Samples
from clbench.stream import Stream
from clbench.streams.document_split import document_key
from clbench.streams.generated import DOMAINS, MONTHS, generate
from clbench.streams.text import TextShift

SMALL = {"tokens": 6_400, "eval_blocks": 12}


def build(order_seed: int = 0, root: Path | None = None, **settings: Any) -> Stream:
    config = parse_config(TextShift.Config, {**SMALL, **settings}, "stream text-shift")
    return TextShift("text-shift", config, order_seed=order_seed, data_root=root).build()


def error_of(**settings: Any) -> str:
    with pytest.raises(UserError) as error:
        build(**settings)
    message = str(error.value)
    assert "\n" not in message
    return message


def rows(samples: Samples) -> np.ndarray:
    return samples.raw(torch.arange(len(samples))).numpy()


def decoded(samples: Samples) -> str:
    """The text of neighbouring blocks, documents separated by \\0."""
    blocks = rows(samples)
    ids = [*blocks[0], *blocks[1:, 1:].ravel()]
    return bytes(0 if token == END else int(token) for token in ids).decode(errors="replace")


def make_set(root: Path, name: str, train: list[str], val: list[str] | None) -> None:
    folder = root / "text" / name
    for split, texts in (("train", train), ("val", val)):
        if texts is not None:
            write_text_set(folder, split, [Document(text, f"{split}{i}") for i, text in enumerate(texts)])


@pytest.fixture(scope="module")
def default() -> Stream:
    return build()


def test_the_default_is_three_generated_domains(default: Stream) -> None:
    assert [task.name for task in default.tasks] == ["prose", "code", "cipher"]
    assert [(e.name, e.belongs_to) for e in default.eval_sets] == [("prose", 0), ("code", 1), ("cipher", 2)]
    assert default.objective == "language_modeling" and default.scenario == "domain"
    assert default.vocabulary == 257 and default.input_shape == (64,)
    assert default.default_model == "byte-gpt?ctx=64"
    assert default.training.optimizer == "adamw" and default.training.clip == 1.0
    assert all(len(task.train) == 100 and task.validation is None for task in default.tasks)
    assert all(len(eval_set.data) == 12 for eval_set in default.eval_sets)


def test_one_pool_holds_every_block_with_its_domain(default: Stream) -> None:
    parts = [task.train for task in default.tasks] + [eval_set.data for eval_set in default.eval_sets]
    assert len({id(part.pool) for part in parts}) == 1
    pool = parts[0].pool
    assert pool.inputs.shape == (336, 65) and pool.inputs.dtype == torch.int16
    assert torch.cat([part.index for part in parts]).sort().values.tolist() == list(range(336))
    for label, (task, eval_set) in enumerate(zip(default.tasks, default.eval_sets, strict=True)):
        assert set(task.train.labels.tolist()) == set(eval_set.data.labels.tolist()) == {label}
        assert task.train.labels.dtype == torch.int64


def test_no_document_is_both_trained_on_and_evaluated(default: Stream) -> None:
    for name, task, eval_set in zip(["prose", "code"], default.tasks, default.eval_sets, strict=False):
        training = decoded(task.train)
        whole = training.split("\0")[:-1]
        originals = set(generate(name, 100_000))
        assert len(whole) > 10 and set(whole) <= originals
        for block in rows(eval_set.data):
            for part in bytes(0 if t == END else int(t) for t in block).decode().split("\0"):
                if len(part) > 40:
                    assert part not in training


def test_bytes_per_target_leaves_out_the_end_of_documents(default: Stream) -> None:
    for eval_set in default.eval_sets:
        targets = rows(eval_set.data)[:, 1:]
        assert eval_set.bytes_per_target == pytest.approx((targets != END).mean(), abs=1e-12)
    assert min(eval_set.bytes_per_target for eval_set in default.eval_sets) < 1.0


def test_the_unigram_base_lies_below_a_uniform_guess(default: Stream) -> None:
    objective = build_objective(default)
    bases = {eval_set.name: objective.base(eval_set, 0) for eval_set in default.eval_sets}
    assert all(2.0 < base < np.log(257) for base in bases.values())


def test_blocks_do_not_depend_on_the_budget_of_the_other_side(default: Stream) -> None:
    more = build(tokens=12_800)
    for old, new in zip(default.eval_sets, more.eval_sets, strict=True):
        assert np.array_equal(rows(old.data), rows(new.data))
    assert all(len(task.train) == 200 for task in more.tasks)


def test_an_order_seed_permutes_the_tasks_and_nothing_else(default: Stream) -> None:
    streams = [build(order_seed) for order_seed in range(8)]
    orders = {tuple(task.name for task in stream.tasks) for stream in streams}
    assert len(orders) > 2 and all(sorted(order) == ["cipher", "code", "prose"] for order in orders)
    assert {stream.content for stream in streams} == {default.content}
    assert len({stream.order for stream in streams}) == len(orders)
    for stream in streams:
        assert [e.belongs_to for e in stream.eval_sets] == [0, 1, 2]
        assert [e.name for e in stream.eval_sets] == [task.name for task in stream.tasks]
        by_name = {task.name: rows(task.train) for task in stream.tasks}
        assert all(np.array_equal(by_name[task.name], rows(task.train)) for task in default.tasks)


def test_the_order_of_the_setting_is_an_order_too(default: Stream) -> None:
    other = build(domains=["cipher", "prose", "code"])
    assert other.content == default.content and other.order != default.order
    assert build(domains=" prose, code,cipher ").order == default.order


@pytest.mark.parametrize(
    "settings",
    [
        {"kappa": 0.5}, {"context": 32}, {"tokens": 3_200}, {"eval_blocks": 11},
        {"validation": 0.2}, {"probes": "math"}, {"domains": "prose,code"}, {"no_shift": True},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_changes_the_data_changes_the_content_hash(default: Stream, settings: dict[str, Any]) -> None:
    assert build(**settings).content != default.content


def test_kappa_leaves_the_other_domains_alone() -> None:
    none, half = build(kappa=0.0), build(kappa=0.5)
    assert np.array_equal(rows(none.tasks[0].train), rows(half.tasks[0].train))
    assert np.array_equal(rows(none.tasks[2].train), rows(none.tasks[0].train))
    assert not np.array_equal(rows(half.tasks[2].train), rows(half.tasks[0].train))


def test_probes_are_evaluated_and_never_trained_on() -> None:
    stream = build(domains="prose", probes=["math", "prose2"], context=16, eval_blocks=20)
    assert [task.name for task in stream.tasks] == ["prose"]
    assert [(e.name, e.belongs_to) for e in stream.eval_sets] == [("prose", 0), ("math", None), ("prose2", None)]
    assert [set(e.data.labels.tolist()) for e in stream.eval_sets] == [{0}, {1}, {2}]
    assert len(stream.tasks[0].train.pool.inputs) == 400 + 3 * 20


def test_validation_documents_are_neither_trained_on_nor_evaluated() -> None:
    stream = build(domains="code", validation=0.25)
    (task,) = stream.tasks
    assert task.validation is not None and len(task.validation) == 25 and len(task.train) == 100
    training = set(decoded(task.train).split("\0"))
    held_out = decoded(task.validation).split("\0")[:-1]
    assert len(held_out) > 1 and not set(held_out) & training


def documents_about(topic: str, count: int, size: int = 300) -> list[str]:
    return [f"{topic} {i}: " + " ".join(f"{topic}{(i * 7 + j) % 97}" for j in range(size // 8)) for i in range(count)]


def test_a_set_keeps_the_split_it_comes_with(tmp_path: Path) -> None:
    make_set(tmp_path, "alpha", documents_about("alpha", 40), documents_about("held", 20))
    stream = build(root=tmp_path, domains="alpha", tokens=0)
    training = decoded(stream.tasks[0].train)
    assert "held" not in training
    assert sum(text in training for text in documents_about("alpha", 40)) == 39  # the last block is not full
    assert b"alpha" not in rows(stream.eval_sets[0].data).astype(np.uint8).tobytes()


def test_a_set_without_a_split_is_split_by_text(tmp_path: Path) -> None:
    texts = documents_about("beta", 400)
    make_set(tmp_path, "beta", texts, None)
    stream = build(root=tmp_path, domains="beta", tokens=0)
    training = decoded(stream.tasks[0].train)
    trained = {text for text in texts if text in training}
    assert 0.9 * len(texts) < len(trained) < 0.99 * len(texts)


def test_documents_on_both_sides_leave_training_and_are_counted(tmp_path: Path) -> None:
    shared = documents_about("shared", 5)
    make_set(tmp_path, "alpha", documents_about("alpha", 40) + shared[:3], documents_about("held", 20))
    make_set(tmp_path, "beta", documents_about("beta", 40), documents_about("other", 20) + shared)
    stream = build(root=tmp_path, domains="alpha,beta", tokens=0)
    assert "shared" not in decoded(stream.tasks[0].train)
    assert stream.notes.startswith("3 documents of alpha left out of training")
    assert build(root=tmp_path, domains="alpha", probes="beta", tokens=0).notes == stream.notes


def test_duplicates_are_read_once(tmp_path: Path) -> None:
    texts, held = documents_about("alpha", 40), documents_about("held", 20)
    make_set(tmp_path, "alpha", texts, held)
    make_set(tmp_path, "twice", texts + [f" {text}\n" for text in texts], held + held[:3])
    once, twice = (build(root=tmp_path, domains=name, tokens=0) for name in ("alpha", "twice"))
    assert np.array_equal(rows(once.tasks[0].train), rows(twice.tasks[0].train))
    assert np.array_equal(rows(once.eval_sets[0].data), rows(twice.eval_sets[0].data))


def test_the_content_hash_knows_neither_row_order_nor_place(tmp_path: Path) -> None:
    texts, held = documents_about("alpha", 40), documents_about("held", 20)
    make_set(tmp_path / "a", "alpha", texts, held)
    make_set(tmp_path / "b", "alpha", texts[::-1], held[::-1])
    streams = [
        build(root=tmp_path / "a", domains="alpha", tokens=0),
        build(root=tmp_path / "b", domains="alpha", tokens=0),
        build(root=tmp_path, domains=str(tmp_path / "a" / "text" / "alpha"), tokens=0),
    ]
    assert len({(stream.content, stream.order) for stream in streams}) == 1
    make_set(tmp_path / "b", "alpha", texts[:-1], held)
    assert build(root=tmp_path / "b", domains="alpha", tokens=0).content != streams[0].content


def test_evaluation_blocks_come_from_many_documents(tmp_path: Path) -> None:
    long = [f"{chr(97 + i)}" * 5_000 for i in range(20)]
    make_set(tmp_path, "long", documents_about("alpha", 40), long)
    blocks = rows(build(root=tmp_path, domains="long", tokens=0, eval_blocks=20).eval_sets[0].data)
    assert len({int(token) for token in blocks[:, 1]}) > 5


def test_the_setting_names_every_generated_domain() -> None:
    described = TextShift.Config.model_fields["domains"].description or ""
    others = [name for name in DOMAINS if name not in MONTHS]
    assert f"({', '.join(others)}, {MONTHS[0]} to {MONTHS[-1]})" in described


def test_settings_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    assert "did you mean domains" in error_of(domain="prose")
    assert "probe" in error_of(domains="prose,code", probes="code")
    assert "kappa" in error_of(kappa=1.5)
    assert "domains" in error_of(domains="")
    assert "less than one block" in error_of(tokens=10)
    assert "no end" in error_of(tokens=0)
    assert "tokenizer" in error_of(tokenizer="words")
    assert "validation" in error_of(validation=0.9)
    assert "did you mean prose" in error_of(domains="prsoe", root=tmp_path)
    assert "no text set 'novels'" in error_of(domains="novels", root=tmp_path)


def test_data_too_small_for_its_budget_names_what_would_fit(tmp_path: Path) -> None:
    make_set(tmp_path, "alpha", documents_about("alpha", 40), documents_about("held", 2))
    message = error_of(root=tmp_path, domains="alpha", eval_blocks=500)
    fits = int(message.split("set eval_blocks=")[1].split()[0])
    message = error_of(root=tmp_path, domains="alpha", eval_blocks=fits, tokens=10**6)
    tokens = int(message.split("set tokens=")[1].split()[0])
    stream = build(root=tmp_path, domains="alpha", eval_blocks=fits, tokens=tokens)
    assert len(stream.tasks[0].train) * 64 == tokens
    everything = build(root=tmp_path, domains="alpha", eval_blocks=fits, tokens=0)
    assert len(everything.tasks[0].train) * 64 == tokens


def test_a_set_without_text_is_one_line(tmp_path: Path) -> None:
    make_set(tmp_path, "empty", [], documents_about("held", 20))
    assert "empty" in error_of(root=tmp_path, domains="empty")
    make_set(tmp_path, "blank", [" \n", ""], documents_about("held", 20))
    assert "blank" in error_of(root=tmp_path, domains="blank", tokens=0)
    make_set(tmp_path, "copied", documents_about("held", 20), documents_about("held", 20))
    assert "copied" in error_of(root=tmp_path, domains="copied", tokens=0)


def test_real_text_sets() -> None:
    if not os.environ.get("CLBENCH_DATA"):
        pytest.skip("CLBENCH_DATA is not set: no real text sets here")
    names = ["english_novels", "python_code", "math_latex"]
    root = Path(os.environ["CLBENCH_DATA"])
    if not all((root / "text" / name).is_dir() for name in names):
        pytest.skip(f"{root} does not hold {', '.join(names)}")
    stream = build(domains=names, tokens=128_000, eval_blocks=64)
    assert [task.name for task in stream.tasks] == names
    assert all(len(task.train) == 2_000 for task in stream.tasks)
    assert all(len(eval_set.data) == 64 for eval_set in stream.eval_sets)
    from clbench.data.text import load_documents

    held_out = [load_documents(name, "val") for name in names]
    trained = [document for name in names for document in load_documents(name, "train")]
    evaluated = {document_key(document.text) for documents in held_out for document in documents}
    overlap = sum(document_key(document.text) in evaluated for document in trained)
    assert ("left out of training" in stream.notes) == bool(overlap)
    for eval_set, documents in zip(stream.eval_sets, held_out, strict=True):
        text = "\0".join(document.text for document in documents).encode()
        inner = [bytes(row.tolist()) for row in rows(eval_set.data) if (row != END).all()]
        assert len(inner) > 50 and all(block in text for block in inner)
