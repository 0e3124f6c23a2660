"""`dciml serve`: arguments only; the work is in `service`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dciml.cli.options import (
    DeviceOption,
    IndexArgument,
    MovedFeaturesOption,
    MovedModelOption,
    MovedStoreOption,
)

TOKEN_VARIABLE = "DCIML_TOKEN"
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free port.")]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", envvar=TOKEN_VARIABLE, help="Ask clients for this token; better set in the environment."
    ),
]
AllowRootOption = Annotated[
    list[Path] | None,
    typer.Option("--allow-root", help="Folder from which videos may be added by path; may be repeated."),
]
MediaRootOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--media-root",
        help="Folder whose videos may be played; those beside the index may be anyway; may be repeated.",
    ),
]
TrustedProxyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        help="Address of a reverse proxy whose X-Forwarded-For says who a client is; may be repeated.",
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="Name by which a reverse proxy calls this server; may be repeated."),
]
AllowOriginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin", help="Site whose pages may call the API, as https://NAME; may be repeated."
    ),
]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        help="How to encode videos that are added, where the index's features do not say or their model has moved; "
        "may be repeated.",
    ),
]
AddedOption = Annotated[
    Path | None, typer.Option("--added", help="Folder for added videos; INDEX.added if left out.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--search-threads", min=1, max=1024, help="Searches at the same time; one a core if left out."
    ),
]


ReadOnlyOption = Annotated[
    bool, typer.Option("--read-only", help="Add and remove nothing; several servers may share an index so.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(serve)


def serve(
    index: IndexArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    open_: OpenOption = False,
    token: TokenOption = None,
    allow_root: AllowRootOption = None,
    media_root: MediaRootOption = None,
    allow_host: AllowHostOption = None,
    trusted_proxy: TrustedProxyOption = None,
    allow_origin: AllowOriginOption = None,
    encoder: EncoderOption = None,
    added: AddedOption = None,
    read_only: ReadOnlyOption = False,
    search_threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    model: MovedModelOption = None,
    features: MovedFeaturesOption = None,
    store: MovedStoreOption = None,
) -> None:
    """Search an index in the browser and over HTTP."""
    check_installed()
    # Read when NumPy is loaded, which is below: searches run beside each other, and one is too small to share out.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dciml.service import Limits, ServiceSettings, run_server

    limits = Limits() if search_threads is None else Limits(search_threads=search_threads)
    settings = ServiceSettings(
        index=index,
        model=model,
        features=features,
        vector_store=store,
        device=device,
        host=host,
        token=given_token(token),
        allow_roots=tuple(allow_root or ()),
        media_roots=tuple(media_root or ()),
        trusted_proxies=tuple(trusted_proxy or ()),
        allow_hosts=tuple(allow_host or ()),
        cors_origins=tuple(allow_origin or ()),
        encoders=tuple(encoder or ()),
        added=added,
        read_only=read_only,
        limits=limits,
    )
    run_server(settings, port, open_page=open_)


def given_token(token: str | None) -> str | None:
    """The token of the option or of the environment. An empty variable, passed over by typer, is an error later."""
    return os.environ.get(TOKEN_VARIABLE) if token is None else token


SERVICE_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def check_installed(packages: Sequence[str] = SERVICE_PACKAGES, extra: str = "serve") -> None:
    """Say what to install when packages that serving needs are missing.

    Args:
        packages: by the names that they are imported by. extra: the extra of dciml that installs them.
    Raises:
        ConfigError: the names of what is missing, and the command that installs it.
    """
    from importlib.util import find_spec

    from dciml.errors import ConfigError

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}. To mend it: pip install 'dciml[{extra}]'.")
