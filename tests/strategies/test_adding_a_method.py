"""The example of docs/adding_a_method.md, as a reader would run it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clbench.engine.session import Session

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"
UNEQUAL = {"stream": "split-digits", "backbone": "mlp:32x1", "stream_settings": {"sizes": [3, 5, 2]}}
DOMAINS = {"stream": "permuted-digits", "backbone": "mlp:64x1", "stream_settings": {"tasks": 3}}


@pytest.fixture
def method(tmp_path: Path) -> str:
    found = re.search(r"<!-- example: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / found[1]).write_text(found[2], encoding="utf-8")
    return f"{tmp_path / found[1]}:PullBack"


def test_the_example_runs_and_helps(
    method: str, drive: Callable[..., Session], final: Callable[[Session], float]
) -> None:
    assert drive(method, job=UNEQUAL).n_classes() == 10
    assert final(drive(method, job=DOMAINS)) > final(drive("finetune", job=DOMAINS))


def test_at_zero_strength_it_is_finetuning(method: str, drive: Callable[..., Session]) -> None:
    found = drive(method, {"strength": 0}, job=UNEQUAL).model.state_dict()
    for name, value in drive("finetune", job=UNEQUAL).model.state_dict().items():
        assert torch.equal(value, found[name])


def test_every_hook_and_service_of_the_page_exists() -> None:
    from clbench.strategy import Strategy

    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\w+)\([a-z]*\)` \|", text, re.MULTILINE)) | set(re.findall(r"self\.(\w+)\(", text))
    own = {"collect", "reset"}
    assert len(named) > 15
    assert [name for name in sorted(named - own) if not hasattr(Strategy, name)] == []
