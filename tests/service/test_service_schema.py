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
