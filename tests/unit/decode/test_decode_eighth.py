"""JPEGs at an eighth of their size, compiled: the very pixels of libjpeg-turbo, and nothing that is not sound."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from tests.support.compiled import compiled
from tests.support.pictures import saved
from worker.decode import decode
from worker.kernels import Kernel
from worker.models.card import Preprocessing
from worker.picture import Box, Pixels

#: Widths and heights around those of blocks and MCUs, and ones with rows of many.
SIZES = [(8, 8), (9, 17), (15, 16), (17, 31), (64, 48), (161, 133), (200, 10), (10, 200), (640, 480)]
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
KINDS = (*SUBSAMPLINGS, "grey")
#: Offset of the luminance's factors from the marker of a frame.
FACTORS = 11


@pytest.fixture(scope="module")
def eighth() -> Callable[..., NDArray[np.uint8] | None]:
    """Reads a file, or a part of it, whose size and channels are as Pillow says."""
    read: Kernel = compiled()

    def of(data: bytes, wanted: Box | None = None) -> NDArray[np.uint8] | None:
        image = Image.open(BytesIO(data))
        return read.eighth(data, *image.size, len(image.getbands()), wanted)

    return of


def drafted(data: bytes) -> NDArray[np.uint8]:
    """Pillow's pixels of the same, by libjpeg-turbo."""
    image = Image.open(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    width, height = image.size
    image.draft(None, (width // 8, height // 8))
    assert image.size == (-(-width // 8), -(-height // 8))
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def texture(size: tuple[int, int], noise: int, seed: int = 0) -> Image.Image:
    """Colours that change slowly, with noise: every kind of block, up to those of which every coefficient is coded."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-noise, noise + 1, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture in grey, or in colour with chrominance of a kind."""
    if kind == "grey":
        return saved(image.convert("L"), "JPEG", **options)
    return saved(image, "JPEG", subsampling=SUBSAMPLINGS[kind], **options)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_libjpeg_turbo(kind: str, size: tuple[int, int], eighth: Any) -> None:
    for quality in (1, 30, 75, 92, 100):
        for noise in (0, 12, 255):
            data = jpeg(texture(size, noise), kind, quality=quality)
            found = eighth(data)
            assert found is not None
            assert np.array_equal(found, drafted(data)), (quality, noise)


@pytest.mark.parametrize(
    "options", [{"optimize": True}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}], ids=str
)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
def test_tables_and_restarts_are_the_files_own(subsampling: int, options: dict[str, Any], eighth: Any) -> None:
    data = saved(texture((161, 133), 20), "JPEG", quality=85, subsampling=subsampling, **options)
    assert np.array_equal(eighth(data), drafted(data))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"restart_marker_blocks": 7}, {"restart_marker_blocks": 1000}, {"restart_marker_rows": 1}],
    ids=str,
)
def test_all_parts_of_a_large_picture_are_read_at_once(
    kind: str, options: dict[str, Any], eighth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cursors share files of some KiB, and come into step in the middle of them."""
    monkeypatch.setattr("PIL.ImageFile.MAXBLOCK", 1 << 22)  # files with tables of their own are written in one piece
    for size, noise, quality in (
        ((1000, 640), 12, 90),
        ((801, 1203), 3, 60),
        ((640, 480), 40, 100),
        ((2000, 16), 60, 95),
    ):
        data = jpeg(texture(size, noise), kind, quality=quality, **options)
        found = eighth(data)
        assert found is not None, (size, noise)
        assert np.array_equal(found, drafted(data)), (size, noise)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [3, 5, 6, 30])
def test_segments_may_be_of_a_few_bits(kind: str, interval: int, eighth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read beyond their ends takes no room from those that follow."""
    monkeypatch.setattr("PIL.ImageFile.MAXBLOCK", 1 << 24)
    size = (3000, 2000) if kind == "grey" else (1600, 1200)
    for image, quality in ((Image.new("RGB", size), 75), (texture(size, 12), 100)):
        data = jpeg(image, kind, quality=quality, optimize=True, restart_marker_blocks=interval)
        found = eighth(data)
        assert found is not None, quality
        assert np.array_equal(found, drafted(data))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 7}], ids=str)
def test_of_a_part_the_pixels_are_the_same(kind: str, options: dict[str, Any], eighth: Any) -> None:
    rng = random.Random(3)
    for size, noise in ((1000, 640), 12), ((801, 1203), 60), ((161, 133), 12), ((9, 17), 255), ((2000, 16), 3):
        data = jpeg(texture(size, noise), kind, quality=90, **options)
        whole = drafted(data)
        for box in [(0, 0, 1, 1), (0, 0, *whole.shape[1::-1]), *(part_of(whole, rng) for _ in range(12))]:
            found = eighth(data, box)
            assert found is not None
            assert np.array_equal(inside(found, box), inside(whole, box)), (size, box)


def part_of(pixels: Pixels, rng: random.Random) -> Box:
    """Any part of a picture."""
    (left, right), (top, bottom) = (sorted(rng.sample(range(side + 1), 2)) for side in pixels.shape[1::-1])
    return left, top, right, bottom


def inside(pixels: Pixels, box: Box) -> Pixels:
    """The part of a picture."""
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]


def test_a_part_must_be_one(eighth: Any) -> None:
    data = saved(texture((64, 48), 12), "JPEG")
    for box in ((0, 0, 9, 6), (0, 0, 8, 7), (-1, 0, 8, 6), (0, -1, 8, 6), (4, 0, 4, 6), (0, 5, 8, 3)):
        with pytest.raises(ValueError, match=r"the part .* of 8 x 6 pixels"):
            eighth(data, box)


def test_a_scan_that_goes_on_behind_the_picture_is_not_read_to_its_end() -> None:
    """There is room for a picture's tokens, not for those of a file: what became resident says how many were read."""
    data = saved(texture((64, 48), 12), "JPEG")
    noise = np.random.default_rng(5).integers(0, 255, 4 << 20, np.uint8).tobytes()  # no marker in it
    file, read = data[:-2] + noise + data[-2:], compiled()

    def growth() -> int:
        before = resident()
        assert read.eighth(file, 64, 48, 3) is None
        return resident() - before

    with ThreadPoolExecutor(1) as fresh:  # a thread that has kept no memory yet
        assert fresh.submit(growth).result() < 2 * len(file)  # its bytes, and not eight for each of them as well


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", KINDS)
def test_what_never_comes_into_step_is_read_by_one_cursor(kind: str, eighth: Any) -> None:
    """Of one colour, with codes of one bit: zeros all through, which look the same from every bit on."""
    image = Image.new("RGB", (6000, 4000), (20, 120, 200))
    for spot in (None, (5000, 3000), (2900, 1000)):
        if spot:
            image.paste(texture((200, 200), 60), spot)
        data = jpeg(image, kind, optimize=True)
        found = eighth(data)
        assert found is not None
        assert np.array_equal(found, drafted(data)), spot


def test_components_with_the_same_codes_are_told_apart(eighth: Any) -> None:
    """In step with the blocks, and out of step with the MCUs, for ever."""
    data = ycc_with_one_table(saved(texture((640, 480), 30), "JPEG", keep_rgb=True))
    found = eighth(data)
    assert found is not None
    assert np.array_equal(found, drafted(data))


def ycc_with_one_table(rgb: bytes) -> bytes:
    """A file of three equal components, said to be YCbCr: without Adobe's marker, and numbered from 1."""
    data = bytearray(rgb)
    marker = data.index(b"\xff\xee")
    del data[marker : marker + 2 + int.from_bytes(data[marker + 2 : marker + 4], "big")]
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for number in range(3):
        assert data[frame + FACTORS + 1 + 3 * number] == 0  # all of one quantiser
        assert data[scan + 6 + 2 * number] == 0  # and of one pair of tables
        data[frame + FACTORS - 1 + 3 * number] = data[scan + 5 + 2 * number] = 1 + number
    return bytes(data)


def test_chrominance_for_which_there_is_no_room_is_left_to_libjpeg_turbo(eighth: Any) -> None:
    """Nothing but coefficients of chrominance, in fewer bits than eight each: more than there is room for."""
    rng = np.random.default_rng(3)
    pixels = np.full((1600, 1600, 3), 128, np.uint8)
    pixels[:, :, 1:] += rng.integers(0, 3, (1600, 1600, 2), np.uint8)
    image = Image.fromarray(pixels, "YCbCr").resize((3200, 3200), Image.Resampling.NEAREST)
    data = saved(image, "JPEG", quality=100, subsampling=SUBSAMPLINGS["4:2:0"], optimize=True)
    assert eighth(data) is None
    smaller = saved(image, "JPEG", quality=50, subsampling=SUBSAMPLINGS["4:2:0"], optimize=True)
    assert np.array_equal(eighth(smaller), drafted(smaller))


def test_chrominance_of_half_the_height_is_read_as_well(eighth: Any) -> None:
    """What turns a picture without decoding it writes 4:4:0. Pillow does not: a square of 4:2:2 has as many MCUs."""
    data = bytearray(saved(texture((160, 160), 20), "JPEG", subsampling=SUBSAMPLINGS["4:2:2"]))
    at = data.index(b"\xff\xc0") + FACTORS
    assert data[at] == 0x21
    data[at] = 0x12
    assert np.array_equal(eighth(bytes(data)), drafted(bytes(data)))


@pytest.mark.parametrize("options", [{"progressive": True}, {"keep_rgb": True}, {"qtables": [[255] * 64] * 2}], ids=str)
def test_of_other_kinds_it_takes_none_or_the_same(options: dict[str, Any], eighth: Any) -> None:
    data = saved(texture((161, 133), 20), "JPEG", **options)
    found = eighth(data)
    assert ("qtables" in options) == (found is not None)
    assert found is None or np.array_equal(found, drafted(data))


def test_what_it_takes_of_damaged_files_is_what_libjpeg_turbo_makes_of_them(eighth: Any) -> None:
    rng = random.Random(7)
    taken = refused = parts = 0
    for number in range(1500):
        size = rng.choice(SIZES if number % 5 == 0 else SIZES[:-1])
        data = bytearray(
            saved(
                texture(size, rng.choice((0, 12, 60)), number),
                "JPEG",
                quality=rng.choice((5, 75, 95)),
                subsampling=rng.choice((0, 1, 2)),
                restart_marker_blocks=rng.choice((0, 0, 2)),
            )
        )
        damage(rng, data)
        try:
            found = eighth(bytes(data))
        except OSError:  # Pillow sees no image in it
            continue
        box = part_of(np.zeros([-(-side // 8) for side in size[::-1]]), rng)
        try:
            part = eighth(bytes(data), box)
        except ValueError:  # the damage is in what it says of its size
            part = None
        if part is not None:
            parts += 1
            assert np.array_equal(inside(part, box), inside(drafted(bytes(data)), box)), (number, box)
        if found is None:
            refused += 1
            continue
        taken += 1
        assert np.array_equal(found, drafted(bytes(data))), number
    assert taken > 200
    assert parts >= taken
    assert refused > 500


def damage(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) if rng.random() < 0.6 else min(640, len(data)))
    match rng.randrange(4):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 255, 0xD0, 0xD9))
        case 2:
            del data[at : at + rng.choice((1, 2, 1000))]
        case 3:
            data[at:at] = bytes(rng.choice(((0,), (255,), (255, 0xD0), (255, 0xD9))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 48), (1000, 640)], ids=str)
def test_what_is_not_sound_to_the_last_bit_is_left_to_libjpeg_turbo(
    kind: str, size: tuple[int, int], eighth: Any
) -> None:
    data = jpeg(texture(size, 12), kind)
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    for damaged in (
        data[:-2] + b"\x00" + data[-2:],  # a byte too many
        data[:-3] + data[-2:],  # one too few
        data[:-2],  # no end
        data[:middle] + data[-2:],
        data[:middle] + 8 * b"\xff\x00" + data[middle:],  # ones, which are no code
    ):
        assert eighth(damaged) is None
    assert eighth(data) is not None


#: By kind: a scan of one MCU in which each code is "0", and the same with "1" for one of them.
SCANS = {
    "grey": ("00", ("1", "01")),
    "4:4:4": ("000000", ("10000", "010000", "00100", "000100", "0001")),
    "4:2:0": (12 * "0", ("00001000000", 8 * "0" + "100", 8 * "0" + "0100", 8 * "0" + "0001")),
}


@pytest.mark.parametrize("kind", SCANS)
def test_a_code_that_is_in_no_table_is_not_taken_for_another(kind: str, eighth: Any) -> None:
    """The picture would end where the scan does, all the same."""
    file = jpeg(Image.new("RGB", (8, 8)), kind)
    sound, unsound = SCANS[kind]
    assert np.array_equal(eighth(of_short_codes(file, sound)), drafted(of_short_codes(file, sound)))
    for scan in unsound:
        assert eighth(of_short_codes(file, scan)) is None, scan


def of_short_codes(file: bytes, scan: str) -> bytes:
    """The same head with one code in each table, "0" for "no change" or "no more", and these bits for a scan."""
    start = file.index(b"\xff\xda")
    head = bytearray(file[: start + 2 + int.from_bytes(file[start + 2 : start + 4], "big")])
    while (at := head.find(b"\xff\xc4")) >= 0:
        del head[at : at + 2 + int.from_bytes(head[at + 2 : at + 4], "big")]
    tables = b"".join(bytes([name, 1]) + bytes(16) for name in (0x00, 0x01, 0x10, 0x11))
    head[2:2] = b"\xff\xc4" + (2 + len(tables)).to_bytes(2, "big") + tables
    bits = scan + "1" * (-len(scan) % 8)
    return bytes(head) + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\xff\xd9"


def test_another_size_than_the_one_that_was_checked_is_not_read() -> None:
    data = saved(texture((64, 48), 12), "JPEG")
    read = compiled()
    assert read.eighth(data, 64, 48, 3) is not None
    for size in ((64, 40), (56, 48), (63, 48), (65535, 48)):
        assert read.eighth(data, *size, 3) is None
    assert read.eighth(data, 64, 48, 1) is None


def test_a_side_that_libjpeg_does_not_read_is_not_read_either() -> None:
    """Grey of one level: all blocks are the same six bits, the codes for "no change" and for "no more"."""
    small = saved(Image.new("L", (8, 8), 128), "JPEG")
    frame, scan = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    bits = "001010" * -(-65_500 // 8)
    pattern = int(bits, 2).to_bytes(len(bits) // 8, "big")
    for width, is_read in ((65_500, True), (65_501, False)):
        head = bytearray(small[: scan + 2 + small[scan + 3]])
        head[frame + 7 : frame + 9] = width.to_bytes(2, "big")
        data = bytes(head) + pattern + b"\xff\xd9"
        found = compiled().eighth(data, width, 8, 1)
        assert (found is not None) == is_read
        if found is not None:
            assert np.array_equal(found, drafted(data))


def test_of_many_tables_only_those_in_use_matter(eighth: Any) -> None:
    """As many as fit may be defined, again and again; the last one counts, and what no scan names need not be sound."""
    data = saved(texture((64, 48), 12), "JPEG")
    codes = b"\x13" + bytes([2, 2, 2]) + bytes(13) + bytes(range(6))  # too many codes for their lengths
    segment = b"\xff\xc4" + (2 + 100 * len(codes)).to_bytes(2, "big") + 100 * codes
    assert np.array_equal(eighth(data[:2] + segment + data[2:]), drafted(data))
    used = segment.replace(b"\x13\x02", b"\x10\x02")
    scan = data.index(b"\xff\xda")
    assert eighth(data[:scan] + used + data[scan:]) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_photograph_comes_out_upright_and_the_same_either_way(orientation: int) -> None:
    compiled()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(texture((1600, 1100), 12), "JPEG", exif=exif)
    card = Preprocessing(resize=128, crop=(112, 112), interpolation="bicubic", scaled_decode=True)
    found = decode(data, card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.plainjpeg.kernel", lambda: None)
        assert np.array_equal(found, decode(data, card))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.decode.read_jpeg", lambda *_: None)
        assert np.array_equal(found, decode(data, card))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1600, 1100), (1100, 1600), (2403, 1100)], ids=str)
@pytest.mark.parametrize(
    "card",
    [
        Preprocessing(resize=128, crop=(112, 112), interpolation="bicubic", scaled_decode=True),
        Preprocessing(resize=125, crop=(20, 90), interpolation="bilinear", scaled_decode=True),
        Preprocessing(resize=(60, 120), crop=(60, 200), interpolation="lanczos", scaled_decode=True),
        Preprocessing(resize=100, crop=(64, 64), interpolation="nearest", scaled_decode=True),
    ],
    ids=lambda card: card.interpolation,
)
def test_nothing_outside_of_the_wanted_part_comes_into_the_result(
    card: Preprocessing, size: tuple[int, int], orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, parts = compiled(), []
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(texture(size, 12), "JPEG", exif=exif)

    def spoiled(data: bytes, width: int, height: int, channels: int, wanted: Box | None = None) -> Pixels:
        """The wanted part between pixels of noise."""
        found = read.eighth(data, width, height, channels, wanted)
        assert found is not None
        assert wanted is not None
        noise = np.random.default_rng(1).integers(0, 256, found.shape, np.uint8)
        inside(noise, wanted)[...] = inside(found, wanted)
        parts.append(inside(found, wanted).size / found.size)
        return noise

    monkeypatch.setattr("worker.plainjpeg.kernel", lambda: SimpleNamespace(eighth=spoiled))
    found = decode(data, card)
    assert len(parts) == 1
    assert card.interpolation in ("lanczos", "nearest") or parts[0] < 0.8  # those want the whole
    monkeypatch.setattr("worker.plainjpeg.kernel", lambda: None)
    assert np.array_equal(found, decode(data, card))
