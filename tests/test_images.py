import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.extras import needs
from tests.tolerance import assert_close
from ttd import images
from ttd.data.listing import is_image_file
from ttd.data.sources import decode_image
from ttd.errors import InputError
from ttd.images import MAX_PIXELS, prepare_pixels, read_image

RAMP = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_what_was_read_is_upright_when_it_is_read_again(tmp_path: Path, name: str) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        once = read_image(saved(tmp_path, Image.fromarray(RAMP), name, exif=exif))
        again = read_image(once)
        assert once.size == ((7, 5) if orientation < 5 else (5, 7))
        assert np.array_equal(np.asarray(again), np.asarray(once))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and then ends."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("how", ["path", "string", "pil", "array", "view"])
def test_every_way_to_give_a_image_gives_the_same(tmp_path: Path, how: str) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP), "a.png")
    source = {
        "path": path,
        "string": str(path),
        "pil": Image.fromarray(RAMP),
        "array": RAMP,
        "view": RAMP[::-1, ::-1][::-1, ::-1],
    }[how]
    image = read_image(source)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), RAMP)


def test_exif_orientation_is_honoured_in_files_and_pil_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    path = saved(tmp_path, Image.fromarray(RAMP), "a.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), np.rot90(RAMP, -1))
    assert np.array_equal(np.asarray(read_image(Image.open(path))), np.rot90(RAMP, -1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("exif", "said"),
    [(b"Exif\0\0nonsense", "cannot be read"), (b"Exif\0\0II*\0\xff\xff\xff\xff", "are damaged")],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_broken_exif_data_does_not_hide_the_pixels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, exif: bytes, said: str, name: str
) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP), name, exif=exif)
    with caplog.at_level("WARNING", "ttd"):
        pixels = np.asarray(read_image(path))
    if name == "a.png":  # Pillow takes nonsense in a JPEG for no EXIF at all
        assert np.array_equal(pixels, RAMP)
        assert f"the EXIF data of {path} {said}" in caplog.text
    assert pixels.shape == RAMP.shape


def test_one_pixel_and_greys() -> None:
    assert read_image(np.full((1, 1, 3), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert read_image(Image.new("L", (2, 2), 9)).getpixel((0, 0)) == (9, 9, 9)
    assert read_image(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.uint16, [[0, 32896, 65535]], [0, 128, 255]),
        (np.int32, [[0, 32896, 65535]], [0, 128, 255]),
        (np.int32, [[0, 100, 200]], [0, 100, 200]),
        (np.float32, [[0, 0.5, 1.0]], [0, 128, 255]),
        (np.float32, [[0, 100.2, 255]], [0, 100, 255]),
    ],
)
def test_deep_greys_are_scaled_to_eight_bits(
    tmp_path: Path, dtype: type, values: list[list[float]], expected: list[int]
) -> None:
    image = Image.fromarray(np.array(values, dtype=dtype))
    path = saved(tmp_path, image, "a.tiff")
    for source in (image, path):
        assert np.asarray(read_image(source))[0, :, 0].tolist() == expected


def test_greys_out_of_range_are_refused() -> None:
    for value in (-1.0, float("nan"), 70_000.0):
        with pytest.raises(InputError, match="convert it to 8 bits"):
            read_image(Image.fromarray(np.full((2, 2), value, np.float32)))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    palette = saved(tmp_path, clear.quantize(4), "a.png", transparency=0)
    both = clear.convert("PA")
    both.putalpha(clear.getchannel("A"))  # before Pillow 12 the conversion loses it
    for source in (clear, both, palette):
        pixels = np.asarray(read_image(source))[0]
        assert [255, 255, 255] in pixels.tolist()
    assert np.asarray(read_image(clear))[0].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert read_image(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_palette_and_animated_files(tmp_path: Path) -> None:
    cmyk = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=95)
    red = np.asarray(read_image(cmyk))[4, 4]
    assert red[0] > 200
    assert red[1] < 60
    palette = Image.fromarray(np.full((4, 4, 3), (0, 0, 255), np.uint8)).convert("P")
    assert read_image(palette).getpixel((0, 0)) == (0, 0, 255)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    gif = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(gif).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_returned_does_not_change_with_its_source() -> None:
    source = Image.new("RGB", (2, 2), "red")
    image = read_image(source)
    source.paste("blue", (0, 0, 2, 2))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_unusable_files_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, words in [("gone.png", "does not exist"), ("", "folder"), ("text.jpg", "not an image")]:
        with pytest.raises(InputError, match=words):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "tiff", "bmp"])
def test_truncated_files_are_refused(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"a.{ending}")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"damaged|not an image"):
        read_image(path)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    ending = ["png", "jpeg", "gif", "tiff", "webp"][seed % 5]
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, ending)
    data = bytearray(buffer.getvalue())
    for place in rng.integers(0, len(data), 12):
        data[place] = rng.integers(256)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    # Some damage leaves an image that can be read; the rest must be one kind of error.
    with contextlib.suppress(InputError):
        assert read_image(path).mode == "RGB"


@pytest.mark.parametrize("size", [(13_500, 13_500), (60_000, 60_000)])
def test_images_above_the_limit_are_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(InputError, match="178 megapixels"):
        read_image(path)


def test_images_under_the_limit_are_read_without_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("1", (13_000, 13_000)), "large.png")  # 169 megapixels
    assert MAX_PIXELS > 13_000**2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == (13_000, 13_000)


@pytest.mark.parametrize(
    "array",
    [
        RAMP.astype(np.float32),
        RAMP[..., 0],
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError):
        read_image(array)


def test_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match="not list"):
        read_image([1, 2])  # type: ignore[arg-type]


def test_prepared_pixels_are_resized_by_pillow_and_normalised() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    pixels = prepare_pixels(Image.fromarray(RAMP), (10, 6), mean, std).numpy()
    resized = np.asarray(Image.fromarray(RAMP).resize((6, 10), Image.Resampling.BICUBIC)) / 255
    assert_close(pixels, ((resized - mean) / std).transpose(2, 0, 1), 3)
    assert pixels.dtype == np.float32


def test_heic_is_read_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.HEIC").write_bytes(head + bytes(40))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(images, "register_formats", lambda: None)
    with pytest.raises(InputError, match=r"HEIC image.*pip install 'ttd-clip\[heif\]'"):
        read_image(tmp_path / "a.HEIC")


def test_heic_of_a_phone(tmp_path: Path) -> None:
    heif = needs("heif", "pillow_heif")
    images.register_formats()
    picture = Image.new("RGB", (64, 48), (200, 30, 40))
    heif.from_pillow(picture).save(tmp_path / "a.HEIC", quality=95)
    assert is_image_file(tmp_path / "a.HEIC") or ".heic" not in Image.registered_extensions()
    found = read_image(tmp_path / "a.HEIC")
    assert found.size == (64, 48)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(picture)).max() < 12


def with_chunks(data: bytes, *added: tuple[bytes, bytes], wrong: bool = False) -> bytes:
    """A PNG with more chunks after its header, with a wrong checksum where that is asked for."""
    made = b""
    for kind, content in added:
        check = zlib.crc32(kind + content) ^ wrong
        made += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    return data[:33] + made + data[33:]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


LARGE = b"x" * 2_000_000
BESIDE = {
    "itxt": (b"iTXt", b"workflow\0\0\0\0\0" + LARGE),
    "itxt packed": (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LARGE)),
    "ztxt": (b"zTXt", b"prompt\0\0" + zlib.compress(LARGE)),
    "text": (b"tEXt", b"parameters\0" + LARGE),
    "icc": (b"iCCP", b"profile\0\0" + zlib.compress(LARGE)),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("wrong", [False, True])
def test_what_is_beside_the_pixels_of_a_png_does_not_hide_them(tmp_path: Path, kind: str, wrong: bool) -> None:
    data = with_chunks(png(Image.fromarray(RAMP)), BESIDE[kind], wrong=wrong)
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "a.png"), RAMP)
    assert np.array_equal(decode_image(data, "s", "k"), RAMP)
    (tmp_path / "a.png").write_bytes(data[: len(data) - 40])
    with pytest.raises(InputError, match="damaged"):
        read_image(tmp_path / "a.png")


def test_orientation_and_transparency_stay_when_texts_go(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.new("P", (5, 7), 0)
    clear.putpalette([255, 0, 0, 0, 0, 255])
    stream = io.BytesIO()
    clear.save(stream, "PNG", exif=exif, transparency=0)
    (tmp_path / "a.png").write_bytes(with_chunks(stream.getvalue(), BESIDE["ztxt"]))
    found = read_image(tmp_path / "a.png")
    assert found.size == (7, 5)
    assert found.getpixel((0, 0)) == (255, 255, 255)


def exif_of(orientation: bytes, *more: bytes) -> bytes:
    """EXIF (little-endian) with an orientation entry and further ones, each of 12 bytes."""
    entries = [orientation, *more]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(20)


SIX = struct.pack("<HHII", 0x0112, 3, 1, 6)
UNWRITABLE = {
    "negative rational": struct.pack("<HHII", 0x011A, 5, 1, 8 + 2 + 24 + 4),
    "text in a number": struct.pack("<HHI", 0x0103, 2, 2) + b"x\0\0\0",
    "unknown type": struct.pack("<HHII", 0x0131, 99, 1, 1),
    "a huge count": struct.pack("<HHII", 0x0131, 2, 1 << 30, 4),
}


@pytest.mark.parametrize("more", UNWRITABLE.values(), ids=UNWRITABLE)
def test_orientation_counts_whatever_else_the_exif_data_hold(tmp_path: Path, more: bytes) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP), "a.png", exif=exif_of(SIX, more))
    assert np.array_equal(np.asarray(read_image(path)), np.rot90(RAMP, -1))


@pytest.mark.parametrize("value", [0, 1, 9, 77])
def test_an_orientation_that_is_none_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, value: int) -> None:
    path = saved(tmp_path, Image.fromarray(RAMP), "a.png", exif=exif_of(struct.pack("<HHII", 0x0112, 3, 1, value)))
    with caplog.at_level("WARNING", "ttd"):
        assert np.array_equal(np.asarray(read_image(path)), RAMP)
    assert (f"{path} has the EXIF orientation {value}, which is none" in caplog.text) == (value > 1)


TWELVE = np.array([[35, 100, 2048, 4095]], np.uint16)


@pytest.mark.parametrize(
    ("values", "bits", "expected", "dark"),
    [
        (TWELVE, 12, [2, 6, 128, 255], False),
        (TWELVE, None, [0, 0, 8, 16], True),
        (TWELVE << 4, 12, [2, 6, 128, 255], False),  # moved up, as PNG wants it
        (np.array([[0, 16, 4080]], np.uint16), 12, [0, 0, 16], True),  # the same, and dark
        (np.array([[1, 512, 1023]], np.uint16), 10, [0, 128, 255], False),
        (np.array([[1, 100, 255]], np.uint16), 8, [1, 100, 255], False),
        (np.array([[35, 100, 65535]], np.uint16), 12, [0, 0, 255], False),  # more than it says
        (np.array([[35, 30000, 65535]], np.uint16), None, [0, 117, 255], False),
        (np.zeros((1, 2), np.uint16), None, [0, 0], False),
    ],
)
def test_greys_of_fewer_bits_follow_sbit(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    values: np.ndarray,
    bits: int | None,
    expected: list[int],
    dark: bool,
) -> None:
    data = png(Image.fromarray(values))
    if bits is not None:
        data = with_chunks(data, (b"sBIT", bytes([bits])))
    (tmp_path / "a.png").write_bytes(data)
    with caplog.at_level("WARNING", "ttd"):
        found = np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist()
    assert found == pytest.approx(expected, abs=1)
    assert ("a.png is dark: its greys end at" in caplog.text) == dark
    assert np.asarray(decode_image(data, "s", "k"))[0, :, 0].tolist() == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1.004], [0, 128, 255]),
        ([0, 0.5, 1.05], [0, 128, 255]),
        ([0, 127.5, 255.7], [0, 128, 255]),
        ([0, 32767.5, 65600], [0, 128, 255]),
        ([0, 0.25, 0.5], [0, 64, 128]),
    ],
)
def test_floats_that_overshoot_are_clipped(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    path = saved(tmp_path, Image.fromarray(np.array([values], np.float32)), "a.tiff")
    assert np.asarray(read_image(path))[0, :, 0].tolist() == expected


def test_floats_beyond_their_range_are_dark_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, Image.fromarray(np.array([[0, 2.5, 4.0]], np.float32)), "a.tiff")
    with caplog.at_level("WARNING", "ttd"):
        read_image(path)
    assert f"{path} is dark: its greys end at 4 of 255" in caplog.text


SMOOTH = np.clip(
    np.stack(
        [
            np.add.outer(np.linspace(0, 120, 300), np.linspace(0, 130, 500)),
            *[np.full((300, 500), v) for v in (80, 160)],
        ],
        axis=-1,
    ).round(),
    0,
    255,
).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "RGB"), ("a.jpg", "L"), ("a.jpg", "CMYK"), ("a.png", "RGB"), ("a.png", "RGBA"), ("a.png", "P"),
     ("a.png", "LA"), ("a.png", "1"), ("a.tif", "F"), ("a.png", "I;16")],
)  # fmt: skip
def test_a_smaller_copy_is_the_same_image(tmp_path: Path, name: str, mode: str) -> None:
    grey = Image.fromarray(SMOOTH).convert("L")
    image = {
        "F": lambda: Image.fromarray(np.asarray(grey).astype(np.float32)),
        "I;16": lambda: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    }.get(mode, lambda: Image.fromarray(SMOOTH).convert(mode))()
    path = saved(tmp_path, image, name)
    small, full = read_image(path, side=100), read_image(path)
    assert full.size == (500, 300)
    assert (small.size, small.mode) == ((100, 60), "RGB")
    expected = np.asarray(full.resize((100, 60), Image.Resampling.BICUBIC)).astype(int)
    # Of black and white dots every smaller copy is a grey of its own; only their mean is the image's.
    difference = abs(np.asarray(small) - expected)[2:-2, 2:-2]
    assert difference.mean() <= (2 if mode != "1" else 12)
    assert read_image(path, side=500).size == read_image(path, side=900).size == (500, 300)


def test_a_smaller_copy_is_upright_on_white_and_never_empty(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path, Image.fromarray(SMOOTH), "turned.jpg", exif=exif)
    assert read_image(turned, side=50).size == (30, 50)
    clear = saved(tmp_path, Image.new("RGBA", (400, 200), (255, 0, 0, 0)), "clear.png")
    assert np.asarray(read_image(clear, side=50)).min() == 255
    assert read_image(saved(tmp_path, Image.new("RGB", (4000, 1)), "line.jpg"), side=50).size == (50, 1)
    assert read_image(saved(tmp_path, Image.new("RGB", (8000, 1600)), "wide.jpg"), side=500).size == (500, 100)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_damaged_file_is_refused_at_every_size(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, Image.fromarray(SMOOTH), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for side in (None, 100):
        with pytest.raises(InputError, match="damaged or incomplete"):
            read_image(path, side=side)
