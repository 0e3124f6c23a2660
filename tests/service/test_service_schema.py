"""Whatever the OpenAPI document allows, and much that it does not, finds no mistake of the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

LIMITS = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def declared(document: dict[str, Any], method: str, route: str) -> dict[str, set[str]]:
    """Status → content types of an operation."""
    responses = document["paths"][route][method.lower()]["responses"]
    return {status: set(response.get("content", {})) for status, response in responses.items()}


ROUTES = {
    "/api/search": ("POST", "/api/search"),
    "/api/similar": ("POST", "/api/similar"),
    "/api/picture": ("POST", "/api/picture"),
    "/api/examples": ("GET", "/api/examples"),
    "/api/videos": ("GET", "/api/videos"),
    "/api/videos/{video_id}": ("GET", "/api/videos/plain"),
    "/api/folder": ("GET", "/api/folder"),
    "/api/told": ("GET", "/api/told"),
    "/api/told/{told_id}": ("DELETE", "/api/told/x"),
    "/api/teach": ("GET", "/api/teach"),
    "/api/jobs": ("GET", "/api/jobs"),
    "/api/jobs/{job_id}": ("GET", "/api/jobs/x"),
    "/api/uploads": ("GET", "/api/uploads"),
    "/api/copies/{video_id}": ("GET", "/api/copies/plain"),
    "/copies/{video_id}": ("GET", "/copies/plain"),
    "/media/{video_id}": ("GET", "/media/plain"),
    "/thumbnails/{video_id}": ("GET", "/thumbnails/plain?t=1"),
    "/clips/{video_id}": ("GET", "/clips/plain?start=1&end=2"),
    "/healthz": ("GET", "/healthz"),
    "/metrics": ("GET", "/metrics"),
}


def test_every_answer_is_one_that_the_document_declares(own: Path, client_of: Callable[..., Any]) -> None:
    client = client_of(own)
    document = client.get("/openapi.json").json()
    assert ROUTES.keys() == document["paths"].keys()
    moment = {"video_id": "plain", "start_seconds": 0, "end_seconds": 1}
    asked: list[tuple[str, str, str, dict[str, Any]]] = [
        (route, method, address, more)
        for route, (method, address) in ROUTES.items()
        for more in (
            {},
            {"headers": {"Host": "elsewhere"}},
            {"headers": {"Content-Length": "99999999999999"}},
        )
    ]
    asked += [
        ("/api/search", "POST", "/api/search", {"json": {"sentence": "red"}}),
        ("/api/search", "POST", "/api/search", {"json": {"sentence": "red", "video_ids": ["x"]}}),
        ("/api/search", "POST", "/api/search", {"content": "{"}),
        ("/api/similar", "POST", "/api/similar", {"json": moment}),
        ("/api/similar", "POST", "/api/similar", {"json": moment | {"end_seconds": 99}}),
        ("/api/picture", "POST", "/api/picture", {"json": {"picture": "bm8gcGljdHVyZQ=="}}),
        ("/api/picture", "POST", "/api/picture", {"json": {"picture": "no Base64"}}),
        ("/api/videos", "GET", "/api/videos?limit=x", {}),
        ("/api/videos", "POST", "/api/videos", {}),
        ("/api/videos", "POST", "/api/videos", {"json": {"path": "x.mp4"}}),
        ("/api/videos", "POST", "/api/videos", {"json": {}}),
        ("/api/videos", "POST", "/api/videos", {"files": {"file": ("x.mp4", b"x")}}),
        ("/api/videos", "POST", "/api/videos", {"json": {}, "headers": {"Origin": "https://elsewhere"}}),
        ("/api/videos/{video_id}", "GET", "/api/videos/none", {}),
        ("/api/videos/{video_id}", "DELETE", "/api/videos/none", {}),
        ("/api/videos/{video_id}", "DELETE", "/api/videos/third", {}),
        ("/media/{video_id}", "GET", "/media/none", {}),
        ("/media/{video_id}", "GET", "/media/plain", {"headers": {"Range": "bytes=0-1"}}),
        ("/media/{video_id}", "GET", "/media/plain", {"headers": {"Range": "bytes=99999999-"}}),
        ("/media/{video_id}", "GET", "/media/plain", {"headers": {"If-None-Match": "*"}}),
        ("/clips/{video_id}", "GET", "/clips/none?start=1&end=2", {}),
        ("/clips/{video_id}", "GET", "/clips/plain?start=2&end=1", {}),
        ("/thumbnails/{video_id}", "GET", "/thumbnails/none", {}),
        ("/thumbnails/{video_id}", "GET", "/thumbnails/plain?t=x", {}),
    ]
    for route, method, address, more in asked:
        response = client.request(method, address, **more)
        kinds = declared(document, method, route)
        status = str(response.status_code)
        assert status in kinds, (method, address, more, status)
        if response.content:
            kind = response.headers["content-type"].partition(";")[0]
            assert kind in kinds[status], (method, address, more, status, kind)
        assert response.status_code < 400 or kinds[status] == {"application/problem+json"}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"401", "421", "500", "503"} <= operation["responses"].keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_request_makes_the_server_fail(own: Path, running: Callable[..., Any]) -> None:
    import schemathesis  # loads for seconds

    server = running(own, allow_roots=(own / "videos",))
    document = json.loads(server.ask("GET", "/openapi.json")[1])
    schema = schemathesis.openapi.from_dict(document)
    seen: dict[str, set[int]] = {}

    def check(case: schemathesis.Case) -> None:
        response = case.call(base_url=f"http://127.0.0.1:{server.port}")
        seen.setdefault(case.operation.label, set()).add(response.status_code)
        assert str(response.status_code) in declared(document, case.method, case.operation.path), (
            response.text
        )
        # 503: the generator asks for more jobs than may wait.
        assert response.status_code < 500 or response.status_code == 503, (
            case.as_curl_command(),
            response.text,
        )
        if response.status_code >= 400 and case.method != "HEAD":
            assert response.headers["content-type"] == ["application/problem+json"]
            assert response.json()["detail"].endswith((".", "…"))

    for found in schema.get_all_operations():
        for mode in schemathesis.GenerationMode:
            with suppress(Unsatisfiable):  # a route that takes nothing cannot be asked wrongly
                LIMITS(given(case=found.ok().as_strategy(mode))(check))()
    assert len(seen) == sum(len(methods) for methods in document["paths"].values())
    assert {200, 422} <= seen["POST /api/search"]
    assert 202 in seen["POST /api/videos"] or {415, 422} & seen["POST /api/videos"]
    assert server.ask("GET", "/healthz")[0] == 200
