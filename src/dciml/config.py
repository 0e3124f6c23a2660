"""Settings of a run: frozen, typed, strict. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dciml.errors import ConfigError
from dciml.files import read_text


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class AnswerConfig(Settings):
    """How candidate spans become an answer; see docs/decisions on the choice of defaults."""

    num_videos: int = Field(100, ge=1, description="videos that the first stage hands on, per query")
    ground_videos: int = Field(10, ge=0, description="of these, the best so many are grounded by the model")
