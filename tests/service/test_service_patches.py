"""Patches that are uploaded: what the network says of them, and what is refused."""

import json
from io import BytesIO

import numpy as np
import pytest
from helpers import redness, write_redness_bundle
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import DatasetError
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.service.app import create_app
from wsi_pipeline.service.options import ServiceOptions
from wsi_pipeline.service.patch_models import read_patch
from wsi_pipeline.service.service import open_service

PNG = {"Content-Type": "image/png"}


def pixels(side: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **more) -> bytes:
    out = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(out, kind, **more)
    return out.getvalue()


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return load_bundle(write_redness_bundle(tmp_path_factory.mktemp("card") / "redness")).card


class TestReading:
    def test_png_to_the_last_bit(self, card):
        for form in ({}, {"optimize": True}, {"compress_level": 0}):
            found, notes = read_patch(encoded(pixels(), **form), card)
            np.testing.assert_array_equal(found, pixels())
            assert notes == []

    def test_jpeg(self, card):
        found, _ = read_patch(encoded(pixels(), "JPEG", quality=95), card)
        assert (found.shape, found.dtype) == ((50, 50, 3), np.uint8)

    def test_palettes_are_colours(self, card):
        image = Image.fromarray(np.full((50, 50, 3), (200, 90, 150), np.uint8)).quantize(4)
        np.testing.assert_array_equal(read_patch(encoded(image), card)[0][7, 7], (200, 90, 150))

    def test_what_is_transparent_is_glass(self, card):
        image = np.dstack([pixels(), np.zeros((50, 50), np.uint8)])
        image[:, 25:, 3] = 255
        found, notes = read_patch(encoded(Image.fromarray(image)), card)
        assert (found[:, :25] == 255).all()
        np.testing.assert_array_equal(found[:, 25:], pixels()[:, 25:])
        assert notes

    @pytest.mark.parametrize("size", [(49, 50), (50, 51), (1, 1), (500, 500), (5_000, 5_000)])
    def test_other_sizes_are_refused_and_not_decoded(self, card, size, monkeypatch):
        data = encoded(Image.new("1", size))
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
        with pytest.raises(DatasetError, match=f"{size[0]} x {size[1]} px; redness sees 50 x 50 px at 0.25"):
            read_patch(data, card)

    @pytest.mark.parametrize("side", [10_000, 20_000])
    def test_huge_ones_are_refused(self, card, side):
        with pytest.raises(DatasetError, match="far too large"):
            read_patch(encoded(Image.new("1", (side, side))), card)

    @pytest.mark.parametrize("mode", ["1", "L", "I;16", "LA"])
    def test_other_pixels_are_refused(self, card, mode):
        with pytest.raises(DatasetError, match="has pixels of the form"):
            read_patch(encoded(Image.new(mode, (50, 50))), card)

    @pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PPM"])
    def test_other_formats_are_refused(self, card, kind):
        with pytest.raises(DatasetError, match="no PNG or JPEG"):
            read_patch(encoded(pixels(), kind), card)

    def test_damaged_files_are_refused(self, card):
        good = encoded(pixels())
        rng = np.random.default_rng(7)
        spoilt = [good[:n] for n in (1, 8, 30, 60, len(good) // 2, len(good) - 20)]
        for _ in range(40):
            data = bytearray(good)
            for place in rng.integers(0, 200, 3):
                data[place] = rng.integers(0, 256)
            spoilt.append(bytes(data))
        for data in [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", *spoilt]:
            try:
                found, _ = read_patch(data, card)
            except DatasetError:
                continue
            assert found.shape == (50, 50, 3)


@pytest.fixture(scope="module")
def client(tmp_path_factory, bundle):
    options = ServiceOptions(
        roots=(tmp_path_factory.mktemp("root"),),
        out=tmp_path_factory.mktemp("served"),
        models=(str(bundle), "idc-resnet18"),
        settings=load_settings(None, {"device": "cpu", "engine": "torch"}),
    )
    with open_service(options) as service:
        app = create_app(service)
        with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as opened:
            yield opened


@pytest.mark.slow
class TestUpload:
    def test_the_probability_is_the_networks(self, client):
        for seed in range(3):
            image = pixels(seed=seed)
            found = client.post("/api/patches/probabilities", content=encoded(image), headers=PNG).json()
            assert found["probability"] == pytest.approx(redness(image), abs=1e-5)
            assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-6)
            assert found["called"] == ("IDC" if redness(image) >= 0.5 else "other")
            assert found["research_use"] == "For research use only"

    def test_grad_cam_is_a_picture(self, client):
        send = {"content": encoded(pixels()), "headers": PNG}
        answer = client.post("/api/patches/gradcam?model=idc-resnet18", **send)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        with Image.open(BytesIO(answer.content)) as image:
            assert image.width > 300
        other = client.post("/api/patches/gradcam?model=idc-resnet18&class=non-IDC", **send)
        assert other.content != answer.content

    def test_what_cannot_be_explained_says_so(self, client):
        answer = client.post("/api/patches/gradcam", content=encoded(pixels()), headers=PNG)
        assert answer.status_code == 422
        assert "no convolution" in answer.json()["error"]["why"]

    @pytest.mark.parametrize(
        ("content", "headers", "query", "status", "word"),
        [
            (encoded(pixels(51)), PNG, "", 422, "50 x 50"),
            (b"soup", PNG, "", 422, "no PNG or JPEG"),
            (b"", PNG, "", 422, "empty"),
            (encoded(pixels()), {"Content-Type": "image/tiff"}, "", 415, "image/tiff"),
            (encoded(pixels()), {}, "", 415, "missing"),
            (encoded(pixels()), PNG, "?model=nobody", 422, "nobody"),
            (encoded(pixels()), PNG, "?model=idc-resnet18&class=soup", 422, "soup"),
            (b"\x89PNG" + bytes(9 << 20), PNG, "", 413, "bytes"),
        ],
    )
    def test_what_is_refused(self, client, content, headers, query, status, word):
        answer = client.post(f"/api/patches/gradcam{query}", content=content, headers=headers)
        assert answer.status_code == status, answer.text
        assert word in json.dumps(answer.json()["error"])
