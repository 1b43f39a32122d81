"""Hugging Face's data sets: a local one is the image folder that it was made of."""

import pytest

datasets = pytest.importorskip("datasets")

from mixbench.data.datasets import open_data  # noqa: E402


@pytest.fixture
def opened(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = photographs(tmp_path / "data", train=3, val=2, classes=("cat", "dog"))
    return open_data(dataset=f"hfds/{root}"), open_data(data=root)


def test_a_local_data_set_is_its_folder(opened):
    data, folder = opened
    assert data.classes == folder.classes and data.train.image_name(2) == "train/2"
    assert data.remarks == ("validates on the split 'validation'",)
    for source, of_folder in ((data.train, folder.train), (data.val, folder.val)):
        assert source.labels == of_folder.labels
        for index in range(len(source.labels)):
            assert source.load(index).tobytes() == of_folder.load(index).tobytes()
            assert source.content(index) == of_folder.content(index)
            assert source.size(index) == of_folder.size(index)


def test_nothing_is_fetched_without_being_asked():
    with pytest.raises(ValueError, match="cannot open hfds/nobody/nothing: add --download"):
        open_data(dataset="hfds/nobody/nothing")
