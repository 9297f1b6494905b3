"""`python -m tfrs_selfattn`, the same as the `tfrs-selfattn` command."""

from __future__ import annotations

from tfrs_selfattn.cli.main import main

if __name__ == "__main__":
    main()
