"""Settings: strictness, overrides, round trip, and every shipped file."""

from __future__ import annotations

from pathlib import Path

import pytest

import dciml
from dciml.config import dump_config, load_config, parse_config
from dciml.errors import ConfigError, DataError
from dciml.method.terms import TERMS
from dciml.model_folder import ModelCard, build_dual

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(
    [*(ROOT / "configs").rglob("*.yaml"), *(Path(dciml.__file__).parent / "demo").rglob("*.yaml")]
)
BASE = "name: x\ndata:\n  folder: f\n"


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig:\n  epochs: 2\n", r"c\.yaml: unknown setting trainig; did you mean training\?"),
        ("training:\n  epoch: 2\n", r"unknown setting training\.epoch; did you mean training\.epochs\?"),
        ("weights:\n  tripletclip: 2\n", r"weights\.tripletclip; did you mean weights\.triplet_clip\?"),
        ("7: 2\n", "unknown setting 7"),
        ("training:\n  epochs: three\n", r"training\.epochs: .*integer"),
        ("training:\n  epochs: 2.5\n", r"training\.epochs: .*integer"),
        ("training:\n  epochs: 0\n", r"training\.epochs: .*greater than or equal to 1"),
        ("training: 3\n", r"training: "),
        ("training:\n  precision: fp8\n", r"training\.precision: "),
        ("training:\n  retrieval_lr: .nan\n", r"training\.retrieval_lr: .*finite"),
        ("mutual:\n  explicit_to_retrieval: maybe\n", r"mutual\.explicit_to_retrieval: .*boolean"),
        ("retrieval:\n  gaussian_widths: []\n", r"retrieval\.gaussian_widths: "),
        ("retrieval:\n  gaussian_widths: [0]\n", r"retrieval\.gaussian_widths.*greater than 0"),
        ("retrieval:\n  hidden: 36\n", r"retrieval\.hidden must be a multiple of 2 · retrieval\.heads"),
        ("grounding:\n  heads: 5\n", r"grounding\.hidden must be a multiple"),
        ("training:\n  epochs: [\n", "not valid YAML"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, BASE + text))


def test_file_that_is_no_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected settings"):
        load_config(write(tmp_path, "- a\n- b\n"))
    with pytest.raises(ConfigError, match=r"name: .*required.*data: .*required"):
        load_config(write(tmp_path, "seed: 3\n"))
    with pytest.raises(DataError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_overrides_change_what_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "training:\n  epochs: 5\nmutual:\n")
    config = load_config(
        path,
        [
            "training.epochs=3", "training.retrieval_lr=1e-3", "training.clip_norm=null", "seed=4",
            "retrieval.gaussian_widths=[null, 0.5]", "mutual.explicit_to_grounding=false", "text.encoder=words:16",
            "data.folder=a=b", "training.epochs=4",
        ],
    )  # fmt: skip
    assert (config.training.epochs, config.seed, config.data.folder) == (4, 4, "a=b")
    assert config.training.retrieval_lr == 1e-3
    assert config.training.clip_norm is None
    assert config.retrieval.gaussian_widths == (None, 0.5)
    assert config.mutual.explicit_to_grounding is False
    assert config.text.encoder == "words:16"
    assert config.training.batch_videos == 16


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("seed.x=3", "seed holds a value, not settings"),
        ("training.epoch=3", r"unknown setting training\.epoch; did you mean training\.epochs"),
        ("epochs=3", r"unknown setting epochs; did you mean training\.epochs\?"),
        ("epoch=3", r"unknown setting epoch; did you mean training\.epochs\?"),
        ("training.local_weight=1", r"training\.local_weight; did you mean retrieval\.local_weight\?"),
        ("retreival.hidden=3", r"unknown setting retreival; did you mean retrieval\?"),
        ("training=3", "training: "),
        ("training.epochs=[", "not valid YAML"),
        ("training.epochs=", r"training\.epochs: "),
    ],
)
def test_wrong_override_is_explained(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, BASE + "seed: 1\n"), [override])


def test_settings_survive_being_written_and_read(tmp_path: Path) -> None:
    config = parse_config(
        {
            "name": "ä: #x", "data": {"folder": "f"}, "retrieval": {"gaussian_widths": [None, 1e-5]},
            "training": {"retrieval_lr": 1e-7, "clip_norm": None, "precision": "16-mixed"},
        },
        "test",
    )  # fmt: skip
    text = dump_config(config)
    assert load_config(write(tmp_path, text)) == config
    assert dump_config(load_config(write(tmp_path, text))) == text


def test_settings_cannot_be_changed() -> None:
    config = parse_config({"name": "n", "data": {"folder": "f"}}, "test")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2  # type: ignore[misc]


def test_files_are_shipped() -> None:
    assert any(path.parent.name == "demo" for path in SHIPPED)
    assert len(SHIPPED) >= 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_file_loads_and_builds(path: Path) -> None:
    small = [
        "retrieval.hidden=16", "retrieval.heads=2", "grounding.hidden=16", "grounding.heads=2",
        "grounding.layers=1", "training.accelerator=cpu",
    ]  # fmt: skip
    load_config(path)  # as it is
    config = load_config(path, small)
    model = build_dual(config, ModelCard("dciml", 1, "test-encoder", "words", 12, 10, 8, 20))
    assert model.retrieval.num_clips == config.retrieval.num_clips
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_setting_of_earlier_versions_is_read_over_and_its_neighbours_are_not() -> None:
    tree = {"name": "n", "data": {"folder": "f"}, "training": {"parts": 4, "epochs": 3}}
    config = parse_config(tree, "test")
    assert config.training.epochs == 3
    assert "parts" not in dump_config(config)
    assert tree["training"] == {"parts": 4, "epochs": 3}
    with pytest.raises(ConfigError, match=r"unknown setting retrieval\.parts"):
        parse_config({**tree, "retrieval": {"parts": 4}}, "test")


def test_each_loss_has_a_weight_and_a_misspelt_one_is_refused() -> None:
    base = {"name": "n", "data": {"folder": "f"}}
    assert parse_config(base, "test").weights.model_dump() == {n: t.weight for n, t in TERMS.items()}
    changed = parse_config({**base, "weights": {"nce_clip": 0.5}}, "test").weights.model_dump()
    assert changed == {**{n: t.weight for n, t in TERMS.items()}, "nce_clip": 0.5}
    with pytest.raises(ConfigError, match=r"did you mean weights\.nce_clip"):
        parse_config({**base, "weights": {"nce_clips": 1.0}}, "test")
    with pytest.raises(ConfigError, match=r"weights\.nce_clip"):
        parse_config({**base, "weights": {"nce_clip": -1.0}}, "test")


def test_settings_of_earlier_versions_are_read_under_their_new_names() -> None:
    def tree(**retrieval: object) -> dict[str, object]:
        return {"name": "x", "data": {"folder": "f"}, "retrieval": retrieval}

    assert parse_config(tree(windows=[None, 0.5]), "test").retrieval.gaussian_widths == (None, 0.5)
    with pytest.raises(ConfigError, match=r"unknown setting retrieval\.windows; did you mean"):
        parse_config(tree(windows=[None], gaussian_widths=[None]), "test")


def test_a_superseded_setting_is_let_pass_only_where_it_was_off() -> None:
    def tree(weight: float) -> dict[str, object]:
        return {"name": "x", "data": {"folder": "f"}, "retrieval": {"zero_shot_weight": weight}}

    assert parse_config(tree(0.0), "test").retrieval.local == "none"
    with pytest.raises(
        ConfigError, match=r"zero_shot_weight is no setting any more; set retrieval\.local=shared"
    ):
        parse_config(tree(2.0), "test")
