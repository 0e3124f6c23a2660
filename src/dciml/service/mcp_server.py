"""Serves `MomentTools` by the Model Context Protocol, on standard input and output or over HTTP."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import redirect_stdout
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.routing import Route

from dciml.errors import ConfigError, DataError, DcimlError
from dciml.service.access import AccessControl, SecurityHeaders
from dciml.service.errors import ServiceError, UnknownVideo, invalid_sentence, shortened
from dciml.service.limits import BodyAndTime, Slots
from dciml.service.live import LiveCorpus
from dciml.service.mcp_tools import MomentTools
from dciml.service.runtime import share_out_searches
from dciml.service.server import Server, listen, page_address, web_config
from dciml.service.settings import Limits, ServiceSettings
from dciml.service.troubles import MISTAKE, sentence_of, trouble_of
from dciml.version import __version__

PATH = "/mcp"
ABOUT = (
    "Finds the video and the seconds in it that a sentence describes, in one collection of videos. Ask find_moments in "
    "a plain sentence that says what is to be seen; times are seconds from the start of a video. list_videos says "
    "which videos there are."
)
_log = logging.getLogger("dciml.service")


def run_mcp_stdio(settings: ServiceSettings) -> None:
    """Serve one client on standard input and output, until it closes them.

    Raises:
        ModelError, DataError: the index cannot be served.
    """
    with redirect_stdout(sys.stderr):  # standard output belongs to the protocol
        server = create_tool_server(settings, tells_paths=True)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # A thread waits for standard input, and would be waited for; nothing here needs to be tidied up.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server.run("stdio")
    except* BrokenPipeError:  # the client is gone
        pass


def run_mcp_http(settings: ServiceSettings, port: int) -> None:
    """Serve clients over streamable HTTP at `/mcp`, until SIGINT or SIGTERM.

    Raises:
        ConfigError: others can reach the address and there is no token, or it cannot be listened on.
        ModelError, DataError: the index cannot be served.
    """
    if not settings.is_local and settings.token is None:
        raise ConfigError(
            f"others can reach {settings.host}, and there is no token. "
            "To mend it: set a long random one in DCIML_TOKEN, or listen on 127.0.0.1."
        )
    with listen(settings.host, port) as listener:
        make_mcp_server(settings, listener.getsockname()[1]).run(sockets=[listener])


def make_mcp_server(settings: ServiceSettings, port: int) -> Server:
    """A server that is ready to run on a socket; `port` is the socket's.

    Raises:
        ModelError, DataError: the index cannot be served.
    """
    tools = create_tool_server(settings, tells_paths=False)
    address = page_address(settings, port).partition("?")[0].removesuffix("/") + PATH
    greeting = f"{settings.index}: {tools.num_videos} videos for programs at {address} (Ctrl+C ends)"
    return Server(web_config(create_mcp_app(tools, settings), settings), address, greeting, open_page=False)


def create_mcp_app(tools: ToolServer, settings: ServiceSettings) -> Starlette:
    """The web application at `/mcp`, behind the same bounds and the same control of access as the page's."""
    app = tools.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,  # no tool needs to know its client, so that a client may outlive a server
        max_request_body_size=settings.limits.body_bytes,
        # `AccessControl` does it, and knows the token and the names of proxies.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    for route in app.routes:
        if isinstance(route, Route):
            route.methods = {
                "POST"
            }  # a GET would wait for what the server has to say unasked, which is nothing
    app.add_middleware(BodyAndTime, limits=settings.limits)
    app.add_middleware(AccessControl, settings=settings)
    app.add_middleware(SecurityHeaders)
    return app


def create_tool_server(settings: ServiceSettings, *, tells_paths: bool) -> ToolServer:
    """The tools over an index, which is opened at once.

    Raises:
        ModelError, DataError: the index, its model or its features cannot be opened.
    """
    share_out_searches(settings.limits)
    return ToolServer(MomentTools(LiveCorpus(settings), tells_paths=tells_paths), settings.limits)


class ToolServer(MCPServer[Any]):
    """The protocol around the tools. What a tool refuses is an error of that tool: one plain sentence."""

    def __init__(self, tools: MomentTools, limits: Limits) -> None:
        made = [
            Tool.from_function(work, title=title, annotations=_read_only(title), structured_output=True)
            for work, title in (
                (tools.find_moments, "Find moments"),
                (tools.similar_moments, "Find moments like one"),
                (tools.list_videos, "List videos"),
                (tools.video_details, "Tell of a video"),
            )
        ]
        _log_on_standard_error()
        super().__init__(
            "dciml",
            title="dciml",
            instructions=ABOUT,
            version=__version__,
            tools=made,
            subscriptions=False,
            log_level="WARNING",
        )
        self._tools = tools
        self._arguments = {tool.name: tuple(tool.parameters["properties"]) for tool in made}
        for tool in made:
            tool.parameters["additionalProperties"] = False
        self._places = Slots(limits.running_searches, "searches")
        self._turns = anyio.CapacityLimiter(limits.search_threads)

    @property
    def num_videos(self) -> int:
        """How many videos the index holds."""
        return self._tools.num_videos

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; whatever is wrong becomes an error of the tool."""
        try:
            self._check_names(name, arguments)
            with self._places.taken():
                async with self._turns:
                    return await super().call_tool(name, arguments, context)
        except (ToolError, ServiceError) as error:
            return CallToolResult(content=[TextContent(text=sentence_of_call(error))], is_error=True)

    def _check_names(self, name: str, arguments: dict[str, Any]) -> None:
        known = self._arguments.get(name)
        unknown = [] if known is None else [own for own in arguments if own not in known]
        if known is not None and unknown:
            raise ServiceError(
                422, f"{name} takes no {shortened(unknown[0])!r}. To mend it: give {', '.join(known)} only."
            )


def _read_only(title: str) -> ToolAnnotations:
    return ToolAnnotations(
        title=title,
        read_only_hint=True,
        destructive_hint=False,
        idempotent_hint=True,
        open_world_hint=False,
    )


def sentence_of_call(error: ToolError | ServiceError) -> str:
    """What went wrong in a call, as over HTTP; the library's own errors wrap ours."""
    cause = error.__cause__ if isinstance(error, ToolError) else error
    if cause is None:  # there is no such tool
        return str(error)
    if isinstance(cause, ValidationError):
        return invalid_sentence(cause.errors()[0])
    if isinstance(cause, UnknownVideo):
        return f"{cause.detail} To mend it: take an id that list_videos gives."
    if isinstance(cause, ServiceError):
        return cause.detail
    if (trouble := trouble_of(cause)) is not None:
        _log.error("%s: %s", type(cause).__name__, cause)
        return trouble.sentence
    if isinstance(cause, DcimlError):
        if not isinstance(cause, DataError):
            _log.error("%s", cause)
        return sentence_of(cause)
    _log.error("unexpected error", exc_info=cause)
    return MISTAKE


def _log_on_standard_error() -> None:
    """What the library of the protocol has to say; it would take over the root of all logs otherwise."""
    logging.basicConfig(handlers=[logging.NullHandler()])  # left alone where the root has handlers already
    of_protocol = logging.getLogger("mcp")
    if not of_protocol.handlers:
        of_protocol.addHandler(logging.StreamHandler())
        of_protocol.setLevel(logging.WARNING)
