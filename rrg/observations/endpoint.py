"""A chat endpoint that speaks OpenAI's protocol, asked with the standard library.

What is sent is patient text. So no recipe, file or variable of the environment can name an endpoint, only an option of the
command line; a redirection is never followed; nothing of a question or an answer enters a message of ours.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrg.errors import UserError

_LARGEST = 1 << 20  # bytes of an answer
_LONGEST_WAIT = 60.0
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
_LOCAL = ("localhost", "127.0.0.1", "::1")


def checked_address(url: str) -> str:
    """`url` without a slash at its end. Raises UserError where it is no address of an endpoint."""
    parts = urllib.parse.urlsplit(url)
    try:
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or parts.username or parts.password or parts.query or parts.fragment:
        shown = url.split("@")[-1].split("?")[0][:100]
        raise UserError(f"--adjudicate {shown}: write an address such as https://host/v1, without key or query")
    return url.rstrip("/")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer stays a 3xx, which is refused. The text was meant for one address."""


class EndpointFailed(Exception):  # noqa: N818 (it names what became of one question)
    """One question was not answered; the message says why, without its text."""


@dataclass
class Endpoint:
    """`url` is the base address (…/v1), as `checked_address` gave it. `counts`: questions, requests, repeats, failures."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    retries: int = 4
    sleep: Callable[[float], None] = time.sleep
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        host = urllib.parse.urlsplit(self.url).hostname
        # A proxy of the environment is for reaching the internet; it must not read what stays on this machine.
        proxies = [urllib.request.ProxyHandler({})] if host in _LOCAL else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The answer's text. Repeats what may succeed later (time-outs, 429, 5xx).

        Raises EndpointFailed where it does not succeed, UserError where no question ever would (a wrong key, address or model).
        """
        self.counts["questions"] += 1
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "seed": 0}
        reason = ""
        for attempt in range(self.retries + 1):
            if attempt:
                self.counts["repeats"] += 1
            self.counts["requests"] += 1
            try:
                return self._answer(json.dumps(body).encode())
            except urllib.error.HTTPError as error:
                reason, wait = f"HTTP {error.code}", error.headers.get("Retry-After", "")
                error.close()
                if error.code not in _AGAIN:
                    raise UserError(f"{self.url}: HTTP {error.code}; check the address, the model's name and the key") from None
            except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
                reason, wait = type(error).__name__, ""
            if attempt < self.retries:
                self.sleep(min(_LONGEST_WAIT, float(wait) if wait.isascii() and wait.isdigit() else 2.0**attempt))
        self.counts["failures"] += 1
        raise EndpointFailed(f"no answer after {self.retries + 1} requests ({reason})")

    def _answer(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers, method="POST")
        with self._opener.open(request, timeout=self.timeout) as response:
            data = response.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError("longer than an answer can be")
        try:
            text = json.loads(data)["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError, RecursionError):
            raise ValueError("not a chat completion") from None
        if not isinstance(text, str):
            raise ValueError("not a chat completion")
        return text
