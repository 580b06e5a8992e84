"""The page about a region: pictures in their places, evidence over the tissue, and what must be said."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from spots import TISSUE, card_for, places_of_words

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.explanation.colours import BAR_WIDTH
from wsi_pipeline.explanation.overlay import BAR_ROOM_PX, GAP_PX, PADDING_PX, TITLE_PX, draw_region
from wsi_pipeline.explanation.slide import ExplainedRegion
from wsi_pipeline.geometry import Box, Scale, Thumbnail
from wsi_pipeline.models.card import Threshold
from wsi_pipeline.sheet import MARGIN, PLACES, TEXT_PX, Sheet, text_width

HEIGHT, WIDTH = 300, 360


def region(**changes) -> ExplainedRegion:
    """Evidence in the upper left, nothing analysed in the lowest rows, a probability of 0.9 all over the rest."""
    evidence = np.zeros((HEIGHT, WIDTH), np.float32)
    evidence[:100, :120] = 4.2
    probability = np.full((HEIGHT, WIDTH), 0.9, np.float32)
    evidence[250:], probability[250:] = np.nan, np.nan
    values = {
        "slide_id": "B12",
        "region": Box(1000, 2000, 1440, 1200),
        "origin": "found",
        "pixels": np.full((HEIGHT, WIDTH, 3), TISSUE, np.uint8),
        "um_per_px": 1.0,
        "evidence": evidence,
        "probability": probability,
        "cells": np.array([0.9, 0.9, 0.3], np.float32),
        "cell_um": 12.5,
        "fields": 169,
        "positions": ((2, 2),),
        "thumbnail": Thumbnail(
            pixels=np.full((200, 300, 3), 240, np.uint8), scale=Scale(40, 40), unreadable=np.zeros((200, 300), bool)
        ),
        "card": card_for(threshold=Threshold(value=0.4, chosen="for the test")),
        "class_name": "IDC",
        "upsampled": False,
    }
    return ExplainedRegion(**values | changes)


def draw(path, found: ExplainedRegion) -> tuple[np.ndarray, list[str]]:
    """The page below its heading, and all text on it."""
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
        draw_region(path, found)
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).astype(int)[top:], texts


def test_tissue_evidence_and_probability_stand_side_by_side(tmp_path):
    page, _ = draw(tmp_path / "page.png", region())
    tissue, evidence, probability = (
        page[PADDING_PX + TITLE_PX :, left : left + WIDTH][:HEIGHT]
        for left in (
            MARGIN + PADDING_PX,
            MARGIN + PADDING_PX + WIDTH + GAP_PX,
            MARGIN + PADDING_PX + 2 * WIDTH + 2 * GAP_PX + BAR_ROOM_PX,
        )
    )
    np.testing.assert_array_equal(tissue, np.broadcast_to(TISSUE, tissue.shape))
    np.testing.assert_array_equal(evidence[100:250], tissue[100:250])
    np.testing.assert_array_equal(evidence[:250, 120:], tissue[:250, 120:])
    assert abs(evidence[:100, :120] - tissue[:100, :120]).max(-1).min() > 40
    assert abs(probability[:250] - tissue[:250]).max(-1).min() > 40
    for panel in (evidence, probability):  # what is not analysed is paler
        assert (panel[250:] > tissue[250:] + 30).all()


def test_titles_of_a_narrow_region_do_not_run_into_each_other(tmp_path, monkeypatch):
    placed = places_of_words(monkeypatch)
    tall = {"evidence": np.zeros((900, 60), np.float32), "probability": np.zeros((900, 60), np.float32)}
    draw_region(tmp_path / "tall.png", region(pixels=np.full((900, 60, 3), TISSUE, np.uint8), **tall))
    begins = ("Tissue", "Evidence for", "Probability of")
    titles = [
        (x, x + text_width(words, TEXT_PX, bold=True)) for words, (x, _) in placed.items() if words.startswith(begins)
    ]
    assert len(titles) == 3
    assert all(end < start for (_, end), (start, _) in pairwise(titles))


def test_numbers_and_threshold_stand_beside_the_colours_that_they_mean(tmp_path, monkeypatch):
    placed = places_of_words(monkeypatch)
    level = np.arange(HEIGHT)[:, None] // 60 * np.ones((1, WIDTH), np.float32)
    draw_region(tmp_path / "page.png", region(evidence=2 * level, probability=level / 5))
    with Image.open(tmp_path / "page.png") as image:
        page = np.array(image).astype(int)
        left, top, *_ = json.loads(image.info[PLACES])["picture"]
    upper, second = top + PADDING_PX + TITLE_PX, left + PADDING_PX + WIDTH + GAP_PX
    third = second + WIDTH + GAP_PX + BAR_ROOM_PX
    for panel, numbers in ((second, ("2", "4", "6")), (third, ("0.2", "0.4", "0.6", "0.8"))):
        for n, number in enumerate(numbers, start=1):
            x, y = placed[number]
            meant = page[upper + 60 * n + 30, panel + 30]
            assert abs(page[y, x - 9 - BAR_WIDTH // 2] - meant).max() <= 6, number
    x, y = placed["0.4"]
    bar = x - 9 - BAR_WIDTH
    mark = (page[upper : upper + HEIGHT, bar - 9 : bar - 1].max(-1) < 60).nonzero()[0]
    assert upper + mark.mean() == pytest.approx(y, abs=1)  # the threshold is 0.4


def test_what_stands_on_the_page(tmp_path):
    said = " ".join(draw(tmp_path / "page.png", region())[1])
    for words in (
        "B12", "Region 1000,2000,1440,1200 (level-0 px), the most probable of the slide", "0.36 x 0.30 mm",
        "3 cells, mean probability 0.70, 67 % at or above 0.4", "cells of 12.5 µm", "0 to 5 log-odds",
        "pale: not analysed", "0.1 mm", RESEARCH_USE,
    ):  # fmt: skip
        assert words in said, words
    assert "invented" not in said
    other = region(upsampled=True, origin="given", class_name="other", probability=np.ones((HEIGHT, WIDTH), np.float32))
    said = " ".join(draw(tmp_path / "other.png", other)[1])
    for words in ("as asked for", "its detail is invented", "Evidence for other"):
        assert words in said, words
    assert "at or above" not in said
    assert "not analysed" not in said


def test_a_wide_region_is_stacked_and_a_region_without_evidence_stays_as_it_is(tmp_path):
    size = 150, 540
    wide = region(
        pixels=np.full((*size, 3), TISSUE, np.uint8),
        evidence=np.zeros(size, np.float32),
        probability=np.zeros(size, np.float32),
    )
    page, _ = draw(tmp_path / "wide.jpg", wide)
    assert page.shape[0] > 3 * size[0]
    page, _ = draw(tmp_path / "wide.png", wide)
    left = MARGIN + PADDING_PX
    for n in range(3):
        top = PADDING_PX + TITLE_PX + n * (size[0] + TITLE_PX + GAP_PX)
        panel = page[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(panel, np.broadcast_to(TISSUE, panel.shape))


def test_the_frame_on_the_thumbnail_is_where_the_region_is(tmp_path):
    page, _ = draw(tmp_path / "page.png", region(region=Box(6000, 2000, 3000, 2000)))
    framed = (abs(page - (0xD5, 0x5E, 0x00)).max(-1) < 60).nonzero()
    x = MARGIN + PADDING_PX * 2 + 3 * WIDTH + 2 * (GAP_PX + BAR_ROOM_PX) + MARGIN
    factor = 190 / 12_000
    assert framed[1].min() == pytest.approx(x + 6000 * factor, abs=3)
    assert framed[1].max() == pytest.approx(x + 9000 * factor, abs=3)
    assert framed[0].min() == pytest.approx(24 + 2000 * factor, abs=3)
    assert framed[0].max() == pytest.approx(24 + 4000 * factor, abs=3)


def test_an_ensemble_and_a_second_stage_are_told(tmp_path):
    found = region()
    context = {"sigmas": (1,), "shrink": 1, "intercept": 0, "own": 1, "near": (0,), "trust": (0,)}
    card = card_for(weights=None, members=("a", "b", "c"), context=context)
    said = " ".join(draw(tmp_path / "page.png", replace(found, card=card))[1])
    assert "mean over 8 symmetries and 3 networks" in said
    assert "without the context that a run adds" in said
    assert "at or above" not in said  # the threshold is one of probabilities with context
