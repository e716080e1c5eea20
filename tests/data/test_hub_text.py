"""Text through the `datasets` library: folders in the form of the hub's sets, what was saved to disk, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.config import parse_config
from clbench.data.hub_text import HubText, is_local
from clbench.errors import UserError
from clbench.stream import Stream
from clbench.streams.text import TextShift

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(topic: str, count: int, column: str = "text") -> list[dict[str, Any]]:
    return [
        {
            column: f"{topic} {i} " + " ".join(f"{topic}{i * j % 89}" for j in range(40)),
            "id": f"{topic}{i}",
            "year": 2000 + i % 4,
        }
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits in the file names that the hub uses."""
    import datasets

    path = tmp_path_factory.mktemp("hub") / "some-letters"
    for split, count in (("train", 60), ("validation", 20)):
        file = path / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows(split, count)).to_parquet(file)
    return path


def build(domain: str, **settings: Any) -> Stream:
    values = {"domains": [domain], "tokens": 3_200, "eval_blocks": 12, "context": 32, **settings}
    return TextShift("text-shift", parse_config(TextShift.Config, values, "stream text-shift")).build()


def test_a_folder_is_read_document_by_document(folder: Path) -> None:
    hub = HubText(f"hf:{folder}")
    assert hub.evaluation == "validation" and is_local(f"hf:{folder}")
    documents = list(hub.documents("train"))
    assert [d.text for d in documents] == [row["text"] for row in rows("train", 60)]
    assert (documents[5].doc, documents[5].year) == ("train5", 2001)


def test_only_what_is_needed_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    inside = HubText.documents

    def counted(self: HubText, split: str) -> Any:
        for document in inside(self, split):
            seen.append(split)
            yield document

    monkeypatch.setattr(HubText, "documents", counted)
    stream = build(f"hf:{folder}", tokens=640)
    assert len(stream.tasks[0].train) == 20 and stream.eval_sets[0].name == "some_letters"
    assert 0 < seen.count("train") < 10 < len(rows("train", 60))


def test_a_stream_of_a_hub_set_is_that_of_its_text(folder: Path, tmp_path: Path) -> None:
    from clbench.data.layout import write_text_set
    from clbench.data.text import Document

    for split, name in (("train", "train"), ("val", "validation")):
        documents = [Document(row["text"], row["id"]) for row in rows(name, 60 if split == "train" else 20)]
        write_text_set(tmp_path / "some_letters", split, documents)
    through_hub, from_disk = (
        build(place, tokens=0, eval_blocks=8) for place in (f"hf:{folder}", f"{tmp_path}/some_letters")
    )
    trained = [stream.tasks[0].train for stream in (through_hub, from_disk)]
    blocks = [samples.raw(torch.arange(len(samples))) for samples in trained]
    assert len(blocks[0]) > 100 and torch.equal(*blocks)


def test_slices_and_columns(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "posts"
    path.mkdir()
    datasets.Dataset.from_list(rows("post", 200, "body")).to_json(path / "train.jsonl")
    stream = build(f"hf:{path}::body[2001]", tokens=640, eval_blocks=4)
    assert stream.tasks[0].name == "posts.body.2001"
    with pytest.raises(
        UserError, match=r"no text in a column 'text' \(columns of text: body, id\); write hf:.*::COLUMN"
    ):
        build(f"hf:{path}")
    with pytest.raises(UserError, match="its years are 2000 to 2003"):
        build(f"hf:{path}::body[1990]")


def test_what_was_saved_to_disk(tmp_path: Path) -> None:
    import datasets

    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows("saved", 200))})
    saved.save_to_disk(tmp_path / "saved")
    stream = build(f"hf:{tmp_path}/saved")
    assert len(stream.tasks[0].train) == 100 and len(stream.eval_sets[0].data) == 12


def test_a_set_without_train_is_told(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows("t", 5))}).save_to_disk(tmp_path / "only")
    with pytest.raises(UserError, match=r"no split 'train' \(it has test\)"):
        HubText(f"hf:{tmp_path}/only")


def test_without_a_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr("clbench.data.hub_text.reach_hub", lambda: (_ for _ in ()).throw(OSError("no route")))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        build("hf:nobody/no-such-set:config:body")
    assert "cannot read hf:nobody/no-such-set:config:body" in str(error.value) and "\n" not in str(error.value)
