from .annotations import read_annotations
from .csv_records import TABLE_SUFFIXES, read_csv_queries
from .folder import (
    DATA_FILE,
    FEATURES_FOLDER,
    VIDEOS_FILE,
    DataFolder,
    split_off_validation,
    write_data_folder,
)
from .prvr import Annotated, read_prvr_captions
from .published import CPL, DIDEMO, PRVR_COUNTS, Counts, PublishedSet
from .readers import read_activitynet, read_charades_durations, read_charades_sta, read_didemo, read_tvr
from .records import BadMoments, PastEnd, QueryFile, read_pairs, read_queries, read_rows, same_duration

__all__ = [
    "CPL",
    "DATA_FILE",
    "DIDEMO",
    "FEATURES_FOLDER",
    "PRVR_COUNTS",
    "TABLE_SUFFIXES",
    "VIDEOS_FILE",
    "Annotated",
    "BadMoments",
    "Counts",
    "DataFolder",
    "PastEnd",
    "PublishedSet",
    "QueryFile",
    "read_activitynet",
    "read_annotations",
    "read_charades_durations",
    "read_charades_sta",
    "read_csv_queries",
    "read_didemo",
    "read_pairs",
    "read_prvr_captions",
    "read_queries",
    "read_rows",
    "read_tvr",
    "same_duration",
    "split_off_validation",
    "write_data_folder",
]
