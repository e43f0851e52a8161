"""A client of a Ray cluster's Jobs API that never waits for ever and says what is wrong in our words."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from generative.errors import ResourceError
from launch.cluster_schema import RayCluster

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Variables that would win over the address that Ray's client is given."""


def connect(cluster: RayCluster) -> Any:
    """A `JobSubmissionClient`.

    Raises:
        ResourceError: no Ray here, nobody at the address, no token, or the wrong one.
    """
    _check_installed()
    _check_answer(cluster)
    # Ray reads these once, when it is first imported.
    os.environ["RAY_AUTH_MODE"] = cluster.auth
    if cluster.auth == "token":
        _check_token()
    with errors(cluster):
        return _client_class()(cluster.address)


def _client_class() -> Any:
    for name in OVERRIDING:
        os.environ.pop(name, None)
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Gives up on a cluster that accepts a request and does not answer (a door of Ray's own; a test guards it)."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": ANSWER_SECONDS, **options})

    return Client


@contextlib.contextmanager
def errors(cluster: RayCluster) -> Iterator[None]:
    """Ray's, HTTP's and the network's exceptions as ours."""
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException, Timeout

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(
            f"the Ray cluster at cluster.address={cluster.address} refuses the token (cluster.auth={cluster.auth})",
            "the cluster's own secret in RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token",
            "copy it from the head node (`ray get-auth-token`) and set cluster.auth=token",
        ) from error
    except Timeout as error:
        raise ResourceError(
            f"the Ray cluster at cluster.address={cluster.address} gave no answer within {ANSWER_SECONDS:g} s",
            "a dashboard that answers",
            "look at the head node and its dashboard, then give the command again",
        ) from error
    except (RequestException, ClientError, OSError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"the Ray cluster at cluster.address={cluster.address} could not do it: {first[:300]}",
            "a running cluster of the same Ray version with its dashboard",
            "look at the cluster, correct cluster.address, then give the command again",
        ) from error


def _check_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("aiohttp") is None:
        raise ResourceError(
            "Ray Jobs need Ray with its dashboard, which is not installed",
            "an installation with the extra `ray`",
            'pip install "generative[ray]"',
        )


def _check_answer(cluster: RayCluster) -> None:
    place = urlsplit(cluster.address)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((str(place.hostname), port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ResourceError(
            f"no Ray cluster answers at cluster.address={cluster.address} ({error})",
            "the address of a cluster's dashboard (port 8265 unless chosen)",
            "start it with `ray start --head`, correct cluster.address, or make a tunnel to it "
            "(`ssh -L 8265:127.0.0.1:8265 HEAD`, `kubectl port-forward service/NAME-head-svc 8265`)",
        ) from error


def _check_token() -> None:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    if not os.environ.get("RAY_AUTH_TOKEN") and not Path(path).is_file():
        raise ResourceError(
            f"cluster.auth=token, and there is no token: RAY_AUTH_TOKEN is not set and there is no file {path}",
            "the secret that all nodes of the cluster share",
            "copy it from the head node (`ray get-auth-token`); cluster.auth=disabled for a cluster without one",
        )
