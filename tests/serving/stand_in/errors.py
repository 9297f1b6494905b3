"""The one error of the stand-in: a gRPC status by name, and what a server says."""

from __future__ import annotations

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 412,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


class Refusal(Exception):
    def __init__(self, code, details):
        super().__init__(details)
        self.code = code
        self.details = details
