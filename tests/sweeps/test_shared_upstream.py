"""Jobs of a sweep that start from one upstream train it once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from clbench.sweeps.job import Ended
from clbench.sweeps.local import LocalEngine

from .small_jobs import small_job


def test_two_jobs_share_one_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path / "cache"))
    jobs = [small_job(1), small_job(2, "replay")]
    settings = {"upstream": "shared", "upstream_settings": {"epochs": 3}}
    jobs = [replace(job, spec=job.spec.model_copy(update=settings)) for job in jobs]
    events = list(LocalEngine(2, 2).run(jobs, tmp_path / "out", threading.Event()))
    ends = [event for event in events if isinstance(event, Ended)]
    assert [end.status for end in ends] == ["completed", "completed"], ends
    records = [json.loads((end.folder / "record.json").read_text()) for end in ends if end.folder]
    assert records[0]["upstream"] == records[1]["upstream"]
    assert records[0]["cost"]["upstream_seconds_train"] == records[1]["cost"]["upstream_seconds_train"]  # one training
    assert len(list((tmp_path / "cache" / "upstream").iterdir())) == 1
