"""Models on the Hugging Face Hub: saved with a card, pushed, and taken from there; through huggingface_hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from dciml.config import dump_config, load_config
from dciml.errors import ModelError
from dciml.files import atomic_folder, read_json, write_json, write_text
from dciml.folders import (
    CALIBRATION_FILE,
    CARD_FILE,
    RUN_FILE,
    SETTINGS_FILE,
    TRAINED_ON_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
)
from dciml.model_folder import Model, load_model

COPIED = (WEIGHTS_FILE, VOCABULARY_FILE, CALIBRATION_FILE, TRAINED_ON_FILE, CARD_FILE)
FILES = (*COPIED, SETTINGS_FILE, RUN_FILE)
CONFIG = {"library_name": "dciml", "described_in": CARD_FILE}
"""Of config.json, by which the hub counts downloads."""
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

A model of dciml (`pip install 'dciml[hub]'`), which finds the video and the moment that a sentence describes.

```python
from dciml.hub import HubModel

model = HubModel.from_pretrained("OWNER/{{ name }}").model
```

`model.folder` is a model folder for `dciml index` and all other commands.

## What it takes

| what | which |
|---|---|
{%- for what, which in facts.items() %}
| {{ what }} | {{ which }} |
{%- endfor %}

## What it was trained on

{% if trained_on -%}
| what | how much |
|---|---|
{%- for what, value in trained_on.items() %}
| {{ what }} | {{ value }} |
{%- endfor %}
{%- else -%}
The model does not say.
{%- endif %}

## What it was made with

{{ made_with }}

{% if warnings -%}
## Warnings

{% for warning in warnings -%}
- {{ warning }}
{% endfor %}
{%- endif %}"""


class HubModel(
    ModelHubMixin,
    library_name="dciml",
    tags=["video-moment-retrieval", "video-retrieval", "temporal-grounding"],
    model_card_template=TEMPLATE,
):
    """A model with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Model folders are loaded by `dciml.load` as well.

    What is saved is a model folder with a card (README.md) made from its run.json, without what only training needs.
    Of the data folder it keeps the name, not where it lies.

    Args:
        model: as `dciml.load` gives it.
    """

    # Set, or the base class would make one from the arguments of `__init__`, weights and all.
    _hub_mixin_config = CONFIG

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def from_pretrained(  # type: ignore[override]  # other options than these would mean nothing
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str = "cpu",
    ) -> HubModel:
        """Load a model folder, or download OWNER/NAME (once; it is kept in huggingface_hub's cache) and load it.

        Raises:
            ModelError: there is no such model here or there, or it cannot be downloaded; or as `dciml.load`.
            ConfigError: there is no such device.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            try:
                downloaded = snapshot_download(
                    str(pretrained_model_name_or_path),
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                    allow_patterns=list(FILES),
                )
            except (OSError, EntryNotFoundError, HFValidationError) as error:
                reason = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"{pretrained_model_name_or_path}: there is no such folder, and no such model could be had from "
                    f"the hub ({reason}). To mend it: check the name, the network, and HF_HUB_OFFLINE."
                ) from error
            folder = Path(downloaded)
        return cls(load_model(folder, device))

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the model into a new folder, whole or not at all; and push it to the hub if asked to.

        Raises:
            DataError: there is something in the folder already.
        """
        folder = Path(save_directory)
        with atomic_folder(folder) as part:
            super().save_pretrained(part, config=config, model_card_kwargs=model_card_kwargs)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or folder.name, config=config, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put the model into a repository of the hub, OWNER/NAME; options are those of huggingface_hub's mixin.

        Returns: the address of the commit.
        Raises:
            ModelError: there is no such name, no right to write there, or no way to the hub.
        """
        try:
            return super().push_to_hub(repo_id, **options)
        except (OSError, HFValidationError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{repo_id}: the model cannot be put on the hub ({reason}). To mend it: check the name, the network, "
                "HF_HUB_OFFLINE, and that you are logged in (hf auth login)."
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        own = self.model.folder
        for name in COPIED:
            if (own / name).exists():
                shutil.copyfile(own / name, save_directory / name)
        if (own / SETTINGS_FILE).exists():
            config = load_config(own / SETTINGS_FILE)
            data = config.data.model_copy(update={"folder": Path(config.data.folder).name})
            write_text(save_directory / SETTINGS_FILE, dump_config(config.model_copy(update={"data": data})))
        if (run := self._run()) is not None:
            write_json(save_directory / RUN_FILE, run)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card: what the model takes, what it was trained on and made with, and the warnings of its training."""
        run = self._run() or {}
        packages = {name: version for name, version in run.get("packages", {}).items() if version}
        revision = [f"revision {run['git_revision']}"] if run.get("git_revision") else []
        versions = [f"{name} {version}" for name, version in packages.items()]
        said = {
            "name": self.model.folder.resolve().name,
            "facts": self._facts(),
            "trained_on": {
                name.replace("_", " "): value for name, value in run.get("trained_on", {}).items()
            },
            "made_with": ", ".join([*versions, *revision]) or "The model does not say.",
            "warnings": [" ".join(str(warning).split()) for warning in run.get("warnings", [])],
        }
        return super().generate_model_card(*args, **(said | kwargs))

    def _facts(self) -> dict[str, str]:
        card = read_json(self.model.folder / CARD_FILE)
        calibrated = "yes" if self.model.calibration is not None else "no: answers have no confidence"
        return {
            "kind": f"`{self.model.kind}`",
            "video features made by": f"`{self.model.store_encoder}`",
            "text encoder": f"`{card['text_encoder']}`",
            "calibrated": calibrated,
        }

    def _run(self) -> dict[str, Any] | None:
        """run.json with the name of the data folder in place of where it lies; None: there is none."""
        if not (self.model.folder / RUN_FILE).exists():
            return None
        run: dict[str, Any] = read_json(self.model.folder / RUN_FILE)
        trained_on = dict(run.get("trained_on", {}))
        if "data" in trained_on:
            trained_on["data"] = Path(str(trained_on["data"])).name
        return run | {"trained_on": trained_on}
