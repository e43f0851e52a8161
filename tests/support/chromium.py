"""Pages in one headless Chromium, driven over its debugging pipe: starting it for each page costs most of the time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-sync "
    "--disable-extensions --no-first-run --hide-scrollbars --remote-debugging-pipe"
)


class Chromium:
    """Sends commands of the DevTools protocol and waits for answers and events.

    Args:
        commands: descriptor that the browser reads from.
        answers: descriptor that the browser writes to.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self.rest, self.last, self.session = b"", 0, ""

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command, to a page's session or to the browser."""
        self.last += 1
        where = {} if session is None else {"sessionId": session}
        message = {"id": self.last, "method": method, "params": params, **where}
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        answer = self.wait(lambda told: told.get("id") == self.last)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is wanted; others are passed over."""
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.answers.fileno(), 1 << 20)
                assert more, "the browser has ended"
                self.rest += more
            message, _, self.rest = self.rest.partition(b"\0")
            if wanted(told := json.loads(message)):
                return told

    def tab(self) -> str:
        """A session with a new page."""
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        return self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def attributes(self, path: Path, width: int, budget: int) -> dict[str, str]:
        """Open a page in the one tab; what its <body> has after `budget` ms of the page's time, which pass at once."""
        session = self.session = self.session or self.tab()
        screen = {"width": width, "height": 2000, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", session, **screen)
        self.call("Page.enable", session)
        self.call("Emulation.setVirtualTimePolicy", session, policy="pause")
        answer = self.call("Page.navigate", session, url=path.as_uri())
        assert "errorText" not in answer, answer
        self.call("Emulation.setVirtualTimePolicy", session, policy="pauseIfNetworkFetchesPending", budget=budget)
        self.wait(lambda told: told.get("method") == "Emulation.virtualTimeBudgetExpired")
        read = "JSON.stringify(Object.fromEntries([...document.body.attributes].map((one) => [one.name, one.value])))"
        found = json.loads(self.call("Runtime.evaluate", session, expression=read)["result"]["value"])
        return found


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Chromium]:
    """A browser with a profile of its own, which ends with the pipe."""
    theirs_in, ours_out = high_pipe()
    ours_in, theirs_out = high_pipe()
    # It reads commands from descriptor 3 and answers on 4.
    wiring = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
    told = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    wiring += [(os.POSIX_SPAWN_OPEN, number, str(profile / "told.txt"), told, 0o600) for number in (1, 2)]
    command = [program, *FLAGS.split(), f"--user-data-dir={profile}"]
    process = psutil.Process(os.posix_spawn(program, command, os.environ, file_actions=wiring))
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Chromium(ours_out, ours_in)
    try:
        yield browser
    finally:
        browser.commands.close()
        browser.answers.close()
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def high_pipe() -> tuple[int, int]:
    """Both ends of a pipe, with numbers that descriptors 3 and 4 of a child do not collide with."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
