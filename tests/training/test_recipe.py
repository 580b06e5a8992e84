"""Recipes: every key is checked, a wrong one is named with its remedy, and the shipped ones say what they promise."""

from pathlib import Path

import pytest
import yaml

from wsi_pipeline.datasets.idc import LIMITS
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.models.bundle import CARD_FILE, SHIPPED
from wsi_pipeline.models.card import read_card
from wsi_pipeline.training.recipe import RECIPES, Recipe, load_recipe, parse_overrides

CONFIGS = Path(__file__).parents[2] / "configs" / "train"


def test_the_shipped_recipes_are_those_in_the_folder():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_loads_and_survives_being_written(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.description
    (tmp_path / "again.yaml").write_text(recipe.as_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(("recipe", "bundle"), [("idc-best", "idc-resnet18"), ("idc-efficientnet",) * 2])
def test_the_shipped_models_state_the_limits_of_their_data_and_recipes(recipe, bundle):
    assert (*LIMITS, *load_recipe(recipe).limits) == read_card(SHIPPED / bundle / CARD_FILE).limits


def test_the_published_systems_are_what_was_published():
    seven = load_recipe("idc-residual-7ch")
    assert seven.data.subset == {"IDC": 3000, "non-IDC": 4500}
    assert seven.split.kind == "case"
    assert seven.split.compare_leaky
    pcam = load_recipe("pcam-resnet50").optimisation
    assert (pcam.epochs, pcam.patience, pcam.optimizer, pcam.schedule) == (20, 5, "adam", "plateau")
    breakhis = load_recipe("breakhis-resnet50").optimisation
    assert breakhis.stages[0].train == ("all",)
    assert all("all" not in stage.train for stage in breakhis.stages[1:])
    assert breakhis.l2 > 0
    assert load_recipe("idc-resnet18").optimisation.class_weights == "balanced"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("optimisation.epoch", "'optimisation.epochs'"),
        ("lr", "'optimisation.lr'"),
        ("augmentation.stain_jiter", "'augmentation.stain_jitter'"),
        ("modell.architecture", "'model'"),
        ("distillation.model.architectur", "'distillation.model.architecture'"),
        ("distillation.wait", "'distillation.weight'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, near):
    with pytest.raises(ConfigError, match="unknown setting") as caught:
        load_recipe("idc-best", {key: 1})
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimisation.lr", -1),
        ("optimisation.optimizer", "lion"),
        ("optimisation.label_smoothing", 1),
        ("augmentation.offsets", 1.5),
        ("data.subset", {"IDC": 0}),
        ("optimisation", 3),
        ("optimisation.stages", [{"epoch": 1, "train": []}]),
        ("model.input_px", 100_000),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError, match=key):
        load_recipe("idc-best", {key: value})


@pytest.mark.parametrize("epochs", [[2, 3], [1, 1], [1, 5, 3]])
def test_stages_must_rise_from_the_first_epoch(epochs):
    with pytest.raises(ConfigError, match="must rise from 1"):
        load_recipe("idc-best", {"optimisation.stages": [{"epoch": n, "train": "all"} for n in epochs]})


def test_overrides_are_read_as_yaml_and_win():
    given = parse_overrides(["optimisation.epochs=3", "optimisation.lr=2e-4", "data.magnifications=[40X]"])
    recipe = load_recipe("idc-best", given)
    assert recipe.optimisation.epochs == 3
    assert recipe.optimisation.lr == 2e-4
    assert recipe.data.magnifications == ("40X",)
    assert recipe.optimisation.ema_decay == load_recipe("idc-best").optimisation.ema_decay
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_overrides(["epochs"])


@pytest.mark.parametrize("key", ["optimisation.lr.x", "optimisation.stages.1.epoch"])
def test_a_setting_below_a_value_is_refused_and_not_lost(key):
    with pytest.raises(ConfigError, match="has no settings"):
        load_recipe("breakhis-resnet50", {key: 3})


def test_a_section_that_was_switched_off_can_be_set(tmp_path):
    (tmp_path / "written.yaml").write_text(load_recipe("idc-best").as_yaml())
    given = {"distillation.weight": 0.5, "distillation.model.architecture": "idc-cnn"}
    assert load_recipe(tmp_path / "written.yaml", given).distillation.weight == 0.5


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match="idc-best"):
        load_recipe("idc-bset")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="is not a mapping"):
        load_recipe(tmp_path / "list.yaml")


@pytest.mark.parametrize("word", ["yes", "no"])
def test_what_yaml_takes_for_a_boolean_is_the_word_that_was_written(word, tmp_path):
    assert load_recipe("idc-cnn", parse_overrides([f"model.pretrained={word}"])).model.pretrained == word
    (tmp_path / "mine.yaml").write_text(f"model: {{pretrained: {word}}}\n")
    assert load_recipe(tmp_path / "mine.yaml").model.pretrained == word


def test_the_digest_changes_with_what_changes_a_result_only():
    recipe = Recipe()
    assert Recipe(description="other words").digest() == recipe.digest()
    assert Recipe(limits=("Not for skin.",)).digest() == recipe.digest()
    for changed in ({"data": {"workers": 3}}, {"data": {"cache": "none"}}):
        assert Recipe.model_validate(changed).digest() == recipe.digest()
    for changed in (
        {"seed": 1},
        {"optimisation": {"lr": 0.5}},
        {"split": {"seed": 1}},
        {"data": {"balance": "truncate"}},
    ):
        assert Recipe.model_validate(changed).digest() != recipe.digest()


def test_precision_may_be_written_as_a_number(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"precision": 32}))
    assert load_recipe(tmp_path / "r.yaml").precision == "32"


def test_the_manual_lists_every_setting():
    manual = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    sections = {name: value for name, value in Recipe().model_dump().items() if isinstance(value, dict)}
    keys = {f"{section}.{key}" for section, values in sections.items() for key in values}
    keys |= set(Recipe.model_fields) - set(sections)
    assert {key for key in keys if f"`{key}`" not in manual} == set()
    assert all(f"| `{name}` |" in manual for name in RECIPES)
