"""Packages that only some sources need."""

from __future__ import annotations

import importlib
from typing import Any

from generative.errors import DataError


def needed(module: str, *, package: str, extra: str, by: str, instead: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: what is imported.
        package: the distribution that has it.
        extra: of ours, that installs it.
        by: the setting (or action) that needs it.
        instead: what works without it.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{by} needs the package {package}, which is not installed",
            expected=f"an installation with it, or {instead}",
            remedy=f"pip install 'generative[{extra}]'",
        ) from error
