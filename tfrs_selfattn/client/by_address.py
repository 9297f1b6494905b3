"""Chooses the client by the form of an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrs_selfattn.client.grpc_client import Client
    from tfrs_selfattn.client.rest_client import RestClient


def connect(address: str, **options: Any) -> Client | RestClient:
    """A client for a model server.

    Args:
        address: str. `http://HOST:PORT` or `https://HOST:PORT` for REST, `HOST:PORT`
            for gRPC.
        **options: of `RestClient` or `Client`.

    Returns:
        `RestClient` or `Client`.
    """
    if address.startswith(("http://", "https://")):
        from tfrs_selfattn.client.rest_client import RestClient

        return RestClient(address, **options)
    from tfrs_selfattn.client.grpc_client import Client

    return Client(address, **options)
