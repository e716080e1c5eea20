"""Where the parts of a model of images and texts come from: checkpoints of every form, towers of other libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.errors import UserError
from clbench.models import build_model, model_info
from clbench.models.clip.model import CLIP
from clbench.models.tune import apply_tuning
from clbench.pairs import Pairs
from clbench.torchvision_schemas import prepare

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "square", "paint"]
TEXTS = ["a red square", "blue paint"]


def build(spec: str) -> CLIP:
    torch.manual_seed(0)
    model = build_model(spec, channels=3, size=8, mean=(0.5,) * 3, std=(0.2,) * 3, pairs=True)
    assert isinstance(model, CLIP)
    return model


def write_bert(folder: Path) -> None:
    """A text tower of transformers', untrained, and its tokeniser, as both are saved."""
    prepare()
    from transformers import BertConfig, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **size).save_pretrained(folder)


def with_bert(pairs_stream: Any, folder: Path, tokenizer: str) -> str:
    """A configuration whose text tower is that of `folder`."""
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": tokenizer, "context_length": 8}
    text |= {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    path = folder / "two_towers.json"
    path.write_text(json.dumps({"model_cfg": {**pairs_stream.TINY, "text_cfg": text}}))
    return f"open_clip:{path}"


@pytest.mark.parametrize("place", ["named", "beside"])
def test_a_text_tower_of_transformers(pairs_stream: Any, tmp_path: Path, place: str) -> None:
    """Its tokeniser lies in the folder that is named, or beside the configuration."""
    write_bert(tmp_path / "bert")
    name = str(tmp_path / "bert") if place == "named" else "somebody/bert"
    model = build(with_bert(pairs_stream, tmp_path / "bert", name))
    tokens = model.tokenize(TEXTS)
    assert tokens.tolist() == [[2, 5, 6, 8, 3, 0, 0, 0], [2, 7, 9, 3, 0, 0, 0, 0]]
    apply_tuning(model, "lora:2")
    adapted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(".query." in name for name in adapted & model.tower("text"))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    model(Pairs(torch.randn(2, 3, 8, 8), tokens)).logits().softmax(1)[0, 0].backward()
    assert [n for n, p in model.named_parameters() if n in adapted and (p.grad is None or not p.grad.any())] == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("form", ["plain", "module", "state_dict"])
def test_checkpoints_of_training_runs(pairs_stream: Any, tmp_path: Path, suffix: str, form: str) -> None:
    """As open_clip's training saves them: names with `module.`, the epoch and the optimiser beside them."""
    prepare()
    import open_clip
    from safetensors.torch import save_file

    if (suffix, form) == (".safetensors", "state_dict"):
        pytest.skip("a safetensors file holds tensors alone")
    torch.manual_seed(3)
    other = open_clip.CLIP(**pairs_stream.TINY)
    tensors = {name if form == "plain" else f"module.{name}": t for name, t in other.state_dict().items()}
    path = tmp_path / f"epoch_1{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"epoch": 1, "name": "run", "state_dict": tensors} if form == "state_dict" else tensors, path)
    model = build(f"{pairs_stream.tiny_clip(tmp_path)}@{path}")
    assert model_info(model)["checkpoint"] == f"file:epoch_1{suffix}"
    x = Pairs(torch.randn(2, 3, 8, 8), model.tokenize(TEXTS))
    with torch.no_grad():
        torch.testing.assert_close(model(x).image, other.encode_image(x.images, normalize=True), atol=1e-6, rtol=0)
        torch.testing.assert_close(model(x).text, other.encode_text(x.tokens, normalize=True), atol=1e-6, rtol=0)


def test_a_text_tower_with_too_few_positions_is_told_in_one_line(pairs_stream: Any, tmp_path: Path) -> None:
    write_bert(tmp_path)
    spec = with_bert(pairs_stream, tmp_path, str(tmp_path))
    path = Path(spec.removeprefix("open_clip:"))
    path.write_text(path.read_text().replace('"context_length": 8', '"context_length": 40'))
    with pytest.raises(UserError, match="does not work with images of 8 px and texts") as error:
        build(spec)
    assert "\n" not in str(error.value)


def test_a_tokeniser_that_is_nowhere_is_told_in_one_line(
    pairs_stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from there at its import
    text = {"hf_model_name": "bert-base-uncased", "hf_tokenizer_name": "nobody/knows", "context_length": 8}
    path = tmp_path / "two_towers.json"
    path.write_text(json.dumps({**pairs_stream.TINY, "text_cfg": text}))
    with pytest.raises(UserError, match="tokeniser cannot be loaded") as error:
        build(f"open_clip:{path}")
    assert "\n" not in str(error.value)
