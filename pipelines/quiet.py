"""Keeps the messages of TensorFlow and other libraries off the terminal."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_imports(what: str = "TensorFlow, about 10 s") -> Iterator[None]:
    """Discards the warnings that TensorFlow and its dependencies print while they are imported.

    what: the library and how long it takes to load; printed when TensorFlow is not loaded yet.
    """
    if "tensorflow" not in sys.modules:
        print_loading(what)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings(), discard_stderr():  # TensorFlow 2.21 writes before it reads its own log level
        warnings.simplefilter("ignore")
        yield


def print_loading(what: str = "TensorFlow and TFX, about 20 s") -> None:
    """Prints one line to standard error: what the command waits for."""
    print(f"loading {what} ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def discard_stderr(also_on_error: bool = False) -> Iterator[None]:
    """Discards what native code writes to standard error; prints it after all when the block raises.

    also_on_error: discards it then, too.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        terminal = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            if not also_on_error:
                written.seek(0)
                os.write(terminal, written.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
