"""`kdbench export`: a trained student for use elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from kdbench.cli import options
from kdbench.cli.console import print_json
from kdbench.errors import KdbenchError


def export(
    cell: str,
    /,
    *,
    results: Annotated[Path, options.folder()] = Path("results/proxy"),
    to: Literal["timm", "hf", "onnx"],
    out: Annotated[Path, options.folder()],
    json: options.Json = False,
) -> None:
    """Write a trained student for timm, the hub or ONNX.

    Every export is loaded again and kept only if it answers as the checkpoint does, to 1e-5. The exit code is 3 where
    there is no such cell, where it is not done, or where it cannot be exported; one line says why.

    * timm: a folder for timm.create_model('local-dir:DIR', pretrained=True)
    * hf: the same with a model card, ready for the Hugging Face hub; nothing is uploaded
    * onnx: DIR/model.onnx, for any batch size (needs pip install 'kdbench[onnx]')

    Args:
        cell: The file of a cell's record, or PAIR/METHOD/SEED as in vit-t:resnet-s/kd/0.
        results: The results folder of PAIR/METHOD/SEED.
        to: The format.
        out: A new or empty folder to write to.
    """
    from kdbench.export.cell import find_cell
    from kdbench.results.folder import Results

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise KdbenchError(f"{out} is there and not empty; choose another folder with --out")
    cell_record = find_cell(cell, Results(results))

    from kdbench.export.onnx_file import write_onnx
    from kdbench.export.student import Student
    from kdbench.export.timm_folder import needs_kdbench, write_hf, write_timm

    write = {"timm": write_timm, "hf": write_hf, "onnx": write_onnx}[to]
    student = Student.load(cell_record)
    difference = _write_whole(out, lambda folder: write(student, folder))
    files = [str(out / name) for name in sorted(path.name for path in out.iterdir())]
    alone = to == "onnx" or not needs_kdbench(student)
    if json:
        facts = {"to": to, "files": files, "difference": difference, "needs_kdbench": not alone}
        print_json(facts | student.origin)
        return
    record = cell_record.record
    print(f"{record['student']['name']} by {record['method']} on {record['pair']}, seed {record['seed']}: ", end="")
    print(", ".join(files))
    print(f"input: {student.input}")
    print(f"loaded again: logits differ from the checkpoint's by {difference:.1g} at most")
    if not alone:
        print("timm alone cannot build it: `import kdbench.export.entry` before `timm.create_model`")


def _write_whole(out: Path, write: Callable[[Path], float]) -> float:
    """Let `write` fill a folder that becomes `out` once it is whole.

    Raises:
        KdbenchError: the disk refuses; or what `write` raises.
    """
    from tempfile import TemporaryDirectory

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=out.parent) as temporary:
            folder = Path(temporary) / "export"
            folder.mkdir()
            difference = write(folder)
            if out.exists():
                out.rmdir()
            folder.rename(out)
    except OSError as error:
        raise KdbenchError(
            f"cannot write {out}: {error.strerror or error}; choose another folder with --out"
        ) from error
    return difference
