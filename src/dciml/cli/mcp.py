"""`dciml mcp` and `dciml mcp-config`: arguments and printing; the work is in `service`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from dciml.cli.options import (
    DeviceOption,
    IndexArgument,
    MovedFeaturesOption,
    MovedModelOption,
    MovedStoreOption,
)
from dciml.cli.serve import SERVICE_PACKAGES, AllowHostOption, TokenOption, check_installed, given_token

HttpOption = Annotated[
    bool, typer.Option("--http", help="Serve over HTTP instead of standard input and output.")
]
HostOption = Annotated[
    str | None, typer.Option("--host", help="With --http: address to listen on; 127.0.0.1 if left out.")
]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="With --http: 8766 if left out; 0: any free port."),
]
ConfiguredIndex = Annotated[
    Path | None,
    typer.Argument(metavar="INDEX", help="Index folder, or home, that the client is to start a server for."),
]
UrlOption = Annotated[
    str | None, typer.Option("--http", metavar="URL", help="Instead: where `dciml mcp --http` listens.")
]
NameOption = Annotated[str, typer.Option("--name", help="What the client calls the server.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("mcp")(mcp)
    app.command("mcp-config")(mcp_config)


def mcp(
    index: IndexArgument,
    http: HttpOption = False,
    host: HostOption = None,
    port: PortOption = None,
    token: TokenOption = None,
    allow_host: AllowHostOption = None,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Let programs search an index, by the Model Context Protocol (MCP)."""
    if not http and (host is not None or port is not None or allow_host):
        raise typer.BadParameter("--host, --port and --allow-host go with --http")
    check_installed((*SERVICE_PACKAGES, "mcp"), "mcp")
    # Read when NumPy is loaded, which is below, as for `dciml serve`.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dciml.homes import home_meant, index_in_use
    from dciml.recipes.home import read_home
    from dciml.service import ServiceSettings, run_mcp_http, run_mcp_stdio

    place = home_meant(index)
    home = None if place is None else read_home(place, device)
    index_in_use(place or index)  # says what is wrong with a home
    settings = ServiceSettings(
        index=index if home is None else home.index,
        home=home,  # a taught model is taken up as soon as there is one
        model=model,
        features=features,
        vector_store=store,
        device=device,
        host=host or "127.0.0.1",
        token=given_token(token) if http else None,
        allow_hosts=tuple(allow_host or ()),
        read_only=True,
    )
    if http:
        run_mcp_http(settings, 8766 if port is None else port)
    else:
        run_mcp_stdio(settings)


def mcp_config(
    index: ConfiguredIndex = None,
    http: UrlOption = None,
    name: NameOption = "dciml",
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Print what the configuration of an MCP client takes, for an index or for a server over HTTP."""
    import json

    if (index is None) == (http is None):
        raise typer.BadParameter("give either INDEX or --http URL")
    if http is not None:
        server = served_at(http)
    else:
        assert index is not None
        moved = {"--device": None if device == "cpu" else device, "--model": model, "--features": features}
        server = started_for(index, {**moved, "--store": store})
    typer.echo(json.dumps({"mcpServers": {name: server}}, indent=2, ensure_ascii=False))


def started_for(index: Path, options: dict[str, str | Path | None]) -> dict[str, object]:
    """How a client starts a server for an index: paths are absolute, as it is somewhere else.

    Raises:
        DataError: there is no index, or the home is damaged.
    """
    from dciml.homes import home_meant, index_in_use
    from dciml.index import ClipIndex

    index = home_meant(index) or index
    ClipIndex.open(index_in_use(index), store=None if options["--store"] is None else str(options["--store"]))
    script = Path(sys.executable).with_name("dciml")
    program = [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "dciml"]
    given = [
        word
        for option, value in options.items()
        if value is not None
        for word in (option, str(value.absolute()) if isinstance(value, Path) else value)
    ]
    return {"command": program[0], "args": [*program[1:], "mcp", str(index.absolute()), *given]}


def served_at(url: str) -> dict[str, object]:
    """How a client reaches a server over HTTP.

    >>> served_at("http://localhost:8766")
    {'type': 'http', 'url': 'http://localhost:8766/mcp'}
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise typer.BadParameter(f"{url!r} is no address such as http://127.0.0.1:8766/mcp")
    return {"type": "http", "url": parts._replace(path="/mcp").geturl() if parts.path in ("", "/") else url}
