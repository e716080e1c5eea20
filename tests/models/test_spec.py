from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clbench.errors import UserError
from clbench.models import describe, list_models
from clbench.models.spec import parse


def test_parts_of_a_full_string() -> None:
    spec = parse("timm:vit_tiny_patch16_224@/a/b.c/w.safetensors?img_size=32,drop_path_rate=0.1,class_token=false")
    assert (spec.family, spec.name, spec.weights) == ("timm", "vit_tiny_patch16_224", "/a/b.c/w.safetensors")
    assert str(spec.weights_file) == "/a/b.c/w.safetensors"
    assert dict(spec.options) == {"img_size": 32, "drop_path_rate": 0.1, "class_token": False}


def test_values() -> None:
    options = parse("x?a=-3,b=1e-3,c=.5,d=2x2x6x2,e=None,f=007,g=12e456789abc,h=sdpa,i=TRUE").options
    expected = {"a": -3, "b": 1e-3, "c": 0.5, "d": (2, 2, 6, 2), "e": None, "f": "007", "g": "12e456789abc"}
    assert dict(options) == {**expected, "h": "sdpa", "i": True}


def test_a_tag_is_not_a_file() -> None:
    assert parse("timm:resnet18@a1_in1k").weights_file is None
    assert parse("slim-resnet18@w.safetensors").weights_file is not None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("timm:resnet18?a=1@w", "before the options"),
        ("timm:resnet18@", "nothing after '@'"),
        ("mlp?a", "not KEY=VALUE"),
        ("mlp?a=1,a=2", "given twice"),
        ("", "empty name"),
    ],
)
def test_bad_grammar_is_one_line(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("slim-resnet81", "did you mean slim-resnet18"),
        ("timm:", "a name must follow"),
        ("pixels:3", "takes no name"),
        ("mlp@tag", "no published weights"),
        ("hf:gpt2@x", "takes no '@'"),
    ],
)
def test_unknown_models(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        describe(text)


def test_pretrained_is_read_from_the_string() -> None:
    trained = ["timm:resnet18.a1_in1k", "timm:resnet18@pretrained", "hf:gpt2", "mlp@w.safetensors", "micro-clip"]
    untrained = ["timm:resnet18", "slim-resnet18", "byte-gpt?d=64", "micro-clip?pretrained=false"]
    assert [describe(text).pretrained for text in trained] == [True] * 5
    assert [describe(text).pretrained for text in untrained] == [False] * 4
    assert {info.kind for info in list_models()} == {"image", "tokens", "pairs"}


def test_local_weights_are_named(tmp_path: Path) -> None:
    assert describe("timm:resnet18@/a/w.safetensors?img_size=32").local_weights == "/a/w.safetensors"
    assert describe(f"hf:{tmp_path}?attn=eager").local_weights == str(tmp_path)
    assert [describe(text).local_weights for text in ("hf:gpt2", "timm:resnet18@a1_in1k", "mlp")] == [None] * 3


def _imported(code: str) -> set[str]:
    """Names of the modules loaded after running `code` in a fresh interpreter."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_describing_needs_no_torch() -> None:
    code = "from clbench.models import describe, list_models; describe('timm:resnet18.a1_in1k'); list_models()"
    assert not {"torch", "timm", "transformers", "numpy"} & _imported(code)


def test_small_models_need_only_torch() -> None:
    code = (
        "from clbench.models import build_model, model_info\n"
        "for spec in ('slim-resnet18', 'mlp', 'pixels'):\n"
        "    m = build_model(spec, channels=1, size=8, mean=[0.5], std=[0.5]); m.grow(2); model_info(m)"
    )
    loaded = _imported(code)
    assert "torch" in loaded
    assert not {"torchvision", "timm", "transformers", "peft", "safetensors", "huggingface_hub"} & loaded
