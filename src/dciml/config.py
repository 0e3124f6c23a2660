"""Settings of a run: frozen, typed, strict. An unknown key is an error that names the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from dciml.errors import ConfigError
from dciml.files import read_text
from dciml.inputs import MAX_SETTINGS_BYTES
from dciml.method import BY_DISTRIBUTION, TERMS, PlaceForm
from dciml.strict import parse_yaml

RETIRED = {"training": ("parts",)}
"""Settings of earlier versions that decide nothing any more; the model folders of then still hold them."""
SUPERSEDED = {"retrieval": {"zero_shot_weight": "retrieval.local=shared"}}
"""Settings of earlier versions that decided something, unless they were 0, and what does so now."""
RENAMED = {"retrieval": {"windows": "gaussian_widths"}}
"""Settings of earlier versions under the names that they have now."""


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class DataConfig(Settings):
    """Which data folder, and what is held out for choosing the checkpoint."""

    folder: str = Field(description="data folder made by `dciml import`; relative to the current folder")
    train_split: str = "train"
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the training videos held out")
    validation_moments: bool = Field(
        False,
        description="read the moments of the held-out videos and choose the grounding weights by them (mean IoU of "
        "the first proposal); false: by the training objective, and no moment is read",
    )


class TextConfig(Settings):
    """Sentences → word features and word ids."""

    encoder: str = Field(
        "words",
        description="`words`, `words:WIDTH`, `minilm`, `transformers:FOLDER_OR_NAME`, or text features that came with "
        "a release: `released:FOLDER`, `vectors:FOLDER`",
    )
    max_words: int = Field(30, ge=1, le=4096)
    vocabulary_size: int = Field(
        8000, ge=1, le=1_000_000, description="most frequent training words that can be reconstructed"
    )


class RetrievalConfig(Settings):
    """Retrieval branch, METHOD §3; GMMFormer's sizes."""

    hidden: int = Field(384, ge=4, le=16_384)
    heads: int = Field(4, ge=1, le=64)
    num_clips: int = Field(32, ge=1, le=4096)
    max_frames: int = Field(128, ge=1, le=65_536)
    gaussian_widths: tuple[Annotated[float, Field(gt=0)] | None, ...] = Field(
        (None, 0.5, 1.0, 5.0),
        min_length=1,
        max_length=64,
        description="of the Gaussian of each parallel block; null: none",
    )
    num_blocks: int = Field(2, ge=1, le=64)
    dropout: float = Field(0.2, ge=0, lt=1)
    clip_weight: float = Field(0.7, ge=0, le=1, description="the frame scale has the rest")
    whitening: bool = Field(
        False,
        description="clips and frames are whitened by the training videos first: for features in which what tells "
        "videos apart varies much less than the rest; with few pairs or good features it memorises sooner",
    )
    local: Literal["none", "linear", "shared"] = Field(
        "none",
        description="a third scale, of words and clips each by itself: none, as published; linear; or shared, "
        "residuals on the untrained vectors, which needs a text encoder whose sentence vectors share the space of the "
        "video rows",
    )
    local_width: int = Field(256, ge=1, le=16_384, description="of the linear local scale")
    local_dropout: float = Field(0.1, ge=0, lt=1)
    local_propagation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a clip of the local scale that comes from clips of its video which look alike; 0: none",
    )
    local_reach_unit: float = Field(0.2, gt=0, description="how near these are, as a share of the video")
    local_blocks: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0)]], ...] = Field(
        (),
        max_length=64,
        description="of the shared local scale: widths and weights of rows of several encoders side by side, each of "
        "which is compared by itself; none: one encoder",
    )
    local_clip_weight: float = Field(
        1.0, ge=0, le=1, description="with such blocks, share of a clip; its video's mean has the rest"
    )
    local_weight: float = Field(
        0.75,
        ge=0,
        le=1,
        description="share of the local scale in a score; where it is chosen, the one that needs no proof",
    )
    choose_local_weight: bool = Field(
        True,
        description="choose the local scale's share on the held-out pairs, without moments, where they are sure of a "
        "better one than `local_weight`",
    )
    margin: float = Field(0.2, ge=0, description="triplet, in cosine")
    nce_temperature: float | None = Field(
        None,
        gt=0,
        description="InfoNCE reads cosines divided by this; null: products that are not normalised, as published",
    )
    clip_pool_temperature: float | None = Field(
        None,
        gt=0,
        description="in cosine, of the soft maximum over a video's clips in the losses, so that every clip learns; "
        "null: the best clip alone, as published",
    )
    local_temperature: float = Field(0.07, gt=0, description="of the local scale's InfoNCE, in cosine")
    hard_negatives_from_epoch: int = Field(20, ge=0)
    hard_pool_size: int = Field(22, ge=1)
    diversity_alpha: float = 32.0
    diversity_delta: float = 0.2


class GroundingConfig(Settings):
    """Grounding branch, METHOD §4; CPL's sizes."""

    hidden: int = Field(256, ge=4, le=16_384)
    heads: int = Field(4, ge=1, le=64)
    layers: int = Field(3, ge=1, le=64)
    num_proposals: int = Field(10, ge=1, le=1000)
    num_positions: int = Field(32, ge=2, le=4096)
    gaussian_sigma: float = Field(9.0, gt=0, description="σ of a proposal is its width divided by this")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    negatives: Literal["beside", "alike", "other_video"] = Field(
        "beside",
        description="what the best proposal must be better than: Gaussians that fill the room on both sides, as "
        "published; of its own width there; or its own on another video, and one of its width in the wider room. The "
        "published ones differ from a proposal in shape, which tells them apart without a look at the video",
    )
    content_weight: float = Field(
        1.0,
        ge=1,
        le=100,
        description="how much nouns, verbs, adjectives and adverbs count in the likelihood of a sentence, beside 1 of "
        "other words; 1: all alike, as published",
    )
    dropout: float = Field(0.2, ge=0, lt=1)
    reference_margin: float = Field(0.1, ge=0, description="nats")
    negative_margin: float = Field(0.15, ge=0, description="nats")
    diversity_lambda: float = Field(0.13, ge=0)
    easiness_exponent: float = Field(
        0.0, ge=0, description="γ: 0 in the published setting, 0.5 for Charades in CPL"
    )
    easiness_epochs: int = Field(20, ge=1)
    anchors: bool = Field(
        False,
        description="proposals begin at the windows in which the local scale fits the sentence best, and are judged by "
        "how sure it is of these besides their reconstruction (an implicit pathway to grounding)",
    )
    anchor_floor: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="share of the clips that count nearly alike there, as `answer.contrast_floor`",
    )


class MutualConfig(Settings):
    """The four pathways between the branches, METHOD §5: a switch each; the weights are in `weights`."""

    explicit_to_retrieval: bool = True
    implicit_to_retrieval: bool = True
    explicit_to_grounding: bool = True
    implicit_to_grounding: bool = True
    warm_start: bool = Field(
        False,
        description="when the warm-up is over, grounding's projection of frames becomes that of the local scale, as "
        "far as its width goes (an implicit pathway to grounding)",
    )
    from_epoch: int = Field(15, ge=0, description="warm-up: the branches learn alone before this epoch")
    to_retrieval_form: PlaceForm = Field(
        "mask",
        description="the explicit pathway to retrieval: the best proposal as a 0/1 mask on cosines, as published; the "
        "same on centred cosines; the local scale's distribution over the paired video's clips; or fused, that one and "
        "the proposals', weighed by their reconstruction",
    )
    to_grounding_form: Literal["clip", "windows"] = Field(
        "clip",
        description="the explicit pathway to grounding: the best clip's time, as published, or the best windows",
    )
    temperature: float = Field(0.1, gt=0, description="of the explicit pathway to retrieval as a mask")
    distribution_temperature: float = Field(0.07, gt=0, description="of the same as a distribution")
    retrieval_margin: float = Field(0.2, ge=0, description="cosine by which modulation must help")
    grounding_margin: float = Field(0.15, ge=0, description="nats by which modulation must help")


if TYPE_CHECKING:

    class LossWeights(Settings):
        """Weight of each loss term, by its name in `TERMS`; 0 leaves a term out."""
else:
    LossWeights = create_model(
        "LossWeights",
        __base__=Settings,
        __doc__="Weight of each loss term, by its name in `TERMS`; 0 leaves a term out.",
        **{name: (float, Field(term.weight, ge=0)) for name, term in TERMS.items()},
    )


class TrainingConfig(Settings):
    """Optimisation, METHOD §5.1 and METHOD §6."""

    mode: Literal["alternating", "joint"] = Field(
        "alternating",
        description="joint: one step for both branches with gradients through both, as a contrast",
    )
    epochs: int = Field(100, ge=1, le=1_000_000)
    grounding_queries: int | None = Field(
        None,
        ge=1,
        description="sentences of a batch and process, drawn anew in each step, that the grounding branch and the "
        "pathways look at; null: all, as published",
    )
    grounding_updates: int = Field(
        1,
        ge=1,
        le=1000,
        description="updates of the grounding branch for each of retrieval, on sentences of the same batch drawn anew; "
        "in joint mode there is one of both",
    )
    batch_videos: int = Field(16, ge=1, description="videos per batch and process, with all their sentences")
    max_sentences_per_video: int | None = Field(None, ge=1, description="drawn anew each epoch; null: all")
    retrieval_lr: float = Field(2.5e-4, gt=0)
    local_lr: float = Field(1e-3, gt=0, description="of the local scale")
    grounding_lr: float = Field(4e-4, gt=0)
    warmup_fraction: float = Field(0.01, ge=0, lt=1, description="of all steps; then linear decay to 0")
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm of a side; null: no limit")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    fixed_shapes: bool | None = Field(
        None,
        description="batches are padded to a few sizes, and no size in a step depends on a value, so that a processor "
        "need not wait for its GPU; losses are the same to rounding, dropout draws otherwise; null: on a GPU only",
    )
    devices: int = Field(1, ge=1, le=64, description="processes on this machine; torchrun overrides")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of torch; null: as torch chooses"
    )
    validate_every: int = Field(1, ge=1, description="epochs")
    keep: Literal["best", "last"] = Field(
        "best",
        description="the weights of which epoch make the model: of each side's best on the held-out videos, or of the "
        "last, where a few held-out videos would decide by chance",
    )
    checkpoint_every_seconds: float = Field(120.0, gt=0)


class LongVideosConfig(Settings):
    """How long videos become overlapping windows; see docs/decisions/0016-windows-of-long-videos.md."""

    window_seconds: float | None = Field(
        None,
        gt=0,
        description="training videos longer than one and a half of this are learned from in windows of this length; "
        "null: whole, and `dciml index` then takes the length of the longest training video",
    )
    overlap_seconds: float | None = Field(
        None, ge=0, description="of neighbouring windows; null: half a window"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.overlap_seconds is not None and self.overlap_seconds >= (self.window_seconds or 0):
            raise ValueError("overlap_seconds must be below window_seconds")
        return self


class AnswerConfig(Settings):
    """How candidate spans become an answer; see docs/decisions on the choice of defaults."""

    num_videos: int = Field(100, ge=1, description="videos that the first stage hands on, per query")
    ground_videos: int = Field(
        10, ge=0, description="how many of these, the best first, are grounded by the model"
    )
    candidates: Literal["proposals", "windows", "both"] = Field(
        "both",
        description="spans of a grounded video: the model's proposals, the windows of the best contrast, or both; "
        "videos that were not grounded have windows",
    )
    num_windows: int = Field(5, ge=1, description="windows a video")
    window_max_iou: float = Field(
        0.7, ge=0, le=1, description="windows that overlap a better one more are left out"
    )
    contrast_scale: Literal["correlation", "similarity"] = Field(
        "correlation",
        description="a span's contrast as a correlation in [-1, 1], alike for all videos, or as it is, in "
        "similarity, so that it counts less where all clips fit alike",
    )
    contrast_floor: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="share of a video's clips, those that fit least, that count alike in the contrast; 0: none",
    )
    contrast_weight: float = Field(1.0, ge=0, description="span score per unit of contrast")
    reconstruction_weight: float = Field(
        0.1, ge=0, description="span score per nat by which a proposal is below the best one of its video"
    )
    max_spans: int | None = Field(None, ge=1, description="spans a video, the best; null: all")
    nms_iou: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="spans that overlap a better one of their video more are left out; null: none",
    )
    video_weight: float = Field(
        3.0, ge=0, description="score per unit of the video's similarity; large: one video after the other"
    )
    span_reference: Literal["best", "softmax", "absolute"] = Field(
        "best",
        description="what a span adds to its video's score: its score less the best of the video (so that the first "
        "spans keep the order of the videos), its log-probability among the video's spans, or its score",
    )
    blank_videos: bool = Field(
        True,
        description="whether moments may lie in videos in which no clip has anything to do with the sentence "
        "(a similarity of 0 throughout, as where words beside the video are all that is known and there are none)",
    )
    far_below_deviations: float | None = Field(
        3.0,
        gt=0,
        description="a moment whose best clip lies further below the best clip of the answer is far below it, and is "
        "shown on request only; in standard deviations of the similarity of all clips that were looked at; null: none "
        "is. Evaluation counts all",
    )
    min_seconds: float = Field(
        1.0,
        ge=0,
        description="least length of a moment that is shown: a shorter one is widened around its middle, within its "
        "video. Evaluation takes moments as they are",
    )
    max_inside: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description="of the moments of a video that are shown: one that shares more than this part of the shorter of "
        "the two with a better one is left out, and the next best takes its place; null: none. Evaluation counts all",
    )
    max_hits: int = Field(100, ge=1, description="moments in an answer when the caller does not say")
    min_confidence: float = Field(
        0.33,
        ge=0,
        le=1,
        description="below this probability that the described video is among the searched ones the answer is "
        "'nothing found'; one third is right where a wrong 'nothing' costs twice as much as a wrong list of hits",
    )


class IndexConfig(Settings):
    """How `dciml index` keeps and searches the vectors of a corpus; see docs/SCALING.md."""

    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="of the vectors on disk; float16 halves the room and rounds scores to three digits",
    )
    exact_videos: int = Field(
        10_000,
        ge=0,
        description="up to this many videos each search looks at every vector; beyond, 4-bit codes in "
        "memory find the candidates",
    )
    code_bytes: int = Field(
        48, ge=1, description="memory for the code of a vector, at most a quarter of its width"
    )
    candidate_vectors: int = Field(
        40,
        ge=1,
        description="vectors that the codes hand on to the exact look, for each video asked for; in more than 20,000 "
        "videos as many more as the root of their number",
    )


class RunConfig(Settings):
    """One complete run; what a file in configs/ holds."""

    name: str
    seed: int = Field(9527, ge=0, lt=2**32)
    data: DataConfig
    text: TextConfig = TextConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    grounding: GroundingConfig = GroundingConfig()
    mutual: MutualConfig = MutualConfig()
    weights: LossWeights = LossWeights()
    training: TrainingConfig = TrainingConfig()
    long_videos: LongVideosConfig = LongVideosConfig()
    answer: AnswerConfig = AnswerConfig()
    index: IndexConfig = IndexConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for branch in ("retrieval", "grounding"):
            part = getattr(self, branch)
            if part.hidden % (2 * part.heads):
                raise ValueError(f"{branch}.hidden must be a multiple of 2 · {branch}.heads")
        form = self.mutual.to_retrieval_form
        if form in BY_DISTRIBUTION and self.retrieval.local == "none":
            raise ValueError(f"mutual.to_retrieval_form: {form} needs a teacher, so set retrieval.local")
        if self.mutual.warm_start and (self.retrieval.local == "none" or not self.mutual.from_epoch):
            raise ValueError(
                "mutual.warm_start needs a local scale that has learned, so set retrieval.local, and mutual.from_epoch "
                "to 1 at least"
            )
        if self.grounding.anchors and self.retrieval.local == "none":
            raise ValueError("grounding.anchors needs the local scale, so set retrieval.local")
        if self.retrieval.whitening and self.retrieval.local == "shared":
            raise ValueError(
                "retrieval.whitening would leave the shared space, so set retrieval.local to linear or none"
            )
        if self.retrieval.local_blocks and self.retrieval.local != "shared":
            raise ValueError("retrieval.local_blocks needs the shared local scale, so set retrieval.local")
        return self


LATER_SETTINGS: tuple[tuple[str, str, Any, tuple[str, ...]], ...] = (
    ("retrieval", "whitening", False, ()),
    ("retrieval", "local_blocks", [], ("local_clip_weight",)),
    ("grounding", "content_weight", 1.0, ()),
    ("grounding", "negatives", "beside", ()),
    ("mutual", "warm_start", False, ()),
    ("training", "grounding_updates", 1, ()),
)
"""Part, name, what it was before there was such a setting, and other settings that mean nothing then."""


def without_later_settings(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings as `model_dump(mode="json")` has them, less those that came later and change nothing.

    What is known by its settings, a model by its fingerprint and a run that goes on, stays the same so.
    """
    for part, name, unset, idle in LATER_SETTINGS:
        if part in tree and tree[part][name] == unset:
            for key in (name, *idle):
                del tree[part][key]
    return tree


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply overrides of the form `training.epochs=3` (the value is YAML).

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a wrong type or value, or not YAML.
    """
    try:
        tree = parse_yaml(read_text(path, MAX_SETTINGS_BYTES))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected settings as `key: value` lines")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, str(path))


def parse_config(tree: dict[str, Any], source: str) -> RunConfig:
    """Build the settings from plain values; `source` names where they come from in errors."""
    tree = _brought_up_to_date(tree, source)
    _refuse_unknown_keys(tree, RunConfig, "", source)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors()
        ]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from error


def dump_config(config: Settings) -> str:
    """The resolved settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write it as key=value, for example training.epochs=3")
    *parents, leaf = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:  # absent, or `training:` with nothing below it
            tree[parent] = {}
        if not isinstance(tree[parent], dict):
            raise ConfigError(f"--set {override}: {parent} holds a value, not settings")
        tree = tree[parent]
    try:
        tree[leaf] = parse_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error


def _brought_up_to_date(tree: dict[str, Any], source: str) -> dict[str, Any]:
    def name(part: str, key: str, settings: dict[str, Any]) -> str:
        new = RENAMED.get(part, {}).get(key, key)
        return key if new in settings else new  # both names at once are an error

    def is_gone(part: str, key: str, value: Any) -> bool:
        now = SUPERSEDED.get(part, {}).get(key)
        if now is not None and value != 0:
            raise ConfigError(
                f"{source}: {part}.{key} is no setting any more; set {now} instead, and train again"
            )
        return now is not None or key in RETIRED.get(part, ())

    return {
        part: {
            name(part, key, settings): value
            for key, value in settings.items()
            if not is_gone(part, key, value)
        }
        if isinstance(settings, dict)
        else settings
        for part, settings in tree.items()
    }


def _refuse_unknown_keys(tree: dict[str, Any], model: type[Settings], prefix: str, source: str) -> None:
    for key, value in tree.items():
        if key not in model.model_fields:
            near = _nearest(str(key), prefix)
            raise ConfigError(f"{source}: unknown setting {prefix}{key}; did you mean {near}?")
        kind = model.model_fields[key].annotation
        if isinstance(kind, type) and issubclass(kind, Settings) and isinstance(value, dict):
            _refuse_unknown_keys(value, kind, f"{prefix}{key}.", source)


def _nearest(key: str, prefix: str) -> str:
    """The known setting that was meant: one of that very name, wherever it is, else the nearest one in its place."""
    known = _known_settings(RunConfig, "")
    elsewhere = [name for name in known if name.rpartition(".")[2] == key]
    if elsewhere:
        return elsewhere[0]
    beside = [name for name in known if name.rpartition(".")[0] == prefix.rstrip(".")]
    near = difflib.get_close_matches(f"{prefix}{key}", beside, n=1, cutoff=0.6)
    anywhere = difflib.get_close_matches(
        key, {name.rpartition(".")[2]: name for name in known}, n=1, cutoff=0.8
    )
    if anywhere and not near:
        return next(name for name in known if name.rpartition(".")[2] == anywhere[0])
    return difflib.get_close_matches(f"{prefix}{key}", beside, n=1, cutoff=0.0)[0]


def _known_settings(model: type[Settings], prefix: str) -> list[str]:
    """All settings by dotted key, sections before what they hold."""
    found = []
    for name, info in model.model_fields.items():
        found.append(f"{prefix}{name}")
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            found += _known_settings(info.annotation, f"{prefix}{name}.")
    return found
