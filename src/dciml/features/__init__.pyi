from .base import (
    EncodedSentence,
    FeatureSource,
    FloatRows,
    FrameEncoder,
    PieceCounter,
    Precision,
    RowBuilder,
    TextEncoder,
)
from .encoded_text import EncodedCorpus, encode_cached
from .encoders.captions import Caption, find_captions, read_captions
from .encoders.joined import JoinedEncoder, VideoEncoder, encode_video
from .encoders.query_features import QUERY_FEATURES_FILE, QueryFeatureEncoder, write_query_features
from .encoders.specs import (
    BUILTIN,
    create_encoder,
    encoder_of,
    lasting_specs,
    text_spec_of,
    widths_of,
    with_precision,
)
from .encoders.speech import MODEL_GIGABYTES, SPEECH_MODEL, Speech, fetch_speech_model, speech_model
from .encoders.text import JOINT, NO_WORDS, JointTextEncoder, create_text_encoder, same_space, sentence_vector
from .encoders.transformers_folder import check_device, local_folder
from .encoders.visual import BuiltinVisualEncoder
from .encoders.word_vectors import WORD_VECTORS_FILE, read_cpl_vectors, write_word_vectors
from .encoders.words import WordEncoder
from .extract import (
    Extraction,
    ExtractionProgress,
    Failure,
    Shard,
    extract_video,
    extract_videos,
    files_read,
    merge_stores,
    trouble_beside,
)
from .long_videos import (
    WHOLE_UP_TO,
    Window,
    WindowedStore,
    WindowRule,
    long_windows,
    parse_window,
    split_long,
    whole_id,
    windows_of,
)
from .pooling import frame_rows, l2_normalize, mean_pool
from .ray_runner import RayRunner
from .row_checks import RowsSeen, check_shapes, find_mismatch, refuse_mismatch, rows_fit
from .row_times import RowTimes, clip_centers, clips_to_unit, span_seconds, unit_to_clips, whole_rows
from .sources.bigfile import is_bigfile
from .sources.source import names_in, open_features, unknown_duration, with_names_of, write_store
from .store import FeatureStore, FeatureStoreWriter, StoreManifest
from .store_format import MANIFEST_FILE, read_manifest
from .video_files import VIDEO_SUFFIXES, IdForm, find_videos
from .vocabulary import Vocabulary, tokenize

__all__ = [
    "BUILTIN",
    "JOINT",
    "MANIFEST_FILE",
    "MODEL_GIGABYTES",
    "NO_WORDS",
    "QUERY_FEATURES_FILE",
    "SPEECH_MODEL",
    "VIDEO_SUFFIXES",
    "WHOLE_UP_TO",
    "WORD_VECTORS_FILE",
    "BuiltinVisualEncoder",
    "Caption",
    "EncodedCorpus",
    "EncodedSentence",
    "Extraction",
    "ExtractionProgress",
    "Failure",
    "FeatureSource",
    "FeatureStore",
    "FeatureStoreWriter",
    "FloatRows",
    "FrameEncoder",
    "IdForm",
    "JoinedEncoder",
    "JointTextEncoder",
    "PieceCounter",
    "Precision",
    "QueryFeatureEncoder",
    "RayRunner",
    "RowBuilder",
    "RowTimes",
    "RowsSeen",
    "Shard",
    "Speech",
    "StoreManifest",
    "TextEncoder",
    "VideoEncoder",
    "Vocabulary",
    "Window",
    "WindowRule",
    "WindowedStore",
    "WordEncoder",
    "check_device",
    "check_shapes",
    "clip_centers",
    "clips_to_unit",
    "create_encoder",
    "create_text_encoder",
    "encode_cached",
    "encode_video",
    "encoder_of",
    "extract_video",
    "extract_videos",
    "fetch_speech_model",
    "files_read",
    "find_captions",
    "find_mismatch",
    "find_videos",
    "frame_rows",
    "is_bigfile",
    "l2_normalize",
    "lasting_specs",
    "local_folder",
    "long_windows",
    "mean_pool",
    "merge_stores",
    "names_in",
    "open_features",
    "parse_window",
    "read_captions",
    "read_cpl_vectors",
    "read_manifest",
    "refuse_mismatch",
    "rows_fit",
    "same_space",
    "sentence_vector",
    "span_seconds",
    "speech_model",
    "split_long",
    "text_spec_of",
    "tokenize",
    "trouble_beside",
    "unit_to_clips",
    "unknown_duration",
    "whole_id",
    "whole_rows",
    "widths_of",
    "windows_of",
    "with_names_of",
    "with_precision",
    "write_query_features",
    "write_store",
    "write_word_vectors",
]
