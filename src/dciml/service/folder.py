"""Keeps the index of a home up to date while it is served: what comes into its folders becomes searchable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dciml.errors import DataError, DcimlError, Where
from dciml.features import Failure, trouble_beside
from dciml.index import ClipIndex
from dciml.model_folder import Model
from dciml.recipes.home import Home, Stamps, Work, gone, look, not_entered, update
from dciml.recipes.index import add_videos, remove_videos
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.troubles import sentence_of

LOOK_SECONDS = 3.0
END_SECONDS = 10.0
_log = logging.getLogger("dciml.service")


@dataclass(frozen=True)
class FolderState:
    """How far the reading of the folders is.

    Attributes:
        seconds_left: of the present reading, guessed; None: nothing is read, or it cannot be told yet.
        failures: ids of videos that could not be read, with the reason.
        text_failures: ids of videos that are searched without the text beside them, which could not be read, with why.
        trouble: why the folders cannot be read at all, in a sentence.
    """

    is_working: bool = True
    num_videos: int = 0
    num_done: int = 0
    seconds_left: float | None = None
    failures: tuple[tuple[str, str], ...] = ()
    text_failures: tuple[tuple[str, str], ...] = ()
    trouble: str | None = None


class _Ended(Exception):
    """The server ends."""


class FolderWatch:
    """A thread that looks at the folders of a home, and reads what is new or has changed; `close` ends it.

    Args:
        corpus: of the home's index.
    """

    def __init__(self, home: Home, corpus: LiveCorpus) -> None:
        self.home, self._corpus, self._state = home, corpus, FolderState()
        self._end = threading.Event()
        self._failures: dict[str, str] = {}
        self._beside: dict[
            str, str
        ] = {}  # once looked at: why the text of a video is left out; "": it is not
        self._thread = threading.Thread(target=self._run, name="folder", daemon=True)

    @property
    def state(self) -> FolderState:
        """How far it is now."""
        return self._state

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Give up what is being read, and end. What was read stays."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        before: Stamps | None = None
        while not self._end.is_set():
            try:
                before = self._look(before)
            except _Ended:
                return
            except DcimlError as error:
                if self._state.trouble is None:
                    _log.warning("the folders cannot be read: %s", error)
                self._say(is_working=False, seconds_left=None, trouble=sentence_of(error))
            except Exception:
                _log.exception("the folders cannot be read")
                self._say(
                    is_working=False, seconds_left=None, trouble="The folders cannot be read; see the log."
                )
            self._end.wait(LOOK_SECONDS)

    def _look(self, before: Stamps | None) -> Stamps:
        """Read what is new since `before`, if anything is."""
        videos, stamps = look(self.home)
        if stamps == before:
            return stamps
        self._say(is_working=True, num_videos=len(videos), num_done=0, seconds_left=None, trouble=None)
        same = {video_id for video_id, stamp in stamps.items() if before and before.get(video_id) == stamp}
        self._failures = {key: reason for key, reason in self._failures.items() if key in same}
        self._beside = {key: reason for key, reason in self._beside.items() if key in same}
        todo = {video_id: path for video_id, path in videos.items() if video_id not in self._failures}
        index = self._corpus.now.index
        if left := not_entered(self.home, todo, index):
            self._enter(left)
        if lost := gone(self.home, videos, index):
            self._corpus.change(lambda _, index, model: _leave(index, lost))

        def enter(video_ids: Sequence[str]) -> None:
            self._enter(video_ids)
            self._look_beside({video_id: todo[video_id] for video_id in video_ids})

        update(self.home, todo, enter, self._tell, self._note)
        self._look_beside(todo)
        done = len(videos) - len(self._failures)
        self._say(is_working=False, num_videos=len(videos), num_done=done, seconds_left=None)
        return stamps

    def _enter(self, video_ids: Sequence[str]) -> None:
        def work(_: Snapshot, index: ClipIndex, model: Model) -> None:
            add_videos(index, model, self.home.store, only=video_ids, replace=True)

        self._corpus.change(work)

    def _look_beside(self, videos: Mapping[str, Path]) -> None:
        """Say which of the videos are searched without the text beside them."""
        for video_id in videos.keys() - self._beside.keys() - self._failures.keys():
            if self._end.is_set():
                raise _Ended
            error = trouble_beside(videos[video_id], self.home.encoder)
            self._beside[video_id] = "" if error is None else _reason(error, videos[video_id])
            if error is not None:
                _log.warning("%s is searched without the text beside it: %s", video_id, error)
        self._say()

    def _tell(self, work: Work) -> None:
        if self._end.is_set():
            raise _Ended
        self._say(num_done=work.num_done, seconds_left=work.seconds_left)

    def _note(self, failure: Failure) -> None:
        self._failures[failure.video_id] = _reason(failure.error, failure.path)
        _log.warning("%s cannot be searched: %s", failure.video_id, failure.error)
        self._say()

    def _say(self, **change: object) -> None:
        beside = tuple(sorted((video_id, reason) for video_id, reason in self._beside.items() if reason))
        now = replace(self._state, failures=tuple(self._failures.items()), text_failures=beside)
        self._state = replace(now, **change)  # type: ignore[arg-type]


def _reason(error: DataError, video: Path) -> str:
    """What is wrong with a video, or with a file that is read beside it, which is named then with its line."""
    where = error.where if isinstance(error.where, Where) else Where(error.where or video)
    path = Path(where.path)
    what = error.what if path == video else f"{Where(path.name, where.line, where.field)}: {error.what}"
    return f"{what}. To mend it: {error.mend}." if error.mend else what


def _leave(index: ClipIndex, video_ids: Sequence[str]) -> None:
    remove_videos(index, video_ids)
