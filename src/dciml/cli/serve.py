"""`dciml serve`: arguments only; the work is in `service`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dciml.cli.options import (
    DeviceOption,
    MovedFeaturesOption,
    MovedModelOption,
    MovedStoreOption,
    wait_asleep,
)

if TYPE_CHECKING:
    from dciml.features import Precision
    from dciml.recipes.home import Home

TOKEN_VARIABLE = "DCIML_TOKEN"
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free port.")]
OpenOption = Annotated[
    bool | None,
    typer.Option(
        "--open/--no-open", help="Open the page in the browser; left out: of a folder in a terminal."
    ),
]
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
        help="Of a folder: image:MODEL, an image–text model in a local folder or the cache, or builtin. "
        "Of an index: how to encode videos that are added, where its features do not say; may be repeated.",
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


PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="An index; or folders or files of videos, which are read and kept up to date while the page is open."
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where features and index of a folder are kept; FOLDER.dciml if left out."),
]
PrecisionOption = Annotated[
    Literal["bf16", "int8"] | None,
    typer.Option(
        "--precision",
        help="Of a folder that is read for the first time: arithmetic of the model, bf16 or int8, which are faster "
        "on most processors of today and coarser; float32 if left out.",
    ),
]
SpeechOption = Annotated[
    bool | None,
    typer.Option(
        "--speech/--no-speech",
        help="Of a folder: recognise what is said in videos that have no subtitles beside them (extra `speech`); left "
        "out: as before.",
    ),
]
SpeechModelOption = Annotated[
    str | None,
    typer.Option(
        "--speech-model",
        help="What recognises it: tiny, base, small, medium, turbo, large-v3, a model of faster-whisper on the hub, or "
        "a folder. Default: base.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Fetch models without asking.")]
ReadOnlyOption = Annotated[
    bool, typer.Option("--read-only", help="Add and remove nothing; several servers may share an index so.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(serve)


def serve(
    paths: PathsArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    open_: OpenOption = None,
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
    home: HomeOption = None,
    yes: YesOption = False,
    precision: PrecisionOption = None,
    speech: SpeechOption = None,
    speech_model: SpeechModelOption = None,
) -> None:
    """Search a folder of videos, or an index, in the browser and over HTTP."""
    check_installed()
    wait_asleep()
    # Read when NumPy is loaded, which is below: searches run beside each other, and one is too small to share out.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dciml.service import Limits, ServiceSettings, run_server

    limits = Limits() if search_threads is None else Limits(search_threads=search_threads)
    spoken = wanted_speech(speech, speech_model)
    if is_index(paths):
        if spoken:
            raise typer.BadParameter("speech is recognised for folders of videos", param_hint="--speech")
        own = None
    else:
        own = prepare(paths, home, tuple(encoder or ()), device, precision, spoken, yes=yes)
    settings = ServiceSettings(
        index=paths[0] if own is None else own.index,
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
        encoders=tuple(encoder or ()) if own is None else (),
        home=own,
        added=added,
        read_only=read_only,
        limits=limits,
    )
    opens = own is not None and sys.stdout.isatty() if open_ is None else open_
    run_server(settings, port, open_page=opens)


def wanted_speech(speech: bool | None, model: str | None) -> str | None:
    """The model of speech that the options name; None: as before, "": none any more."""
    from dciml.features import SPEECH_MODEL

    if model is not None and speech is False:
        raise typer.BadParameter("it says what --no-speech denies", param_hint="--speech-model")
    if model is not None or speech:
        return model or SPEECH_MODEL
    return "" if speech is False else None


def is_index(paths: list[Path]) -> bool:
    """Whether an index is meant: one folder that holds a catalogue, or is empty."""
    from dciml.index import CATALOGUE_FILE

    path = paths[0]
    if len(paths) > 1 or not path.is_dir():
        return False
    return (path / CATALOGUE_FILE).exists() or not any(path.iterdir())


def prepare(
    paths: list[Path],
    place: Path | None,
    encoders: tuple[str, ...],
    device: str,
    precision: Precision | None,
    speech_model: str | None = None,
    *,
    yes: bool,
) -> Home:
    """The home of folders of videos, made where there is none.

    Raises:
        DataError, ConfigError: as `open_home`; the model is neither here nor to be fetched.
    """
    from dciml.features import with_precision
    from dciml.homes import is_home
    from dciml.recipes import home as recipe

    if len(encoders) == 1:
        encoders = (*encoders, recipe.TEXT_BESIDE)
    if len(paths) == 1 and is_home(paths[0]):
        make_sure_of_speech(speech_model, yes)
        return with_its_precision(recipe.open_home(paths[0], (), encoders, device, speech_model), precision)
    place = place or recipe.place_of_home(paths)
    if is_home(place):
        make_sure_of_speech(speech_model, yes)
        return with_its_precision(recipe.open_home(place, paths, encoders, device, speech_model), precision)
    recipe.refuse_without_videos(paths)
    usual = (f"image:{recipe.MODEL_NAME}", recipe.TEXT_BESIDE)
    if encoders in ((), usual):
        make_sure_of_model(yes)
        encoders = usual
    make_sure_of_speech(speech_model, yes)
    encoders = with_precision(encoders, precision)
    typer.echo(f"{place} keeps features and index of {', '.join(str(path) for path in paths)}.")
    made = recipe.open_home(place, paths, encoders, device, speech_model)
    for note in made.notes:
        typer.echo(note)
    return made


def with_its_precision(home: Home, precision: Precision | None) -> Home:
    """A home that was made before. Raises ConfigError: its model computes in another precision than is asked for."""
    from dciml.errors import ConfigError
    from dciml.features import with_precision

    if with_precision(home.encoders, precision) != home.encoders:
        raise ConfigError(
            f"the rows of {home.path} were made in another precision, and cannot be mixed with those of {precision}. "
            "To mend it: leave out --precision, or name another place with --home."
        )
    return home


def make_sure_of_model(yes: bool) -> None:
    """Fetch the usual image–text model where it is not here, if the user agrees.

    Raises:
        ConfigError: transformers is missing, or the user does not agree or cannot be asked.
    """
    from importlib.util import find_spec

    from dciml.errors import ConfigError
    from dciml.recipes import home as recipe

    name, size = recipe.MODEL_NAME, f"{recipe.MODEL_GIGABYTES:g} GB"
    others = (
        "name another with --encoder image:FOLDER, or take --encoder builtin, which needs none and finds less"
    )
    if find_spec("transformers") is None:
        raise ConfigError(
            "finding what a sentence says in pictures takes an image–text model, and the package transformers. "
            f"To mend it: pip install 'dciml[transformers]' (then {name}, {size}, is fetched once), or {others}."
        )
    if recipe.is_fetched(name):
        return
    question = f"The image–text model {name} is not here yet. Fetch it once ({size})?"
    if not yes and not (sys.stdin.isatty() and typer.confirm(question)):
        raise ConfigError(
            f"the image–text model {name} ({size}) is not here. "
            f"To mend it: call again with --yes to fetch it, {others}."
        )
    recipe.fetch(name)


def make_sure_of_speech(model: str | None, yes: bool) -> None:
    """Fetch a model of speech where it is not here, if the user agrees; None or "": none is wanted.

    Raises:
        ConfigError: faster-whisper is missing, or the user does not agree or cannot be asked.
        DataError: there is no such model, or it cannot be fetched.
    """
    from importlib.util import find_spec

    from dciml.errors import ConfigError, DataError
    from dciml.features import MODEL_GIGABYTES, fetch_speech_model, speech_model

    if not model:
        return
    if find_spec("faster_whisper") is None:
        raise ConfigError(
            "recognising speech takes the package faster-whisper. To mend it: pip install 'dciml[speech]', or leave "
            "out --speech."
        )
    is_path = Path(model).expanduser().exists() or model.startswith((".", "/", "~"))
    try:
        speech_model(model)
        return
    except DataError as error:
        if is_path or (model not in MODEL_GIGABYTES and "/" not in model):
            raise
        del error
    size = f"{MODEL_GIGABYTES[model]:g} GB" if model in MODEL_GIGABYTES else "its size is on its page"
    question = f"The speech model {model} is not here yet. Fetch it once ({size})?"
    if not yes and not (sys.stdin.isatty() and typer.confirm(question)):
        raise ConfigError(
            f"the speech model {model} ({size}) is not here. To mend it: call again with --yes to fetch it, or name a "
            "local folder with --speech-model."
        )
    fetch_speech_model(model)


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
