"""Pictures of H&E slides with their true tissue mask, made with numpy, for the tests of the tissue mask.

Pixels follow Beer-Lambert: glass times exp(-(amount of stain x stain vector)). Pictures are drawn at 8 µm/px and
averaged down, as a pyramid is.
"""

from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, spatial

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
BLOOD = np.array([0.33, 1.20, 0.97])
"""As seen in haemorrhage on scanned slides: less red passes than through red ink."""
DRAWN_UM = 8.0

WHITE = (243, 243, 243)
GREY = (204, 206, 205)
YELLOW = (244, 236, 203)
BLUISH = (222, 231, 240)
PENS = {
    "black": (28, 27, 30),
    "blue": (35, 60, 165),
    "navy": (22, 24, 92),
    "green": (20, 125, 75),
    "red": (214, 32, 45),
    "crimson": (190, 40, 85),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What to draw."""

    seed: int = 0
    side_um: float = 4800.0
    glass: tuple[int, int, int] = WHITE
    tissue: str = "blob"
    """``blob``, ``all`` or ``none``."""
    strength: float = 1.0
    """Amount of stain; 0.2 is very pale."""
    fat: bool = False
    """The right half of the tissue is fat."""
    clot: bool = False
    """A clot of blood inside the tissue and one beside it."""
    pens: tuple[str, ...] = ()
    pen_over_tissue: bool = False
    dust: bool = False
    edges: bool = False
    """Slide edge, cover-slip edge with coloured fringes and a shadow along the border."""
    noise: float = 2.0
    """Standard deviation of the noise in grey levels."""
    jpeg: int = 80
    reduce: int = 2
    """Pixels of `DRAWN_UM` averaged along each side."""
    um_per_px: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "um_per_px", DRAWN_UM * self.reduce)


def draw(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The picture (uint8 RGB) and the true tissue mask."""
    rng = np.random.default_rng(scene.seed)
    side = int(scene.side_um / DRAWN_UM)
    tissue = _shape(scene, rng, side)
    density = _stained(scene, rng, tissue)
    if scene.clot:
        clots = np.zeros_like(tissue)
        for x, y in ((0.45, 0.5), (0.08, 0.15)):
            clots |= _disk(side, x, y, 0.06) & (_noise(rng, side, 6) > -1.3)
        density[clots] = ((1 + 0.15 * _noise(rng, side, 0.5))[..., None] * BLOOD)[clots]
        tissue |= ndimage.binary_closing(clots, iterations=3)
    light = np.exp(-np.maximum(density, 0))
    if scene.edges:
        light = light * _edges(side)
    if scene.dust:
        light = light * _dust(rng, side, tissue)
    light = light * np.array(scene.glass)
    for number, pen in enumerate(scene.pens):
        cover = _stroke(side, number, over_tissue=scene.pen_over_tissue)
        light = light * (1 - cover[..., None]) + cover[..., None] * np.array(PENS[pen]) * (
            1 + 0.02 * _noise(rng, side, 8)[..., None]
        )
        tissue &= cover < 0.5
    light, truth = _reduce(light, scene.reduce), _reduce(tissue[..., None].astype(float), scene.reduce)[..., 0] >= 0.5
    light = light + rng.normal(0, scene.noise, light.shape) if scene.noise else light
    return jpeg(np.clip(np.rint(light), 0, 255).astype(np.uint8), scene.jpeg), truth


def jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Through JPEG with halved chroma, as scanners write it; quality 100 and above leaves the pixels alone."""
    if quality >= 100:
        return pixels
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(stream))


def saturation_threshold(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The usual fixed threshold: HSV saturation (0-255), median of 7 px, above 8."""
    largest, smallest = pixels.max(-1).astype(float), pixels.min(-1).astype(float)
    saturation = 255 * (largest - smallest) / np.maximum(largest, 1)
    return np.asarray(ndimage.median_filter(saturation, 7) > 8)


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def variants() -> dict[str, Scene]:
    """Every condition by name."""
    plain = Scene()
    return {
        "plain": plain,
        "pale stroma": replace(plain, strength=0.2),
        "fat": replace(plain, fat=True),
        "pale fat": replace(plain, fat=True, strength=0.45),
        "grey balance": replace(plain, glass=GREY, strength=0.4),
        "yellow balance": replace(plain, glass=YELLOW, strength=0.4),
        "blue balance": replace(plain, glass=BLUISH, strength=0.4),
        **{f"pen {pen}": replace(plain, pens=(pen, pen)) for pen in PENS},
        "pen over tissue": replace(plain, pens=("black", "green", "blue"), pen_over_tissue=True),
        "red pen, pale, yellow": replace(plain, pens=("red", "red"), strength=0.4, glass=YELLOW),
        "blood": replace(plain, clot=True),
        "blood and red pen": replace(plain, clot=True, pens=("red",)),
        "dust": replace(plain, dust=True),
        "edges": replace(plain, edges=True),
        "edges, grey": replace(plain, edges=True, glass=GREY, dust=True, strength=0.4),
        "coarse JPEG": replace(plain, jpeg=30, noise=5.0, strength=0.4),
        "all glass": replace(plain, tissue="none"),
        "all glass, noise, yellow": replace(plain, tissue="none", glass=YELLOW, noise=6.0, jpeg=40),
        "all glass, dust, edges, pen": replace(
            plain, tissue="none", dust=True, edges=True, pens=("red", "green"), glass=GREY
        ),
        "all tissue": replace(plain, tissue="all"),
        "all tissue, pale": replace(plain, tissue="all", strength=0.25),
        "all tissue, yellow": replace(plain, tissue="all", strength=0.5, glass=YELLOW),
    }


def _noise(rng: np.random.Generator, side: int, sigma: float) -> NDArray[np.float64]:
    field_ = ndimage.gaussian_filter(rng.normal(size=(side, side)), sigma, mode="reflect")
    return np.asarray((field_ - field_.mean()) / field_.std())


def _disk(side: int, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, cols = np.mgrid[:side, :side] / side
    return np.asarray((cols - x) ** 2 + (rows - y) ** 2 <= radius**2)


def _shape(scene: Scene, rng: np.random.Generator, side: int) -> NDArray[np.bool_]:
    if scene.tissue != "blob":
        return np.full((side, side), scene.tissue == "all")
    rows, cols = np.mgrid[:side, :side] / side - 0.5
    outline = 0.27 + 0.04 * _noise(rng, side, side / 14) - np.hypot(rows, cols)
    return np.asarray(ndimage.binary_opening(outline > 0, iterations=4))


def _stained(scene: Scene, rng: np.random.Generator, tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Density over glass: eosin in fibres, haematoxylin in scattered nuclei and in nests, walls only in fat."""
    side = len(tissue)
    fibres = ndimage.gaussian_filter(rng.normal(size=(side, side)), (0.7, 5))
    eosin = np.clip(0.55 * (1 + 0.4 * fibres / fibres.std()), 0.15, None)
    nuclei = np.clip(_noise(rng, side, 0.6) - 1.2, 0, None)
    nests = np.clip(_noise(rng, side, side / 40) - 0.8, 0, 1)
    haematoxylin = 0.4 * nuclei + 1.1 * nests * (1 + 0.3 * _noise(rng, side, 0.6))
    if scene.fat:
        half = np.mgrid[:side, :side][1] > side / 2
        points = rng.uniform(0, side, (int((side * DRAWN_UM / 75) ** 2), 2))
        near, _ = spatial.cKDTree(points).query(np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2), k=2)
        wall = np.clip(1.5 - (near[:, 1] - near[:, 0]), 0, 1).reshape(side, side)
        eosin, haematoxylin = np.where(half, 0.45 * wall, eosin), np.where(half, 0.03 * nuclei, haematoxylin)
    amount = scene.strength * np.clip(tissue, 0, 1)
    haematoxylin = amount * np.clip(haematoxylin, 0, None)
    return np.asarray((amount * eosin)[..., None] * EOSIN + haematoxylin[..., None] * HAEMATOXYLIN)


def _edges(side: int) -> NDArray[np.float64]:
    light = np.ones((side, side, 3))
    light[:, :4] = 0.25
    light *= 1 - 0.5 * np.exp(-np.arange(side) / (side / 30))[::-1, None, None]
    slip = int(side * 0.93)
    for offset, colour in enumerate(((0.8, 0.9, 1.0), (0.45, 0.45, 0.45), (0.45, 0.45, 0.45), (1.0, 0.9, 0.8))):
        light[:, slip + offset] *= colour
    return light


def _dust(rng: np.random.Generator, side: int, tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    light = np.ones((side, side))
    for x, y in rng.uniform(0.02, 0.98, (60, 2)):
        light[_disk(side, x, y, rng.uniform(0.001, 0.006)) & ~tissue] = rng.uniform(0.15, 0.8)
    return light[..., None] * np.ones(3)


def _stroke(side: int, number: int, *, over_tissue: bool) -> NDArray[np.float64]:
    """A felt pen's line about 400 µm wide: dense inside, faded over 30 µm at its rim."""
    rows, cols = np.mgrid[:side, :side] / side
    path = [rows - 0.12, cols - 0.88, rows - 0.9][number] + 0.015 * np.sin(12 * (cols + rows))
    along = cols if number != 1 else rows
    if over_tissue:
        path = rows - cols * 0.3 - 0.15 - 0.22 * number
    half_width = 200 / (side * DRAWN_UM)
    cover = (np.abs(path) < half_width) & (along > 0.1) & (along < 0.85)
    return np.asarray(0.97 * ndimage.gaussian_filter(cover.astype(float), 12 / DRAWN_UM))


def _reduce(picture: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    side = len(picture) // factor * factor
    parts = picture[:side, :side].reshape(side // factor, factor, side // factor, factor, -1)
    return np.asarray(parts.mean(axis=(1, 3)))
