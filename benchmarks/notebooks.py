"""How long each notebook takes in its full setting.

    python benchmarks/notebooks.py

Runs the sources in `examples/` one after the other, each in a process of its own and in
an empty folder, and prints seconds. Needs the extra `notebooks`; MovieLens comes from
the cache, or is downloaded first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def main() -> None:
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    # Each notebook chooses its Keras itself, and trains as long as it says.
    for name in ("TF_USE_LEGACY_KERAS", "TFRS_SELFATTN_FAST"):
        environment.pop(name, None)
    print(f"load before: {os.getloadavg()[0]:.2f}")
    for source in sorted(EXAMPLES.glob("[0-9]*.py")):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, str(source)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            took = time.perf_counter() - began
        print(f"{source.stem:40} {took:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
