import pytest
from shades import Shades, red_bundle

from wsi_pipeline.errors import DatasetError, ResolutionError
from wsi_pipeline.evaluation.match import check_geometry, class_order, map_labels
from wsi_pipeline.geometry import Size


def patches(**more):
    return Shades([1, 2], [0, 1], ["a", "a"], **more)


@pytest.fixture
def card(tmp_path):
    return red_bundle(tmp_path).card


def test_patches_of_another_size_are_refused_by_both_sizes(card):
    with pytest.raises(ResolutionError, match="patches are 96 x 96 px, the model red sees 50 x 50 px"):
        check_geometry(card, patches(patch_size=Size(96, 96)))


def test_patches_of_another_resolution_are_refused_by_both_resolutions(card):
    with pytest.raises(ResolutionError, match=r"at 0\.25 µm/px, the model red sees 4 µm/px"):
        check_geometry(card, patches(mpp=0.25))
    with pytest.raises(ResolutionError, match="--magnification"):
        check_geometry(card, patches(mpp=None))


@pytest.mark.parametrize("rounded", [3.93, 4.07])
def test_resolutions_that_scanners_round_are_the_same_within_two_per_cent(card, rounded):
    check_geometry(card, patches(mpp=rounded))
    with pytest.raises(ResolutionError):
        check_geometry(card, patches(mpp=4 + 1.3 * (rounded - 4)))


def test_the_square_in_the_middle_is_what_must_fit(tmp_path):
    mixed = red_bundle(tmp_path, patch_size_px=460, input_px=224, mpp=None).card
    check_geometry(mixed, patches(patch_size=Size(700, 460), mpp=None))
    check_geometry(mixed, patches(patch_size=Size(700, 460), mpp=0.49))
    with pytest.raises(ResolutionError, match="700 x 400"):
        check_geometry(mixed, patches(patch_size=Size(700, 400), mpp=None))


def test_classes_are_matched_by_name_whatever_their_order(card):
    assert map_labels(card, patches(class_names=("idc", "Non IDC"), positive_class="idc")).tolist() == [1, 0]


def test_of_two_classes_the_positive_one_is_enough(card):
    assert map_labels(card, patches(class_names=("stroma", "IDC"))).tolist() == [0, 1]
    with pytest.raises(DatasetError, match="has the class 'normal', the model red knows 'non-IDC', 'IDC'"):
        map_labels(card, patches(class_names=("normal", "metastasis"), positive_class="metastasis"))


def test_classes_that_only_punctuation_tells_apart_are_not_mixed_up(tmp_path):
    card = red_bundle(tmp_path, class_names=("ER-", "ER+"), positive_class="ER+").card
    assert map_labels(card, patches(class_names=("ER-", "ER+"), positive_class="ER+")).tolist() == [0, 1]
    assert map_labels(card, patches(class_names=("ER+", "ER-"), positive_class="ER+")).tolist() == [1, 0]
    with pytest.raises(DatasetError, match="knows 'ER-', 'ER\\+'"):
        map_labels(card, patches(class_names=("rest", "ER"), positive_class="ER"))


def test_the_positive_class_is_reported_last(tmp_path):
    card = red_bundle(tmp_path, class_names=("IDC", "other")).card
    assert class_order(card) == ("other", "IDC")
    assert map_labels(card, patches()).tolist() == [0, 1]


def test_of_many_classes_only_those_that_occur_must_be_known(tmp_path):
    card = red_bundle(tmp_path, class_names=("a", "b", "c"), positive_class="c").card
    three = {"class_names": ("c", "a", "odd"), "positive_class": "c"}
    assert map_labels(card, Shades([1, 2], [0, 1], ["x", "x"], **three)).tolist() == [2, 0]
    with pytest.raises(DatasetError, match="'odd'"):
        map_labels(card, Shades([1, 2], [0, 2], ["x", "x"], **three))
