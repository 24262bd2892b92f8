"""Reading labels and encoded images from the hub's files."""

from __future__ import annotations

import hubfiles
import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Value
from pyarrow import parquet

from adamerging_lib.worlds.clip.rows import count_rows, read_images, read_labels
from adamerging_lib.worlds.clip.tasks import TASKS

EUROSAT, FOOD, MNIST, PCAM, FER = (TASKS[name] for name in ("EuroSAT", "Food101", "MNIST", "PCAM", "FER2013"))


def test_the_fixtures_have_the_published_schema(tmp_path):
    (path,) = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(7), [0, 9, 3, 3, 1, 2, 5])
    assert path == tmp_path / "datasets/tanganke/eurosat/data/test-00000-of-00001.parquet"
    schema = parquet.read_schema(path)
    assert schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    assert schema.field("label").type == pa.int64()
    assert b'"_type": "ClassLabel"' in schema.metadata[b"huggingface"]
    assert parquet.ParquetFile(path).num_row_groups == 3


def test_rows_of_several_files_come_in_order(tmp_path):
    images, labels = hubfiles.pictures(11), [4, 1, 8, 0, 0, 9, 2, 3, 7, 6, 5]
    files = hubfiles.write_split(tmp_path, EUROSAT, "train", images, labels, shards=3)
    assert [f.name for f in files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert count_rows(files, EUROSAT) == 11
    assert read_labels(files, EUROSAT).tolist() == labels
    assert [data for _, data in read_images(files, EUROSAT, range(11))] == images
    found = list(read_images(files, EUROSAT, [2, 3, 10]))
    assert [data for _, data in found] == [images[2], images[3], images[10]]
    assert found[1][0] == f"row 0 of {files[1]}"


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path, monkeypatch):
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(12), [0] * 12)
    read = []
    genuine = parquet.ParquetFile.iter_batches

    def spy(self, *args, row_groups, **options):
        read.extend(row_groups)
        return genuine(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    assert len(list(read_images(files, EUROSAT, [4, 11]))) == 2
    assert read == [1, 3]


def test_labels_are_matched_by_name_whatever_their_order_and_spelling(tmp_path):
    names = [name.replace(" ", "_").title() for name in reversed(FOOD.classes)]
    files = hubfiles.write_split(tmp_path, FOOD, "test", hubfiles.pictures(3), [0, 100, 84], names=names)
    assert files[0].name == "validation-00000-of-00001.parquet"
    assert [FOOD.classes[label] for label in read_labels(files, FOOD)] == ["waffles", "apple pie", "cheesecake"]


@pytest.mark.parametrize("label", [Value("int64"), Value("int32"), ClassLabel(names=[str(n) for n in range(10)])])
def test_labels_without_names_are_taken_as_they_are(tmp_path, label):
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(3), [9, 0, 5], label=label)
    assert read_labels(files, EUROSAT).tolist() == [9, 0, 5]
    assert read_labels(files, EUROSAT).dtype == np.int64


def test_pcams_labels_are_true_and_false(tmp_path):
    files = hubfiles.write_split(tmp_path, PCAM, "test", hubfiles.pictures(3), [True, False, True], label=Value("bool"))
    assert read_labels(files, PCAM).tolist() == [1, 0, 1]


def test_fer2013_lies_in_tar_files(tmp_path):
    images = hubfiles.pictures(5, mode="L")
    files = hubfiles.write_split(tmp_path, FER, "test", images, [6, 0, 3, 2, 1], shards=2)
    assert [f.relative_to(tmp_path / "datasets").as_posix() for f in files] == [
        "clip-benchmark/wds_fer2013/test/0.tar", "clip-benchmark/wds_fer2013/test/1.tar",
    ]  # fmt: skip
    assert read_labels(files, FER).tolist() == [6, 0, 3, 2, 1]
    assert [data for _, data in read_images(files, FER, [1, 2, 4])] == [images[1], images[2], images[4]]


def test_missing_and_unknown_classes_are_named(tmp_path):
    names = ["a bog", *EUROSAT.classes[1:]]
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(1), [1], names=names)
    with pytest.raises(ValueError, match="missing 'annual crop land', unknown 'a bog'") as caught:
        read_labels(files, EUROSAT)
    assert "test-00000-of-00001.parquet does not have the 10 classes of EuroSAT" in str(caught.value)
    assert "adamerging fetch" in str(caught.value)
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(1), [1], names=EUROSAT.classes[:9])
    with pytest.raises(ValueError, match="missing 'lake or sea', unknown none"):
        read_labels(files, EUROSAT)


@pytest.mark.parametrize("wrong", [10, -1])
def test_labels_out_of_range_are_found_with_their_row(tmp_path, wrong):
    files = hubfiles.write_split(
        tmp_path, EUROSAT, "test", hubfiles.pictures(3), [0, 3, wrong], label=Value("int64"), shards=2
    )
    with pytest.raises(ValueError, match=rf"test-00001-of-00002.*: row 1 has label {wrong}, but EuroSAT has .* 0 to 9"):
        read_labels(files, EUROSAT)


def test_labels_that_are_no_numbers_or_absent(tmp_path):
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(2), ["a", "b"], label=Value("string"))
    with pytest.raises(ValueError, match="its labels are string, not whole numbers"):
        read_labels(files, EUROSAT)
    files = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(2), [1, None])
    with pytest.raises(ValueError, match="has 1 rows without a label"):
        read_labels(files, EUROSAT)


@pytest.mark.parametrize("kept", [0, 1, 200, -1])
def test_half_a_download_is_named(tmp_path, kept):
    (path,) = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(6), [0] * 6)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="test-00000-of-00001.parquet cannot be read .*cut short.*adamerging fetch"):
        count_rows([path], EUROSAT)


def test_a_pointer_of_git_lfs_is_no_data(tmp_path):
    path = tmp_path / "test-00000-of-00001.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 47\n")
    with pytest.raises(ValueError, match="cannot be read .*a pointer of Git LFS"):
        count_rows([path], EUROSAT)


def test_a_file_broken_in_its_middle_is_named(tmp_path):
    (path,) = hubfiles.write_split(tmp_path, EUROSAT, "test", hubfiles.pictures(6), [0] * 6)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396  # page headers; the index at the end still stands
    path.write_bytes(data)
    with pytest.raises(ValueError, match="test-00000-of-00001.parquet cannot be read"):
        list(read_images([path], EUROSAT, range(6)))


def test_a_file_of_another_data_set_is_named(tmp_path):
    path = tmp_path / "test-00000-of-00001.parquet"
    parquet.write_table(pa.table({"text": ["a"], "label": [0]}), path)
    with pytest.raises(ValueError, match="has no column 'image' but text, label: is it a file of tanganke/eurosat"):
        read_labels([path], EUROSAT)


def test_an_image_that_is_only_a_path_is_refused(tmp_path):
    path = tmp_path / "test-00000-of-00001.parquet"
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    parquet.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "/a.png"}], struct), "label": [0]}), path)
    with pytest.raises(ValueError, match="row 0 holds no image but a path to one"):
        list(read_images([path], EUROSAT, [0]))


def test_a_tar_with_a_label_missing_or_broken_is_named(tmp_path):
    (path,) = hubfiles.write_split(tmp_path, FER, "test", hubfiles.pictures(2), [0, 1])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match="0.tar"):
        read_labels([path], FER)
    (path,) = hubfiles.write_split(tmp_path, FER, "test", hubfiles.pictures(2), [0, "happy"])
    with pytest.raises(ValueError, match="0.tar: one of its labels is not a whole number"):
        read_labels([path], FER)
