"""The page stands by itself, says what it must, and breaks on nothing that data can hold."""

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from html_page import Page
from PIL import Image
from shades import Shades, red_bundle, some_patches
from torch import nn

from wsi_pipeline.context import Context
from wsi_pipeline.errors import OutputError
from wsi_pipeline.evaluation import Options, evaluate
from wsi_pipeline.evaluation.charts import history_chart
from wsi_pipeline.evaluation.history import read_history
from wsi_pipeline.evaluation.report import render, write_report
from wsi_pipeline.evaluation.text import as_text
from wsi_pipeline.models.base import ModelBundle


def run(bundle, dataset, **options):
    return evaluate(bundle, dataset, Options(**{"draws": 20, "device": "cpu"} | options))


@pytest.fixture
def full(tmp_path):
    context = Context(sigmas=(1.0,), shrink=1.0, intercept=-0.1, own=0.7, near=(0.9,), trust=(0.2,))
    training = {"split_by_case": {"train": ["c0"], "validation": ["c1"], "test": []}}
    bundle = red_bundle(tmp_path, context=context, training=training, temperature=1.4)
    (tmp_path / "history.csv").write_text(
        "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_auroc,lr\n"
        "0,0.7,0.6,0.6,0.7,0.8,1e-3\n1,0.5,0.8,0.55,0.75,0.85,1e-4\n"
    )
    return run(bundle, some_patches(broken={7}), whole_slide=True, thumbs=True)


def test_the_page_needs_nothing_else(full):
    text = render(full)
    page = Page(text)
    assert page.links
    for link in page.links:
        assert link.startswith(("data:image/", "#")), link
    assert "script" not in page.tags
    assert not re.search(r"@import|url\((?!#)", text)
    assert max(page.ids.values()) == 1
    for link in page.links:
        assert not link.startswith("#") or link[1:] in page.ids
    for used in re.findall(r"url\(#([^)]+)\)", text):
        assert used in page.ids


def test_the_page_says_what_it_must(full):
    text = render(full)
    page, values = Page(text), full.as_json()
    assert "For research use only" in page.text
    assert "SEEN BEFORE: 1 of 6 cases" in page.text
    assert "c2 " in page.text
    assert "c0 (trained)" in page.text
    assert "c1 (validation)" in page.text
    for key in ("auroc", "balanced_accuracy", "f1", "average_precision", "ece"):
        low, high = values["interval_95"][key]
        assert f"{values[key]:.3f} {low:.3f}–{high:.3f}" in page.text
    assert f"{values['without_context']['auroc']:.3f}" in page.text
    assert "IDC from 0.4 (for the test)" in page.text
    assert "c0/7.png: is no readable image" in page.text
    titles = ("ROC curve", "Precision and recall", "Reliability diagram", "Loss and Accuracy", "AUROC and balanced")
    assert all(f'aria-label="{title}' in text for title in titles)
    assert page.tags.count("svg") == 5


def test_pictures_are_the_patches_and_the_maps(full):
    page = Page(render(full))
    pictures = [Image.open(BytesIO(b64decode(source.split(",", 1)[1]))) for source in page.images]
    patches = [picture for picture in pictures if picture.size == (50, 50)]
    reds = {np.asarray(picture.convert("RGB"))[0, 0, 0] for picture in patches}
    assert reds <= set(full.patches.dataset.reds)
    maps = [picture for picture in pictures if picture.size == (4, 3)]
    assert len(maps) == 3 * 6
    tissue = [picture for picture in pictures if picture.size == (32, 24)]
    assert len(tissue) == 6


def test_curves_are_well_formed(full):
    for drawing in re.findall(r"<svg.*?</svg>", render(full), re.DOTALL):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")


def test_a_training_without_validation_has_curves_of_what_there_is(full, tmp_path):
    (tmp_path / "history.csv").write_text("epoch,train_loss,validation_loss\n0,0.7,\n1,0.5,\n")
    drawing = history_chart(read_history(tmp_path))
    assert ">training<" in drawing
    assert ">validation<" not in drawing
    assert ">Loss<" in drawing
    assert ">Accuracy, AUROC<" not in drawing
    (tmp_path / "history.csv").write_text("epoch,train_loss,train_accuracy\n0,0.7,0.5\n1,0.5,0.6\n")
    assert ">Accuracy, AUROC<" in history_chart(read_history(tmp_path))


def test_names_that_look_like_markup_are_text(tmp_path):
    dataset = some_patches()
    odd = Shades(
        dataset.reds, dataset.labels.tolist(), ["<b>x</b>" if c == "c0" else f"{c}&" for c in dataset.groups.tolist()]
    )
    page = Page(render(run(red_bundle(tmp_path), odd)))
    assert "<b>x</b>" in page.text


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
def test_one_class_only_still_makes_a_page(tmp_path, labels):
    found = run(red_bundle(tmp_path), Shades([90, 150, 200], labels, ["a", "a", "b"]))
    page = Page(render(found))
    assert "one class only" in page.text
    assert "AUROC –" in page.text
    assert "AUROC" in as_text(found)


def test_where_nothing_is_called_there_is_a_page_without_precision(tmp_path):
    found = run(red_bundle(tmp_path), some_patches(), threshold=1.0)
    assert "precision" not in found.figures.scores
    assert "Precision (PPV) –" in Page(render(found)).text


def test_the_gallery_names_the_case_in_whose_image_a_patch_lies(tmp_path):
    dataset = some_patches()
    patient = {"c0": "P7", "c1": "P7", "c2": "P7"}
    dataset.samples = tuple(replace(s, group=patient.get(s.group, s.group), case=s.group) for s in dataset.samples)
    text = render(run(red_bundle(tmp_path), dataset))
    assert "Patch of case c1 x" in text
    assert "Patch of case P7" not in text


def _of_three_classes(folder, cases, **more):
    class Three(nn.Module):
        def forward(self, x):
            red = x[:, 0].mean(dim=(1, 2))
            return torch.stack([1 - red, torch.full_like(red, 0.5), red], dim=1)

    classes = {"class_names": ("adenosis", "fibroadenoma", "carcinoma"), "positive_class": "carcinoma", "mpp": None}
    bundle = ModelBundle(
        card=red_bundle(folder, **classes).card, path=folder, digest="ab", build=lambda: Three().eval()
    )
    return run(bundle, Shades([10, 20, 120, 130, 240, 250], [0, 1, 1, 2, 2, 0], list(cases), **classes, **more))


def test_many_classes_and_no_cases_make_a_page(tmp_path):
    found = _of_three_classes(tmp_path, "abcdef", group_kind="picture")
    page = Page(render(found))
    assert "the most probable class is called" in page.text
    assert "Surest of those called wrongly" in page.text
    assert "Case by case" not in page.text
    assert "fibroadenoma" in as_text(found)


def test_figures_that_no_case_has_have_no_column(tmp_path):
    """Patients of one class each: what needs two is no figure of theirs, nor is the share of any one class."""
    text = render(_of_three_classes(tmp_path, "abcdef"))
    table = text[text.index("Case by case") :]
    assert re.findall(r'<th scope="col">([^<]*)</th>', table)[:5] == ["Case", "Patches", "Accuracy", "ECE"]
    assert "positive" not in re.search(r"<svg.*?</svg>", table, re.DOTALL)[0]


def test_large_patches_become_small_pictures(tmp_path):
    from wsi_pipeline.geometry import Size

    dataset = Shades([10, 250], [0, 1], ["a", "b"], patch_size=Size(500, 400), mpp=0.5)
    bundle = red_bundle(tmp_path, patch_size_px=400, input_px=50, mpp=0.5)
    page = Page(render(run(bundle, dataset)))
    assert {Image.open(BytesIO(b64decode(s.split(",", 1)[1]))).size for s in page.images} == {(160, 160)}


def test_the_page_is_written_whole_or_the_error_names_the_file(full, tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(path, full)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(path / "below.html", full)


def test_the_text_has_figures_intervals_and_warnings(full):
    text, values = as_text(full), full.as_json()
    lines = text.splitlines()
    low, high = values["interval_95"]["auroc"]
    (line,) = (line for line in lines if line.startswith("AUROC"))
    without = values["without_context"]["auroc"]
    assert line.split() == ["AUROC", f"{values['auroc']:.3f}", f"{low:.3f}–{high:.3f}", f"{without:.3f}"]
    assert any(line.startswith("!! SEEN BEFORE") for line in lines)
    assert "For research use only." in lines
    assert any(line.startswith("Dice") for line in lines)
