"""Odd pictures through the `inpaint` command, from file to file: each does what its owner would expect, or says why not."""

import io
import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import torch
from helpers import KERNELS_HOME, noise_photo, shapes_photo
from PIL import Image, ImageCms, ImageSequence

import edgeconnect_lite
from edgeconnect_lite.cli import main
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.photos import decode_photo, read_photo
from edgeconnect_lite.weights import save_network

HEIGHT, WIDTH = 40, 56


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two very small networks with random weights: what is tested is all around them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_network(EdgeGenerator(4, 8, 1, decision=4), folder / "edge_generator")
    save_network(ImageGenerator(4, 8, 1), folder / "image_generator")
    return str(folder)


@pytest.fixture
def inpaint(tmp_path, monkeypatch, weights):
    """inpaint(name): what the command makes of that file, as Pillow reads it; the hole is 10 x 12 px if no mask is given."""
    monkeypatch.chdir(tmp_path)

    def run(name, mask=None, out="out.png", shape=(HEIGHT, WIDTH), extra=()):
        save_mask("mask.png", hole(*shape) if mask is None else mask)
        main(["inpaint", str(name), "mask.png", "--out", str(out), "--weights", weights, *extra])
        return Image.open(out)

    return run


def hole(height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 4 + 10, width // 3 : width // 3 + 12] = True
    return mask


def save_mask(path, mask):
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def check(result, wanted, mask=None):
    """Known pixels are bit for bit what is wanted, and something was painted in the hole."""
    mask, result = hole(*wanted.shape[:2]) if mask is None else mask, np.asarray(result)
    assert result.shape == wanted.shape and np.array_equal(result[~mask], wanted[~mask])
    assert not mask.any() or not np.array_equal(result[mask], wanted[mask])


PHOTO = shapes_photo(HEIGHT, WIDTH)
GRAY = PHOTO[..., 1]


def as_rgb(gray):
    return np.repeat(gray[..., None], 3, axis=2)


# gray


@pytest.mark.parametrize(
    "name", ["gray.png", "gray.jpg", "gray.tif", "gray.bmp", "gray.gif", "gray.pgm", "deep.png", "bits.png"]
)
def test_a_gray_photo_stays_gray(inpaint, name):
    if name == "deep.png":
        cv2.imwrite(name, GRAY.astype(np.uint16) << 8 | 0x7F)
    else:
        Image.fromarray(GRAY).convert("1" if name == "bits.png" else "L").save(name)
    result = np.asarray(inpaint(name))
    check(result, read_photo(name))
    assert (np.ptp(result, axis=2) == 0).all()
    if name != "gray.jpg":
        stored = np.asarray(Image.fromarray(GRAY).convert("1").convert("L")) if name == "bits.png" else GRAY
        check(result, as_rgb(stored))


def test_floating_point_values_from_0_to_1_are_gray_too(inpaint):
    Image.fromarray(GRAY.astype(np.float32) / 255).save("float.tif")
    check(inpaint("float.tif"), as_rgb(GRAY))
    Image.fromarray(GRAY.astype(np.int32) * 257).save("whole.tif")
    check(inpaint("whole.tif"), as_rgb(GRAY))


def test_numbers_that_are_no_gray_levels_are_named(inpaint):
    Image.fromarray(GRAY.astype(np.float32) * 3).save("float.tif")
    with pytest.raises(SystemExit, match=r"float\.tif: holds values from .* wanted 0 to 1, or 8 bit"):
        inpaint("float.tif")


# transparency


def test_transparency_and_the_colours_under_it_are_kept_and_what_is_painted_is_opaque(inpaint):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    alpha[5] = 77
    picture = np.dstack([PHOTO, alpha])
    Image.fromarray(picture).save("alpha.png")
    result = inpaint("alpha.png")
    check(result, picture)
    assert (np.asarray(result)[hole()][:, 3] == 255).all()
    flat = np.asarray(inpaint("alpha.png", out="out.bmp"))  # has no transparency: over white, as everywhere
    check(flat, read_photo("alpha.png"))


def test_a_hole_that_was_erased_to_transparent_is_filled(inpaint):
    Image.fromarray(np.dstack([np.where(hole()[..., None], 0, PHOTO), np.where(hole(), 0, 255)]).astype(np.uint8)).save(
        "e.png"
    )
    result = np.asarray(inpaint("e.png"))
    assert (result[..., 3] == 255).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "P with a transparent colour"])
def test_the_other_forms_of_transparency(inpaint, mode):
    if mode == "LA":
        picture = Image.fromarray(np.dstack([GRAY, GRAY[::-1]]))
        wanted = np.dstack([as_rgb(GRAY), GRAY[::-1]])
        picture.save("odd.png")
    else:
        palette = Image.fromarray(PHOTO).convert("P")
        wanted = np.asarray(palette.convert("RGB"))
        if mode != "P":
            index = np.asarray(palette)[0, 0]
            wanted = np.dstack([wanted, np.where(np.asarray(palette) == index, 0, 255).astype(np.uint8)])
            palette.info["transparency"] = int(index)
        palette.save("odd.png")
    check(inpaint("odd.png"), wanted)


# depth and colours


def test_16_bit_colour_keeps_its_high_bytes(inpaint):
    cv2.imwrite("deep.png", (PHOTO[..., ::-1].astype(np.uint16) << 8) | 0x55)
    check(inpaint("deep.png"), PHOTO)


def test_a_cmyk_jpeg_has_its_colours(inpaint):
    flat = np.full((HEIGHT, WIDTH, 3), (200, 60, 30), np.uint8)
    Image.fromarray(flat).convert("CMYK").save("print.jpg", quality=98)
    result = np.asarray(inpaint("print.jpg"))
    check(result, read_photo("print.jpg"))
    assert np.abs(result[~hole()].astype(int) - (200, 60, 30)).max() < 12


def swapped_profile() -> bytes:
    """A colour profile in which red and green are the other way round, so that nobody can overlook it."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for i in range(count):
        at = 132 + 12 * i
        data[at : at + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(bytes(data[at : at + 4]), data[at : at + 4])
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Odd ".encode("utf-16-be"))  # its name


@pytest.mark.parametrize("name, mode", [("a.png", "RGB"), ("a.png", "RGBA"), ("a.jpg", "RGB"), ("a.tif", "RGB")])
def test_a_colour_profile_is_obeyed(inpaint, name, mode):
    picture = np.full((HEIGHT, WIDTH, 3), (200, 60, 30), np.uint8)
    Image.fromarray(picture).convert(mode).save(name, icc_profile=swapped_profile())
    result = np.asarray(inpaint(name))
    assert np.abs(result[~hole()][:, :3].astype(int) - (60, 200, 30)).max() < 8  # red and green in their places


@pytest.mark.parametrize("profile", ["sRGB", "broken"])
def test_a_profile_that_says_nothing_new_changes_no_bit(inpaint, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PHOTO).save("a.png", icc_profile=srgb if profile == "sRGB" else b"not a profile" * 20)
    check(inpaint("a.png"), PHOTO)


# turned


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_result_is_upright_and_so_is_its_mask(inpaint, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PHOTO).save("turned.png", exif=exif)
    upright = read_photo("turned.png")
    assert upright.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    result = inpaint("turned.png", shape=upright.shape[:2])
    check(result, upright)
    assert result.getexif().get(0x0112, 1) == 1  # no viewer turns it again
    if orientation >= 5:
        with pytest.raises(
            SystemExit, match=r"mask\.png: is 56 x 40 and the photo 40 x 56; wanted a mask of the upright"
        ):
            inpaint("turned.png")


# sizes


def test_a_panorama(inpaint):
    panorama = cv2.resize(shapes_photo(100, 800), (8000, 1000), interpolation=cv2.INTER_LINEAR)
    cv2.imwrite("panorama.png", panorama[..., ::-1])
    mask = np.zeros((1000, 8000), bool)
    mask[300:400, 600:800] = mask[800:, 7900:] = True
    check(inpaint("panorama.png", mask), panorama, mask)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 30), (30, 1), (2, 2), (7, 300), (3, 900)])
def test_very_small_and_very_thin_pictures(inpaint, height, width):
    photo = shapes_photo(height, width, seed=3)
    Image.fromarray(photo).save("small.png")
    mask = np.zeros((height, width), bool)
    mask[height // 2 :, width // 2 :] = height * width > 1
    result = np.asarray(inpaint("small.png", mask))
    assert np.array_equal(result[~mask], photo[~mask])


def test_one_pixel_that_is_the_hole(inpaint):
    Image.fromarray(PHOTO[:1, :1]).save("one.png")
    with pytest.raises(SystemExit, match="all hole: nothing of the photo is known"):
        inpaint("one.png", np.ones((1, 1), bool))


# kinds of files


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png"])
def test_the_first_frame_of_what_moves(inpaint, name):
    first, other = Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])
    first.save(name, save_all=True, append_images=[other], duration=100, lossless=True)
    assert len(list(ImageSequence.Iterator(Image.open(name)))) == 2
    wanted = np.asarray(first.convert("P", palette=Image.Palette.ADAPTIVE).convert("RGB")) if "gif" in name else PHOTO
    result = np.asarray(inpaint(name))[..., :3]
    assert np.abs(result[~hole()].astype(int) - wanted[~hole()]).max() <= (1 if "gif" in name else 0)


@pytest.mark.parametrize("kind", ["progressive", "no subsampling", "16 by 16 grid"])
def test_jpegs(inpaint, kind):
    options = {"progressive": {"progressive": True}, "no subsampling": {"subsampling": 0}}.get(kind, {"subsampling": 2})
    Image.fromarray(PHOTO).save("photo.jpg", **options)
    check(inpaint("photo.jpg"), read_photo("photo.jpg"))


def test_a_tif_of_several_pages_and_an_avif(inpaint):
    Image.fromarray(PHOTO).save(
        "pages.tif", save_all=True, append_images=[Image.new("RGB", (9, 9))], compression="tiff_lzw"
    )
    check(inpaint("pages.tif"), PHOTO)
    Image.fromarray(PHOTO).save("photo.avif", quality=100, subsampling="4:4:4")
    check(inpaint("photo.avif"), read_photo("photo.avif"))


def test_what_is_in_the_file_counts_not_its_ending(inpaint):
    Image.fromarray(PHOTO).save("photo.png")
    os.rename("photo.png", "photo.jpg")
    check(inpaint("photo.jpg"), PHOTO)


@pytest.mark.parametrize("name", ["my photo.png", "fête d'été 夏.png", "100% (1) [a]#.png"])
def test_spaces_and_letters_of_any_script_in_names(inpaint, name):
    Image.fromarray(PHOTO).save(name)
    check(inpaint(name, out=f"result of {name}"), PHOTO)


def test_the_output_may_be_the_input(inpaint):
    Image.fromarray(PHOTO).save("photo.png")
    check(inpaint("photo.png", out="photo.png"), PHOTO)


def test_a_name_that_looks_like_an_option_needs_a_folder_before_it(inpaint):
    Image.fromarray(PHOTO).save("-photo.png")
    check(inpaint("./-photo.png"), PHOTO)


# files that are no picture, or none that can be read


def png_header(width, height):
    """A PNG file that claims a size and holds next to nothing."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def box(brand):
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200)


def encoded(ending):
    buffer = io.BytesIO()
    Image.fromarray(noise_photo(HEIGHT, WIDTH)).save(buffer, ending)
    return buffer.getvalue()


HOPELESS = {
    "empty.jpg": (lambda: b"", r"empty\.jpg: the file is empty \(0 bytes\)"),
    "text.jpg": (lambda: b"Dear Sir or Madam,\n" * 20, r"text\.jpg: not a picture that can be read; wanted \.jpg"),
    "short.jpg": (lambda: encoded("JPEG")[:900], r"short\.jpg: broken picture"),
    "short.png": (lambda: encoded("PNG")[:900], r"short\.png: broken picture"),
    "short.webp": (lambda: encoded("WEBP")[:300], r"short\.webp: (broken picture|not a picture)"),
    "short.gif": (lambda: encoded("GIF")[:900], r"short\.gif: broken picture"),
    "IMG_1.HEIC": (
        lambda: box(b"heic"),
        r"IMG_1\.HEIC: a HEIC picture, which cannot be read; wanted it exported as \.png or",
    ),
    "IMG_2.jpg": (lambda: box(b"mif1"), r"IMG_2\.jpg: a HEIC picture"),
    "drawing.svg": (
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        r"drawing\.svg: not a picture that can be read",
    ),
    "page.jpg": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        r"page\.jpg: not a picture that can be read",
    ),
    "bomb.png": (lambda: png_header(60_000, 60_000), r"bomb\.png: too large a picture; wanted at most 80 megapixels"),
    "wide.png": (lambda: png_header(81_000, 1_000), r"wide\.png: too large a picture; wanted at most 80 megapixels"),
    "lie.png": (lambda: png_header(300, 300), r"lie\.png: broken picture"),
}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_cannot_be_read_is_one_clear_line_and_nothing_is_written(inpaint, tmp_path, name):
    content, wanted = HOPELESS[name]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(SystemExit, match=wanted) as stop:
        inpaint(name)
    assert "\n" not in str(stop.value.code)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "mask.png"])


def test_an_avif_where_pillow_cannot_read_it(inpaint, tmp_path, monkeypatch):
    (tmp_path / "photo.avif").write_bytes(box(b"avif"))
    monkeypatch.setattr("edgeconnect_lite.photos.FORMATS", ("JPEG", "PNG"))
    with pytest.raises(
        SystemExit, match=r"photo\.avif: an AVIF picture, which this Pillow cannot read; wanted it exported"
    ):
        inpaint("photo.avif")


@pytest.mark.parametrize("name, wanted", [
    ("none.png", r"none\.png: there is no such file"), (".", "cannot be read"), ("no/such/folder.png", "there is no such file"),
])  # fmt: skip
def test_no_file(inpaint, name, wanted):
    with pytest.raises(SystemExit, match=wanted):
        inpaint(name)


def test_a_folder_that_cannot_be_written_to_is_named_before_the_work(inpaint, tmp_path, monkeypatch):
    Image.fromarray(PHOTO).save("photo.png")
    (tmp_path / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: "locked" not in str(path) and access(path, mode)
    )  # root may write
    monkeypatch.setattr("edgeconnect_lite.inpainting.Inpainter.from_pretrained", None)
    with pytest.raises(SystemExit, match=r"locked/out\.png: cannot be written"):
        inpaint("photo.png", out="locked/out.png")
    assert not list((tmp_path / "locked").iterdir())


@pytest.mark.parametrize("out", ["out.gif", "out.tif", "out"])
def test_endings_that_are_not_written(inpaint, out):
    Image.fromarray(PHOTO).save("photo.png")
    with pytest.raises(SystemExit, match=r"cannot write this kind of file; wanted an ending of \.jpg"):
        inpaint("photo.png", out=out)


def test_the_mask_may_be_odd_too(inpaint, weights):
    Image.fromarray(PHOTO).save("photo.png")
    plain = np.asarray(inpaint("photo.png"))
    Image.fromarray(hole()).save("mask.gif")
    cv2.imwrite("mask.tif", hole().astype(np.uint16) * 65535)
    for mask in ("mask.gif", "mask.tif"):
        main(["inpaint", "photo.png", mask, "--out", "other.png", "--weights", weights])
        assert np.array_equal(np.asarray(Image.open("other.png")), plain)


def test_in_a_process_of_its_own(tmp_path, weights):
    """A CMYK photo of a camera held sideways, under a name with a space: no word on standard error, one on standard output."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "a photo.jpg", exif=exif)
    save_mask(tmp_path / "mask.png", hole(WIDTH, HEIGHT))
    words = ["inpaint", "a photo.jpg", "mask.png", "--out", "out.png", "--weights", weights]
    home = os.pathsep.join([KERNELS_HOME, os.path.dirname(os.path.dirname(edgeconnect_lite.__file__))])
    done = subprocess.run([sys.executable, "-m", "edgeconnect_lite.cli", *words], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": home})  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote out.png\n", "")
    wanted = decode_photo((tmp_path / "a photo.jpg").read_bytes(), "a photo.jpg")
    check(Image.open(tmp_path / "out.png"), wanted)
