"""Objects of a user's modules, by name."""

import importlib
import os
import sys
from typing import Any


def imported(name: str) -> Any:
    """The object `module:name`, modules of the current folder included.

    **Raises:** `ValueError` where there is none, or its module cannot be imported.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"module {module!r} of {name!r} was not found: {error}") from error
    except Exception as error:
        raise ValueError(
            f"module {module!r} of {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not hasattr(found, attribute):
        raise ValueError(f"module {module!r} has no {attribute!r}.")
    return getattr(found, attribute)
