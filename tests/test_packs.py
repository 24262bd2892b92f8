"""Packs of images: both layouts read alike, and whatever does not fit is named."""

import io

import numpy as np
import pytest
from madepacks import CLASSES, pictures, write_arrays, write_jpegs
from PIL import Image

from adamerging_lib.worlds.tiny.packs import find_npz, read_pack


def changed(path, **arrays):
    with np.load(path) as pack:
        np.savez(path, **{**pack, **{name: value for name, value in arrays.items() if value is not None}})
    return path


def without(path, name):
    with np.load(path) as pack:
        np.savez(path, **{key: pack[key] for key in pack if key != name})
    return path


def test_arrays_come_as_they_are_at_their_own_size_and_grey_becomes_colour(tmp_path):
    for channels in (1, 3):
        write_arrays(tmp_path / "x.npz", size=16, channels=channels)
        data = read_pack(tmp_path / "x.npz", "test", 16)
        images, labels = pictures(9, 16, channels, 1)
        assert np.array_equal(data.images.permute(0, 2, 3, 1).numpy(), np.broadcast_to(images, (9, 16, 16, 3)))
        assert data.labels.tolist() == labels.tolist() and data.classes == CLASSES
        assert len(read_pack(tmp_path / "x.npz", "train", 16)) == 24


def test_jpegs_are_split_by_their_mark(tmp_path):
    write_jpegs(tmp_path / "x_jpg40.npz", counts=(20, 10))
    images, labels = pictures(30, 40, 3, 0)
    chosen = np.linspace(0, 29, 10).astype(int)
    test, train = (read_pack(tmp_path / "x_jpg40.npz", split, 40) for split in ("test", "train"))
    assert test.labels.tolist() == labels[chosen].tolist() and len(train) == 20
    assert train.labels.tolist() == np.delete(labels, chosen).tolist()
    apart = np.abs(test.images.permute(0, 2, 3, 1).numpy().astype(int) - images[chosen])
    assert apart.mean() < 20  # JPEG of noise


def test_images_are_brought_to_size_and_cropped_to_the_centre(tmp_path):
    wide = np.zeros((1, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = 200  # the centre square
    np.savez(
        tmp_path / "w.npz", train_images=wide, train_labels=[0], test_images=wide, test_labels=[0], classnames=["w"]
    )
    assert (read_pack(tmp_path / "w.npz", "train", 30).images == 200).all()
    image, _ = pictures(1, 64, 3, 0)
    write_arrays(tmp_path / "x.npz", size=64, counts=(1, 1))
    small = np.asarray(Image.fromarray(image[0]).resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(read_pack(tmp_path / "x.npz", "train", 16).images[0].permute(1, 2, 0).numpy(), small)


def test_a_pack_is_found_by_the_beginning_of_its_name(tmp_path):
    assert find_npz("mnist", tmp_path / "nowhere") is None
    (tmp_path / "tiny").mkdir()
    write_arrays(tmp_path / "tiny" / "mnist.npz")
    write_arrays(tmp_path / "resisc45_14class_jpg128.npz")
    write_arrays(tmp_path / "mnistlike.npz")
    assert find_npz("mnist", tmp_path).parent.name == "tiny"
    assert find_npz("resisc45", tmp_path).name == "resisc45_14class_jpg128.npz"
    assert find_npz("cars", tmp_path) is None
    write_arrays(tmp_path / "mnist_jpg64.npz")
    with pytest.raises(ValueError, match=r"several files .* \(mnist_jpg64.npz, tiny/mnist.npz\): keep one"):
        find_npz("mnist", tmp_path)


class Trap:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickled object was executed",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: without(p, "classnames"), "lacks classnames"),
        (lambda p: without(p, "test_labels"), "lacks test_labels"),
        (lambda p: changed(p, test_labels=np.full(9, 3)), "test labels must be whole numbers from 0 to 2"),
        (lambda p: changed(p, test_labels=np.full(9, -1)), "from 0 to 2"),
        (lambda p: changed(p, test_labels=np.zeros(9)), "must be whole numbers"),
        (lambda p: changed(p, test_labels=np.zeros(8, int)), r"labels \[8\]"),
        (lambda p: changed(p, test_images=np.zeros((9, 4, 4, 3), np.float32)), r"are float32 \[9, 4, 4, 3\]"),
        (lambda p: changed(p, test_images=np.zeros((9, 4, 4, 4), np.uint8)), r"are uint8 \[9, 4, 4, 4\]"),
        (lambda p: changed(p, test_images=np.zeros((0, 4, 4, 3), np.uint8), test_labels=np.array([], int)), "at least"),
        (lambda p: changed(p, classnames=np.array([Trap()], object)), "not a readable .npz file"),
        (lambda p: p.write_bytes(p.read_bytes()[:500]), "not a readable .npz file"),
        (lambda p: p.write_bytes(b"PK"), "not a readable .npz file"),
    ],
)  # fmt: skip
def test_a_pack_of_arrays_that_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "x.npz"
    write_arrays(path)
    change(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_pack(path, "test", 16)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: changed(p, offsets=np.arange(34)), "offsets must rise"),
        (lambda p: changed(p, is_test=np.zeros(5, np.uint8)), "is_test be 0 or 1 for each label"),
        (lambda p: changed(p, is_test=np.full(33, 2)), "is_test be 0 or 1"),
        (lambda p: changed(p, is_test=np.zeros(33, np.uint8)), "at least one"),
        (lambda p: changed(p, labels=np.full(33, 7)), "from 0 to 2"),
    ],
)
def test_a_pack_of_jpegs_that_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "x_jpg40.npz"
    write_jpegs(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_pack(change(path), "test", 16)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_jpeg_are_named_even_where_they_are_another_image(tmp_path):
    path = tmp_path / "x_jpg40.npz"
    write_jpegs(path)
    Image.new("RGB", (8, 8)).save(png := io.BytesIO(), "PNG")
    for data in (png.getvalue(), b"no image"):
        data = np.frombuffer(data, np.uint8)
        one = {"offsets": np.array([0, len(data)]), "labels": np.array([0]), "is_test": np.array([1])}
        with pytest.raises(ValueError, match="image 0 is not a readable JPEG"):
            read_pack(changed(path, jpg_bytes=data, **one), "test", 16)


def test_splits_are_train_and_test(tmp_path):
    write_arrays(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="'val' is unknown"):
        read_pack(tmp_path / "x.npz", "val", 16)
