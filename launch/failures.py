"""What the failure of a group of workers was: whose, why, and whether it is worth another start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from generative.errors import GenerativeError, PeerError


def record(folder: Path, failures: Mapping[int, BaseException]) -> None:
    """Keep the errors of a failed group in logs/worker_errors.log."""
    with (
        contextlib.suppress(OSError),
        open(folder / "logs" / "worker_errors.log", "a", encoding="utf-8") as log,
    ):
        for rank, error in failures.items():
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} worker {rank}: {type(error).__name__}: {error}\n\n")


def of_workers(error: BaseException) -> dict[int, BaseException]:
    """The error of each rank behind an error of Ray Train; {} where no worker failed."""
    return dict(getattr(error, "worker_failures", None) or {})


def users_mistake(failures: Mapping[int, BaseException]) -> GenerativeError | None:
    """An error for the user that a worker raised: another start would only meet it again."""
    causes = (_cause(error) for error in failures.values())
    return next((c for c in causes if isinstance(c, GenerativeError) and not isinstance(c, PeerError)), None)


def first_cause(failures: Mapping[int, BaseException]) -> tuple[int, BaseException]:
    """The rank that most likely began it: a dead process, then an exception other than a lost connection to a peer."""
    return min(failures.items(), key=lambda item: (not _died(item[1]), _lost_a_peer(item[1]), item[0]))


def describe(error: BaseException) -> str:
    """A failure in a few words."""
    if "HealthCheckTimeout" in type(error).__name__:
        return "did not answer any more (stopped or frozen) and was ended"
    if _died(error):
        return "died (killed, out of memory, or its node was lost)"
    cause = _cause(error)
    if isinstance(cause, GenerativeError):
        return f"failed: {cause.problem.splitlines()[0][:200]}"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1][:200] if lines else type(error).__name__
    if _timed_out(error):
        return f"waited in vain for another worker, which is stuck or gone ({text})"
    return f"failed: {text}"


def _cause(error: BaseException) -> BaseException:
    """The worker's own exception, where Ray has wrapped it together with its traceback."""
    inner = getattr(error, "_base_exc", None)
    return inner if isinstance(inner, BaseException) else error


def _died(error: BaseException) -> bool:
    """Whether the process is gone, as opposed to an exception in it."""
    return "HealthCheck" in type(error).__name__ or "Actor" in type(error).__name__


def _timed_out(error: BaseException) -> bool:
    text = str(error)
    return "Timed out waiting" in text or "TimeoutError" in text


def _lost_a_peer(error: BaseException) -> bool:
    return "onnection" in str(error) or _timed_out(error)
