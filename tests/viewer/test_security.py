"""Who may ask for what: host names, tokens, other sites' pages, sizes, headers."""

import asyncio

import pytest
from helpers import run_alone
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.security import CSP, SecurityMiddleware, SecurityOptions, check, is_loopback

TOKEN = "a-token-of-the-test-0123456789"


async def echo(scope, receive, send):
    """Answers with what was sent."""
    while scope["type"] == "lifespan":
        step = (await receive())["type"]
        await send({"type": f"{step}.complete"})
        if step == "lifespan.shutdown":
            return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await PlainTextResponse(body or b"hello")(scope, receive, send)


def client(base_url: str = "http://127.0.0.1:8765", **options) -> TestClient:
    app = SecurityMiddleware(echo, SecurityOptions(**options))
    return TestClient(app, base_url=base_url, follow_redirects=False)


def scope(headers: list[tuple[str, str]], method: str = "GET", path: str = "/", query: str = ""):
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}


def refused(headers: list[tuple[str, str]], options: SecurityOptions | None = None, **what) -> int | None:
    """The status of the refusal; None where the request passes."""
    try:
        check(scope(headers, **what), options or SecurityOptions())
    except RequestError as error:
        return error.status
    return None


GOOD_HOSTS = ["127.0.0.1", "127.0.0.1:8765", "localhost:9000", "LOCALHOST", "[::1]:8765", "localhost.", "127.0.0.1:80"]
BAD_HOSTS = ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example", "",
             "user@127.0.0.1", "127.0.0.1:8765@evil.example", "127.0.0.1:port", "10.0.0.5", "0.0.0.0:8765", "[::1",
             "127.0.0.1/evil", "evil.example#127.0.0.1", "127.0.0.1 evil", "2130706433"]  # fmt: skip


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_this_machine_by_its_names(host):
    assert refused([("Host", host)]) is None


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_other_hosts_are_refused_against_rebinding(host):
    assert refused([("Host", host)]) == 421


def test_one_host_header():
    assert refused([]) == 421
    assert refused([("Host", "127.0.0.1"), ("Host", "evil.example")]) == 421
    assert refused([("Host", "127.0.0.1"), ("Host", "127.0.0.1")]) == 421


def test_on_a_network_addresses_in_numbers_are_good_and_foreign_names_are_not():
    options = SecurityOptions(host="0.0.0.0")
    assert refused([("Host", "192.168.7.7:8765")], options) is None
    assert refused([("Host", "[fe80::1]:8765")], options) is None
    assert refused([("Host", "evil.example:8765")], options) == 421
    assert refused([("Host", "pathology.example:8765")], SecurityOptions(host="pathology.example")) is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("", False), ("example.org", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


class TestToken:
    def test_without_it_nothing_is_given(self):
        with client(token=TOKEN) as http:
            for path in ("/", "/static/js/main.js", "/api/run"):
                answer = http.get(path)
                assert answer.status_code == 401
                assert answer.json()["error"]["hint"]
                assert TOKEN not in answer.text
            assert http.put("/api/x", content=b"x").status_code == 401

    def test_the_address_sets_a_strict_cookie_once_and_hides_the_token(self):
        with client(token=TOKEN) as http:
            welcome = http.get(f"/?token={TOKEN}&slide=7")
            assert (welcome.status_code, welcome.headers["location"]) == (303, "/?slide=7")
            cookie = welcome.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "samesite=strict" in cookie.lower()
            assert "Path=/" in cookie
            assert http.get("/api/run").text == "hello"
            assert http.put("/api/x", content=b"drawn").text == "drawn"

    def test_odd_cookies_of_other_programs_do_not_matter(self):
        name = SecurityOptions(token=TOKEN).cookie
        with client(token=TOKEN) as http:
            assert http.get("/api/run", headers={"Cookie": f'state={{"a":1}}; {name}={TOKEN}; x y=[]'}).text == "hello"

    def test_a_program_shows_it_in_a_header(self):
        with client(token=TOKEN) as http:
            assert http.get("/api/run", headers={"Authorization": f"Bearer {TOKEN}"}).text == "hello"
            for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer é", ""):
                assert http.get("/api/run", headers={"Authorization": wrong.encode()}).status_code == 401

    @pytest.mark.parametrize("given", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "%E9", "é"])
    def test_wrong_ones(self, given):
        with client(token=TOKEN) as http:
            assert http.get(f"/?token={given}").status_code == 401
            name = SecurityOptions(token=TOKEN).cookie
            assert http.get("/", headers={"Cookie": f"{name}={given}".encode()}).status_code == 401
            assert http.get("/", headers={"Cookie": b"\xff;=;;" + name.encode()}).status_code == 401

    def test_the_first_of_two_counts(self):
        with client(token=TOKEN) as http:
            assert http.get(f"/?token=wrong&token={TOKEN}").status_code == 401

    def test_it_cannot_be_made_to_lead_elsewhere(self):
        options = SecurityOptions(token=TOKEN)
        for path in ("//evil.example/", "/\\evil.example", "/%0d%0aX: y", "https://evil.example"):
            answer = check(scope([("Host", "127.0.0.1")], path=path, query=f"token={TOKEN}"), options)
            assert answer is not None
            assert answer.headers["location"] == "/"

    def test_another_token_has_another_cookie(self):
        assert SecurityOptions(token="a" * 20).cookie != SecurityOptions(token="b" * 20).cookie

    def test_the_token_in_the_address_does_not_write(self):
        with client(token=TOKEN) as http:
            assert http.put(f"/api/x?token={TOKEN}", content=b"x").status_code == 401


HOST = ("Host", "127.0.0.1:8765")
SAME = [{"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8765"}, {"Origin": "http://127.0.0.1:8765"}, {}]
OTHER = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8766"},
    {"Origin": "http://localhost:8765"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8765"},
]


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_pages_of_other_sites_neither_read_nor_write(method):
    for headers in SAME:
        assert refused([HOST, *headers.items()], method=method, path="/api/run") is None
    for headers in OTHER:
        assert refused([HOST, *headers.items()], method=method, path="/api/run") == 403


def test_a_link_on_another_site_may_lead_to_the_page_and_to_nothing_else():
    link = [HOST, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]
    assert refused(link) is None
    assert refused(link, path="/api/run") == 403
    assert refused(link, method="POST") == 403
    assert refused([HOST, ("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")], path="/api/run") is None


def test_bodies_are_bounded_whatever_the_request_says():
    with client(max_body_bytes=1000) as http:
        assert http.put("/api/x", content=b"x" * 1000).text == "x" * 1000
        assert http.put("/api/x", content=b"x" * 1001).status_code == 413
        for length in ("-1", "1e3", "9" * 40, "1001"):
            assert http.put("/api/x", content=b"x", headers={"Content-Length": length}).status_code == 413


def test_a_body_that_says_nothing_of_its_length_is_cut_off():
    taken = []

    async def receive():
        taken.append(100)
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(_):
        raise AssertionError("no answer may come from within")

    middleware = SecurityMiddleware(echo, SecurityOptions(max_body_bytes=1000))
    with pytest.raises(RequestError) as stopped:  # the application's own handler answers it
        run_alone(asyncio.run, middleware(scope([HOST], method="PUT"), receive, send))
    assert stopped.value.status == 413
    assert sum(taken) == 1100


def test_every_answer_carries_the_policy():
    with client() as http:
        for answer in (http.get("/"), http.get("/", headers={"Host": "evil.example"})):
            assert answer.headers["content-security-policy"] == CSP
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_policy_lets_nothing_in_from_elsewhere():
    directives = dict(part.strip().split(" ", 1) for part in CSP.split(";"))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    assert "unsafe" not in CSP
    assert "http" not in CSP


def test_no_socket_gets_past():
    sent = []

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("it must not be asked")

    run_alone(asyncio.run, SecurityMiddleware(never, SecurityOptions())({"type": "websocket"}, never, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
