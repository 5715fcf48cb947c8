"""A student as ONNX, checked with onnxruntime."""

import json
import logging
import warnings
from pathlib import Path

import torch

from kdbench.errors import KdbenchError
from kdbench.export.student import Student

FILE = "model.onnx"


def write_onnx(student: Student, folder: Path) -> float:
    """Write model.onnx: `images`, normalised, to `logits`, for any batch size; what they are stands in its metadata.

    Returns:
        The largest difference of a logit.

    Raises:
        KdbenchError: the packages of `kdbench[onnx]` are missing, torch cannot export the network, or the file answers
            differently.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise KdbenchError(f"--to onnx needs {error.name}; run `pip install 'kdbench[onnx]'`") from error
    model, path = student.model, folder / FILE
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                # Neither 1 nor the number that is probed: torch would take those for fixed sizes.
                (student.probe[:2],),
                path,
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # Its own text is advice on torch's exporter.
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise KdbenchError(f"torch cannot export {student.facts['timm']} to ONNX: {reason}") from error
    written = onnx.load(path)
    onnx.helper.set_model_props(written, {"kdbench": json.dumps(student.origin)})
    onnx.checker.check_model(written)
    onnx.save(written, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = [
        session.run(None, {"images": part.numpy()})[0] for part in student.probe.split([1, len(student.probe) - 1])
    ]
    return student.difference(torch.cat([torch.from_numpy(part) for part in logits]))
