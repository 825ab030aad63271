"""Processes for tests."""

import subprocess


def ended_process() -> int:
    """The number (PID) of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid
