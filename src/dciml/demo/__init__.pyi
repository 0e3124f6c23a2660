from .corpus import MADE_FILE, CorpusSize, made_by, make_data_folder, make_videos, plan_corpus, video_path
from .page import PAGE_FILE, Corpus, ExampleAnswer, FigureRow, Figures, write_page

__all__ = [
    "MADE_FILE",
    "PAGE_FILE",
    "Corpus",
    "CorpusSize",
    "ExampleAnswer",
    "FigureRow",
    "Figures",
    "made_by",
    "make_data_folder",
    "make_videos",
    "plan_corpus",
    "video_path",
    "write_page",
]
