"""`kdbench export`: a trained student for use elsewhere."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_OK, KdbenchError

FORMATS = ("timm", "hf", "onnx")

EPILOG = """\
formats:
  timm   a folder for timm.create_model('local-dir:DIR', pretrained=True)
  hf     the same with a model card, ready for the Hugging Face hub; nothing is uploaded
  onnx   DIR/model.onnx, any batch size (wants pip install 'kdbench[onnx]')

Every export is loaded again and kept only if it answers as the checkpoint does, to 1e-5.

exit codes: 0 exported; 3 no such cell, not done, or it cannot be exported (one line says why)"""


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "export", execute, "write a trained student for timm, the hub or ONNX")
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    parser.add_argument(
        "cell",
        metavar="CELL",
        help="the file of a cell's record, or PAIR/METHOD/SEED as in vit-t:resnet-s/kd/0",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        default=Path("results/proxy"),
        help="results folder of PAIR/METHOD/SEED (default: results/proxy)",
    )
    parser.add_argument("--to", required=True, choices=FORMATS, help="see below")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new or empty folder to write to")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from kdbench.export.cell import find_cell
    from kdbench.results.folder import Results

    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise KdbenchError(f"{args.out} is there and not empty; choose another folder with --out")
    cell = find_cell(args.cell, Results(args.results))

    from kdbench.export.onnx_file import write_onnx
    from kdbench.export.student import Student
    from kdbench.export.timm_folder import needs_kdbench, write_hf, write_timm

    write = {"timm": write_timm, "hf": write_hf, "onnx": write_onnx}[args.to]
    student = Student.load(cell)
    difference = _whole(args.out, lambda folder: write(student, folder))
    files = [str(args.out / name) for name in sorted(path.name for path in args.out.iterdir())]
    alone = args.to == "onnx" or not needs_kdbench(student)
    if args.json:
        told = {"to": args.to, "files": files, "difference": difference, "needs_kdbench": not alone}
        options.print_json(told | student.origin)
        return EXIT_OK
    record = cell.record
    print(f"{record['student']['name']} by {record['method']} on {record['pair']}, seed {record['seed']}: ", end="")
    print(", ".join(files))
    print(f"input: {student.input}")
    print(f"loaded again: logits differ from the checkpoint's by {difference:.1g} at most")
    if not alone:
        print("timm alone cannot build it: `import kdbench.export.entry` before `timm.create_model`")
    return EXIT_OK


def _whole(out: Path, write: Any) -> float:
    """Let `write` fill a folder that becomes `out` once it is whole.

    Raises:
        KdbenchError: the disk refuses; or what `write` raises.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=out.parent) as place:
            folder = Path(place) / "export"
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
