"""Sends the outcome of a scheduled run to a webhook or a command.

Input: a hook, and the payload as a dict.  Output: "", or why the hook failed.  A failed hook never fails the run.
"""

import json
import shlex
import subprocess
import urllib.error
import urllib.request
from typing import Any

_SECONDS = 30.0  # time limit of a hook


def send(hook: str, payload: dict[str, Any]) -> str:
    """POSTs the payload as JSON to an http(s) address, or runs a command with the JSON on its standard input.

    Returns "", or why it failed.
    """
    body = json.dumps(payload)
    try:
        return _post(hook, body) if hook.startswith(("http://", "https://")) else _run(hook, body)
    except Exception as error:  # of any kind: the run has ended and its outcome stays
        return f"{hook_name(hook)}: {error}"


def hook_name(hook: str) -> str:
    """The part of a hook that may be printed: an address without its path, which often contains a secret."""
    scheme, _, rest = hook.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}/…" if rest else hook


def _post(address: str, body: str) -> str:
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"{hook_name(address)}: the server answered {error.code} {error.reason}"


def _run(command: str, body: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command),
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{command}: took longer than {_SECONDS:.0f} s"
    if not done.returncode:
        return ""
    lines = done.stderr.strip().splitlines()
    return f"{command}: exit code {done.returncode}{f' ({lines[-1]})' if lines else ''}"
