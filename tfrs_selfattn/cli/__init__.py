"""The command line, `tfrs-selfattn COMMAND`: one file a command.

`main.py` is the entry point, `_report.py` prints for people or machines, `_steps.py`
holds what several commands do. Nothing imports this package.
"""
