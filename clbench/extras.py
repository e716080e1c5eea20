"""Importing packages that come with an extra of clbench, when something asks for them and not before."""

from __future__ import annotations

import importlib.util
import warnings
from importlib import import_module
from types import ModuleType

from clbench.errors import UserError
from clbench.torchvision_schemas import prepare


def import_extra(module: str, extra: str) -> ModuleType:
    """The module, imported. Raises UserError, one line, where it is not installed or does not import.

    extra: the extra of clbench that installs it.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise UserError(f'{package} is not installed: pip install "clbench[{extra}]"')
    prepare()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except Exception as error:
        message = " ".join(str(error).split())
        raise UserError(f"{module} cannot be imported: {type(error).__name__}: {message}") from None
