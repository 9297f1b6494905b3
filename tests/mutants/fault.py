"""One fault of the package, and the test that must notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A text of a file, what takes its place, and the test that must fail.

    Args:
        name: what is wrong then.
        file: below `tfrs_selfattn`.
        old: must occur once.
        new: its place-holder.
        test: below `tests`, with the name of the test.
        keras_3: whether the fault shows under Keras 3 only.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    keras_3: bool = False

    def faulty(self, text):
        """The text of the file with the fault in it."""
        if text.count(self.old) != 1:
            raise ValueError(
                f"`old` of {self.name!r} must occur once in {self.file}. Received: "
                f"{text.count(self.old)} times. Copy it anew from the file."
            )
        return text.replace(self.old, self.new)
