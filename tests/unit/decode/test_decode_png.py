"""PNGs by the short way: the very pixels of Pillow's plugin, to which all that is not plain or not sound is left."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.errors import CorruptImageError, ItemError, TooLargeError
from tests.fuzz.mutations import damaged
from tests.support.compiled import compiled
from tests.support.pictures import AS_IT_IS, SIDE, chunk, difference, picture, png, saved
from worker import decode as decoding
from worker import kernels, plainpng
from worker.decode import DecodeLimits, decode
from worker.kernels import Kernel
from worker.models.card import Preprocessing
from worker.picture import pixels_of
from worker.plainpng import read_plain

#: Colour types of a PNG by Pillow's mode, and their channels.
KINDS = {"L": (0, 1), "RGB": (2, 3), "RGBA": (6, 4)}
#: Widths and heights around those from which rows are restored four at a time, and ones with rests.
SIZES = [(1, 1), (3, 2), (7, 9), (8, 4), (8, 5), (9, 8), (10, 3), (33, 17), (2, 40), (64, 63), (301, 50)]
ANY = 1 << 30
END = (b"IEND", b"")
#: Takes more of a picture than there is, so that all pixels count.
WHOLE = Preprocessing(resize=None, crop=(70, 310))


@pytest.fixture(params=["compiled", "by Pillow's decoder"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is compiled, and without."""
    if request.param == "compiled":
        compiled()
    else:
        monkeypatch.setattr(plainpng, "kernel", lambda: None)


def rows_of(mode: str, size: tuple[int, int], filters: Sequence[int], seed: int = 0) -> bytes:
    """Filtered rows of noise; half of it is small, as what filters leave of photographs."""
    rng, width = np.random.default_rng(seed), size[0] * KINDS[mode][1]
    rows = []
    for row, kind in enumerate(filters):
        noise = rng.integers(0, 256, width) if row % 2 else rng.integers(-6, 7, width)
        rows.append(bytes([kind]) + noise.astype(np.uint8).tobytes())
    return b"".join(rows)


def made(mode: str, size: tuple[int, int], rows: bytes) -> bytes:
    return png((*size, 8, KINDS[mode][0], 0), rows)


def by_the_plugin(data: bytes) -> NDArray[Any]:
    """uint8[height, width, channels], laid on white where it has alpha."""
    image = Image.open(BytesIO(data))
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image).reshape(image.height, image.width, -1)


def in_pieces(data: bytes, *parts: tuple[bytes, bytes]) -> bytes:
    """A file with other chunks in place of its one IDAT and IEND."""
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(map(chunk, parts))


def idat(data: bytes) -> bytes:
    at = data.index(b"IDAT") - 4
    return data[at + 8 : at + 8 + int.from_bytes(data[at : at + 4], "big")]


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", KINDS)
def test_each_filter_alone_and_any_beside_any_other(mode: str, size: tuple[int, int]) -> None:
    rng = random.Random(0)
    same = [[kind] * size[1] for kind in range(5)]
    for seed, filters in enumerate([*same, *(rng.choices(range(5), k=size[1]) for _ in range(5))]):
        data = made(mode, size, rows_of(mode, size, filters, seed))
        found = read_plain(data, ANY)
        assert found is not None
        assert np.array_equal(pixels_of(found), by_the_plugin(data)), filters


@pytest.mark.parametrize("mode", KINDS)
def test_a_picture_that_pillow_writes_is_read_whatever_its_size(mode: str) -> None:
    compiled()
    image = picture(mode, (640, 480))
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    noisy = Image.effect_noise(image.size, 60).convert(mode)
    data = saved(Image.blend(image, noisy, 0.3), "PNG")
    assert len(data) > plainpng.SMALL_BYTES
    found = read_plain(data, ANY)
    assert found is not None
    assert np.array_equal(pixels_of(found), by_the_plugin(data))


def test_without_what_is_compiled_a_large_file_is_left_to_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.effect_noise((300, 300), 60), "PNG")
    monkeypatch.setattr(plainpng, "kernel", lambda: None)
    assert read_plain(data, ANY) is None
    assert read_plain(saved(picture(), "PNG"), ANY) is not None


@pytest.mark.usefixtures("_either")
def test_what_is_clear_is_white_and_what_is_opaque_stays_as_it_is() -> None:
    opaque = picture("RGBA")
    assert difference(saved(opaque, "PNG"), picture()) == 0
    clear = opaque.copy()
    clear.putalpha(0)
    assert difference(saved(clear, "PNG"), Image.new("RGB", (SIDE, SIDE), "white")) == 0


@pytest.mark.usefixtures("_either")
def test_many_pixel_chunks_with_idle_ones_around_them_are_one_picture() -> None:
    data = saved(picture(), "PNG")
    packed = idat(data)
    parts = [(b"IDAT", packed[at : at + 40]) for at in range(0, len(packed), 40)]
    for kind in (b"gAMA", b"sRGB", b"cHRM", b"iCCP", b"sBIT", b"bKGD", b"pHYs", b"tIME", b"tEXt", b"zTXt", b"iTXt"):
        idle = (kind, b"transparency\0words")
        for pieces in ([idle, *parts, END], [(b"IDAT", b""), *parts, (b"IDAT", b""), idle, END]):
            found = read_plain(in_pieces(data, *pieces), ANY)
            assert found is not None, kind
            assert np.array_equal(pixels_of(found), np.asarray(picture()))


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("mode", KINDS)
def test_words_that_pillow_takes_for_exif_turn_the_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    words = (b"tEXt", b"exif\0" + exif.tobytes().removeprefix(b"Exif\0\0"))
    data = saved(picture(mode), "PNG")
    turned = in_pieces(data, words, (b"IDAT", idat(data)), END)
    ours = decode(turned, AS_IT_IS)
    assert not np.array_equal(ours, decode(data, AS_IT_IS))
    monkeypatch.setattr(decoding, "read_plain", lambda data, max_pixels: None)
    assert np.array_equal(ours, decode(turned, AS_IT_IS))


def test_millions_of_empty_pixel_chunks_take_no_memory() -> None:
    compiled()
    data = saved(picture(), "PNG")
    at = data.index(b"IDAT") - 4
    data = data[:at] + chunk((b"IDAT", b"")) * 200_000 + data[at:]
    tracemalloc.start()
    found = read_plain(data, ANY)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert most < 1 << 18


#: Of a sound file and of what its IDAT holds: files that are not plain, or not sound.
_NOT_PLAIN: dict[str, Callable[[bytes, bytes], bytes]] = {
    "EXIF": lambda data, packed: in_pieces(data, (b"eXIf", b"II*\0"), (b"IDAT", packed), END),
    "a transparent colour": lambda data, packed: in_pieces(data, (b"tRNS", bytes(6)), (b"IDAT", packed), END),
    "animation": lambda data, packed: in_pieces(data, (b"acTL", bytes(8)), (b"IDAT", packed), END),
    "pixels apart": lambda data, packed: in_pieces(
        data, (b"IDAT", packed[:50]), (b"tIME", bytes(7)), (b"IDAT", packed[50:]), END
    ),
    "pixels apart from an empty chunk of them": lambda data, packed: in_pieces(
        data, (b"IDAT", b""), (b"tIME", bytes(7)), (b"IDAT", packed), END
    ),
    "a chunk that nobody knows": lambda data, packed: in_pieces(data, (b"prIv", b"?"), (b"IDAT", packed), END),
    "only empty pixel chunks": lambda data, packed: in_pieces(data, (b"IDAT", b""), END),
    "no pixel across": lambda data, packed: png((0, SIDE, 8, 2, 0), bytes(SIDE)),
    "a window larger than there may be": lambda data, packed: in_pieces(data, (b"IDAT", b"\xf8\0" + packed[2:]), END),
    "no end": lambda data, packed: in_pieces(data, (b"IDAT", packed)),
    "no pixels": lambda data, packed: in_pieces(data, END),
    "two headers": lambda data, packed: in_pieces(data, (b"IHDR", data[16:29]), (b"IDAT", packed), END),
    "a chunk that is longer than the file": lambda data, packed: data[:33] + b"\x7f\xff\xff\xff" + data[37:],
    "a wrong checksum of a chunk": lambda data, packed: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "palette": lambda data, packed: saved(picture("RGB").quantize(16), "PNG"),
    "16 bits": lambda data, packed: png((SIDE, SIDE, 16, 0, 0), bytes((1 + 2 * SIDE) * SIDE)),
    "interlaced": lambda data, packed: png((1, 1, 8, 2, 1), bytes(4)),
}
#: Of the rows of a file: what its IDAT holds, which cannot be right.
_NOT_SOUND: dict[str, Callable[[bytes], bytes]] = {
    "a row too few": lambda rows: zlib.compress(rows[: -1 - 3 * SIDE]),
    "a byte too few": lambda rows: zlib.compress(rows[:-1]),
    "a byte too many": lambda rows: zlib.compress(rows + b"\0"),
    "a filter that there is not": lambda rows: zlib.compress(rows[: -1 - 3 * SIDE] + b"\5" + rows[-3 * SIDE :]),
    "a wrong checksum of the pixels": lambda rows: zlib.compress(rows)[:-1] + b"?",
    "no checksum of the pixels": lambda rows: zlib.compress(rows)[:-4],
    "no zlib": lambda rows: b"\x00" + zlib.compress(rows)[1:],
    "cut off": lambda rows: zlib.compress(rows)[:-40],
}


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("what", _NOT_PLAIN)
def test_what_is_not_plain_or_not_sound_is_left_to_the_plugin(what: str) -> None:
    data = saved(picture(), "PNG")
    assert read_plain(data, ANY) is not None
    assert read_plain(_NOT_PLAIN[what](data, idat(data)), ANY) is None


@pytest.mark.parametrize("what", _NOT_SOUND)
def test_pixels_that_are_not_sound_are_left_to_the_plugin(what: str) -> None:
    compiled()
    rows = rows_of("RGB", (SIDE, SIDE), [row % 5 for row in range(SIDE)])
    data = made("RGB", (SIDE, SIDE), rows)
    assert read_plain(data, ANY) is not None
    assert read_plain(in_pieces(data, (b"IDAT", _NOT_SOUND[what](rows)), END), ANY) is None


def test_damaged_files_come_to_what_the_plugin_alone_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [damaged(5, "png", number) for number in range(4000)]
    ours, limits = [outcome(data) for data in files], DecodeLimits()
    taken = sum(read_plain(data, limits.max_pixels) is not None for data in files if data[:4] == b"\x89PNG")
    monkeypatch.setattr(decoding, "read_plain", lambda data, max_pixels: None)
    for number, (data, made_of_it) in enumerate(zip(files, ours, strict=True)):
        assert made_of_it == outcome(data), number
    assert taken > 20


def outcome(data: bytes) -> bytes | str:
    """Its pixels, or the code of its error."""
    try:
        return decode(data, WHOLE).tobytes()
    except ItemError as exc:
        return exc.code


@pytest.mark.usefixtures("_either")
def test_a_png_is_held_to_the_limit_of_pixels() -> None:
    with pytest.raises(TooLargeError):
        decode(saved(picture(), "PNG"), AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE - 1))
    decode(saved(picture(), "PNG"), AS_IT_IS, DecodeLimits(max_pixels=SIDE * SIDE))


def test_more_than_its_rows_is_not_inflated() -> None:
    compiled()
    data = in_pieces(saved(picture(), "PNG"), (b"IDAT", zlib.compress(bytes(64 << 20))), END)
    tracemalloc.start()
    assert read_plain(data, ANY) is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 18


@pytest.mark.parametrize("at", [16, 24, 29, 50, -20], ids=lambda at: f"byte {at}")
def test_one_wrong_byte_is_seen(at: int) -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[at] ^= 0x5A
    with pytest.raises((CorruptImageError, TooLargeError)):
        decode(bytes(data), AS_IT_IS)


@pytest.mark.parametrize("mode", KINDS)
def test_a_picture_in_many_pieces_is_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    data = made(mode, (33, 17), rows_of(mode, (33, 17), [row % 5 for row in range(17)]))
    for piece in (1, 200, 300, 600, 2000):
        monkeypatch.setattr(plainpng, "PIECE", piece)
        found = read_plain(data, ANY)
        assert found is not None
        assert np.array_equal(pixels_of(found), by_the_plugin(data)), piece
        spoilt = in_pieces(data, (b"IDAT", zlib.compress(zlib.decompress(idat(data))[:-1])), END)
        assert read_plain(spoilt, ANY) is None


def test_rows_take_little_memory_beside_their_pixels() -> None:
    compiled()
    size = (2000, 1000)
    data = saved(picture("RGB", size), "PNG")
    tracemalloc.start()
    assert read_plain(data, ANY) is not None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * size[0] * size[1] * 1.2


def test_rows_of_another_size_than_they_should_have_are_refused() -> None:
    kernel: Kernel = compiled()
    into = np.zeros((3, 3, 3), np.uint8)
    for rows, result, first in (
        (bytes(19), into, 0),
        (bytes(21), into, 0),
        (bytes(30), into, 0),
        (bytes(20), into, 1),
        (bytes(20), into, -1),
        (bytes(14), np.zeros((3, 3, 2), np.uint8), 0),
        (bytes(20), np.zeros((3, 6, 3), np.uint8)[:, ::2], 0),
    ):
        with pytest.raises(ValueError, match="pixels with"):
            kernel.unfilter(rows, result, first)
    assert kernel.unfilter(bytes(20), into)
    assert not kernel.unfilter(b"\5" + bytes(9), into, 1)


def test_more_rows_than_c_can_count_are_left_to_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    high, wide = (made("L", size, rows_of("L", size, [0] * size[1])) for size in ((2, 5), (5, 2)))
    for data in (high, wide):
        monkeypatch.setattr(kernels, "MOST_PNG", 1 << 20)
        assert read_plain(data, ANY) is not None
        monkeypatch.setattr(kernels, "MOST_PNG", 4)
        assert read_plain(data, ANY) is None
