import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from zipfile import ZIP_STORED, ZipFile

import pytest
from patches import write_folder, write_zip

from wsi_pipeline.datasets import store as store_module
from wsi_pipeline.datasets.store import PatchStore
from wsi_pipeline.errors import DatasetError, SlideNotFoundError

FILES = {f"case {n}/{n}.png": bytes([n]) * (100 + n) for n in range(40)}


@pytest.fixture(params=["folder", "zip", "folder of zips"])
def files_and_store(request, tmp_path):
    if request.param == "folder":
        return FILES, PatchStore(write_folder(tmp_path, FILES))
    if request.param == "zip":
        return FILES, PatchStore(write_zip(tmp_path / "a.zip", FILES))
    (tmp_path / "in").mkdir()
    names = list(FILES)
    write_zip(tmp_path / "a.zip", {name: FILES[name] for name in names[:20]})
    write_zip(tmp_path / "in" / "b.zip", {name: FILES[name] for name in names[20:30]})
    write_folder(tmp_path, {name: FILES[name] for name in names[30:]})
    expected = {
        ("a.zip/" if n < 20 else "in/b.zip/" if n < 30 else "") + name: FILES[name] for n, name in enumerate(names)
    }
    return expected, PatchStore(tmp_path)


def test_every_file_is_listed_and_read(files_and_store):
    files, store = files_and_store
    assert set(store.names) == set(files)
    assert all(store.read(name) == data for name, data in files.items())
    assert all(store.head(name, 24) == data[:24] for name, data in files.items())


def test_what_is_not_kept_is_forgotten(files_and_store):
    files, store = files_and_store
    kept = sorted(files)[::2]
    store.keep(kept)
    assert list(store.names) == kept
    assert all(store.read(name) == files[name] for name in kept)


def test_a_pickled_store_reads_on(files_and_store):
    files, store = files_and_store
    name = sorted(files)[3]
    store.read(name)
    again = pickle.loads(pickle.dumps(store))
    assert again.read(name) == files[name]


# A fork of a process with threads is deprecated; other tests may have left some.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_processes_do_not_disturb_each_other(files_and_store):
    files, store = files_and_store
    names = sorted(files) * 20
    store.read(names[0])
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(store.read, names, chunksize=7)
    assert found == [files[name] for name in names]


def test_threads_do_not_disturb_each_other(files_and_store):
    files, store = files_and_store
    names = sorted(files) * 20
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(store.read, names)) == [files[name] for name in names]


def test_only_so_many_zips_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OPEN_ZIPS", 2)
    for n, (name, data) in enumerate(FILES.items()):
        write_zip(tmp_path / f"{n}.zip", {name: data})
    store = PatchStore(tmp_path)
    for _ in range(2):
        assert {store.read(name) for name in store.names} == set(FILES.values())
        assert len(store._opened) == 2


def test_checksums_tell_files_apart(files_and_store):
    files, store = files_and_store
    checksums = {name: store.checksum(name) for name in files}
    assert len(set(checksums.values())) == len(files)
    assert all(checksums[name][0] == len(data) for name, data in files.items())


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SlideNotFoundError, match="nowhere"):
        PatchStore(tmp_path / "nowhere")
    folder = write_folder(tmp_path / "folder", {"1/a.png": b"data"})
    store = PatchStore(folder)
    (folder / "1" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"folder/1/a\.png: cannot be read"):
        store.read("1/a.png")
    path = write_zip(tmp_path / "torn.zip", {"1/a.png": b"0123456789"}, method=ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123406789"))
    with pytest.raises(DatasetError, match=r"torn\.zip/1/a\.png: cannot be read .*damaged"):
        PatchStore(path).read("1/a.png")
    (folder / "no.zip").write_bytes(b"PK nonsense")
    with pytest.raises(DatasetError, match=r"no\.zip: is no readable zip"):
        PatchStore(folder)
    with pytest.raises(DatasetError, match="is not there any more"):
        PatchStore(write_zip(tmp_path / "b.zip", {"a": b"1"})).read("b")


def test_a_zip_that_only_names_folders_is_empty(tmp_path):
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("8863")
    assert PatchStore(tmp_path / "a.zip").names == ()
