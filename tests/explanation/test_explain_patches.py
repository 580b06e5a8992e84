"""Patches of a data set are chosen, called and explained; image files too; and the sheet says so."""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from spots import BLUE, RED, SIDE, blank, card_for, noise, places_of_words, spot_evidence, spots_bundle, with_spot

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.errors import ConfigError, DatasetError, ResolutionError
from wsi_pipeline.explanation import patches as module
from wsi_pipeline.explanation.colours import BAR_WIDTH, LEAST_TOP, scale_top, ticks_to, tint
from wsi_pipeline.explanation.contact import GAP_PX, PADDING_PX, PAIR_PX, SIDE_PX, draw_contact_sheet
from wsi_pipeline.explanation.images import explain_images
from wsi_pipeline.explanation.patches import ExplainedPatches, Patch, explain_patches, find_class
from wsi_pipeline.geometry import Size
from wsi_pipeline.models.card import Threshold
from wsi_pipeline.sheet import MARGIN, Sheet

CPU = "cpu"


class Spotted(PatchDataset):
    """Of every case: IDC with a red spot, IDC with a blue one (missed), other without, other with a red one."""

    layout, root, findings = "idc", "spotted", ()
    class_names, positive_class = ("IDC", "non-IDC"), "IDC"
    patch_size = Size(SIDE, SIDE)
    kinds = (RED, BLUE, None, RED)

    def __init__(self, cases: int = 5, *, broken: Sequence[str] = (), mpp: float = 4.0) -> None:
        self.broken, self.mpp = tuple(broken), mpp
        self.samples = tuple(
            Sample(name=f"c{case}/{kind}", label=int(kind > 1), group=f"c{case}")
            for case in range(cases)
            for kind in range(4)
        )

    def read(self, index: int) -> np.ndarray:
        name = self.samples[index].name
        if name in self.broken:
            raise DatasetError(name, "is no readable image", "Copy it again.")
        colour = self.kinds[int(name[-1])]
        return blank()[0] if colour is None else with_spot(int(name[1]) % 5, 2, colour)[0]

    def subset(self, indices):
        part = copy(self)
        part.samples = tuple(self.samples[index] for index in indices)
        return part


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    found = spots_bundle(tmp_path_factory.mktemp("spots") / "bundle")
    # Without evidence either way p is 0.5; a little more is asked for.
    return replace(
        found, card=found.card.model_copy(update={"threshold": Threshold(value=0.55, chosen="for the test")})
    )


def test_patches_of_both_classes_and_all_cases(bundle):
    found = explain_patches(bundle, Spotted(), device=CPU, count=10)
    assert Counter(patch.label for patch in found.patches) == {"IDC": 5, "other": 5}
    assert Counter((patch.label, patch.name) for patch in found.patches).most_common(1)[0][1] == 1
    assert found.class_name == "IDC"
    assert found.positions == ((5, 5),)
    assert found.notes == ("10 of 20 patches (any; seed 0)",)
    for label in ("IDC", "other"):
        p = [patch.probability for patch in found.patches if patch.label == label]
        assert p == sorted(p, reverse=True)
    expected = spot_evidence(found.pixels).max((1, 2))
    np.testing.assert_allclose(found.evidence.max((1, 2)), expected, rtol=0.35, atol=1e-5)


def test_a_choice_is_repeatable_and_follows_the_seed(bundle):
    one, same, other = (explain_patches(bundle, Spotted(9), device=CPU, count=6, seed=seed) for seed in (3, 3, 4))
    assert one.patches == same.patches
    np.testing.assert_array_equal(one.evidence, same.evidence)
    assert one.patches != other.patches


def test_right_wrong_and_uncertain(bundle):
    right = explain_patches(bundle, Spotted(), device=CPU, pick="right", count=8)
    assert all(patch.label == patch.called for patch in right.patches)
    assert "called rightly, among 20 looked at" in right.notes[0]
    wrong = explain_patches(bundle, Spotted(), device=CPU, pick="wrong", count=8)
    assert {(patch.label, patch.called) for patch in wrong.patches} == {("IDC", "other"), ("other", "IDC")}
    uncertain = explain_patches(bundle, Spotted(), device=CPU, pick="uncertain", count=6)
    assert [patch.probability for patch in uncertain.patches if patch.label == "other"][-1] == pytest.approx(0.5)


def test_right_and_wrong_are_looked_for_among_so_many(bundle, monkeypatch):
    monkeypatch.setattr(module, "POOL", 8)
    found = explain_patches(bundle, Spotted(), device=CPU, pick="wrong", count=4)
    assert "among 8 looked at" in found.notes[0]


def test_evidence_for_the_class_asked_for(bundle):
    found = explain_patches(bundle, Spotted(), device=CPU, class_name="OTHER", count=20)
    assert found.class_name == "other"
    blue = found.pixels[..., 2].max((1, 2)) == 230
    assert blue.sum() == 5
    np.testing.assert_array_equal(found.evidence.max((1, 2)) > 1, blue)
    np.testing.assert_array_equal([patch.probability > 0.55 for patch in found.patches], blue)


def test_patches_that_trained_the_model_are_told(bundle):
    trained = bundle.card.model_copy(update={"training": {"split_by_case": {"train": ["c0", "c1"], "validation": []}}})
    found = explain_patches(replace(bundle, card=trained), Spotted(), device=CPU, count=20)
    assert found.notes[1] == "8 of them trained the model, or are of cases that did"


def test_a_leaky_model_is_called_so(bundle):
    leaky = bundle.card.model_copy(update={"metrics": {"leaky": True}})
    found = explain_patches(replace(bundle, card=leaky), Spotted(), device=CPU, count=4)
    assert "the model was measured on a LEAKY split" in found.notes


def test_patches_that_cannot_be_read_are_passed_over(bundle):
    found = explain_patches(bundle, Spotted(broken=("c0/0", "c3/2")), device=CPU, count=20)
    assert len(found.patches) == 18


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_patches_that_cannot_be_read_are_named_and_counted(bundle, caplog):
    found = explain_patches(bundle, Spotted(broken=("c0/0", "c3/2")), device=CPU, count=20)
    assert found.notes == ("18 of 20 patches (any; seed 0)", "2 more could not be read")
    assert sorted(warnings_of(caplog)) == [f"{name} is no readable image; it is left out" for name in ("c0/0", "c3/2")]
    broken = tuple(f"c{case}/{kind}" for case in range(5) for kind in range(4))
    caplog.clear()
    assert len(explain_patches(bundle, Spotted(broken=broken[:7]), device=CPU, count=20).patches) == 13
    assert len(warnings_of(caplog)) == 6
    assert warnings_of(caplog)[-1] == "2 more cannot be read either; they are left out"
    with pytest.raises(DatasetError, match=r"none of its patches can be read \(c\d/\d: is no readable image\)"):
        explain_patches(bundle, Spotted(broken=broken), device=CPU, count=20)


def test_images_that_cannot_be_read_are_passed_over(tmp_path, bundle, caplog):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(with_spot(1, 1)[0]).save(good)
    bad.write_bytes(good.read_bytes()[:60])
    found = explain_images(bundle, [bad, good, tmp_path / "none.png", good], device=CPU)
    assert [patch.name for patch in found.patches] == ["good.png", "good.png"]
    assert found.notes == ("images taken to be at 4 µm/px", "2 more could not be read")
    assert warnings_of(caplog) == [
        f"{bad} is no image that can be read; it is left out",
        f"{tmp_path}/none.png does not exist; it is left out",
    ]
    with pytest.raises(DatasetError, match=f"{bad}: is no image"):
        explain_images(bundle, [bad, tmp_path / "none.png"], device=CPU)


@pytest.mark.parametrize("count", [0, 201])
def test_wrong_counts_are_refused(bundle, count):
    with pytest.raises(ConfigError, match=f"{count} is not between 1 and 200"):
        explain_patches(bundle, Spotted(), device=CPU, count=count)


def test_data_that_do_not_fit_are_refused(bundle):
    with pytest.raises(ResolutionError, match="its patches are at 1 µm/px"):
        explain_patches(bundle, Spotted(mpp=1.0), device=CPU)
    with pytest.raises(ConfigError, match=r"has no class 'DCIS'\. Its classes: other, IDC\."):
        explain_patches(bundle, Spotted(), device=CPU, class_name="DCIS")
    dataset = Spotted()
    correct = dataset.subset(n for n in range(20) if n % 4 in {0, 2})
    with pytest.raises(DatasetError, match="none of 10 patches looked at is called wrongly"):
        explain_patches(bundle, correct, device=CPU, pick="wrong")


def test_classes_are_found_by_name():
    card = card_for(class_names=("a", "A", "b"), positive_class="b")
    assert [find_class(card, name) for name in (None, "a", "A", "B")] == [2, 0, 1, 2]


def test_image_files(tmp_path, bundle):
    wide = np.pad(with_spot(2, 2)[0], ((0, 0), (20, 20), (0, 0)), constant_values=250)
    small = with_spot(0, 0)[0][:40, :30]
    paths = []
    for name, pixels in (("plain.png", with_spot(1, 3)[0]), ("wide.tif", wide), ("small.png", small)):
        paths.append(tmp_path / name)
        Image.fromarray(pixels).save(paths[-1])
    found = explain_images(bundle, paths, device=CPU)
    assert [patch.name for patch in found.patches] == ["plain.png", "wide.tif", "small.png"]
    assert all(patch.label is None and patch.called == "IDC" for patch in found.patches)
    np.testing.assert_array_equal(found.pixels[1], with_spot(2, 2)[0])
    np.testing.assert_array_equal(found.pixels[2, 40:], 255)
    peaks = [np.unravel_index(one.argmax(), one.shape) for one in found.evidence]
    assert [(row // 10, col // 10) for row, col in peaks] == [(1, 3), (2, 2), (0, 0)]
    assert found.notes == (
        "images taken to be at 4 µm/px",
        "2 of 3 cut or continued in white to 50 x 50 px",
    )


def test_image_files_are_explained_for_the_class_asked_for(tmp_path, bundle):
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path, colour in zip(paths, (RED, BLUE), strict=True):
        Image.fromarray(with_spot(3, 1, colour)[0]).save(path)
    for name, index in (("IDC", 1), ("OTHER", 0)):
        found = explain_images(bundle, paths, device=CPU, class_name=name)
        assert found.class_name == ("other", "IDC")[index]
        evidence, against = (spot_evidence(found.pixels, n) for n in (index, 1 - index))
        expected = 1 / (1 + np.exp((against - evidence).mean((1, 2))))
        assert [patch.probability for patch in found.patches] == pytest.approx(expected, abs=1e-5)
        assert [patch.called for patch in found.patches] == ["IDC", "other"]
        np.testing.assert_array_equal(found.evidence.max((1, 2)) > 1, evidence.max((1, 2)) > 1)


def test_images_explained_by_a_leaky_model_say_so(tmp_path, bundle):
    Image.fromarray(with_spot(1, 3)[0]).save(tmp_path / "one.png")
    leaky = replace(bundle, card=bundle.card.model_copy(update={"metrics": {"leaky": True}}))
    assert "the model was measured on a LEAKY split" in explain_images(leaky, [tmp_path / "one.png"], device=CPU).notes


def test_files_that_are_no_images_are_named(tmp_path, bundle):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path, why in ((text, "is no image"), (tmp_path / "none.png", "does not exist"), (tmp_path, "is no image")):
        with pytest.raises(DatasetError, match=f"{path}: {why}"):
            explain_images(bundle, [path], device=CPU)
    with pytest.raises(ConfigError, match="0 are not between 1 and 200"):
        explain_images(bundle, [], device=CPU)


def sheet_of(path, evidence: np.ndarray, pixels: np.ndarray | None = None, **changes) -> tuple[np.ndarray, list[str]]:
    """The page of patches with this evidence, [n, 50, 50], below its heading, and all text on it."""
    count = len(evidence)
    values = {
        "pixels": np.repeat(blank(), count, 0) if pixels is None else pixels,
        "evidence": evidence.astype(np.float32),
        "positions": ((2, 2),),
        "patches": tuple(Patch(name=f"c{n}", label="IDC", called="IDC", probability=0.5) for n in range(count)),
        "card": card_for(),
        "class_name": "IDC",
        "notes": ("all of them",),
    }
    texts: list[str] = []
    top = 0

    def text(self: Sheet, x: float, y: float, words: str, **more) -> None:
        nonlocal top
        top = self.top
        texts.append(words)
        original(self, x, y, words, **more)

    original = Sheet.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sheet, "text", text)
        draw_contact_sheet(path, ExplainedPatches(**values | changes))
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)[top:], texts


def pairs(page: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Left and right picture of each pair of a sheet of one row; its heading is cut off."""
    found = []
    for n in range(count):
        left = MARGIN + PADDING_PX + n * (PAIR_PX + GAP_PX)
        right, rows = left + PAIR_PX - SIDE_PX, slice(PADDING_PX, PADDING_PX + SIDE_PX)
        found.append((page[rows, left : left + SIDE_PX], page[rows, right : right + SIDE_PX]))
    return found


def test_all_patches_of_a_sheet_share_one_scale(tmp_path):
    evidence = np.zeros((3, SIDE, SIDE))
    evidence[0], evidence[1] = 8.0, 0.8
    page, _ = sheet_of(tmp_path / "three.png", evidence)
    (left, strong), (_, weak), (_, none) = pairs(page, 3)
    assert abs(left - blank()[0].astype(int)[0, 0]).max() <= 1
    np.testing.assert_array_equal(none, left)
    change = [abs(shown - left).max(-1).mean() for shown in (strong, weak)]
    assert change[0] > 4 * change[1] > 4


def test_the_numbers_of_a_sheet_stand_beside_the_colours_of_such_evidence(tmp_path, monkeypatch):
    placed = places_of_words(monkeypatch)
    evidence = np.ones((4, SIDE, SIDE)) * np.arange(1, 5)[:, None, None]
    page, _ = sheet_of(tmp_path / "four.png", evidence)
    with Image.open(tmp_path / "four.png") as image:
        whole = np.array(image).astype(int)
    for value, (_, shown) in zip("123", pairs(page, 4)[:3], strict=True):
        x, y = placed[value]
        assert abs(whole[y, x - 9 - BAR_WIDTH // 2] - shown[75, 75]).max() <= 6, value


def test_a_trace_of_evidence_is_not_painted_as_much(tmp_path):
    ((left, shown),) = pairs(sheet_of(tmp_path / "trace.png", np.full((1, SIDE, SIDE), 0.02))[0], 1)
    assert abs(shown - left).max() <= 6
    assert scale_top(np.full((1, 2, 2), 0.02, np.float32)) == LEAST_TOP
    assert scale_top(np.array([[0.0, 6.2], [np.nan, 1.0]], np.float32)) == 7


def test_the_evidence_lies_on_the_sheet_as_it_lies_in_the_patch(tmp_path):
    evidence = np.zeros((1, SIDE, SIDE))
    evidence[0, 35:, :10] = 5
    ((left, shown),) = pairs(sheet_of(tmp_path / "corner.png", evidence, noise(1))[0], 1)
    changed = abs(shown - left).max(-1) > 12
    assert changed[110:, :28].mean() > 0.9
    assert not changed[:98].any()
    assert not changed[:, 36:].any()


def test_what_stands_on_a_sheet(tmp_path):
    patches = (
        Patch(name="10253", label="IDC", called="IDC", probability=0.934),
        Patch(name="10254", label="IDC", called="other", probability=0.1),
        Patch(name="10255", label="other", called="IDC", probability=0.9),
        Patch(name="a very long name of an image file.png", label=None, called="IDC", probability=0.6),
    )
    _, texts = sheet_of(tmp_path / "text.png", np.full((4, SIDE, SIDE), 2.5), patches=patches)
    said = " ".join(texts)
    expected = (
        "10253|p 0.93|right|missed|false alarm|called IDC|a very long|all of them|0 to 3 log-odds|2 x 2 positions"
    )
    for words in (*expected.split("|"), "called IDC from 0.5", "0.2 mm", RESEARCH_USE):
        assert words in said, words


VERDICTS = {
    ("IDC", "IDC"): "right",
    ("other", "other"): "right",
    ("IDC", "other"): "missed",
    ("other", "IDC"): "false alarm",
    (None, "IDC"): "called IDC",
    (None, "other"): "called other",
}
"""By label and called class."""


@pytest.mark.parametrize(("label", "called"), VERDICTS)
@pytest.mark.parametrize("class_name", ["other", "IDC"])
def test_a_patch_gets_its_own_verdict_whichever_class_is_explained(tmp_path, label, called, class_name):
    patch = Patch(name="x", label=label, called=called, probability=0.3)
    _, texts = sheet_of(tmp_path / "one.png", np.ones((1, SIDE, SIDE)), patches=(patch,), class_name=class_name)
    assert set(texts) & set(VERDICTS.values()) == {VERDICTS[label, called]}


def test_a_sheet_of_several_magnifications_and_classes(tmp_path):
    card = card_for(class_names=("a", "b", "IDC"), mpp=None)
    patches = (Patch(name="x", label="a", called="b", probability=0.2),)
    page, texts = sheet_of(tmp_path / "many.jpg", np.ones((1, SIDE, SIDE)), card=card, patches=patches)
    assert page.shape[1] > 500
    assert "called b" in texts
    assert RESEARCH_USE in texts
    assert not any(" mm" in text for text in texts)


def test_ticks_are_round_and_few():
    for top in (1.0, 2, 3, 5, 7, 9, 12, 40, 70, 130, 1000):
        ticks = ticks_to(top)
        assert ticks[0] == 0
        assert 3 <= len(ticks) <= 7
        assert ticks[-1] <= top


def test_nan_and_zero_leave_the_tissue_as_it_is():
    pixels = noise(1)[0]
    values = np.zeros((SIDE, SIDE), np.float32)
    values[::2] = np.nan
    np.testing.assert_array_equal(tint(pixels, values, 5.0), pixels)
