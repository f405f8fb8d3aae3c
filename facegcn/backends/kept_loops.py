"""Where Numba keeps what it compiled: beside the modules, else in the user's folder, else nowhere."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile


def find_place(package: str) -> None:
    """Gives Numba a folder of this process alone where it would find none, and refuse to work.

    So it is in a container that is read-only; each start compiles anew there. To be called before Numba is imported.

    Args:
        package: folder of the modules.
    """
    if os.environ.get("NUMBA_CACHE_DIR") or os.access(package, os.W_OK):
        return
    users = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "numba")
    with contextlib.suppress(OSError):
        os.makedirs(users, exist_ok=True)
    if os.access(users, os.W_OK):
        return
    with contextlib.suppress(OSError):  # where there is no room for anything Numba says so
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="facegcn-numba-")
        atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
