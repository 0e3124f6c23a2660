"""What the service may be told: where it listens, what it serves, and how much it takes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from dciml.errors import ConfigError
from dciml.recipes.home import Home

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking everything. Sizes in bytes, times in seconds."""

    body_bytes: int = MEBIBYTE
    upload_bytes: int = 2048 * MEBIBYTE
    search_threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 16))
    running_searches: int = 64
    batch_searches: int = 8
    thumbnail_threads: int = 2
    running_thumbnails: int = 256
    clip_threads: int = 1
    running_clips: int = 16
    clips_per_client: int = 4
    running_streams: int = 256
    running_changes: int = 8
    running_uploads: int = 4
    uploads_per_client: int = 2
    streams_per_client: int = 64
    queued_jobs: int = 32
    queued_jobs_per_client: int = 24
    connections: int = 1000
    connections_per_client: int = 256
    kept_jobs: int = 200
    header_seconds: float = 15.0
    receive_seconds: float = 30.0
    upload_seconds: float = 7200.0
    upload_bytes_per_second: int = 64 * 1024
    send_seconds: float = 120.0
    send_bytes_per_second: int = 8 * 1024
    shutdown_seconds: float = 20.0
    job_seconds: float = 3600.0
    thumbnail_cache_bytes: int = 256 * MEBIBYTE
    queued_copies: int = 16
    copy_seconds: float = 7200.0
    copy_bytes: int = 4096 * MEBIBYTE
    copies_bytes: int = 16384 * MEBIBYTE


@dataclass(frozen=True)
class ServiceSettings:
    """How to serve an index.

    Args:
        index: the index folder.
        model, features: where these are now, if they have moved since the index was built.
        vector_store: where the database of the index's vectors is now, if it has moved.
        host: the address that the server listens on; decides which `Host` headers are taken.
        token: when set, every request for data must carry it.
        allow_roots: folders from which videos may be added by path; they may be played from there too.
        media_roots: further folders whose videos may be played; those beside the index may be anyway.
        trusted_proxies: addresses of reverse proxies whose `X-Forwarded-For` says who a client is.
        allow_hosts: further names by which clients may call the server, such as a reverse proxy's.
        cors_origins: origins of other sites whose pages may call the API; none by default.
        encoders: how videos that are added are encoded, as for `create_video_encoder`; none: as the index's features
            say.
        added: where added videos and their features are kept; None: `INDEX.added` beside the index.
        cache: where thumbnails are kept; None: the user's cache folder.
        read_only: neither add nor remove videos; several servers may serve one index so.
        poll_seconds: how often the index is looked at for changes made by others; 0: never.
        home: the home that the index belongs to, whose folders are watched; None: an index by itself.
    """

    index: Path
    model: Path | None = None
    features: Path | None = None
    vector_store: str | None = None
    device: str = "cpu"
    host: str = "127.0.0.1"
    token: str | None = None
    allow_roots: tuple[Path, ...] = ()
    media_roots: tuple[Path, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    added: Path | None = None
    cache: Path | None = None
    poll_seconds: float = 1.0
    read_only: bool = False
    home: Home | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.host.strip():  # a socket would take it for all addresses
            raise ConfigError(
                "the host is empty. To mend it: leave out --host, or name an address; 0.0.0.0: all."
            )
        if self.token is not None:
            check_token(self.token)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server.

        >>> ServiceSettings(Path("i")).is_local, ServiceSettings(Path("i"), host="0.0.0.0").is_local
        (True, False)
        """
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def present_index(self) -> Path:
        """The index that answers: of a home, that of its taught model, where there is one."""
        is_own = self.home is not None and self.index == self.home.index
        return self.home.present_index if is_own and self.home is not None else self.index

    @property
    def added_folder(self) -> Path:
        """Where added videos and their features are kept."""
        if self.added is not None:
            return self.added
        index = self.index.resolve()
        return index.with_name(f"{index.name}.added")

    @property
    def beside(self) -> tuple[Path, ...]:
        """The folder that the index lies in; none when that is a whole disk."""
        parent = self.index.resolve().parent
        return () if parent == Path(parent.anchor) else (parent,)

    @property
    def played_roots(self) -> tuple[Path, ...]:
        """Where files must lie to be played: an index may be anybody's, and names what it likes."""
        watched = () if self.home is None else self.home.folders
        return (*self.beside, self.added_folder, *self.allow_roots, *self.media_roots, *watched)

    @property
    def cache_folder(self) -> Path:
        """Where thumbnails are kept: a folder of this index's own."""
        if self.cache is not None:
            return self.cache
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(str(self.index.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
        return base / "dciml" / "thumbnails" / name

    @property
    def is_writable(self) -> bool:
        """Whether videos may be added and removed: not by everybody on the network without a token."""
        return not self.read_only and not self.cannot_be_written and (self.is_local or self.token is not None)

    @property
    def cannot_be_written(self) -> bool:
        """Whether this process may not write to the index."""
        return self.index.is_dir() and not os.access(self.index, os.W_OK)


def check_token(token: str) -> None:
    """Refuse a token that protects nothing, or that a client could not send.

    Raises:
        ConfigError: empty, or with blanks or characters that cannot be printed; the message does not show the token.

    >>> check_token("")
    Traceback (most recent call last):
    dciml.errors.ConfigError: the token is empty, ...
    """
    mend = "To mend it: set a long random one, or leave out --token and unset DCIML_TOKEN for none."
    if not token.strip():
        raise ConfigError(f"the token is empty, which would let everybody in. {mend}")
    if token != token.strip() or not token.isprintable():
        raise ConfigError(f"the token has blanks at its ends, or characters that cannot be sent. {mend}")
