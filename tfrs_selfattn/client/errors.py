"""What a client raises when a server gives no answer."""

from __future__ import annotations

_HINTS = {
    "CANCELLED": "Ask again.",
    "DEADLINE_EXCEEDED": "Raise `timeout`, or see what keeps the server busy.",
    "FAILED_PRECONDITION": "Ask for a signature that the model has, and send matrices "
    "of one common width to a server that merges requests without padding.",
    "INVALID_ARGUMENT": "Check the inputs against the model's signatures.",
    "NOT_FOUND": "Check the name, version and label of the model.",
    "RESOURCE_EXHAUSTED": "Send less at once, or raise the server's limits.",
    "UNAVAILABLE": "Start the server, or check its address.",
}


class ServerError(RuntimeError):
    """A request that got no answer.

    Args:
        code: str. The name of the gRPC status, such as `"UNAVAILABLE"`; HTTP statuses
            are named likewise.
        details: str. What the server said.
        address: str. The server that was asked.
        attempts: int. How often it was asked. Defaults to `1`.
    """

    def __init__(
        self, code: str, details: str, address: str, attempts: int = 1
    ) -> None:
        self.code = code
        self.details = details
        self.address = address
        self.attempts = attempts
        tries = f" after {attempts} attempts" if attempts > 1 else ""
        hint = _HINTS.get(code, "See the server's log.")
        super().__init__(
            f"The model server must answer. Received: {code} from {address}{tries}: "
            f"{details.strip().rstrip('.')}. {hint}"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str, str, int]]:
        return type(self), (self.code, self.details, self.address, self.attempts)
