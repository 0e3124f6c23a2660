from .server import run_server
from .settings import Limits, ServiceSettings

__all__ = [
    "Limits",
    "ServiceSettings",
    "run_server",
]
