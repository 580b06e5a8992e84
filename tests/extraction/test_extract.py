"""Slides and annotations to a data set: the phantom's truth, bounds, oblong pixels, failures, running again."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from helpers import tissue_picture, write_redness_bundle
from numpy.typing import NDArray
from PIL import Image
from qupath import annotation, square, write
from shapely.geometry import shape
from sklearn.metrics import roc_auc_score
from tiffs import break_tile, write_pyramid

from wsi_pipeline.cli import OK, SOME_FAILED, USAGE, main
from wsi_pipeline.config import RegionSettings, TissueSettings, load_settings
from wsi_pipeline.datasets import open_dataset
from wsi_pipeline.errors import ConfigError, DatasetError, OutputError, ResultsMismatchError
from wsi_pipeline.extraction import CaseResult, PatchRules, SlideSpec, extract
from wsi_pipeline.extraction.picture import LEFT_OUT, NEGATIVE, POSITIVE
from wsi_pipeline.geojson import write_regions
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Scale, Size
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.phantom import Phantom, write_phantom
from wsi_pipeline.plan import plan_slide
from wsi_pipeline.regions import find_regions
from wsi_pipeline.sheet import PLACES
from wsi_pipeline.slides import find_slides, open_slide

SMALL = TissueSettings(tissue_max_px=300, tissue_min_area_um2=500, tissue_min_hole_um2=500, tissue_closing_um=4)
RULES = PatchRules(size_px=40, mpp=0.5, tissue=SMALL)
"""Patches of 80 x 80 px of a slide at 0.25 µm/px."""


def cut(slides, annotations: Path, out: Path, rules: PatchRules = RULES, **options) -> list[CaseResult]:
    specs = [slide if isinstance(slide, SlideSpec) else SlideSpec(path=str(slide)) for slide in slides]
    return extract(specs, annotations, out, rules, workers=2, **options)


def patches(folder: Path) -> dict[tuple[int, int], tuple[int, NDArray[np.uint8]]]:
    """Label and pixels by 0-based (x, y) of every patch of a case, whose name and place are checked."""
    found = {}
    for path in sorted(folder.glob("*/*.png")):
        case, idx, x, y, label = path.stem.rsplit("_", 4)
        assert (case, idx, label) == (folder.name, "idx5", f"class{path.parent.name}")
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            found[int(x[1:]) - 1, int(y[1:]) - 1] = int(path.parent.name), np.asarray(image)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".wsi-pipeline.lock"
    }


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round piece of tissue of 640 x 480 px on 800 x 600 px at 0.25 µm/px, without loss."""
    path = tmp_path_factory.mktemp("slides") / "Fall é 1.tiff"
    return write_pyramid(path, base=tissue_picture(800, 600), compression="deflate", compressionargs={})


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A rectangle of 240 x 160 px in the middle of the tissue."""
    write(tmp_path / "annotations" / "Fall é 1.geojson", annotation("IDC", square(240, 240, 240, 160)))
    return tmp_path / "annotations"


# The phantom: truth in, truth out


def draw(folder: Path, name: str, seed: int) -> Phantom:
    """A drawn slide, and the outlines of its tumour in ``annotations/`` as this program writes outlines."""
    drawn = write_phantom(folder / f"{name}.tiff", Size(1500, 1300), seed=seed, pen=False)
    truth = drawn.tumour_mask(Scale(4, 4))
    grid = Grid(
        mpp=Mpp(0.25, 0.25), view=FieldOfView(size_px=4, mpp=0.25), cell_um=1.0, extent=Box(0, 0, 1500, 1300),
        block_side=8, cells=np.empty((0, 2), np.int32),
    )  # fmt: skip
    settings = RegionSettings(min_region_um2=0)
    regions = find_regions(truth.astype(np.float32), grid, threshold=0.5, settings=settings, namespace="truth")
    (folder / "annotations").mkdir(exist_ok=True)
    write_regions(folder / "annotations" / f"{name}.geojson", regions, grid)
    return drawn


def covered(drawn: Phantom) -> NDArray[np.float64]:
    """[rows, cols]: the part of each square of 80 x 80 px that is tumour, without those over the edge."""
    truth = drawn.tumour_mask(Scale(4, 4))
    rows, cols = truth.shape[0] // 20, truth.shape[1] // 20
    return truth[: rows * 20, : cols * 20].reshape(rows, 20, cols, 20).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Phantom, Path, Path]:
    """A drawn slide, its file, and the folder of its annotations."""
    folder = tmp_path_factory.mktemp("phantom")
    return draw(folder, "drawn", seed=3), folder / "drawn.tiff", folder / "annotations"


def test_labels_are_the_phantoms_truth_and_pixels_the_slides(phantom, tmp_path):
    drawn, path, annotations = phantom
    (result,) = cut([path], annotations, tmp_path / "set")
    assert result.status == "done"
    found = patches(tmp_path / "set" / "drawn")
    share = covered(drawn)
    rows, cols = share.shape
    with open_slide(path) as opened:
        tissue = plan_slide(opened, RULES.view, RULES.settings()).grid.cell_mask()[:rows, :cols]
        expected = {
            (col * 40, row * 40): int(share[row, col] >= 0.5)
            for row, col in np.argwhere(tissue & ((share >= 0.5) | (share <= 0.1)))
        }
        assert {place: label for place, (label, _) in found.items()} == expected
        assert set(expected.values()) == {0, 1}
        for (x, y), (_, pixels) in found.items():
            assert np.array_equal(pixels, opened.read(Box(x, y, 40, 40), Scale(2, 2)))
    counts = result.record["counts"]
    assert counts["positive"] + counts["negative"] == len(found)
    assert counts["border"] == (tissue & (share > 0.1) & (share < 0.5)).sum() > 0
    # By another library: level 0, averaged.
    with openslide.OpenSlide(path) as other:
        (x, y), (_, pixels) = next(iter(found.items()))
        region = np.asarray(other.read_region((2 * x, 2 * y), 0, (80, 80)).convert("RGB"))
        mean = region.reshape(40, 2, 40, 2, 3).mean(axis=(1, 3))
        assert np.abs(mean - pixels).max() <= 0.5


def test_a_data_set_opens_as_one_and_a_case_as_a_slide(phantom, tmp_path):
    _, path, annotations = phantom
    cut([path], annotations, tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert (dataset.layout, dataset.patch_size, dataset.mpp) == ("idc", Size(40, 40), 0.5)
    assert (dataset.class_names, dataset.positive_class) == (("non-IDC", "IDC"), "IDC")
    found = patches(tmp_path / "set" / "drawn")
    assert {sample.position: sample.label for sample in dataset.samples} == {
        xy: label for xy, (label, _) in found.items()
    }
    assert not [finding for finding in dataset.findings if "left out" in finding]

    (address,) = find_slides([str(tmp_path / "set")])
    with open_slide(address) as case:
        assert (case.info.mpp, case.info.mpp_source) == (Mpp(0.5, 0.5), "file")
        assert not [warning for warning in case.info.warnings if "closed in" not in warning]
        (x, y), (_, pixels) = next(iter(found.items()))
        assert np.array_equal(case.read(Box(x, y, 40, 40), Scale(1, 1)), pixels)
        assert case.coverage.mask.sum() == len(found)


def test_run_takes_the_set_and_finds_its_patches(phantom, tmp_path):
    from wsi_pipeline import pipeline

    _, path, annotations = phantom
    cut([path], annotations, tmp_path / "set")
    bundle = write_redness_bundle(tmp_path / "bundle", size_px=40, mpp=0.5)
    settings = load_settings(None, {"model": str(bundle), "workers": 0, "device": "cpu"})
    record = pipeline.run([str(tmp_path / "set")], tmp_path / "out", settings)
    (result,) = record.results
    assert result.status == "done", result.error
    assert result.summary.cells == len(patches(tmp_path / "set" / "drawn"))
    coarse = write_redness_bundle(tmp_path / "finer", size_px=50, mpp=0.25)
    settings = load_settings(None, {"model": str(coarse), "workers": 0, "device": "cpu"})
    (failed,) = pipeline.run([str(tmp_path / "set")], tmp_path / "out2", settings).results
    assert failed.status == "failed"
    assert "0.5 µm/px" in failed.error["why"]


def test_outlines_of_a_run_go_in_again(phantom, tmp_path):
    """What QuPath shows of our outlines is what is cut: the file's area is that of the positive patches."""
    _, path, annotations = phantom
    cut([path], annotations, tmp_path / "set", replace(RULES, max_mixed=0.5))
    features = json.loads((annotations / "drawn.geojson").read_text())["features"]
    outlined = sum(shape(feature["geometry"]).area for feature in features)
    cut_out = sum(label for label, _ in patches(tmp_path / "set" / "drawn").values()) * 80 * 80
    assert cut_out == pytest.approx(outlined, rel=0.1)


@pytest.mark.slow
def test_annotate_extract_train_run(tmp_path):
    """The whole way on drawn slides: a model of the cut patches finds the tumour on a slide that it has not seen."""
    for seed in range(6):
        draw(tmp_path, f"case {seed}", seed)
    drawn = draw(tmp_path / "annotations", "unseen", 6)
    slides, settings = [str(tmp_path / f"case {seed}.tiff") for seed in range(6)], ["--size-px=40", "--mpp=0.5"]
    patches, bundle, out = (str(tmp_path / name) for name in ("patches", "bundle", "out"))
    cases = ["--annotations", str(tmp_path / "annotations"), "--out", patches]
    assert main(["extract", *slides, *cases, *settings, *TISSUE]) == OK
    changes = ["--set=optimisation.epochs=8", "--set=optimisation.batch_size=16", "--device=cpu"]
    assert main(["train", "idc-cnn", "--data", patches, "--out", bundle, *changes]) == OK
    unseen = str(tmp_path / "annotations" / "unseen.tiff")
    cell = ["--cell=native", "--device=cpu", "--workers=0", *TISSUE[:-1]]
    assert main(["run", unseen, "--out", out, "--model", bundle, *cell]) == OK
    share = covered(drawn)
    probability = Heatmap.open(tmp_path / "out" / "unseen" / "heatmap.zarr").probability("IDC")
    probability = probability[: share.shape[0], : share.shape[1]]
    clear = ~np.isnan(probability) & ((share >= 0.5) | (share <= 0.1))
    assert roc_auc_score(share[clear] >= 0.5, probability[clear]) > 0.9


@pytest.mark.data
def test_a_real_slide_is_cut_as_openslide_reads_it(data_dir, tmp_path):
    path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
    ellipse = shapely.Point(1100, 1400).buffer(700)
    ring = shapely.get_coordinates(ellipse).tolist()
    outline = {"type": "Polygon", "isEllipse": True, "coordinates": [ring]}
    write(tmp_path / "CMU-1-Small-Region.svs.geojson", annotation("IDC", outline))
    (result,) = cut([path], tmp_path, tmp_path / "set", PatchRules(size_px=100, mpp=0.499))
    found = patches(tmp_path / "set" / "CMU-1-Small-Region")
    assert result.record["counts"]["positive"] > 60
    for (x, y), (label, _) in found.items():
        inside = shapely.box(x, y, x + 100, y + 100).intersection(ellipse).area / 100**2
        assert inside >= 0.499 if label else inside <= 0.101
    with openslide.OpenSlide(path) as other:
        for (x, y), (_, pixels) in list(found.items())[::20]:
            assert np.array_equal(np.asarray(other.read_region((x, y), 0, (100, 100)).convert("RGB")), pixels)


# Frames


def test_patches_on_a_slide_with_bounds_are_those_that_qupath_shows(slide, annotated, tmp_path, monkeypatch):
    """QuPath shows the slide from its bounds' corner; the annotation, drawn there, lies elsewhere on level 0."""
    bounds = Box(83, 41, 640, 500)

    def open_bounded(*args, **kwargs):
        opened = open_slide(*args, **kwargs)
        opened.info = replace(opened.info, bounds=bounds)
        return opened

    for module in ("cases", "patches"):
        monkeypatch.setattr(f"wsi_pipeline.extraction.{module}.open_slide", open_bounded)
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(160, 160, 160, 80)))
    (result,) = cut([slide], annotated, tmp_path / "set")
    found = patches(tmp_path / "set" / "Fall é 1")
    assert {place for place, (label, _) in found.items() if label} == {(80, 80), (120, 80)}
    # (83, 41) is no corner of a pixel at 0.5 µm/px; the nearest is taken.
    assert result.record["origin_px"] == [42, 21]
    assert result.record["slide"]["bounds"] == [83, 41, 640, 500]
    with open_slide(slide) as opened:
        for (x, y), (_, pixels) in found.items():
            assert np.array_equal(pixels, opened.read(Box(42 + x, 21 + y, 40, 40), Scale(2, 2)))


def test_pixels_that_are_not_square(tmp_path):
    base = tissue_picture(800, 600)
    tifffile.imwrite(
        tmp_path / "oblong.tiff", base, tile=(128, 128), compression="deflate", photometric="rgb", metadata=None,
        resolution=(1e4 / 0.25, 1e4 / 0.5), resolutionunit="CENTIMETER",
    )  # fmt: skip
    write(tmp_path / "oblong.json", annotation("IDC", square(320, 200, 160, 80)))
    (result,) = cut([tmp_path / "oblong.tiff"], tmp_path / "oblong.json", tmp_path / "set")
    assert result.record["slide"]["mpp"] == pytest.approx([0.25, 0.5])
    found = patches(tmp_path / "set" / "oblong")
    # A patch is 80 x 40 level-0 pixels.
    positive = {place for place, (label, _) in found.items() if label}
    assert positive == {(x, y) for x in (160, 200) for y in (200, 240)}
    for (x, y), (_, pixels) in found.items():
        region = base[y : y + 40, 2 * x : 2 * x + 80].reshape(40, 40, 2, 3)
        assert np.abs(region.mean(axis=2) - pixels).max() <= 0.5


# What a data set says of itself


def test_the_record_tells_where_everything_came_from(slide, annotated, tmp_path):
    spec = SlideSpec(path=str(slide), patient="P 7")
    (result,) = cut([spec], annotated, tmp_path / "set")
    dataset = json.loads((tmp_path / "set" / "dataset.json").read_text(encoding="utf-8"))
    case = json.loads((tmp_path / "set" / "Fall é 1" / "case.json").read_text(encoding="utf-8"))
    assert (dataset["patch_size_px"], dataset["mpp"], dataset["layout"]) == (40, 0.5, "idc")
    assert dataset["class_names"] == ["non-IDC", "IDC"]
    assert dataset["patients"] == {"Fall é 1": "P 7"}
    assert dataset["cases"] == {"Fall é 1": case} == {"Fall é 1": result.record}
    assert dataset["settings"]["min_coverage"] == 0.5
    assert dataset["settings"]["tissue"]["tissue_closing_um"] == 4
    labels = [label for label, _ in patches(tmp_path / "set" / "Fall é 1").values()]
    assert dataset["patches"] == [labels.count(0), labels.count(1)]
    with open_slide(slide) as opened:
        assert case["slide"]["fingerprint"] == opened.info.fingerprint
    assert case["annotations"]["objects"] == {"IDC": 1}
    assert "research use only" in dataset["note"]


def test_the_picture_shows_the_labels(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    with Image.open(tmp_path / "set" / "Fall é 1" / "Fall é 1_labels.jpg") as image:
        assert image.format == "JPEG"
        assert image.width > 900
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # Orange where patches are positive, blue where they are negative.
    orange = (pixels[..., 0] - pixels[..., 2] > 80).sum()
    blue = (pixels[..., 2] - pixels[..., 0] > 15).sum()
    assert orange > 20_000
    assert blue > 40_000


def test_every_patch_is_tinted_where_it_lies(slide, annotated, tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_pipeline.extraction.cases.LABELS_PICTURE_SUFFIX", "_labels.png")  # without loss
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(220, 240, 240, 160)))
    rules = replace(RULES, tissue=SMALL.model_copy(update={"tissue_max_px": 800}))  # nor is it enlarged
    cut([slide], annotated, tmp_path / "set", rules)
    expected = np.full((600, 800), -1)
    for (x, y), (label, _) in patches(tmp_path / "set" / "Fall é 1").items():
        expected[2 * y : 2 * y + 80, 2 * x : 2 * x + 80] = label
    expected[240:400, 160:240] = 2  # a quarter of them is annotated
    with Image.open(tmp_path / "set" / "Fall é 1" / "Fall é 1_labels.png") as image:
        left, top, width, height = json.loads(image.info[PLACES])["picture"]
        page = np.asarray(image).astype(float)
    assert (width, height) == (800, 600)
    base = tissue_picture(800, 600).astype(float)
    change = page[top : top + height, left : left + width] - base
    toward = np.array([NEGATIVE, POSITIVE, LEFT_OUT])[:, None, None] - base
    likeness = (change * toward).sum(-1) / np.linalg.norm(toward, axis=-1)
    shown = np.where(change.any(-1), likeness.argmax(0), -1)
    clear = np.zeros(shown.shape, bool)
    clear[1:-1, 1:-1] = True  # without the frame
    clear[235:406, 215:466] = False
    clear[246:395, 226:455] = True  # without the outline
    clear[79::80] = clear[:, 79::80] = False  # without the gaps between patches
    assert np.array_equal(shown[clear], expected[clear])


def test_a_patient_given_later_is_noted_without_a_new_cut(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    (result,) = cut([SlideSpec(path=str(slide), patient="P 7")], annotated, tmp_path / "set")
    assert result.status == "skipped"
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["patients"] == {"Fall é 1": "P 7"}


# Several slides, some bad


def test_one_bad_slide_does_not_stop_the_others(slide, tmp_path):
    folder, notes = tmp_path / "slides", tmp_path / "annotations"
    folder.mkdir()
    for name in ("a", "b", "c", "d", "e", "f"):
        shutil.copy(slide, folder / f"{name}.tiff")
    (folder / "c.tiff").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    idc = annotation("IDC", square(240, 240, 240, 160))
    for name, feature in {
        "a": idc, "c": idc, "d": annotation("Benign", square(0, 0, 10)), "e": annotation("IDC", square(900, 0, 90)),
        "f": annotation("Region*", square(0, 0, 40)),
    }.items():  # fmt: skip
        write(notes / f"{name}.geojson", feature)
    results = cut(sorted(folder.iterdir()), notes, tmp_path / "set")
    assert [(result.case, result.status) for result in results] == [
        ("a", "done"), ("b", "failed"), ("c", "failed"), ("d", "failed"), ("e", "failed"), ("f", "failed"),
    ]  # fmt: skip
    reasons = ["has no annotations", "is a JPEG picture", "no meaning here: Benign", "outside the slide", "no patch"]
    for result, reason in zip(results[1:], reasons, strict=True):
        assert reason in result.error.why
    assert sorted(path.name for path in (tmp_path / "set").iterdir() if path.name[0] != ".") == ["a", "dataset.json"]
    assert list(json.loads((tmp_path / "set" / "dataset.json").read_text())["cases"]) == ["a"]


def test_slides_that_cannot_be_told_apart_are_refused_before_anything(slide, annotated, tmp_path):
    other = tmp_path / "FALL É 1.tif"
    shutil.copy(slide, other)
    with pytest.raises(ConfigError, match="has the same name as"):
        cut([slide, other], annotated, tmp_path / "set")
    with pytest.raises(ConfigError, match="one file of annotations for 2 slides"):
        cut([slide, slide.with_name("b.tiff")], annotated / "Fall é 1.geojson", tmp_path / "set")
    with pytest.raises(DatasetError, match="does not exist"):
        cut([slide], tmp_path / "nowhere", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_slide_without_a_resolution_or_too_coarse_says_what_to_do(annotated, tmp_path):
    plain = write_pyramid(tmp_path / "Fall é 1.tiff", base=tissue_picture(800, 600), mpp=None)
    (result,) = cut([plain], annotated, tmp_path / "set")
    assert "--slide-mpp" in result.error.hint
    coarse = SlideSpec(path=str(plain), mpp=1.0)
    (result,) = cut([coarse], annotated, tmp_path / "set")
    assert "1 µm/px" in result.error.why
    (result,) = cut([coarse], annotated, tmp_path / "set2", replace(RULES, allow_upsampling=True))
    assert result.status == "done"
    assert result.record["slide"]["mpp_source"] == "user"


def test_damage_costs_the_patches_it_hides_and_no_others(annotated, tmp_path):
    whole = write_pyramid(tmp_path / "Fall é 1.tiff", base=tissue_picture(1600, 1200), factors=(1,))
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(640, 640, 240, 160)))
    cut([whole], annotated, tmp_path / "set")
    good = patches(tmp_path / "set" / "Fall é 1")
    break_tile(whole, 13 * 5 + 7)  # columns 896 to 1023, rows 640 to 767
    (result,) = cut([whole], annotated, tmp_path / "set", overwrite=True)
    left = patches(tmp_path / "set" / "Fall é 1")
    lost = result.record["counts"]["unreadable"]
    assert 0 < lost <= 16  # all within 256 px are given up together
    assert len(left) == len(good) - lost
    assert all(np.array_equal(pixels, good[place][1]) for place, (_, pixels) in left.items())
    assert f"Patches that the file's damage hides, left out: {lost}." in result.record["notes"]


# Running again


def test_the_same_again_does_nothing_and_gives_the_same(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    (result,) = cut([slide], annotated, tmp_path / "set")
    assert result.status == "skipped"
    assert files(tmp_path / "set") == before
    cut([slide], annotated, tmp_path / "other")
    assert files(tmp_path / "other") == before


def test_other_annotations_replace_a_case_only_when_asked(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(240, 240, 80, 80)))
    (result,) = cut([slide], annotated, tmp_path / "set")
    assert "another version" in result.error.why
    assert files(tmp_path / "set") == before
    (result,) = cut([slide], annotated, tmp_path / "set", overwrite=True)
    assert result.record["counts"]["positive"] == 1
    assert sum(label for label, _ in patches(tmp_path / "set" / "Fall é 1").values()) == 1


def test_another_resolution_of_the_slide_replaces_a_case_only_when_asked(slide, annotated, tmp_path):
    spec = SlideSpec(path=str(slide), mpp=0.25)
    cut([spec], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    (result,) = cut([replace(spec, mpp=0.5)], annotated, tmp_path / "set")
    assert result.status == "failed"
    assert "another version" in result.error.why
    assert files(tmp_path / "set") == before
    (result,) = cut([replace(spec, mpp=0.5)], annotated, tmp_path / "set", overwrite=True)
    assert result.record["slide"]["mpp"] == [0.5, 0.5]
    assert result.record["counts"]["positive"] == 24  # patches of 40 x 40 px on 240 x 160
    assert cut([replace(spec, mpp=0.5)], annotated, tmp_path / "set")[0].status == "skipped"


def test_a_set_is_cut_by_one_set_of_rules(slide, annotated, tmp_path):
    second = tmp_path / "b.tiff"
    shutil.copy(slide, second)
    shutil.copy(annotated / "Fall é 1.geojson", annotated / "b.geojson")
    cut([slide, second], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    other = replace(RULES, size_px=20)
    with pytest.raises(ResultsMismatchError, match=r"cut by other settings \(size_px\)"):
        cut([slide], annotated, tmp_path / "set", other)
    with pytest.raises(ResultsMismatchError, match=r"Name their slides too \(b\)"):
        cut([slide], annotated, tmp_path / "set", other, overwrite=True)
    assert files(tmp_path / "set") == before
    cut([slide, second], annotated, tmp_path / "set", other, overwrite=True)
    assert open_dataset(tmp_path / "set").patch_size == Size(20, 20)


def test_cases_are_not_given_up_for_settings_by_which_they_cannot_be_cut_again(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    for other, why in (
        (replace(RULES, positive=("Tumro",)), r"no meaning here: IDC \(1\)"),
        (replace(RULES, mpp=0.1), "µm/px"),
        (replace(RULES, size_px=400), "gives no patch"),
    ):
        with pytest.raises(ResultsMismatchError, match=rf"keeps its cases, as Fall é 1 cannot be cut.*{why}"):
            cut([slide], annotated, tmp_path / "set", other, overwrite=True)
        assert files(tmp_path / "set") == before


@pytest.mark.parametrize("when", ["before the new one has its place", "while the old one is removed"])
def test_an_interruption_while_a_case_is_replaced_leaves_no_half_of_it(slide, annotated, tmp_path, monkeypatch, when):
    out = tmp_path / "set"
    cut([slide], annotated, out)
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(240, 240, 80, 80)))
    rename = Path.rename

    def stop_at_the_new(self: Path, target: Path) -> Path:
        if target.name == "Fall é 1":
            raise KeyboardInterrupt
        return rename(self, target)

    def stop_half_way(folder: Path, **_) -> None:
        for path in Path(folder).rglob("*.png"):
            path.unlink()
            raise KeyboardInterrupt

    early = when.startswith("before")
    with monkeypatch.context() as patch:
        if early:
            patch.setattr(Path, "rename", stop_at_the_new)
        else:
            patch.setattr("wsi_pipeline.extraction.record.shutil.rmtree", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            cut([slide], annotated, out, overwrite=True)
    there = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    assert there == ["dataset.json"] if early else sorted(there) == ["Fall é 1", "dataset.json"]
    (result,) = cut([slide], annotated, out)
    assert result.status == ("done" if early else "skipped")
    assert result.record["counts"]["positive"] == 1
    assert [path.name for path in out.iterdir() if path.name.startswith(".extracting")] == []
    found = patches(out / "Fall é 1")
    assert len(found) == len(open_dataset(out)) > 1
    assert sum(label for label, _ in found.values()) == 1


def test_a_case_that_has_lost_patches_is_not_passed_over(slide, annotated, tmp_path):
    cut([slide], annotated, tmp_path / "set")
    before = files(tmp_path / "set")
    next((tmp_path / "set").rglob("*class1.png")).unlink()
    (result,) = cut([slide], annotated, tmp_path / "set")
    assert "lacks 1 of the patches that were cut" in result.error.why
    (result,) = cut([slide], annotated, tmp_path / "set", overwrite=True)
    assert result.status == "done"
    assert files(tmp_path / "set") == before


def test_other_peoples_folders_are_left_alone(slide, annotated, tmp_path):
    (tmp_path / "set" / "8863").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"holds other things \(8863\)"):
        cut([slide], annotated, tmp_path / "set")
    out = tmp_path / "mine"
    cut([slide], annotated, out)
    (out / "Fall é 1" / "case.json").unlink()
    (result,) = cut([slide], annotated, out, overwrite=True)
    assert "not made by this program" in result.error.why
    assert patches(out / "Fall é 1")


def test_an_interrupted_run_leaves_no_half_case(slide, annotated, tmp_path, monkeypatch):
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut([slide], annotated, tmp_path / "set", on_patches=stop)
    assert [path.name for path in (tmp_path / "set").iterdir() if path.name[0] != "."] == ["dataset.json"]

    # A kill leaves the unfinished folder behind; nobody takes it for a case, and the next run removes it.
    half = tmp_path / "set" / ".extracting-Fall é 1" / "0"
    half.mkdir(parents=True)
    (half / "Fall é 1_idx5_x1_y1_class0.png").write_bytes(b"half")
    assert cut([slide], annotated, tmp_path / "set")[0].status == "done"
    assert not half.parent.exists()
    assert len(open_dataset(tmp_path / "set")) == len(patches(tmp_path / "set" / "Fall é 1"))


def test_a_full_disk_is_named_and_leaves_nothing(slide, annotated, tmp_path, monkeypatch):
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    (result,) = cut([slide], annotated, tmp_path / "set")
    assert isinstance(result.error, OutputError)
    assert "No space left" in result.error.why
    assert not (tmp_path / "set" / "Fall é 1").exists()


# The command


TISSUE = [
    "--tissue-max-px=300",
    "--tissue-min-area-um2=500",
    "--tissue-min-hole-um2=500",
    "--tissue-closing-um=4",
    "--workers=1",
]


def test_the_command_prints_a_table_and_where_to_look(slide, annotated, tmp_path, capsys):
    write(
        annotated / "Fall é 1.geojson",
        annotation("Tumor", square(240, 240, 160, 160)), annotation("idc", square(400, 240, 80, 160)),
        annotation("Fold", square(200, 100, 160, 80)), annotation(None, square(0, 0, 800, 600)),
    )  # fmt: skip
    shutil.copy(slide, tmp_path / "b.tiff")
    (tmp_path / "patients.csv").write_text("slide,patient\nFall é 1.tiff,P 7\n", encoding="utf-8")
    arguments = [
        "extract", str(slide), str(tmp_path / "b.tiff"), "--annotations", str(annotated),
        "--out", str(tmp_path / "set"), "--size-px=40", "--mpp=0.5",
        "--positive=IDC,Tumor", "--exclude=Fold", "--ignore=Unclassified",
        "--patients", str(tmp_path / "patients.csv"), *TISSUE,
    ]  # fmt: skip
    assert main(arguments) == SOME_FAILED
    printed = capsys.readouterr()
    counts = json.loads((tmp_path / "set" / "Fall é 1" / "case.json").read_text())["counts"]
    assert (counts["positive"], counts["excluded"]) == (6, 6)
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0] == ["case", "1", "IDC", "0", "non-IDC", "left", "out", "class", "0", "is"]
    left_out = sum(counts.values()) - counts["positive"] - counts["negative"]
    assert ["Fall", "é", "1", "6", str(counts["negative"]), str(left_out)] in [line[:6] for line in lines]
    assert ["b", "failed"] in lines
    assert "Look at the labels before training" in printed.out
    assert "For research use only" in printed.out
    assert printed.err.startswith(f"FAILED b: {tmp_path / 'b.tiff'}: has no annotations.")
    dataset = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert dataset["patients"] == {"Fall é 1": "P 7"}
    assert main(arguments[:2] + arguments[3:]) == OK
    assert "done before" in capsys.readouterr().out


def test_a_table_of_patients_that_fits_no_slide_is_told_and_a_known_patient_stays(slide, annotated, tmp_path, caplog):
    def cut_with(text: str | None, *more: str) -> dict[str, str]:
        caplog.clear()
        (tmp_path / "patients.csv").write_text(text or "", encoding="utf-8")
        given = ["--patients", str(tmp_path / "patients.csv")] if text else []
        common = [str(slide), "--annotations", str(annotated), "--out", str(tmp_path / "set")]
        assert main(["extract", *common, "--size-px=40", "--mpp=0.5", *TISSUE, *given, *more]) == OK
        return json.loads((tmp_path / "set" / "dataset.json").read_text())["patients"]

    assert cut_with("slide,patient\nFall é 1.svs,P 7\n") == {"Fall é 1": "Fall é 1"}
    assert "names slides that are not here: Fall é 1.svs" in caplog.text
    assert "says nothing of: " in caplog.text
    assert cut_with("slide,patient\nFall é 1,P 7\n") == {"Fall é 1": "P 7"}
    assert not caplog.text
    assert cut_with(None) == {"Fall é 1": "P 7"}
    # Cut again, from other annotations or by other rules, it is still the same patient's.
    write(annotated / "Fall é 1.geojson", annotation("IDC", square(240, 240, 200, 160)))
    assert cut_with(None, "--overwrite") == {"Fall é 1": "P 7"}
    assert cut_with(None, "--overwrite", "--min-coverage=0.6") == {"Fall é 1": "P 7"}


def test_the_command_takes_resolutions_from_a_table(annotated, tmp_path, capsys):
    plain = write_pyramid(tmp_path / "Fall é 1.tiff", base=tissue_picture(800, 600), mpp=None)
    (tmp_path / "mpp.csv").write_text("slide,mpp\nFall é 1,0.25\n", encoding="utf-8")
    common = ["extract", str(plain), "--annotations", str(annotated), "--size-px=40", "--mpp=0.5", *TISSUE]
    assert main([*common, "--out", str(tmp_path / "a"), "--mpp-csv", str(tmp_path / "mpp.csv")]) == OK
    assert main([*common, "--out", str(tmp_path / "b"), "--slide-mpp=0.25"]) == OK
    pair = [patches(tmp_path / name / "Fall é 1") for name in "ab"]
    assert pair[0].keys() == pair[1].keys()
    assert main([*common, "--out", str(tmp_path / "c")]) == SOME_FAILED
    assert "the file does not say its resolution" in capsys.readouterr().err


def test_wrong_usage_is_refused_by_name(slide, annotated, tmp_path, capsys):
    (tmp_path / "patients.csv").write_text("name;who\na;P 7\n")
    (tmp_path / "two.csv").write_text("slide,patient\na,P 7\na,P 8\n")
    (tmp_path / "empty.csv").write_text("slide,patient\na,P 7\nb,\n")
    common = ["extract", str(slide), "--annotations", str(annotated), "--out", str(tmp_path / "set")]
    for option, message in {
        f"--patients={tmp_path / 'patients.csv'}": "patients.csv: lacks the columns slide,patient",
        f"--patients={tmp_path / 'none.csv'}": "none.csv: cannot be read",
        f"--patients={tmp_path / 'two.csv'}": "two.csv: gives a two values, P 7 and P 8",
        f"--patients={tmp_path / 'empty.csv'}": "empty.csv, line 3: names no patient",
        "--size-px=3": "--size-px: 3 is impossible",
        "--negative=idc": "idc: is named both as positive and as negative",
        "--annotations=nowhere": "nowhere: does not exist",
        "--tissue-closing-um=-1": "tissue_closing_um",
    }.items():
        assert main([*common, option]) == USAGE
        assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
