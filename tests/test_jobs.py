import pytest

from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.jobs import plan_jobs
from wsi_pipeline.slides.files import slide_id
from wsi_pipeline.slides.tables import read_mpp_csv


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/CMU-1.svs", "CMU-1"),
        ("/data/case 7 (späť).ome.tif", "case 7 (späť)"),
        ("s3://bucket/a/b.ndpi", "b"),
        ("https://host/a/b.ome.tiff?X-Amz-Signature=secret", "b"),
        ("/data/all.zip::8863", "8863"),
        ("/data/8863", "8863"),
        ("/data/v1.2.scan.tiff", "v1.2.scan"),
        ("/data/...", "slide"),
        ("/data/a:b.svs", "a_b"),
    ],
)
def test_slides_are_named_for_people_and_file_systems(path, name):
    assert slide_id(path) == name


def jobs(paths, tmp_path, **settings):
    return plan_jobs(paths, tmp_path, load_settings(None, settings), tmp_path / "bundle", "d" * 64, overwrite=False)


def test_slides_of_one_name_get_folders_of_their_own(tmp_path):
    planned = jobs(["/a/x.svs", "/b/x.svs", "/b/X.ndpi", "/b/y.svs"], tmp_path)
    folders = [job.folder.name for job in planned]
    assert len(set(folders)) == 4
    assert folders[3] == "y"
    assert all(folder.lower().startswith("x-") for folder in folders[:3])
    assert folders == [job.folder.name for job in jobs(["/a/x.svs", "/b/x.svs", "/b/X.ndpi", "/b/y.svs"], tmp_path)]


def test_paths_are_absolute_so_that_other_processes_find_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [job.source.path for job in jobs(["a.svs", "b.zip::7", "s3://bucket/c.svs"], tmp_path)]
    assert found == [f"{tmp_path}/a.svs", f"{tmp_path}/b.zip::7", "s3://bucket/c.svs"]


def test_resolutions_come_from_the_csv_first(tmp_path):
    file = tmp_path / "mpp.csv"
    file.write_text("slide,mpp\nx.svs,0.5\ny,0.25\n/b/z.svs,1\n", encoding="utf-8")
    planned = jobs(["/a/x.svs", "/a/y.svs", "/b/z.svs", "/b/other.svs"], tmp_path, mpp=0.3, mpp_csv=str(file))
    assert [job.source.mpp for job in planned] == [0.5, 0.25, 1.0, 0.3]


def test_relative_paths_in_the_csv_count_and_unknown_slides_are_told(tmp_path, caplog):
    file = tmp_path / "mpp.csv"
    file.write_text(" slide , mpp\nslides/x.svs, 0.5\ntypo.svs,0.3\n", encoding="utf-8")
    (job,) = jobs(["slides/x.svs"], tmp_path, mpp_csv=str(file))
    assert job.source.mpp == 0.5
    assert "names slides that are not here: typo.svs" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slide,mpp\na.svs,896\n", r"line 2: 896 µm/px is not a microscope's"),
        ("slide,mpp\na.svs,0.25\nb.svs,fast\n", r"line 3: 'fast' is no number"),
        ("name,mpp\na.svs,0.25\n", "lacks the columns slide,mpp"),
        ("slide,mpp\na.svs\n", "line 2: '' is no number"),
        ("slide;mpp\na.svs;0.25\n", "lacks the columns slide,mpp"),
        ("slide,mpp\n", "names no slide"),
        ("slide,mpp\na.svs,0.25\n\nb.svs,0.5\nb.svs,fast\n", "line 5: 'fast' is no number"),
        ("slide,mpp\na.svs,0.25\na.svs,0.5\n", "gives a.svs two values, 0.25 and 0.5"),
    ],
)
def test_a_wrong_csv_is_an_error_that_names_the_line(tmp_path, text, expected):
    file = tmp_path / "mpp.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_mpp_csv(file)


def test_a_quote_that_is_never_closed_is_an_error(tmp_path):
    (tmp_path / "open.csv").write_text('slide,mpp\n"' + "a" * 200_000, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"open.csv: cannot be read \(field larger"):
        read_mpp_csv(tmp_path / "open.csv")


def test_a_missing_csv_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.csv: cannot be read"):
        read_mpp_csv(tmp_path / "nowhere.csv")
