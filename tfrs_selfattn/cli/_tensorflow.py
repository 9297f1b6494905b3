"""Starts TensorFlow without the notices that no setting of its own silences."""

from __future__ import annotations

import faulthandler
import importlib
import os
import re
import sys
import tempfile

# Level I and W, before any log level applies; of level E what is known to be harmless.
_NOTICE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IW] "
    rb"|E\d{4} .*Unable to register cu\w+ factory"
    rb"|To enable the following instructions"
)


def start_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds; commands do it when all else is checked.

    TensorFlow writes to the file descriptor, past `sys.stderr`. What it writes during
    the import is held back, and everything but the notices is shown after it. `--debug`
    (log level 0) shows all of it at once.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        importlib.import_module("tensorflow")
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        own_handler = not faulthandler.is_enabled()
        if own_handler:  # A crash leaves no time to show anything afterwards.
            faulthandler.enable(terminal)
        try:
            importlib.import_module("tensorflow")
        finally:
            if own_handler:
                faulthandler.disable()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not _NOTICE.match(line):
                    os.write(2, line)
