"""Entry points that stand for a family of names: `PREFIX:NAME`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clbench import catalogue
from clbench.cli import main
from clbench.errors import UserError
from clbench.extras import import_extra
from clbench.launch import start_run
from clbench.registry import families, load_strategy
from clbench.settings import check_settings
from clbench.signature import signature_fields
from clbench.spec import make_spec

MODULE = '''"""A family of strategies, as another package would bring it."""

from pydantic import create_model

from clbench.errors import UserError, did_you_mean
from clbench.signature import signature_fields
from clbench.strategy import Needs, Strategy


class Constructed:
    def __init__(self, model, size: int, rate: float = 0.5, lr: float = 2.0):
        """Make it.

        :param model: what is trained.
        :param size: how many
            there are.
        """


class Family(Strategy):
    """Strategies of a library, by name."""

    @classmethod
    def member(cls, name):
        if name != "Plain":
            raise UserError(f"no {name!r}{did_you_mean(name, ['Plain'])}")
        taken = set(Strategy.Config.model_fields)
        fields, _ = signature_fields(Constructed.__init__, {"model"}, taken, "famtest:Plain", "the library")
        members = {"Config": create_model("Config", __base__=Strategy.Config, **fields), "__module__": __name__}
        return type(name, (cls,), {**members, "needs": Needs(resume="none"), "__doc__": "Made for the name."})
'''


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package whose entry point is a family."""
    (tmp_path / "famtest_package.py").write_text(MODULE)
    info = tmp_path / "famtest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: famtest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clbench.strategies]\nfamtest:NAME = famtest_package:Family\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    families.cache_clear()
    yield
    sys.modules.pop("famtest_package", None)
    families.cache_clear()


def test_the_family_is_listed_without_being_imported(family: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategies"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("famtest:NAME"))
    assert "Strategies of a library, by name." in line
    assert "famtest_package" not in sys.modules


def test_a_member_is_shown_with_its_settings(family: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "strategy", "famtest:Plain", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    settings = {setting["name"]: setting for setting in shown["settings"]}
    assert shown["summary"] == "Made for the name." and shown["needs"]["resume"] == "none"
    assert settings["size"]["required"] and settings["size"]["description"] == "how many there are"
    assert settings["rate"]["default"] == 0.5 and settings["rate"]["source"] == "the library"
    assert settings["lr"]["default"] is None  # ours; the library's has another name
    assert settings["famtest_lr"]["default"] == 2.0
    assert settings["momentum"]["range"] == ">= 0, < 1"


def test_unknown_members_and_prefixes_name_the_nearest(family: None) -> None:
    for name, message in {"famtest:Plane": "did you mean Plain", "famtset:Plain": "unknown strategy"}.items():
        for find in (load_strategy, lambda n: catalogue.find("strategy", n)):
            with pytest.raises(UserError, match=message):
                find(name)
    with pytest.raises(UserError, match="no 'NAME'"):
        load_strategy("famtest:NAME")


def test_settings_of_a_member_are_checked(family: None, tmp_path: Path) -> None:
    entry = catalogue.find("strategy", "famtest:Plain")
    with pytest.raises(UserError, match="has no setting 'sizes'; did you mean size"):
        check_settings(entry, {"sizes": 3})
    with pytest.raises(UserError, match="size='many'"):
        check_settings(entry, {"size": "many"})
    spec = {"strategy": "famtest:Plain", "stream": "split-digits", "threads": 1, "eval_grid": "none"}
    with pytest.raises(UserError, match=r"needs a value of size \(--set size="):
        start_run(make_spec(spec), tmp_path)
    few = {"train_per_class": 8, "test_per_class": 4}
    spec |= {"stream_settings": few, "strategy_settings": {"size": 3, "epochs": 1}}
    folder, record = start_run(make_spec(spec), tmp_path)
    assert record["strategy"]["name"] == "famtest:Plain" and record["spec"]["strategy_settings"]["rate"] == 0.5
    assert folder.parent.name == "famtest-Plain"


def test_arguments_that_are_no_values_keep_their_defaults_or_are_refused() -> None:
    def constructor(
        self: object, head: type, sizes: list[int], mode: str | None = None, policy: object = object(), **more: int
    ) -> None: ...

    fields, arguments = signature_fields(constructor, {"head"}, set(), "x:Y", "there")
    assert list(arguments) == ["sizes", "mode"]
    assert fields["sizes"][0] == list[int] and fields["mode"][0] == (str | None)
    with pytest.raises(UserError, match=r"x:Y needs head \(type\), which no setting can hold"):
        signature_fields(constructor, set(), set(), "x:Y", "there")


def test_a_missing_extra_is_one_line() -> None:
    with pytest.raises(UserError, match=r'no_such_package is not installed: pip install "clbench\[some\]"'):
        import_extra("no_such_package.part", "some")
