"""A home: folders of videos made searchable as they are, with nothing trained, and kept up to date.

HOME/home.json   whose the folder is: which folders of videos, which encoders
HOME/store/      feature rows of the videos        HOME/model/   the untrained model that compares them with sentences
HOME/index/      the index                         HOME/index.added/   what was uploaded to the page, see `dciml serve`
HOME/speech/     what is said in the videos, where speech is recognised
HOME/told.jsonl  what people told of moments       HOME/taught-N/      a model that learned from it, and its index
HOME/taught.json which of these is in use, if any; see `dciml teach`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from time import monotonic, time

from dciml.errors import ConfigError, DataError
from dciml.features import (
    MANIFEST_FILE,
    VIDEO_SUFFIXES,
    ExtractionProgress,
    Failure,
    FeatureStore,
    FeatureStoreWriter,
    Speech,
    StoreManifest,
    VideoEncoder,
    create_encoder,
    extract_videos,
    files_read,
    find_videos,
    lasting_specs,
    read_manifest,
    text_spec_of,
    whole_id,
)
from dciml.files import write_json
from dciml.folders import CARD_FILE, kind_of, refuse_foreign
from dciml.homes import HOME_FILE, is_home, place_beside, read_home_file, taught_folder
from dciml.index import CATALOGUE_FILE, ClipIndex
from dciml.media import probe
from dciml.model_folder import load_model
from dciml.recipes.baseline import CosineConfig, build_cosine
from dciml.recipes.index import build_index

SERVING_LOCK = ".serving"
"""In the index folder, of who may change the index from time to time, as a server does."""
ROWS_PER_SECOND = 1.0
MODEL_NAME, MODEL_GIGABYTES = "google/siglip2-base-patch32-256", 1.5
TEXT_BESIDE = "text:words:256"
TEXT_WEIGHT = 0.3
"""Of the cosine of words beside a cosine of pictures, which differs by about a third as much from video to video."""
SETTLED_SECONDS = 2.0
"""A file that was written to more recently may still be on its way."""


WITHOUT_MODEL = ("builtin", TEXT_BESIDE)


@dataclass(frozen=True)
class Home:
    """A home that is there, with all its parts."""

    path: Path
    folders: tuple[Path, ...]
    encoders: tuple[str, ...]
    device: str = "cpu"
    speech_model: str | None = None

    @property
    def speech(self) -> Speech:
        """What was recognised of the speech of videos, and what recognises it."""
        return Speech(self.path / "speech", self.speech_model, self.device)

    @property
    def store(self) -> Path:
        """The feature store."""
        return self.path / "store"

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.path / "model"

    @property
    def index(self) -> Path:
        """The index folder of the untrained model."""
        return self.path / "index"

    @property
    def taught(self) -> Path | None:
        """The folder of the taught model that is in use, which holds `model` and `index`; None: none is."""
        return taught_folder(self.path).folder

    @property
    def present_index(self) -> Path:
        """The index that is in use: of the taught model, where there is one."""
        taught = self.taught
        return self.index if taught is None else taught / "index"

    @cached_property
    def encoder(self) -> VideoEncoder:
        """What makes the rows."""
        return create_encoder(self.encoders, ROWS_PER_SECOND, self.device, self.speech, lenient=True)

    @property
    def notes(self) -> tuple[str, ...]:
        """What its evidence cannot do, in plain sentences."""
        notes = []
        if self.encoders[0] == "builtin" and self.taught is None:
            notes.append(
                "Without an image–text model sentences find only what is said in subtitles beside the videos; similar "
                "moments are found by colours, outlines and motion. What pictures show is found by sentences where the "
                "folder is read with an image–text model, which is chosen when it is served for the first time."
            )
        if self.speech_model is not None and (silent := self.speech.notes()):
            more = f", and {len(silent) - 3} more" if len(silent) > 3 else ""
            notes.append(f"No speech could be recognised in some videos ({'; '.join(silent[:3])}{more}).")
        return tuple(notes)

    def find(self) -> dict[str, Path]:
        """The videos that are there now, by id: the way to the file, from its folder's own name on.

        Raises:
            DataError: two files with the same id, or a name that is not UTF-8.
        """
        found: dict[str, Path] = {}
        for folder in self.folders:
            if folder.exists():  # else its disk may not be there, and come back
                here = find_videos([folder], "path", may_be_empty=True)
                found |= {name: path for name, path in here.items() if not path.is_relative_to(self.path)}
        return found


def refuse_without_videos(paths: Sequence[Path]) -> None:
    """Raise DataError where there is no video yet, before anything is made or fetched.

    A file that is named itself may have any name, so one whose name does not tell is opened.
    """
    for path in paths:
        if kind := kind_of(path):
            what = f"this is {kind}, not a folder of videos"
            raise DataError(what, where=path, mend="name the index, or the videos")
    for path in find_videos(paths, "path").values():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            probe(path)


def place_of_home(paths: Sequence[Path]) -> Path:
    """Where the home of some folders or files is where nothing else is said: beside the first of them.

    >>> place_of_home([Path("/films/")]).as_posix()
    '/films.dciml'
    """
    place = place_beside(paths[0])
    if place is None:
        raise ConfigError(
            f"{os.path.abspath(paths[0])} is a whole disk. To mend it: say with --home where the index is to be kept."
        )
    return place


def read_home(path: Path, device: str = "cpu") -> Home:
    """A home as its file says. Raises DataError: damaged, or of another version."""
    found = read_home_file(path)
    speech = found.get("speech")
    return Home(
        path,
        tuple(map(Path, found["folders"])),
        tuple(found["encoders"]),
        device,
        speech if isinstance(speech, str) else None,
    )


def open_home(
    path: Path,
    folders: Sequence[Path],
    encoders: Sequence[str],
    device: str = "cpu",
    speech_model: str | None = None,
) -> Home:
    """Make what is missing of a home: an empty store, the untrained model, an empty index. Videos come later.

    Args:
        folders: of videos, or single files; those that the home has already stay.
        encoders: as `create_encoder` takes them; none: those that the home has.
        speech_model: recognises from now on what is said in videos without captions; None: as the home has it; "":
            nothing does any more, and what was recognised before stays.
    Raises:
        DataError: `path` holds something else; the home is of other encoders; a folder is not there or holds no video;
            the home, which may be anybody's, reads a folder that is neither named nor beside it.
        ConfigError, DataError: an encoder cannot be made here.
    """
    refuse_foreign(path, HOME_FILE)
    before = read_home(path, device) if is_home(path) else None
    named = [Path(os.path.abspath(folder)) for folder in folders]
    if before is not None:
        _refuse_others_folders(before, named)
        named = [*before.folders, *(folder for folder in named if folder not in before.folders)]
        if encoders and lasting_specs(encoders) != before.encoders:
            made = " ".join(f"--encoder {spec}" for spec in before.encoders)
            raise DataError(
                f"this home was made with other encoders ({made})",
                where=path,
                mend="leave out --encoder, or name another place with --home",
            )
    specs = before.encoders if before is not None else lasting_specs(encoders)
    if speech_model is None:
        speech_model = None if before is None else before.speech_model
    elif speech_model and Path(speech_model).is_dir():
        speech_model = os.path.abspath(speech_model)
    home = Home(path, tuple(named), specs, device, speech_model or None)
    if before is None and not home.find():
        find_videos(folders, "path")  # says what is wrong with them
    encoder = home.encoder
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the home cannot be made ({error.strerror or error})"
        raise DataError(what, where=path, mend="say with --home where it is to be") from error
    content: dict[str, object] = {
        "format": "dciml home",
        "format_version": 1,
        "folders": [str(f) for f in named],
        "encoders": list(specs),
    }
    if home.speech_model is not None:
        content["speech"] = home.speech_model
    write_json(path / HOME_FILE, content)
    _make_store(home, encoder)
    if not (home.model / CARD_FILE).exists():
        weights = (1.0, *(TEXT_WEIGHT if spec.startswith("text:") else 1.0 for spec in specs[1:]))
        config = CosineConfig(text=text_spec_of(specs, encoder), block_weights=weights)
        build_cosine(FeatureStore.open(home.store), home.model, config)
    if not (home.index / CATALOGUE_FILE).exists():
        build_index(load_model(home.model, device), home.store, home.index, may_be_empty=True)
    return home


def _refuse_others_folders(home: Home, named: Sequence[Path]) -> None:
    """A home that came from elsewhere decides nothing about folders of this machine."""
    beside = Path(os.path.abspath(home.path)).parent
    for folder in home.folders:
        if folder not in named and not Path(os.path.abspath(folder)).is_relative_to(beside):
            raise DataError(
                f"this home also reads {folder}, which does not lie beside it",
                where=home.path,
                mend=f"name that as well: dciml serve {folder} --home {home.path}",
            )


def _make_store(home: Home, encoder: VideoEncoder) -> None:
    before = read_manifest(home.store) if (home.store / MANIFEST_FILE).exists() else None
    if before is not None and before.encoder != encoder.name:
        raise DataError(
            f"the features here are of {before.encoder}, and the encoder is {encoder.name} by now",
            where=home.store,
            mend="remove the home, or name another place with --home",
        )
    FeatureStoreWriter(
        home.store, StoreManifest(encoder.name, encoder.width, encoder.rows_per_second, home.encoders)
    ).close()


Stamps = Mapping[str, tuple[tuple[str, int, int], ...]]
"""Of each video, its file and what is read beside it: path, bytes, time of the last change in nanoseconds."""


def look(home: Home) -> tuple[dict[str, Path], Stamps]:
    """The videos that can be read now, without those that are still being written, and what would change when they do.

    Raises:
        DataError: as `Home.find`.
    """
    now, found = time(), {}
    stamps: dict[str, tuple[tuple[str, int, int], ...]] = {}
    for video_id, path in home.find().items():
        try:
            stats = [(str(file), file.stat()) for file in files_read(path, home.encoder)]
        except (DataError, OSError):  # the attempt to read it will tell
            stats = [(str(path), path.lstat())] if os.path.lexists(path) else []
        own = str(home.speech.folder) + os.sep  # what is written there appears whole
        if any(
            now - stat.st_mtime < SETTLED_SECONDS and S_ISREG(stat.st_mode) and not file.startswith(own)
            for file, stat in stats
        ):
            stamps[video_id] = (("still written to", 0, 0),)
            continue
        found[video_id] = path
        stamps[video_id] = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    return found, stamps


@dataclass(frozen=True)
class Work:
    """How far an update is. `seconds_left` is a guess from what was done so far; None: it cannot be told yet."""

    num_videos: int
    num_done: int
    seconds_left: float | None


def update(
    home: Home,
    videos: Mapping[str, Path],
    enter: Callable[[Sequence[str]], None],
    on_work: Callable[[Work], None],
    on_failure: Callable[[Failure], None],
) -> None:
    """Read what is new or changed, the smallest files first; each video is searchable as soon as it is read.

    Args:
        videos: see `look`.
        enter: puts videos of the home's store into its index.
        on_work: called several times a second; what it raises ends the update.
    Raises:
        DataError: the store is in use by another process, or cannot be written.
    """
    begin = monotonic()
    by_size = sorted(videos, key=lambda video_id: _num_bytes(videos[video_id]))

    def tell(now: ExtractionProgress) -> None:
        share = now.bytes_done / now.num_bytes if now.num_bytes else 1.0
        passed = monotonic() - begin
        left = passed / share - passed if share > 0 and passed > 1 else None
        on_work(Work(now.num_videos, now.num_unchanged + now.num_done + now.num_failed, left))

    extract_videos(
        {video_id: videos[video_id] for video_id in by_size},
        home.encoder,
        home.store,
        workers=1,
        on_progress=tell,
        on_failure=on_failure,
        on_done=lambda video_id: enter([video_id]),
    )


def not_entered(home: Home, videos: Mapping[str, Path], index: ClipIndex) -> list[str]:
    """Videos whose rows are in the store, but which the index does not hold: an update was ended between the two."""
    store, held = FeatureStore.open(home.store), {whole_id(video_id) for video_id in index.video_ids}
    return [video_id for video_id in videos if video_id in store and video_id not in held]


def gone(home: Home, videos: Mapping[str, Path], index: ClipIndex) -> list[str]:
    """Videos of the home that the index holds, but whose files are not there any more; none where all are gone: then
    the disk is not there.
    """
    if not videos:
        return []
    store = FeatureStore.open(home.store)
    held = dict.fromkeys(whole_id(video_id) for video_id in index.video_ids)
    return [
        video_id
        for video_id in held
        if video_id in store and video_id not in videos and not os.path.lexists(store.source(video_id) or "")
    ]


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_fetched(model: str) -> bool:
    """Whether an image–text model is in the local cache, or a local folder."""
    from dciml.features import local_folder

    try:
        local_folder(model)
    except DataError:
        return False
    return True


def fetch(model: str) -> None:
    """Fetch the files of a model that are needed, once, into the local cache.

    Raises:
        ConfigError: transformers is not installed. DataError: the hub cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError(
            "image–text models need the package transformers. To mend it: pip install 'dciml[transformers]'."
        ) from error
    try:
        snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{model} cannot be fetched ({reason})",
            mend="look at the network, name a local folder with --encoder image:FOLDER, or use --encoder builtin",
        ) from error
