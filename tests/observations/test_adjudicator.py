"""A language model as labeller, against a server on this machine: answers, refusals, repeats, and what never leaves."""

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.observations.adjudicator import Adjudicator, Journal, parse_answer
from rrg.observations.endpoint import Endpoint, checked_address

ANSWER = dict.fromkeys(OBSERVATIONS, "not mentioned") | {"Edema": "positive", "Fracture": "negative", "Pneumonia": "uncertain"}
LABELS = {"Edema": 1, "Pneumonia": -1, "Fracture": 0}
REPORT = "A secret report of edema."


def completion(text):
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}), {}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body), self.headers.get("Authorization")))
        status, text, headers = self.server.answers.popleft() if self.server.answers else completion(json.dumps(ANSWER))
        if status == "hang up":
            self.connection.close()
            return
        if status == "silence":
            self.server.silence.wait(5)
            return
        data = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.server.asked.append((self.path, None, None))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be asked for an address on this machine
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made.answers, made.asked, made.silence = deque(), [], threading.Event()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_address[1]}/v1"
    yield made
    made.silence.set()
    made.shutdown()
    made.server_close()


def endpoint(server, **more):
    waited = []
    made = Endpoint(server.url, "tiny", sleep=waited.append, **more)
    made.waited = waited
    return made


def test_an_answer(server):
    asked = Adjudicator(endpoint(server, key="k3y"))
    assert asked.labels("s1", {"Edema": 0.91234}, REPORT) == LABELS
    path, body, key = server.asked[0]
    assert path == "/v1/chat/completions" and key == "Bearer k3y" and body["model"] == "tiny" and body["temperature"] == 0
    assert json.loads(body["messages"][1]["content"]) == {"probabilities": {"Edema": 0.912}, "report": REPORT}
    assert asked.endpoint.counts == {"questions": 1, "requests": 1}
    assert "k3y" not in repr(asked.endpoint)


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        "[]",
        "{}",
        json.dumps(ANSWER | {"Oedema": "positive"}),
        json.dumps(ANSWER | {"Edema": "Present"}),
        json.dumps(ANSWER | {"Edema": 1}),
        json.dumps(ANSWER | {"Edema": ["positive"]}),
        json.dumps({name: "positive" for name in OBSERVATIONS[1:]}),
        json.dumps(ANSWER) + " I hope this helps",
        "[" * 100_000,
    ],
)
def test_unusable_answers_are_asked_again_then_counted(server, answer):
    with pytest.raises(ValueError):
        parse_answer(answer)
    server.answers.extend([completion(answer), completion(f"```json\n{json.dumps(ANSWER)}\n```")])
    asked = Adjudicator(endpoint(server))
    assert asked.labels("s1", None, REPORT) == LABELS and asked.endpoint.counts["unusable"] == 1
    server.answers.extend([completion(answer)] * 3)
    assert asked.labels("s2", None, REPORT) is None
    assert asked.failed == {"s2": "3 answers were not the object asked for"}


def test_what_may_succeed_later_is_repeated(server):
    server.answers.extend([(429, "", {"Retry-After": "7"}), (503, "", {"Retry-After": "9999"}), (500, "", {"Retry-After": "²"})])
    server.answers.extend([("hang up", "", {}), (200, "not json", {})])
    made = endpoint(server, retries=5)
    assert Adjudicator(made).labels("s1", None, REPORT) == LABELS
    assert made.waited == [7.0, 60.0, 4.0, 8.0, 16.0]
    assert made.counts == {"questions": 1, "requests": 6, "repeats": 5}


@pytest.mark.parametrize(
    "text", ['{"choices": []}', '{"choices": [{"message": {"content": 5}}]}', b"\xff", "x" * (1 << 21), "[" * 90_000]
)
def test_no_completion_is_a_failure_without_its_text(server, text):
    server.answers.extend([(200, text, {})] * 2)
    asked = Adjudicator(endpoint(server, retries=1))
    assert asked.labels("s1", None, REPORT) is None
    assert asked.failed["s1"].startswith("no answer after 2 requests") and asked.endpoint.counts["failures"] == 1


def test_silence_times_out(server):
    server.answers.append(("silence", "", {}))
    asked = Adjudicator(endpoint(server, retries=0, timeout=0.2))
    assert asked.labels("s1", None, REPORT) is None and "no answer after 1 requests" in asked.failed["s1"]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404])
def test_redirections_are_not_followed_and_wrong_keys_stop_at_once(server, status):
    server.answers.append((status, REPORT, {"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(UserError, match=f"HTTP {status}") as error:
        Adjudicator(endpoint(server)).labels("s1", None, REPORT)
    assert len(server.asked) == 1 and REPORT not in str(error.value)


def test_nobody_there():
    made = Endpoint("http://127.0.0.1:9/v1", "m", retries=1, sleep=lambda _: None)
    asked = Adjudicator(made)
    assert asked.labels("s1", None, REPORT) is None and REPORT not in asked.failed["s1"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "http://host:99999/v1",
        "https://user:k3y@host/v1",
        "https://h/v1?k3y",
    ],
)
def test_addresses(url):
    with pytest.raises(UserError, match="--adjudicate") as error:
        checked_address(url)
    assert "k3y" not in str(error.value).split("write")[0]


def test_a_stopped_run_does_not_send_again(tmp_path):
    path = tmp_path / ".l.answers.jsonl"
    first = Journal(path, {"url": "u"})
    first.add("s1", LABELS)
    first.add("s2", {})
    with path.open("ab") as file:
        file.write(b'{"study": "s3", "la')  # killed while it was writing
    again = Journal(path, {"url": "u"})
    assert again.answers == {"s1": LABELS, "s2": {}}
    again.add("s4", {})
    assert Journal(path, {"url": "u"}).answers.keys() == {"s1", "s2", "s4"}
    with pytest.raises(UserError, match="other questions"):
        Journal(path, {"url": "v"})
    for damage in (b"{}\n", b"x\n", b'{"work": 1}\n[]\n'):
        path.write_bytes(damage)
        with pytest.raises(UserError):
            Journal(path, {"url": "u"})
    again.remove()
    assert not path.exists()
