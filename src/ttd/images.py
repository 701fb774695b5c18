"""Images: a path, PIL image or array in, an upright RGB image out; and the pixels for an encoder."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ttd.errors import InputError, memory_for
from ttd.files.png_chunks import SIGNATURE, pixels_alone, significant_bits

if TYPE_CHECKING:
    from torch import Tensor

# Twice Pillow's warning limit: from here on Pillow itself refuses a file as a decompression bomb.
MAX_PIXELS = 178_956_970
_RESIZED_AT_ONCE = 1 << 20  # pixels, in `opencv_resize`

# A path, a PIL image, or a uint8 array [H,W,3].
ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

# Modes whose values can be averaged as they are stored: others are converted at full size first.
_SMALLER_FIRST = frozenset({"RGB", "L", "RGBA", "LA", "CMYK", "YCbCr"})

_log = logging.getLogger(__name__)
_BITS = "significant bits"


def read_image(source: ImageLike, name: str | None = None, *, side: int | None = None) -> Image.Image:
    """Read an image as upright 8-bit RGB at its own size.

    The EXIF orientation is honoured, transparency is laid on white, of an animated file the first frame
    is taken (of a PIL image the current one), 16-bit and floating point greys are scaled to 8 bits.

    Args:
        source: a path, a PIL image, or a uint8 array `[H,W,3]`.
        name: what messages call a PIL image.
        side: make the longer side of a file's image at most so many pixels; a JPEG is then decoded at a fraction of its
            size, so much less memory is needed for it.

    Raises:
        InputError: missing, not an image, damaged, or above 178 megapixels (checked before decoding).
        OutOfMemory: the decoded image does not fit into memory.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        called = name or "the PIL image"
        return _guarded(lambda: _upright_rgb(source, called), called)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"an image must be a path, a PIL image or a uint8 array [H,W,3], not {type(source).__name__}")
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): check its name") from None
    if is_folder:
        raise InputError(f"{path} is a folder, not an image: give one of the files in it")
    if not exists:
        raise InputError(f"{path} does not exist: check the name and the folder")
    return _guarded(lambda: _open(path, side), str(path))


HEIF_EXTRA = "install pillow-heif (pip install 'ttd-clip[heif]')"


@cache
def register_formats() -> None:
    """Lets Pillow decode HEIC, what phones take, where pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def is_heif(data: bytes) -> bool:
    """Whether a file begins like HEIC or HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def prepare_pixels(
    image: Image.Image,
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    opencv: bool = False,
) -> Tensor:
    """Resize (bicubic, antialiased) and normalise an RGB image.

    Args:
        image: RGB.
        size: (H, W) in pixels.
        mean, std: statistics for values in 0..1.
        opencv: resize bilinearly without antialiasing, see `opencv_resize`.

    Returns:
        float32 `[3,H,W]`.
    """
    import torch

    resized: Image.Image | NDArray[np.uint8] = image
    if image.size != size[::-1]:
        if opencv:
            resized = opencv_resize(np.asarray(image), size)
        else:
            resized = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return normalise_pixels(torch.from_numpy(np.array(resized)), mean, std)


def normalise_pixels(pixels: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """uint8 `[...,H,W,3]` -> float32 `[...,3,H,W]`, on the pixels' device, by statistics for values in 0..1."""
    import torch

    shift, scale = (torch.tensor(values, device=pixels.device) * 255 for values in (mean, std))
    return pixels.float().sub_(shift).div_(scale).movedim(-1, -3).contiguous()


def opencv_resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear resize of uint8 `[H,W,3]` to (H', W') by OpenCV's arithmetic in whole numbers (`INTER_LINEAR`).

    The two weights of each axis have 11 bits; sums across are cut to 4 bits less, products down to 16 less. Rows are
    made some at a time.
    """
    (rows, down), (columns, across) = (_two_neighbours(*sides) for sides in zip(pixels.shape[:2], size, strict=True))
    resized = np.empty((*size, 3), np.uint8)
    some = max(1, int(_RESIZED_AT_ONCE / max(pixels.shape[1], size[1]) / max(1, pixels.shape[0] / size[0])))
    for first in range(0, size[0], some):
        part = slice(first, first + some)
        start, end = rows[0, part][0], rows[1, part][-1] + 1
        values = pixels[start:end].astype(np.int64)
        wide = values[:, columns[0]] * across[0][:, None] + values[:, columns[1]] * across[1][:, None] >> 4  # [h,W',3]
        upper, lower = (wide[rows[i, part] - start] * down[i, part][:, None, None] >> 16 for i in (0, 1))
        resized[part] = (upper + lower + 2 >> 2).clip(0, 255)
    return resized


def _two_neighbours(old: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `new` samples over `old` pixels the two beside it and their weights of 2048, each `[2,new]`."""
    places = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    low = np.floor(places).astype(np.int64)
    share = places - low.astype(np.float32)
    weights = np.rint(np.stack([1 - share, share]) * 2048).astype(np.int64)
    # Beyond the outer pixels' centres both are the same pixel, whose two products are cut each by itself.
    return np.stack([low, low + 1]).clip(0, old - 1), weights


@contextmanager
def without_pillows_warnings() -> Iterator[None]:
    """A block in which an image is opened: what Pillow would say without a name is checked and said here."""
    with warnings.catch_warnings():
        # It warns from 89 megapixels on; this package accepts twice that.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        yield


def _guarded(read: Any, name: str) -> Image.Image:
    """Run a decoder and turn whatever it raises into one sentence."""
    try:
        image: Image.Image = read()
        return image
    except InputError:
        raise
    except MemoryError as error:
        raise memory_for(name) from error
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(name)) from error
    except PermissionError as error:
        raise InputError(f"{name} may not be read: change its permissions") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image in a format that Pillow knows: convert it to PNG or JPEG") from error
    # Decoders of damaged files raise anything: OSError, SyntaxError, ValueError, struct.error, IndexError ...
    except Exception as error:
        raise InputError(
            f"{name} is damaged or incomplete and cannot be decoded ({_one_line(error)}): download it again"
        ) from error


def opened(file: BinaryIO) -> Image.Image:
    """An image whose header was read; raises what Pillow raises, `InputError` for HEIC without its decoder.

    A PNG is read without its texts and its colour profile where Pillow refuses the file because of them.
    """
    register_formats()
    head = file.read(1 << 12)
    file.seek(0)
    if is_heif(head) and "HEIF" not in Image.OPEN:
        raise InputError(f"it is a HEIC image, which Pillow cannot decode alone: {HEIF_EXTRA}, or convert it")
    with without_pillows_warnings():
        try:
            image = Image.open(file)
            if head.startswith(SIGNATURE) and image.width * image.height <= MAX_PIXELS:
                image.load()
        except (ValueError, SyntaxError, OSError) as error:
            if not head.startswith(SIGNATURE):
                raise
            file.seek(0)
            try:
                image = Image.open(BytesIO(pixels_alone(file.read())))
                image.load()
            except (ValueError, SyntaxError, OSError):
                if isinstance(error, UnidentifiedImageError):
                    raise OSError("its pixels are incomplete") from None
                raise error from None
    if bits := significant_bits(head) if head.startswith(SIGNATURE) else _tiff_bits(image):
        image.info[_BITS] = min(bits)
    return image


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    """Bits of each channel of a TIFF file, tag 258."""
    bits = getattr(image, "tag_v2", {}).get(258, ())
    return bits if isinstance(bits, tuple) else (bits,)


def _open(path: Path, side: int | None) -> Image.Image:
    with path.open("rb") as file:
        try:
            with opened(file) as image:
                _check_size(image.size, str(path))
                if side is not None and image.mode in _SMALLER_FIRST:
                    _bound(image, side)
                upright = _upright_rgb(image, str(path))
        except InputError as error:
            if str(error).startswith("it is "):
                raise InputError(f"{path} is {str(error)[6:]}") from None
            raise
    if side is not None:
        _bound(upright, side)
    return upright


def _bound(image: Image.Image, side: int) -> None:
    """Makes the longer side at most `side`, in place; a JPEG that is not decoded yet never gets its full size."""
    factor = side / max(image.size)
    if factor < 1:
        wanted = [max(1, math.ceil(length * factor)) for length in image.size]
        image.draft(None, (wanted[0], wanted[1]))
        image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=None)


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"an array must be uint8 [H,W,3] in RGB order, not {array.dtype} {list(array.shape)}")
    _check_size((array.shape[1], array.shape[0]), "the array")
    return Image.fromarray(np.ascontiguousarray(array))


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(_too_large(name))
    if min(size) < 1:
        raise InputError(f"{name} has no pixels: give an image of at least 1x1")


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS // 1_000_000} megapixels: make it smaller first"


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    image.load()  # before EXIF is read, which decodes some formats: damaged pixels are not EXIF's fault
    return _rgb(_upright(image, name), name)


# EXIF orientation -> what turns the stored pixels upright; 1 is upright, and some cameras write 0.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_of(image: Image.Image, name: str) -> Image.Transpose | None:
    """What turns an image's stored pixels upright, by its EXIF orientation; None where they are."""
    try:
        with warnings.catch_warnings(record=True) as said:  # Pillow's are not about the image
            warnings.simplefilter("always")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    # Broken EXIF data says nothing about the pixels, which are fine: show them as they are stored.
    except Exception as error:
        _log.warning(
            "the EXIF data of %s cannot be read (%s); the image is taken as it is stored", name, _one_line(error)
        )
        return None
    for warning in said:
        _log.warning("the EXIF data of %s are damaged (%s)", name, " ".join(str(warning.message).split()))
    if isinstance(orientation, tuple) and len(orientation) == 1:
        orientation = orientation[0]
    if orientation in (0, 1):
        return None
    if orientation not in _TURNS:
        _log.warning("%s has the EXIF orientation %r, which is none; it is taken as it is stored", name, orientation)
        return None
    return _TURNS[orientation]


def _upright(image: Image.Image, name: str) -> Image.Image:
    turn = turn_of(image, name)
    if turn is None:
        return image
    upright = image.transpose(turn)
    # What was turned must not be turned again where it is read once more.
    upright.info = {key: value for key, value in image.info.items() if key not in _SAYING_ORIENTATION}
    return upright


_SAYING_ORIENTATION = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image, name).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    # A copy, so that the caller's later changes (or closing) do not reach us.
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


_OVERSHOOT = 1.05  # of floats that were resized or compressed
_DARK = 64  # of 255: no brighter than a quarter


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Greys of 16 bits, 32 bits or floats -> 0..255, by the smallest usual range that holds them, or what sBIT says.

    What comes out dark is named: 12 bits that were stored in 16 look like a dark image of 16.
    """
    values = np.asarray(image).astype(np.float32)
    floats = image.mode == "F"
    most = float(values.max())
    if not np.isfinite(values).all() or values.min() < 0 or most > 65535 * (_OVERSHOOT if floats else 1):
        raise InputError("the image's grey values are negative, above 65535 or not finite: convert it to 8 bits")
    ranges = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))
    white = next(top for top in ranges if most <= top * (_OVERSHOOT if floats else 1))
    bits = image.info.get(_BITS, 16)
    if not floats and 1 <= bits < 16 and most < 1 << bits and not _is_shifted(values, bits):
        white = (1 << bits) - 1
    elif 0 < most * 255 / white < _DARK:
        _log.warning(
            "%s is dark: its greys end at %g of %d. If they are of fewer bits, say so by sBIT, or convert it",
            name,
            most,
            white,
        )
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))


def _is_shifted(values: NDArray[np.float32], bits: int) -> bool:
    """Whether 16-bit values are those of `bits` bits moved up, as PNG wants it: their low bits are empty."""
    return not (values.astype(np.int64) & ((1 << (16 - bits)) - 1)).any()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
