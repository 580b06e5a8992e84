from pathlib import Path

import pytest

from wsi_pipeline.config import Settings, load_settings, options
from wsi_pipeline.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_default_is_the_40x_file():
    assert load_settings(CONFIGS / "idc-40x.yaml") == Settings() == load_settings("idc-40x")


def test_the_kaggle_file_has_native_cells():
    assert load_settings("idc-kaggle").grid.cell == "native"


def test_the_command_line_wins_over_the_file(tmp_path):
    file = write(tmp_path, "grid:\n  cell: native\n  min_tissue: 0.2\n")
    settings = load_settings(file, {"cell": "12.5um", "threshold": None, "model": "other"})
    assert (settings.grid.cell, settings.grid.min_tissue, settings.model) == ("12.5um", 0.2, "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tresholds: 1", "Did you mean"),
        ("grid:\n  cel: native", r"unknown setting 'grid.cel'.*Did you mean 'cell' under 'grid'"),
        ("cell: native", r"Did you mean 'cell' under 'grid'"),
        ("grid:\n  min_tissue: 2", r"grid.min_tissue.*less than or equal to 1"),
        ("inference:\n  device: tpu", r"inference.device.*'auto', 'cpu', 'cuda' or 'mps'"),
        (
            "regions:\n  threshold: 0.3\n  low_threshold: 0.5",
            r"low_threshold \(0.5\) must not exceed threshold \(0.3\)",
        ),
        ("inference:\n  amp: false", r"'inference.amp' is no setting any more.*precision: fp32"),
        ("inference:\n  engine: onnx", r"inference.engine.*'openvino' or 'openvino-int8'"),
        ("grid: 5", "grid: Input should be a valid dictionary"),
        ("regions:\n  min_region_um2: .inf", "min_region_um2: Input should be a finite number"),
        ("- a\n- b", "is not a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_faults_are_named_with_the_file_and_a_way_out(tmp_path, text, expected):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_settings(file)
    assert str(file) in str(caught.value)


def test_a_section_that_is_no_section_is_an_error_with_options_too(tmp_path):
    with pytest.raises(ConfigError, match="grid: Input should be"):
        load_settings(write(tmp_path, "grid: 5"), {"cell": "native"})


def test_a_missing_file_is_an_error():
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings("nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings("no-such-name")


def test_setting_names_are_unique_across_sections():
    count = sum(
        len(field.annotation.model_fields) if hasattr(field.annotation, "model_fields") else 1
        for field in Settings.model_fields.values()
    )
    assert len(options()) == count
    assert all(field.description for _, field in options().values())


def test_digests_follow_what_can_change_a_result():
    base = Settings()
    assert base.digest(None) == Settings().digest(None)
    assert base.digest(None) != base.digest(0.25)
    assert load_settings(None, {"workers": 3, "batch_size": 7}).digest(None) == base.digest(None)
    other_threshold = load_settings(None, {"threshold": 0.9})
    assert other_threshold.digest(None) != base.digest(None)
    assert other_threshold.map_digest(None) == base.map_digest(None)
    for name, value in {
        "cell": "native",
        "min_tissue": 0.1,
        "tissue_closing_um": 1,
        "ngff": "0.4",
        "tta": True,
        "context": False,
    }.items():
        changed = load_settings(None, {name: value})
        assert changed.map_digest(None) != base.map_digest(None), name
        assert changed.digest(None) != base.digest(None), name


def test_what_the_numbers_are_rounded_to_belongs_to_the_identity_of_a_result():
    """Maps of other arithmetic are other maps; engines of the same arithmetic are not."""
    base = Settings()
    for digest in (Settings.digest, Settings.map_digest):
        by_arithmetic = {kind: digest(base, None, kind) for kind in ("fp32", "bf16", "fp16", "int8")}
        assert len(set(by_arithmetic.values())) == 4
        assert digest(base, None) == by_arithmetic["fp32"]
        for asked, kind in (
            ({"engine": "torch"}, "fp32"),
            ({"engine": "openvino", "precision": "fp32"}, "fp32"),
            ({"precision": "bf16"}, "bf16"),
            ({"engine": "openvino-int8"}, "int8"),
        ):
            settings = load_settings(None, asked)
            assert digest(settings, None) == by_arithmetic[kind], asked
            assert digest(settings, None, "fp16") == by_arithmetic["fp16"]
