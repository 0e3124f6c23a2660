"""Who may ask: host names, origins, the token, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import ConfigError
from dciml.service.access import COOKIE
from dciml.service.settings import Limits, ServiceSettings

DATA_PATHS = (
    "/api/videos", "/api/videos/plain", "/api/examples", "/api/jobs", "/media/plain", "/thumbnails/plain?t=1",
    "/metrics", "/openapi.json",
)  # fmt: skip
TOKEN = "s3cret token ü"


def bearer(token: str) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {token}".encode()}


@pytest.fixture
def guarded(served: Path, client_of: Callable[..., TestClient]) -> TestClient:
    return client_of(served, token=TOKEN)


def test_without_the_token_only_the_empty_page_is_open(guarded: TestClient) -> None:
    for path in DATA_PATHS:
        response = guarded.get(path)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["content-type"] == "application/problem+json"
    assert guarded.post("/api/search", json={"sentence": "red"}).status_code == 401
    assert guarded.delete("/api/videos/plain").status_code == 401
    for path in ("/", "/static/index.html", "/healthz"):
        assert guarded.get(path).status_code == 200, path


def test_the_right_token_opens_everything(guarded: TestClient) -> None:
    for path in DATA_PATHS:
        assert guarded.get(path, headers=bearer(TOKEN)).status_code == 200, path


@pytest.mark.parametrize("token", ["", " ", "s3cret", TOKEN + "x", TOKEN[:-1], "S3CRET TOKEN ü", "\xff"])
def test_a_wrong_token_is_refused(guarded: TestClient, token: str) -> None:
    assert guarded.get("/api/videos", headers=bearer(token)).status_code == 401
    assert guarded.get("/api/videos", headers={"Cookie": f"{COOKIE}=x"}).status_code == 401
    assert guarded.get("/", params={"token": token}, follow_redirects=False).status_code == 401


def test_other_schemes_and_other_places_for_the_token_do_not_count(guarded: TestClient) -> None:
    assert guarded.get("/api/videos", headers={"Authorization": f"Basic {TOKEN}".encode()}).status_code == 401
    assert guarded.get("/api/videos", params={"token": TOKEN}).status_code == 401
    assert guarded.get("/api/videos", headers={"Cookie": f"{COOKIE}=s3cret"}).status_code == 401


def test_the_page_logs_in_by_an_address_that_is_then_forgotten(guarded: TestClient) -> None:
    response = guarded.get("/", params={"token": TOKEN, "q": "a b"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/?q=a+b")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "s3cret" not in cookie
    assert guarded.get("/api/videos").status_code == 200
    assert guarded.get("/media/plain").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost."]
)
def test_a_local_server_answers_to_local_names_only(client: TestClient, host: str) -> None:
    response = client.get("/api/videos", headers={"Host": host})
    assert response.status_code == 421
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765"])
def test_local_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/api/videos", headers={"Host": host}).status_code == 200


def test_a_proxy_may_be_given_a_name(served: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(served, allow_hosts=("videos.example",))
    assert client.get("/healthz", headers={"Host": "videos.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 421


def test_other_sites_cannot_change_anything(client: TestClient) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        response = client.post("/api/videos", files={"file": ("a.mp4", b"x")}, headers=headers)
        assert response.status_code == 403, headers
        assert client.delete("/api/videos/plain", headers=headers).status_code == 403
    same = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/search", json={"sentence": "red"}, headers=same).status_code == 200


def test_no_other_site_may_read_unless_it_is_named(
    served: Path, client_of: Callable[..., TestClient]
) -> None:
    origin = {"Origin": "https://page.example"}
    plain = client_of(served, read_only=True)
    assert "access-control-allow-origin" not in plain.get("/api/videos", headers=origin).headers
    client = client_of(served, cors_origins=("https://page.example",))
    answer = client.get("/api/videos", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert client.post("/api/search", json={"sentence": "red"}, headers=origin).status_code == 200
    other = client.get("/api/videos", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_open_to_the_network_without_a_token_nothing_can_be_changed(
    own: Path, client_of: Callable[..., TestClient]
) -> None:
    client = client_of(own, host="0.0.0.0", allow_roots=(own,))
    assert client.get("/api/videos", headers={"Host": "any.example"}).status_code == 200
    assert client.post("/api/videos", json={"path": "videos/v1.mp4"}).status_code == 403
    assert client.delete("/api/videos/plain").status_code == 403
    guarded = client_of(own, host="0.0.0.0", token=TOKEN)
    assert guarded.delete("/api/videos/plain", headers=bearer(TOKEN)).status_code == 204


def test_bodies_over_the_limit_are_refused(served: Path, client_of: Callable[..., TestClient]) -> None:
    client = client_of(served, limits=Limits(body_bytes=1000, upload_bytes=5000))
    long = {"sentence": "red", "video_ids": ["x" * 100] * 20}
    assert client.post("/api/search", json=long).status_code == 413
    assert client.post("/api/videos", files={"file": ("a.mp4", b"x" * 6000)}).status_code == 413
    unstated = client.post(
        "/api/search", content=(b" " * 300 for _ in range(10)), headers={"content-type": "application/json"}
    )
    assert unstated.status_code == 413
    assert unstated.headers["content-type"] == "application/problem+json"
    assert unstated.headers["connection"] == "close"
    for length in ("-1", "1e9", "abc", "99999999999999999999999999"):
        response = client.post("/api/search", content=b"{}", headers={"content-length": length})
        assert response.status_code == 413, length
    # An upload's limit holds for uploads only.
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/search", content=b"x" * 2000, headers=kind).status_code == 413


@pytest.mark.parametrize("token", ["", " ", "\t", "\u2003", "secret\n", " secret", "a\0b", "\udcff"])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_token_that_protects_nothing_is_refused_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, token: str
) -> None:
    with pytest.raises(ConfigError, match="token"):
        ServiceSettings(tmp_path, host=host, token=token)
    command = ["serve", str(tmp_path), "--host", host]
    result = CliRunner().invoke(app, [*command, "--token", token])
    assert isinstance(result.exception, ConfigError), result.exception
    if "\0" not in token:  # the environment cannot hold it
        monkeypatch.setenv("DCIML_TOKEN", token)
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, ConfigError), result.exception
        assert token not in str(result.exception) or not token.strip()


def test_a_variable_that_is_not_set_is_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCIML_TOKEN", raising=False)
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--host", "0.0.0.0"])
    assert "not an index" in str(result.exception)


@pytest.mark.parametrize("host", ["", "  "])
def test_an_empty_host_is_no_host(host: str) -> None:
    with pytest.raises(ConfigError, match="the host is empty"):
        ServiceSettings(Path("index"), host=host)
