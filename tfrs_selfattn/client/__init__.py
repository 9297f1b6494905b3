"""Asks a TensorFlow Serving that serves an export; needs no TensorFlow.

`Client` speaks gRPC, `AsyncClient` too, for asyncio, and `RestClient` HTTP. The three
have the same methods and give the same answers. `ShardedClient` merges the answers of
servers that hold a part of the items each. Nothing here imports TensorFlow, NumPy
or a model; gRPC needs the packages `grpcio` and `protobuf`, HTTP only Python.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "AsyncClient": "async_client",
    "Client": "grpc_client",
    "Embedding": "answers",
    "Explanation": "answers",
    "Prediction": "answers",
    "RankedItem": "answers",
    "Recommendations": "answers",
    "RestClient": "rest_client",
    "Retry": "retry",
    "ServerError": "errors",
    "ShardedClient": "sharded_client",
    "ShardedRecommendations": "answers",
    "Signature": "answers",
    "Tensor": "tensors",
    "TensorSpec": "answers",
    "VersionStatus": "answers",
    "connect": "by_address",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
