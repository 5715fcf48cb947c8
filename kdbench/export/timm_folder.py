"""The folder that `timm.create_model('local-dir:DIR', pretrained=True)` loads, and the same with a card for the hub."""

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, ModelCardData
from timm.models import PretrainedCfg, save_for_hf

from kdbench.errors import KdbenchError
from kdbench.export.entry import is_plain
from kdbench.export.student import Student
from kdbench.models.parameters import count_parameters
from kdbench.targets import is_target

CARD = """\
---
{metadata}
---

# {title}

`{timm}` with {classes} classes, {how} by kdbench, a benchmark of knowledge distillation.

| | |
|---|---|
| method | {method} |
| teacher | {teacher} |
| suite, protocol | {suite}, {protocol} |
| seed | {seed} |
| accuracy ({split} split) | {accuracy} |
| parameters | {parameters:,} |
| input | {input} |

```python
{imports}

model = timm.create_model("hf-hub:USER/REPOSITORY", pretrained=True).eval()
```

No licence is given here: name one in the metadata above (`license:`) that the data and the teacher's weights allow.
"""


@torch.no_grad()
def write_timm(student: Student, folder: Path) -> float:
    """Write config.json and model.safetensors as timm itself does, and load them again.

    Where timm alone cannot build the network, kdbench does so in its name (`needs_kdbench`).

    Returns:
        The largest difference of a logit.

    Raises:
        KdbenchError: the network is not timm's, or what timm makes of the folder answers differently.
    """
    name, arguments = student.facts["timm"], dict(student.facts["arguments"])
    if is_target(name):
        raise KdbenchError(f"{name} is not timm's, so timm could not build it from a folder; use --to onnx")
    name, arguments = ("kdbench", {"name": name, **arguments}) if needs_kdbench(student) else (name, arguments)
    # What timm calls the origin of weights: the input they expect, and nothing of the weights it has of that name.
    config: dict[str, Any] = student.model.pretrained_cfg  # type: ignore[assignment]
    how = student.facts["input"]
    cfg = PretrainedCfg(
        architecture=name.partition(".")[0],
        input_size=tuple(student.facts["image_shape"]),
        fixed_input_size=config.get("fixed_input_size", False),
        interpolation=how["interpolation"],
        crop_pct=how["crop"],
        mean=tuple(student.mean),
        std=tuple(student.std),
        num_classes=student.classes,
        first_conv=config.get("first_conv"),
        classifier=config.get("classifier"),
    )
    student.model.pretrained_cfg = cfg.to_dict(remove_source=True)  # type: ignore[assignment]
    save_for_hf(student.model, str(folder), {"kdbench": student.origin}, model_args=arguments, safe_serialization=True)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return student.difference(again(student.probe))


def needs_kdbench(student: Student) -> bool:
    """Whether `import kdbench.export.entry` has to come before timm loads the folder."""
    return not is_plain(student.facts["timm"], student.facts["arguments"])


def write_hf(student: Student, folder: Path) -> float:
    """The folder of `write_timm` with a model card, laid out as timm's `push_to_hf_hub` has it; nothing is uploaded.

    Returns, Raises: as `write_timm`.
    """
    difference = write_timm(student, folder)
    (folder / "README.md").write_text(_card(student), encoding="utf-8")
    return difference


def _card(student: Student) -> str:
    record = student.record
    teacher = record["teacher"]
    taught = record["role"] != "control"
    title = f"{record['student']['name']} by {record['method']}" + (f" from {teacher['name']}" if taught else "")
    top1, top5 = (round(record.get(name, 0.0), 2) for name in ("top1", "top5"))
    metadata = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "kdbench", "knowledge-distillation"],
        metrics=["accuracy"],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=record["suite"],
                dataset_name=f"{record['suite']} ({record['protocol']})",
                dataset_split=record["split"],
                metric_type="accuracy",
                metric_name="top-1, percent",
                metric_value=top1,
            )
        ],
    )
    settings = ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items())
    return CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        timm=student.facts["timm"],
        imports="import timm" + ("\n\nimport kdbench.export.entry" if needs_kdbench(student) else ""),
        how="distilled" if taught else "trained without a teacher",
        classes=student.classes,
        method=record["method"] + (f" ({settings})" if settings else ""),
        teacher=f"{teacher['name']} (`{teacher['timm']}`, top-1 {teacher['top1']:.2f} %)" if taught else "none",
        suite=record["suite"],
        protocol=record["protocol"],
        seed=record["seed"],
        split=record["split"],
        accuracy=f"top-1 {top1:.2f} %, top-5 {top5:.2f} %",
        parameters=count_parameters(student.model),
        input=student.input,
    )
