"""The scripts for QuPath, run by Groovy on stand-ins for QuPath's classes."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from finished_results import make_finished, write_run
from needs import unavailable
from qupath_stubs import write_stubs

from wsi_pipeline.export import ExportOptions, export
from wsi_pipeline.geometry import Box

SCRIPTS = Path(__file__).parents[2] / "examples" / "qupath"
GROOVY_JAR = Path("/usr/share/java/groovy-all.jar")

pytestmark = pytest.mark.slow

DRIVER = """
import groovy.json.JsonOutput
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.scripting.QPEx

def scene = new groovy.json.JsonSlurper().parse(new File(args[0]))
def project = new stub.Project(entries: scene.images.collect {
    def data = new stub.Data(server: new stub.Server(name: it.name, width: it.size[0], height: it.size[1],
        uris: it.uris ?: []))
    new stub.Entry(name: it.name, data: data, uris: it.uris ?: [])
})
QPEx.project = project
if (scene.window) {
    QuPathGUI.instance = new QuPathGUI()
    if (scene.open != null) {
        QPEx.data = project.entries[scene.open].data
        QuPathGUI.instance.viewers << new stub.Viewer() << new stub.Viewer(imageData: QPEx.data)
        QuPathGUI.instance.viewers.reverse(true)
    }
}
for (run in scene.runs) {
    println '== ' + run.script
    FileChoosers.chosen = run.chosen ? new File(run.chosen) : null
    def binding = new Binding()
    if (run.args) binding.setVariable('args', run.args as String[])
    def text = new File(run.script).getText('UTF-8')
    run.settings.each { from, to -> assert text.contains(from); text = text.replace(from, to) }
    def entries = scene.window ? [null] : project.entries
    for (entry in entries) {
        if (entry != null) { QPEx.entry = entry; QPEx.data = entry.data }
        new GroovyShell(this.class.classLoader, binding).evaluate(text)
    }
    run.drawn.each { project.entries[0].data.hierarchy.things << new stub.Thing(uuid: UUID.randomUUID(), name: it) }
}
def mapper = scene.open == null ? null : QuPathGUI.instance?.viewers[0].options.mapper
println '== ' + JsonOutput.toJson([
    images: project.entries.collect { [ids: it.data.hierarchy.things*.uuid*.toString(), saved: it.saved] },
    mapper: mapper == null ? null : [mapper.map, mapper.measurement, mapper.low, mapper.high, mapper.objects.size()],
])
"""


OPENS = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.lang", "java.util", "java.net")]
"""What an old Groovy asks of a newer Java."""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """The stand-ins, compiled."""
    if not (GROOVY_JAR.exists() and shutil.which("java")):
        unavailable("no Groovy here (Debian: apt-get install groovy default-jre-headless)")
    sources, classes = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("classes")
    compiler = ["java", *OPENS, "-cp", str(GROOVY_JAR), "org.codehaus.groovy.tools.FileSystemCompiler"]
    subprocess.run([*compiler, "-d", str(classes), *map(str, write_stubs(sources))], check=True)
    return classes


@pytest.fixture
def play(tmp_path, stubs):
    """Plays a scene: images, and scripts run one after another. Gives what each printed, and the state at the end."""
    driver = tmp_path / "driver.groovy"
    driver.write_text(DRIVER)

    def run(**scene: object) -> tuple[list[str], dict]:
        (tmp_path / "scene.json").write_text(json.dumps({"window": True, "open": None} | scene))
        java = ["java", *OPENS, "-XX:TieredStopAtLevel=1", "-cp", f"{GROOVY_JAR}:{stubs}", "groovy.ui.GroovyMain"]
        done = subprocess.run(
            [*java, str(driver), str(tmp_path / "scene.json")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        *printed, state = [part.partition("\n")[2] for part in done.stdout.split("== ")[1:-1]] + [
            done.stdout.rpartition("== ")[2]
        ]
        return printed, json.loads(state)

    return run


def result(run: Path, name: str, *, slide: str, size: tuple[int, int] = (1000, 800)):
    made = make_finished(run / name, Path(slide), extent=Box(30, 20, *size), fingerprint="f" * 64)
    options = ExportOptions()
    write_run(run)
    (regions,) = export(made.folder, to="geojson", out=run, options=options).files
    regions.rename(made.folder / "regions.geojson")
    return made


def ids_in(file: Path) -> list[str]:
    return [feature["id"] for feature in json.loads(file.read_text())["features"]]


def importing(chosen: Path | None = None, **more: object) -> dict:
    return {
        "script": str(SCRIPTS / "import_regions.groovy"),
        "chosen": chosen and str(chosen),
        "settings": {},
        "drawn": [],
    } | more


def test_regions_come_to_the_image_of_their_name_once(play, tmp_path):
    run = tmp_path / "run"
    for name in ("Case 1", "Case 2", "Case 3"):
        result(run, name, slide=f"/far/away/{name}.svs")
    images = [
        {"name": "case 1.SVS", "size": [1000, 800]},  # another case of letters
        {"name": "renamed", "size": [1000, 800], "uris": ["file:/slides/Case%202.svs"]},
        {"name": "stranger.svs", "size": [1000, 800]},
    ]
    (first, second), state = play(images=images, runs=[importing(run), importing(run)], open=1)
    expected = [ids_in(run / f"Case {n}" / "regions.geojson") for n in (1, 2)]
    assert all(expected)
    assert [image["ids"] for image in state["images"]] == [*expected, []]
    assert [image["saved"] for image in state["images"]] == [1, 1, 0]
    count = len(expected[0])
    assert f"case 1.SVS: {count} of {count} regions are new" in first
    assert "No result for 1 images of the project: stranger.svs" in first
    assert "No image for 1 results: Case 3.svs" in first
    assert f"Done: {2 * count} new regions in 2 images. For research use only." in first
    assert f"case 1.SVS: 0 of {count} regions are new" in second


def test_an_image_of_another_size_is_refused(play, tmp_path):
    result(tmp_path / "run", "a", slide="/x/a.svs")
    result(tmp_path / "run", "b", slide="/x/b.svs")
    images = [{"name": "a.svs", "size": [1030, 820]}, {"name": "b.svs", "size": [1000, 800]}]
    (printed,), state = play(images=images, runs=[importing(tmp_path / "run")])
    assert "a.svs: FAILED, the result is of a slide of 1000 x 800 px, the image has 1030 x 820" in printed
    assert [bool(image["ids"]) for image in state["images"]] == [False, True]


def exported(folder: Path, name: str, **more: object) -> Path:
    """The regions of a slide as an export leaves them, named after it."""
    made = result(folder / "runs" / name, name, slide=f"/x/{name}.svs", **more)
    (file,) = export(made.folder, to="geojson", out=folder / "exported").files
    return file


def test_an_image_of_another_size_is_refused_by_an_export_too(play, tmp_path):
    folder = exported(tmp_path, "a").parent
    exported(tmp_path, "b")
    images = [{"name": "a.svs", "size": [1030, 820]}, {"name": "b.svs", "size": [1000, 800]}]
    (printed,), state = play(images=images, runs=[importing(folder)])
    assert "a.svs: FAILED, the result is of a slide of 1000 x 800 px, the image has 1030 x 820" in printed
    assert [bool(image["ids"]) for image in state["images"]] == [False, True]


def test_an_export_of_another_slide_whose_name_begins_alike_is_not_imported(play, tmp_path):
    folder = exported(tmp_path, "S1.he").parent
    images = [{"name": name, "size": [1000, 800]} for name in ("S1.svs", "S1", "S1.he.svs", "S1.he.tif.svs")]
    (printed,), state = play(images=images, runs=[importing(folder)])
    assert [bool(image["ids"]) for image in state["images"]] == [False, False, True, False]
    assert "No result for 3 images of the project: S1.svs, S1, S1.he.tif.svs" in printed


def test_the_folder_of_a_result_is_no_name_of_its_slide(play, tmp_path):
    """Of two slides named a, one has a folder named otherwise: that is no slide of that name."""
    result(tmp_path / "run", "a-2", slide="/y/a.svs")
    (_,), state = play(images=[{"name": "a-2.svs", "size": [1000, 800]}], runs=[importing(tmp_path / "run")])
    assert state["images"][0]["ids"] == []


def test_a_file_that_states_no_size_is_imported_with_a_word(play, tmp_path):
    file = exported(tmp_path, "a")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({"type": "FeatureCollection", "features": content["features"]}))
    (printed,), state = play(images=[{"name": "a.svs", "size": [7, 7]}], runs=[importing(file.parent)])
    assert "a.geojson: it states no size (export it again), so only its name was compared" in printed
    assert state["images"][0]["ids"] == ids_in(file)


def test_two_results_for_one_image_are_told_and_left(play, tmp_path):
    result(tmp_path / "run", "a", slide="/x/a.svs")
    result(tmp_path / "run", "a-2", slide="/y/a.svs")
    (printed,), state = play(images=[{"name": "a.svs", "size": [1000, 800]}], runs=[importing(tmp_path / "run")])
    assert "a.svs: SKIPPED, several results fit" in printed
    assert state["images"] == [{"ids": [], "saved": 0}]


def test_outdated_regions_go_only_where_asked_and_drawn_ones_never(play, tmp_path):
    run = tmp_path / "run"
    made = result(run, "a", slide="/x/a.ome.tiff")
    old = ids_in(made.folder / "regions.geojson")
    (new,) = export(made.folder, to="geojson", out=tmp_path / "new", options=ExportOptions(threshold=0.7)).files
    runs = [importing(run, drawn=["IDC region 77", "mine"]), importing(new.parent)]
    clean = importing(new.parent, settings={"boolean removeOutdated = false": "boolean removeOutdated = true"})
    (_, _, last), state = play(images=[{"name": "a.ome.tiff", "size": [1000, 800]}], runs=[*runs, clean])
    ids = state["images"][0]["ids"]
    assert not set(ids) & set(old)
    assert set(ids_in(new)) < set(ids)
    assert len(ids) == len(ids_in(new)) + 2  # the two that were drawn
    assert f"{len(old)} outdated ones removed" in last


def test_without_a_window_each_image_is_done_once(play, tmp_path):
    run = tmp_path / "run"
    result(run, "a", slide="/x/a.svs")
    result(run, "b", slide="/x/b.svs")
    images = [{"name": f"{name}.svs", "size": [1000, 800]} for name in "ab"]
    (printed,), state = play(images=images, window=False, runs=[importing(args=[str(run)])])
    assert [image["saved"] for image in state["images"]] == [1, 1]
    assert printed.count("new regions in 1 images") == 2


def test_what_is_missing_is_said(play, tmp_path):
    (tmp_path / "empty").mkdir()
    image = [{"name": "a.svs", "size": [1, 1]}]
    (none, empty), _ = play(images=image, runs=[importing(), importing(tmp_path / "empty")])
    assert "No folder was chosen" in none
    assert "there are no regions here" in empty


def test_cells_become_a_map_and_go_again(play, tmp_path):
    made = result(tmp_path / "run", "a", slide="/x/a.svs")
    (cells,) = export(made.folder, to="geojson-cells", out=tmp_path / "cells").files
    script = {"script": str(SCRIPTS / "cell_maps.groovy"), "chosen": str(cells.parent), "settings": {}, "drawn": []}
    images = [{"name": "a.svs", "size": [1000, 800]}]
    count = int((~np.isnan(made.probability)).sum())
    (first, second), state = play(images=images, open=0, runs=[script, script])
    assert f"{count} of {count} cells are new" in first
    assert f"0 of {count} cells are new" in second
    assert len(state["images"][0]["ids"]) == count
    assert state["mapper"] == ["viridis", "p(IDC)", 0, 1, count]
    clear = script | {"settings": {"boolean remove = false": "boolean remove = true"}}
    (_, gone), state = play(images=images, open=0, runs=[script, clear])
    assert f"{count} cells removed" in gone
    assert state == {"images": [{"ids": [], "saved": 0}], "mapper": None}


def test_cells_of_another_image_are_not_shown(play, tmp_path):
    made = result(tmp_path / "run", "a", slide="/x/a.svs")
    (cells,) = export(made.folder, to="geojson-cells", out=tmp_path / "cells").files
    script = {"script": str(SCRIPTS / "cell_maps.groovy"), "chosen": str(cells.parent), "settings": {}, "drawn": []}
    (printed,), state = play(images=[{"name": "z.svs", "size": [1000, 800]}], open=0, runs=[script])
    assert "none of [a.cells.geojson.gz] is named after this image" in printed
    assert state["images"][0]["ids"] == []


def showing(place: Path, **settings: str) -> dict:
    return {"script": str(SCRIPTS / "cell_maps.groovy"), "chosen": str(place), "settings": settings, "drawn": []}


def cells_in_result(run: Path, name: str, *, slide: str) -> Path:
    """A result folder as `run --cells` leaves it."""
    made = result(run, name, slide=slide)
    (cells,) = export(made.folder, to="geojson-cells", out=run).files
    cells.rename(made.folder / "cells.geojson.gz")
    return made.folder


@pytest.mark.parametrize(
    ("exported", "image", "shown"),
    [
        ("Case 1", "Case 10.svs", False),
        ("Case 1", "Case 1.svs", True),
        ("Case 1", "case 1.ome.TIFF", True),
        ("Case 1.he", "Case 1.svs", False),
        ("Case 1.he", "Case 1.he.svs", True),
    ],
)
def test_cells_of_a_slide_whose_name_begins_alike_are_not_shown(play, tmp_path, exported, image, shown):
    made = result(tmp_path / "run", exported, slide=f"/x/{exported}.svs")
    (cells,) = export(made.folder, to="geojson-cells", out=tmp_path / "cells").files
    (printed,), state = play(images=[{"name": image, "size": [1000, 800]}], open=0, runs=[showing(cells.parent)])
    assert bool(state["images"][0]["ids"]) is shown
    assert ("is named after this image" in printed) is not shown


def test_the_cells_of_a_result_are_those_of_its_slide(play, tmp_path):
    own = cells_in_result(tmp_path / "run", "a", slide="/x/a.svs")
    other = cells_in_result(tmp_path / "run", "b", slide="/x/b.svs")
    images = [{"name": "a.svs", "size": [1000, 800]}]
    (wrong, right), state = play(images=images, open=0, runs=[showing(other), showing(own)])
    assert "b/cells.geojson.gz is of b.svs." in wrong
    assert "cells are new" in right
    assert state["images"][0]["ids"]
    (own / "summary.json").unlink()
    (untold,), state = play(images=images, open=0, runs=[showing(own)])
    assert "is of a slide that no summary.json names" in untold
    assert state["images"][0]["ids"] == []


def test_a_file_of_cells_that_is_named_is_checked_too(play, tmp_path):
    own = cells_in_result(tmp_path / "run", "a", slide="/x/a.svs") / "cells.geojson.gz"
    setting = {"String cells = ''": f"String cells = '{own}'"}
    renamed = {"name": "renamed", "size": [1000, 800], "uris": ["file:/slides/a.svs"]}
    (printed,), state = play(images=[renamed], open=0, runs=[showing(tmp_path, **setting)])
    assert "cells are new" in printed
    (printed,), state = play(images=[{"name": "b.svs", "size": [1000, 800]}], open=0, runs=[showing(own, **setting)])
    assert "none of [cells.geojson.gz] is named after this image (b.svs)" in printed
    assert state["images"][0]["ids"] == []


def test_cells_over_an_image_of_another_size_are_not_shown(play, tmp_path):
    own = cells_in_result(tmp_path / "run", "a", slide="/x/a.svs")
    (cells,) = export(own, to="geojson-cells", out=tmp_path / "cells").files
    images = [{"name": "a.svs", "size": [1030, 820]}]
    printed, state = play(images=images, open=0, runs=[showing(own), showing(cells.parent)])
    for said in printed:
        assert "NOT SHOWN, it is of a slide of 1000 x 800 px, the image has 1030 x 820" in said
    assert state["images"][0]["ids"] == []


def test_what_both_scripts_need_is_the_same_in_both():
    """QuPath runs one file at a time, so each carries its own copy."""
    texts = [(SCRIPTS / name).read_text(encoding="utf-8") for name in ("cell_maps.groovy", "import_regions.groovy")]
    shared = "/** Those of an image: ", "/** Colour the cells", "/** Import one result"
    start, *ends = shared
    copies = [text[text.index(start) : text.index(end)] for text, end in zip(texts, ends, strict=True)]
    assert copies[0] == copies[1]
    assert copies[0].count("\ndef ") == 5
