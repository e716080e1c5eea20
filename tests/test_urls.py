"""URLs in messages."""

from __future__ import annotations

import pytest

from clbench.urls import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sftp://me:word@host/there", "sftp://host/there"),
        ("https://me:w@rd@host:5000/there", "https://host:5000/there"),
        ("s3://bucket/x@y", "s3://bucket/x@y"),
        ("sqlite:////there/mlflow.db", "sqlite:////there/mlflow.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
