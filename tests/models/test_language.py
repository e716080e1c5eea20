from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clbench.errors import UserError
from clbench.models import build_model, model_info

Build = Callable[..., nn.Module]


def tokens(batch: int = 3, length: int = 16) -> Tensor:
    return torch.randint(0, 257, (batch, length), generator=torch.Generator().manual_seed(2))


def test_shapes_and_features(text_model: Build) -> None:
    model = text_model()
    logits = model(tokens())
    assert logits.shape == (3, 16, 257) and model.vocab_size == 257
    assert model.features(tokens()).shape == (3, 16, 32) and model.feature_dim == 32
    torch.testing.assert_close(model.output_layer(model.features(tokens())), logits)


def test_a_position_sees_only_the_past(text_model: Build) -> None:
    model = text_model()
    x = tokens()
    changed = x.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 257
    torch.testing.assert_close(model(x)[:, :9], model(changed)[:, :9])
    assert not torch.allclose(model(x)[:, 9], model(changed)[:, 9])


def test_defaults_are_the_smoke_tier() -> None:
    model = build_model("byte-gpt", channels=0, size=64, mean=(), std=(), vocab_size=257)
    assert model_info(model)["parameters"] == 132_992
    assert model.input.kind == "tokens" and model.input.size == 64 and model.input.vocab_size == 257


def test_no_dropout(text_model: Build) -> None:
    model = text_model().train()
    assert torch.equal(model(tokens()), model(tokens()))
    assert torch.equal(copy.deepcopy(model).eval()(tokens()), model(tokens()))


def test_a_seed_gives_the_same_bytes(text_model: Build) -> None:
    one, two, other = (text_model(seed=seed) for seed in (3, 3, 4))
    assert model_info(one) == model_info(two)
    assert model_info(one)["weights_sha256"] != model_info(other)["weights_sha256"]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_per_sample_gradients(text_model: Build, attention: str) -> None:
    model = text_model(f"byte-gpt?d=32,heads=2,attn={attention}")
    x = tokens(4, 17)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], block: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, values, (block[None, :-1],))[0], block[1:])

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(4):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1, :-1])[0], x[i, 1:]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(together[name][i], parameter.grad, rtol=1e-3, atol=1e-6)


def test_precision_and_compile(text_model: Build) -> None:
    model = text_model().eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens()).dtype == torch.bfloat16
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(tokens()), model(tokens()))


def test_local_folder(text_model: Build, tmp_path: Path) -> None:
    trained = text_model(seed=5)
    trained.backbone.save_pretrained(tmp_path / "tiny")
    loaded = text_model(f"hf:{tmp_path / 'tiny'}", seed=6)
    assert model_info(loaded)["weights_sha256"] == model_info(trained)["weights_sha256"]
    assert model_info(loaded)["checkpoint"] == "folder:tiny"
    torch.testing.assert_close(loaded(tokens()), trained(tokens()))


def test_a_folder_whose_tokeniser_is_another_than_the_streams(text_model: Build, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def with_ids(n: int) -> None:
        inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="w1").save_pretrained(tmp_path)

    text_model().backbone.save_pretrained(tmp_path)
    with_ids(257)
    text_model(f"hf:{tmp_path}")
    with_ids(200)
    with pytest.raises(UserError, match=rf"tokeniser of 200 ids, the stream's has 257; set tokenizer=hf:{tmp_path}"):
        text_model(f"hf:{tmp_path}")


def test_local_folder_with_dropout_and_half_precision(text_model: Build, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).bfloat16().save_pretrained(tmp_path)
    model = text_model(f"hf:{tmp_path}").train()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model(tokens()), model(tokens()))
    with pytest.raises(UserError, match="blocks of up to 16 tokens, the stream's have 32"):
        text_model(f"hf:{tmp_path}", size=32)


def test_pickled_weights_are_refused(text_model: Build, tmp_path: Path) -> None:
    model = text_model()
    model.backbone.config.save_pretrained(tmp_path)
    torch.save(model.backbone.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        text_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("byte-gpt?d=30", "multiple of 8"),
        ("byte-gpt?ctx=8", "blocks of up to 8 tokens"),
        ("byte-gpt?width=8", "unknown option"),
        ("byte-gpt?attn=flash", "eager or sdpa"),
        ("mlp", "takes images, but the stream gives text"),
        ("hf:/no/such/folder", "no folder"),
        ("hf:a/b/c", "neither a folder here nor a hub name"),
    ],
)
def test_bad_models(text_model: Build, spec: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        text_model(spec)
    assert "\n" not in str(caught.value)


def test_damaged_folder(text_model: Build, tmp_path: Path) -> None:
    text_model().backbone.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        text_model(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        text_model(f"hf:{tmp_path}")


def test_too_small_a_vocabulary(tmp_path: Path) -> None:
    small = build_model("byte-gpt?d=16", channels=0, size=8, mean=(), std=(), vocab_size=100)
    small.backbone.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="knows 100 token ids, the stream uses 257"):
        build_model(f"hf:{tmp_path}", channels=0, size=8, mean=(), std=(), vocab_size=257)


def test_offline_is_one_line(text_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot download 'EleutherAI/pythia-70m'") as caught:
        text_model("hf:EleutherAI/pythia-70m")
    assert "\n" not in str(caught.value)
