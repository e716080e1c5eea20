"""Paired differences over blocks, against plain arithmetic."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clbench.block_losses import FILE, paired_difference, pooled_difference, read_block_losses
from clbench.errors import UserError
from clbench.launch import start_run
from clbench.spec import make_spec

TEXT = {"tokens": 1500, "context": 16, "eval_blocks": 20}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of one stream that differ in their learning rate."""
    out = tmp_path_factory.mktemp("runs")
    fields = {"strategy": "finetune", "stream": "text-shift", "stream_settings": TEXT, "threads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLBENCH_TRACKING", "off")
        found = [
            start_run(make_spec({**fields, "strategy_settings": {"steps": 4, "batch_size": 8, "lr": rate}}), out)[0]
            for rate in (0.01, 0.001)
        ]
    return found[0], found[1]


def test_the_difference_and_its_error_are_those_of_the_blocks(pair: tuple[Path, Path]) -> None:
    a, b = (read_block_losses(folder) for folder in pair)
    for step, kind in ((None, "boundary"), (4, "boundary"), (2, "trace")):
        at = int(a.step.max()) if step is None else step
        for name in set(a.eval_set[(a.step == at)]):
            entries = [
                max(i for i in range(len(run.n)) if (run.step[i], run.eval_set[i], run.kind[i]) == (at, name, kind))
                for run in (a, b)
            ]
            losses = [run.of(i).astype(float) for run, i in zip((a, b), entries, strict=True)]
            difference = losses[0] - losses[1]
            found = paired_difference(*pair, str(name), step)
            assert found.n == len(difference)
            assert found.mean == pytest.approx(losses[0].mean() - losses[1].mean(), abs=1e-9)
            assert found.se == pytest.approx(np.sqrt(np.var(difference) / (len(difference) - 1)))
            unpaired = np.sqrt((losses[0].var() + losses[1].var()) / (len(difference) - 1))
            assert found.se > 0 and found.se != pytest.approx(unpaired)


def test_a_run_is_no_different_from_itself(pair: tuple[Path, Path]) -> None:
    name = str(read_block_losses(pair[0]).eval_set[0])
    found = paired_difference(pair[0], pair[0], name)
    assert (found.mean, found.se) == (0.0, 0.0)


def test_compare_shows_them(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from clbench.cli.compare import _show
    from clbench.compare import compare

    comparison = compare(pair)
    assert comparison.blocks[0] == {}
    found = comparison.blocks[1]
    assert found == {name: paired_difference(pair[1], pair[0], name) for name in found} and len(found) >= 2
    name, first = next(iter(found.items()))
    assert comparison.as_dict()["groups"][1]["block_difference_to_first"][name]["se"] == first.se
    _show(comparison)
    assert f"{first.mean:+.4f} ± {first.se:.4f}" in capsys.readouterr().out


def test_several_seeds_are_averaged_block_by_block(pair: tuple[Path, Path]) -> None:
    """Two pairs that differ by d and -d have no difference on any block, so no error either."""
    a, b = pair
    name = str(read_block_losses(a).eval_set[0])
    found = pooled_difference([(a, b), (b, a)], name)
    assert (found.mean, found.se) == (0.0, 0.0) and paired_difference(a, b, name).se > 0
    assert pooled_difference([(a, b), (a, b)], name) == paired_difference(a, b, name)


def test_what_cannot_be_paired_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no losses of 'nowhere' \(its sets: "):
        paired_difference(*pair, "nowhere")
    name = str(read_block_losses(pair[0]).eval_set[0])
    with pytest.raises(UserError, match="at step 999"):
        paired_difference(*pair, name, 999)
    copy = tmp_path / "copy"
    shutil.copytree(pair[0], copy)
    (copy / FILE).write_bytes((pair[1] / FILE).read_bytes())
    with pytest.raises(UserError, match="its means are not those of the rows"):
        read_block_losses(copy)
    (copy / FILE).unlink()
    with pytest.raises(UserError, match="only runs of language modelling keep losses"):
        paired_difference(copy, pair[1], name)


@pytest.mark.slow
def test_exporting_and_verifying_do_without_them(pair: tuple[Path, Path], tmp_path: Path) -> None:
    from clbench.record import read_record
    from clbench.seal import broken_seal
    from clbench.sharing.export import export_runs
    from clbench.sharing.importing import import_archive

    export_runs(pair, tmp_path / "runs.zip")
    added = import_archive(tmp_path / "runs.zip", tmp_path / "elsewhere").added
    assert len(added) == 2 and not (added[0] / FILE).exists()
    assert broken_seal(added[0], read_record(added[0])) is None
