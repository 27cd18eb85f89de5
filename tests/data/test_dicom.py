"""DICOM films: how stored values become grey levels, every transfer syntax that can be written here, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from dicom_films import SYNTAXES, dicom, encapsulated, lossless_jpeg, stored
from PIL import Image
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

from rrg.data.codestreams import Extent, count_scans, stated_extent
from rrg.data.dicom import DicomError, read_dicom
from rrg.shards.images import FilmError, ImagePolicy, prepare_film, prepared_size

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(11)


def smooth(rows: int, columns: int, top: int = 4095) -> np.ndarray:
    """Stored values of a soft field with grain, 0 to `top`."""
    coarse = Image.fromarray(RNG.uniform(0, top, (6, 5)).astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + RNG.normal(0, top / 200, (rows, columns)), 0, top).astype(np.int64)


VALUES = smooth(61, 47)
WHOLE = {"WindowCenter": 2048, "WindowWidth": 4096}
LEVELS = np.floor(VALUES / 4095 * 255 + 0.5).astype(np.uint8)


def refusal(data: bytes) -> str:
    with pytest.raises(DicomError) as caught:
        read_dicom(data)
    assert "\n" not in str(caught.value) and "Secret" not in str(caught.value) and " at 0x" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_every_syntax_gives_the_same_levels(syntax, bits):
    values = VALUES >> 4 if bits == 8 else VALUES >> 2 if bits == 10 else VALUES
    top = {8: 255, 10: 1023}.get(bits, 4095)
    window = {"WindowCenter": (top + 1) / 2, "WindowWidth": top + 1}
    expected = np.floor(values / top * 255 + 0.5)
    assert np.array_equal(read_dicom(dicom(values, syntax, bits=bits, **window)), expected)
    half = (top + 1) // 2
    if bits != 16:
        signed = dicom(values - half, syntax, bits=bits, signed=True, WindowCenter=0, WindowWidth=top + 1)
        assert np.array_equal(read_dicom(signed), expected)


def test_syntaxes_of_other_writers():
    """The films that come with pydicom: one picture in six syntaxes."""
    names = ("", "_implicit", "_RLE", "_jp2klossless", "_jpeg_ls_lossless")
    films = [read_dicom(Path(get_testdata_file(f"MR_small{name}.dcm", download=False)).read_bytes()) for name in names]
    assert films[0].std() > 20
    assert all(np.array_equal(film, films[0]) for film in films)
    extended = read_dicom(Path(get_testdata_file("JPGExtended.dcm", download=False)).read_bytes())
    assert extended.shape == (1024, 256) and extended.max() > 200


def test_baseline_jpeg():
    pixels = (VALUES >> 4).astype(np.uint8)
    film = read_dicom(dicom(pixels, JPEGBaseline8Bit, bits=8, WindowCenter=128, WindowWidth=256))
    assert np.abs(film.astype(int) - pixels).mean() < 2


def test_monochrome1_is_turned_round():
    film = read_dicom(dicom(4095 - VALUES, PhotometricInterpretation="MONOCHROME1", **WHOLE))
    assert np.abs(film.astype(int) - LEVELS).max() <= 1


def test_overlay_in_the_unused_bits_and_a_high_high_bit():
    overlay = RNG.integers(0, 16, VALUES.shape) << 12
    assert np.array_equal(read_dicom(dicom(VALUES | overlay, **WHOLE)), LEVELS)
    assert np.array_equal(read_dicom(dicom((VALUES << 4) | 7, HighBit=15, **WHOLE)), LEVELS)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # pydicom's, with a steep sigmoid
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1500, 900), (300, 1.5), (-200, 2500), (9000, 100)])
@pytest.mark.parametrize("rescale", [(1, 0), (2.5, -1000), (-1, 4095)])
def test_windows_agree_with_pydicom(function, center, width, rescale):
    named = {"VOILUTFunction": function} if function else {}
    data = dicom(VALUES, WindowCenter=center, WindowWidth=width, RescaleSlope=rescale[0], RescaleIntercept=rescale[1], **named)
    film = dcmread(io.BytesIO(data))
    theirs = apply_voi_lut(apply_modality_lut(film.pixel_array, film), film)
    ends = np.array([0, 4095]) * rescale[0] + rescale[1]
    share = (theirs - ends[0]) / (ends[1] - ends[0])  # pydicom gives the range of the rescaled values
    assert np.abs(read_dicom(data).astype(float) - share * 255).max() <= 0.5 + 1e-6


def test_the_first_of_several_windows_counts():
    data = dicom(VALUES, WindowCenter=[2048, 100], WindowWidth=[4096, 10])
    assert np.array_equal(read_dicom(data), LEVELS)


def lut(first: int, table: np.ndarray, bits: int, entries: int | None = None) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(table) if entries is None else entries, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = table.astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return Sequence([item])


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_lut_goes_before_the_window(bits):
    table = np.linspace(0, (1 << bits) - 1, 3000).astype(int)[::-1]
    film = read_dicom(dicom(VALUES, VOILUTSequence=lut(500, table, bits), WindowCenter=1, WindowWidth=2))
    expected = table[np.clip(VALUES - 500, 0, 2999)] / ((1 << bits) - 1) * 255
    assert np.abs(film - expected).max() <= 0.5


def test_voi_lut_of_65536_entries():
    """Sixteen bits cannot write that number, so the descriptor says 0."""
    table = np.arange(65536)
    film = read_dicom(dicom(VALUES << 4, bits=16, VOILUTSequence=lut(0, table, 16, entries=0)))
    assert np.abs(film - (VALUES << 4) / 65535 * 255).max() <= 0.5


def test_modality_lut_goes_before_the_window():
    table = (4095 - np.arange(4096)).clip(0)
    film = read_dicom(dicom(VALUES, ModalityLUTSequence=lut(0, table, 12), **WHOLE))
    assert np.abs(film.astype(int) - (255 - LEVELS)).max() <= 1


def test_padding_is_black_and_moves_no_percentile():
    values = np.minimum(VALUES, 4000)
    padded = np.pad(values, 20, constant_values=4095)
    inner = (slice(20, -20), slice(20, -20))
    plain = read_dicom(dicom(values))
    for attributes in ({"PixelPaddingValue": 4095}, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4090}):
        for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"):
            film = read_dicom(dicom(padded, syntax, **attributes))
            assert (film[:20] == 0).all() and (film[:, -20:] == 0).all()
            assert np.array_equal(film[inner], plain)
    signed = dicom(padded - 4095, bits=13, signed=True, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    assert (read_dicom(signed)[:20] == 0).all()


def test_percentiles_where_the_file_gives_no_window():
    spoilt = VALUES.copy() // 4 + 1000
    spoilt[0, :3] = 4095  # a few hot pixels do not darken the film
    film = read_dicom(dicom(spoilt))
    assert film.min() == 0 and film.max() == 255
    assert (
        abs(float(np.median(film)) - 255 * (np.median(spoilt) - spoilt.min()) / (np.percentile(spoilt, 99.5) - spoilt.min())) < 6
    )
    assert read_dicom(dicom(np.full((9, 9), 77))).max() == 0
    assert read_dicom(dicom(np.full((9, 9), 77), PixelPaddingValue=77)).max() == 0
    turned = read_dicom(dicom(4095 - spoilt, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(turned.astype(int) - film).mean() < 3
    falling = read_dicom(dicom(4095 - spoilt, RescaleSlope=-1, RescaleIntercept=4095))
    assert np.abs(falling.astype(int) - film).mean() < 3


def test_equalized_as_mimic_cxr_jpg():
    levels = ((VALUES - VALUES.min()) * 255 // (VALUES.max() - VALUES.min())).astype(np.uint8)
    histogram = np.bincount(levels.ravel(), minlength=256)
    below = np.cumsum(histogram) - histogram[levels.min()]
    expected = np.rint(below[levels] * 255 / (levels.size - histogram[levels.min()]))
    assert np.array_equal(read_dicom(dicom(VALUES, **WHOLE), "equalized"), expected)
    turned = read_dicom(dicom(4095 - VALUES, PhotometricInterpretation="MONOCHROME1"), "equalized")
    assert np.abs(turned.astype(int) - expected).mean() < 3
    assert read_dicom(dicom(np.full((5, 5), 9)), "equalized").max() == 0


# --- what is refused ---------------------------------------------------------------------------------------------------------


def test_colour_and_frames_are_refused_in_words():
    for name in ("SC_rgb_jpeg_dcmtk", "SC_rgb_rle", "examples_palette", "SC_rgb_small_odd", "examples_ybr_color"):
        said = refusal(Path(get_testdata_file(f"{name}.dcm", download=False)).read_bytes())
        assert "colour" in said or "frames" in said, said
    assert "it has 2 frames" in refusal(dicom(np.concatenate([VALUES, VALUES]), Rows=61, NumberOfFrames=2))


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels is not the size of a film"),
        ({"Rows": 0}, "0 x 47 pixels"),
        ({"Rows": 62}, "cannot be decoded"),
        ({"BitsAllocated": 32}, "12 bits stored in 32"),
        ({"BitsStored": 17}, "17 bits stored in 16"),
        ({"HighBit": 3}, "the highest 3"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "no width"),
        ({"WindowCenter": 5, "WindowWidth": -4, "VOILUTFunction": "SIGMOID"}, "no width"),
        ({"WindowCenter": "", "WindowWidth": ""}, None),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOI LUT function"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope is 0"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": 0}, "no sensible number"),
        ({"VOILUTSequence": lut(0, np.arange(10), 12, entries=4096)}, "shorter than it says"),
        ({"VOILUTSequence": lut(0, np.arange(10), 40)}, "shorter than it says"),
    ],
)
def test_headers_that_make_no_sense(attributes, told):
    data = dicom(VALUES, **attributes)
    if told is None:
        assert read_dicom(data).shape == VALUES.shape  # an empty window is none
    else:
        assert told in refusal(data)


def test_syntaxes_that_are_not_read():
    film = dcmread(io.BytesIO(dicom(VALUES)))
    film.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "1.2.840.10008.1.2.1.99 is none that is read" in refusal(stored(film))
    header = stored(film)[:400]
    bomb = zlib.compressobj(wbits=-15)
    started = header + bomb.compress(bytes(256 << 20)) + bomb.flush()
    assert len(started) < 1 << 20
    assert "is none that is read" in refusal(started)
    big = Path(get_testdata_file("MR_small_bigendian.dcm", download=False)).read_bytes()
    assert f"{ExplicitVRBigEndian} is none that is read" in refusal(big)


def test_a_codestream_larger_than_its_header_is_not_decoded():
    """A hundred bytes that ask a decoder for gigabytes."""
    film = dcmread(io.BytesIO(dicom(VALUES, JPEG2000Lossless)))
    frame = bytearray(next(iter_frames(film)))
    frame[8:12] = frame[16:20] = struct.pack(">I", 60_000)
    encapsulated(film, bytes(frame), JPEG2000Lossless)
    assert "another size" in refusal(stored(film))
    huge = lossless_jpeg(VALUES.astype(np.uint16), 12).replace(struct.pack(">HH", 61, 47), struct.pack(">HH", 65000, 65000))
    encapsulated(film, huge, JPEGLosslessSV1)
    assert "another size" in refusal(stored(film))
    for frame in (b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x09", b"GIF89a", b"\xff\xd8" + b"\xff" * 99, b"\xff\xd8\xff\xda\x00\x08"):
        encapsulated(film, frame, JPEGLosslessSV1)
        assert "cannot be found" in refusal(stored(film))
    film.PixelData = encapsulate([lossless_jpeg(VALUES.astype(np.uint16), 12)])[:-30]
    refusal(stored(film))


def iter_frames(film):
    from pydicom.encaps import generate_frames

    yield from generate_frames(film.PixelData, number_of_frames=1)


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_cut_anywhere_is_refused(syntax):
    data = dicom(VALUES, syntax)
    for place in (*range(0, len(data), len(data) // 24), len(data) - 9, len(data) - 20):
        if place:
            with pytest.raises(FilmError):
                prepare_film(data[:place], ImagePolicy(32))


def test_nothing_of_the_patient_is_said(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(140, 700, 7):
            data = bytearray(dicom(VALUES))
            data[start] ^= 0x55
            try:
                read_dicom(bytes(data))
            except DicomError as error:
                assert "Secret" not in str(error)
    assert capfd.readouterr() == ("", "")


def without(folder: Path, *packages: str) -> str:
    """A site-packages like this one, but for some packages."""
    folder.mkdir()
    for path in Path(np.__file__).parents[1].iterdir():
        if not path.name.startswith(packages):
            (folder / path.name).symlink_to(path)
    return str(folder)


def test_a_missing_plug_in_is_named(tmp_path):
    (tmp_path / "film.dcm").write_bytes(dicom(VALUES, JPEGLosslessSV1))
    site = without(tmp_path / "site", "pylibjpeg_libjpeg", "libjpeg")
    code = (
        f"import sys; sys.path[:0] = [{site!r}, {str(ROOT)!r}]\n"
        "from pathlib import Path; from rrg.data.dicom import read_dicom; from rrg.errors import UserError\n"
        "try: read_dicom(Path(sys.argv[1]).read_bytes())\n"
        "except UserError as error: print(error)"
    )
    words = [sys.executable, "-I", "-S", "-c", code, tmp_path / "film.dcm"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "compressed as lossless JPEG" in said.stdout, said
    assert "pip install pylibjpeg pylibjpeg-libjpeg, or 'rrg[dicom]'" in said.stdout


def test_missing_pydicom_is_named(tmp_path):
    (tmp_path / "film.dcm").write_bytes(dicom(VALUES))
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from pathlib import Path; from rrg.shards.images import ImagePolicy, prepare_film; from rrg.errors import UserError\n"
        "try: prepare_film(Path(sys.argv[1]).read_bytes(), ImagePolicy())\n"
        "except UserError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "film.dcm"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pip install 'rrg[dicom]'" in said.stdout


# --- sizes stated in codestreams ---------------------------------------------------------------------------------------------


def test_extents_of_codestreams():
    pixels = (VALUES >> 4).astype(np.uint8)
    assert stated_extent(simplejpeg.encode_jpeg(pixels[..., None], 90, "GRAY", "Gray")) == Extent(61, 47, 1)
    assert stated_extent(lossless_jpeg(pixels, 8)) == Extent(61, 47, 1)
    assert stated_extent(b"\xff\xd8" + b"\xff\xff" + lossless_jpeg(pixels, 8)[2:]) == Extent(61, 47, 1)
    file = io.BytesIO()
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(file, "JPEG", progressive=True)
    assert stated_extent(file.getvalue()) == Extent(61, 47, 3) and 2 < count_scans(file.getvalue()) < 20
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000")  # the codestream in its JP2 boxes
    assert stated_extent(file.getvalue()) == Extent(61, 47, 1)


# --- beside the JPEG path ----------------------------------------------------------------------------------------------------


def grey(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "GRAY")[..., 0].astype(float)


@pytest.mark.parametrize("size", [None, 224])
def test_dicom_agrees_with_the_jpeg_path_on_real_films(shared, size):
    """The same film as JPEG and as DICOM in every syntax: equal up to the second JPEG encoding and decode-time scaling."""
    paths = sorted((shared / "data" / "openi" / "hires").glob("*.jpg"))[:3]
    policy = ImagePolicy(size, quality=95)
    for path in paths:
        data = path.read_bytes()
        pixels = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
        theirs = grey(prepare_film(data, policy))
        assert theirs.shape == prepared_size(*pixels.shape, size)
        deep = pixels.astype(np.int64) * 16 + 8
        kinds = [dicom(deep, syntax, **WHOLE) for syntax in SYNTAXES.values()]
        kinds.append(dicom(4095 - deep, PhotometricInterpretation="MONOCHROME1", **WHOLE))
        kinds.append(dicom(deep - 2048, signed=True, RescaleSlope=1, RescaleIntercept=2048, **WHOLE))
        kinds.append(dicom(pixels, JPEGBaseline8Bit, bits=8, WindowCenter=128, WindowWidth=256))
        ours = [grey(prepare_film(kind, policy)) for kind in kinds]
        for film in ours:
            assert film.shape == theirs.shape
            assert np.abs(film - theirs).mean() < 1.0 and np.sqrt(((film - theirs) ** 2).mean()) < 2.0
        assert all(np.array_equal(film, ours[0]) for film in ours[1 : len(SYNTAXES)])
