"""Finding and verifying the MNIST files; the genuine ones where MMCL_MNIST says where they are."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmcl_fast.data.mnist.files import FILES, load_digits
from mmcl_fast.data.mnist.idx import contents, md5_of
from mmcl_fast.errors import DataError
from tests.support.digits import NAMES, idx_bytes, make_digits, write_digits


@pytest.fixture
def mnist() -> Path:
    """The genuine files."""
    folder = os.environ.get("MMCL_MNIST")
    if not folder:
        pytest.skip("MMCL_MNIST names no folder with the genuine MNIST files")
    return Path(folder)


def test_files_of_the_format_are_read_when_asked(tmp_path: Path) -> None:
    digits = load_digits(write_digits(tmp_path, train=30, test=20), "none")
    for part, count, seed in (("train", 30, 1), ("test", 20, 2)):
        images, labels = make_digits(count, seed)
        np.testing.assert_array_equal(getattr(digits, f"{part}_images"), images)
        np.testing.assert_array_equal(getattr(digits, f"{part}_labels"), labels)
        assert digits.md5[f"{part}_images"] == md5_of(idx_bytes(images))


PLACES = {
    "unpacked": ("{}", False),
    "dotted": ("{dotted}", False),
    "dotted_gzip": ("{dotted}.gz", True),
    "torchvision": ("MNIST/raw/{}", False),
}


@pytest.mark.parametrize("place", PLACES)
def test_other_layouts_hold_the_same_digits(place: str, tmp_path: Path) -> None:
    pattern, packed = PLACES[place]
    source, target = write_digits(tmp_path / "source", 30, 20), tmp_path / "target"
    for name in NAMES.values():
        plain = name.removesuffix(".gz")
        path = target / pattern.format(plain, dotted=plain.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (source / name).read_bytes()
        path.write_bytes(data if packed else gzip.decompress(data))
    found, wanted = load_digits(target, "none"), load_digits(source, "none")
    assert found.md5 == wanted.md5
    np.testing.assert_array_equal(found.train_images, wanted.train_images)


def test_missing_files_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    write_digits(tmp_path)
    for key in ("train_labels", "test_images"):
        (tmp_path / NAMES[key]).unlink()
    with pytest.raises(DataError) as caught:
        load_digits(tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"data: expected {NAMES['train_labels']}, {NAMES['test_images']} in {str(tmp_path)!r}"
    )
    assert "mmcl table1 --data DIR --download" in message
    assert NAMES["train_images"] not in message
    assert "\n" not in message


def test_another_file_is_refused_with_both_checksums(tmp_path: Path) -> None:
    write_digits(tmp_path)
    path, file = tmp_path / NAMES["train_images"], FILES["train_images"]
    with pytest.raises(DataError) as caught:
        load_digits(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected the content of {file.name}")
    for part in (file.content_md5, file.md5, md5_of(contents(path)), md5_of(path.read_bytes())):
        assert part in message
    assert "--download" in message


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "emptied"])
def test_a_damaged_archive_is_refused_with_both_checksums(damage: str, tmp_path: Path) -> None:
    write_digits(tmp_path)
    path = tmp_path / NAMES["train_images"]
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    path.write_bytes({"truncated": data[:middle], "corrupt": flipped, "emptied": b""}[damage])
    with pytest.raises(DataError) as caught:
        load_digits(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected")
    assert FILES["train_images"].md5 in message
    assert md5_of(path.read_bytes()) in message
    assert "--download" in message


MISMATCHES = {
    "sizes": ("train_images", np.zeros((600, 14, 14)), "expected images of 28 x 28 pixels"),
    "counts": ("train_images", np.zeros((599, 28, 28)), "expected 600 images, got 599"),
    "labels": ("test_labels", np.full(200, 10), "expected labels 0 .. 9, got 10"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_files_that_do_not_fit_together_are_refused(name: str, tmp_path: Path) -> None:
    key, values, message = MISMATCHES[name]
    write_digits(tmp_path)
    (tmp_path / NAMES[key]).write_bytes(idx_bytes(values))
    with pytest.raises(DataError, match=message) as caught:
        load_digits(tmp_path, "none")
    assert str(caught.value).startswith(str(tmp_path / NAMES[key]))


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    write_digits(tmp_path, train=0)
    with pytest.raises(DataError, match="expected at least one image, got 0"):
        load_digits(tmp_path, "none")


def test_the_genuine_files(mnist: Path) -> None:
    digits = load_digits(mnist)
    assert digits.train_images.shape == (60_000, 28, 28)
    assert digits.test_images.shape == (10_000, 28, 28)
    # Published counts of the digits (LeCun's page has none; torchvision's and Keras' agree).
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(digits.train_labels).tolist() == counts
    assert digits.md5 == {key: file.content_md5 for key, file in FILES.items()}


def test_genuine_files_packed_anew_are_genuine_and_one_bit_is_not(
    mnist: Path, tmp_path: Path
) -> None:
    for name in NAMES.values():
        shutil.copy(mnist / name, tmp_path / name)
    path = tmp_path / NAMES["test_images"]
    raw = bytearray(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(bytes(raw), 1))
    load_digits(tmp_path)
    raw[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(raw), 1))
    with pytest.raises(DataError, match=f"MD5 {FILES['test_images'].content_md5}, got"):
        load_digits(tmp_path)
