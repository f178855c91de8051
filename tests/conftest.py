"""Fixtures for every test: no network, few threads."""

from __future__ import annotations

import os
import socket

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Before anything imports them: the GPU's kernels run in Triton's interpreter.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Small models train faster on one thread, above all where tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails any test that opens a connection to another machine."""
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in {"local", "localhost", "127.0.0.1", "::1", "0.0.0.0"}:
            raise RuntimeError(f"a test tried to reach {host}")
        real_connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
