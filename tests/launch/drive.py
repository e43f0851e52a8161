"""`generative train` with the fake task, as a process of its own: python drive.py CONFIG [a.b=c ...]."""

from __future__ import annotations

import sys

import fake_task

from launch import cli, run

if __name__ == "__main__":
    run.training = lambda: fake_task.TASK
    sys.exit(cli.main(["train", *sys.argv[1:]]))
