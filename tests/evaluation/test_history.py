import math

from wsi_pipeline.evaluation.history import read_history


def test_columns_by_name(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,train_loss,validation_loss,lr\n0,0.7,0.6,1e-3\n1,0.5,,1e-4\n")
    found = read_history(tmp_path)
    assert found["epoch"] == [0, 1]
    assert found["train_loss"] == [0.7, 0.5]
    assert found["validation_loss"][0] == 0.6
    assert math.isnan(found["validation_loss"][1])


def test_what_is_not_there_or_no_history_is_none(tmp_path):
    assert read_history(tmp_path) is None
    (tmp_path / "history.csv").write_text("a,b\n1,2\n")
    assert read_history(tmp_path) is None
    (tmp_path / "history.csv").write_text("epoch,train_loss\n")
    assert read_history(tmp_path) is None
    (tmp_path / "history.csv").write_text("epoch,train_loss\nfirst,0.5\n2,0.4\n")
    assert read_history(tmp_path) is None
