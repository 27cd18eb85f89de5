"""The bytes of a phantom film as a DICOM file: the same grey levels as its JPEG has before compression, stored in four ways."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rrg.data.prepare.phantom.truth import Film, StudyTruth

if TYPE_CHECKING:
    from pydicom import Dataset

BITS = 12
_TOP = 255 << (BITS - 8)  # the stored value of white
# LINEAR maps 0 … _TOP to black … white exactly with this window (PS3.3 C.11.2.1.2.1).
_CENTER, _WIDTH = _TOP / 2 + 0.5, _TOP + 1
_DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
_EXPLICIT, _RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"


def dicom(pixels: npt.NDArray[np.uint8], truth: StudyTruth, film: Film) -> bytes:
    """A film, uint8 [H, W], in 12 of 16 bits. The film's seed says in which way it is stored: plainly, as MONOCHROME1, run-length
    encoded, or signed with a rescale."""
    kind = film.seed % 4
    record = _record(truth, film)
    stored = pixels.astype(np.int32) << (BITS - 8)
    if kind == 1:
        record.PhotometricInterpretation, stored = "MONOCHROME1", _TOP - stored
    if kind == 3:
        record.PixelRepresentation, record.RescaleSlope, record.RescaleIntercept = 1, 1, 1 << (BITS - 1)
        stored = stored - (1 << (BITS - 1))
    record.PixelData = stored.astype("<i2" if kind == 3 else "<u2").tobytes()
    record["PixelData"].VR = "OW"
    if kind == 2:
        record.compress(_RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    file = io.BytesIO()
    record.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _record(truth: StudyTruth, film: Film) -> Dataset:
    """All attributes but the pixels."""
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import UID

    record = Dataset()
    record.file_meta = FileMetaDataset()
    record.file_meta.TransferSyntaxUID = UID(_EXPLICIT)
    record.file_meta.MediaStorageSOPClassUID = record.SOPClassUID = UID(_DIGITAL_X_RAY)
    number = UID(f"2.25.{int(film.dicom.replace('-', '')[:32], 16)}")
    record.file_meta.MediaStorageSOPInstanceUID = record.SOPInstanceUID = number
    record.StudyDate, record.StudyTime, record.Modality = truth.date, truth.time, "DX"
    record.PatientID, record.StudyID, record.ViewPosition = truth.subject, truth.study, film.view
    record.SamplesPerPixel, record.PhotometricInterpretation = 1, "MONOCHROME2"
    record.Rows, record.Columns = film.rows, film.columns
    record.BitsAllocated, record.BitsStored, record.HighBit, record.PixelRepresentation = 16, BITS, BITS - 1, 0
    record.WindowCenter, record.WindowWidth = _CENTER, _WIDTH
    return record
