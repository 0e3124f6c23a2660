from .mcp_server import run_mcp_http, run_mcp_stdio
from .server import run_server
from .settings import Limits, ServiceSettings

__all__ = [
    "Limits",
    "ServiceSettings",
    "run_mcp_http",
    "run_mcp_stdio",
    "run_server",
]
