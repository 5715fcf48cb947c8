"""Any timm model as stages 1-4, pooled feature and logits, in one forward pass."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError, UnsupportedPair
from kdbench.models.features import Feature, Layout, Needs, Normalisation, Outputs, StageInfo
from kdbench.models.resume.packing import find_packing
from kdbench.models.resume.tails import Entry, Segment, Tail
from kdbench.models.stages import stage_taps

LOGITS = Needs()


class StagedModel(nn.Module):
    """A timm model that answers with logits and whatever stages are asked for.

    The mechanism is timm's own `forward_intermediates` + `forward_head`; shapes come from one probe.

    Attributes:
        model: the timm model, untouched: its state dict is the student's checkpoint.
        image_shape: (channels, side, side) of the input.
        normalisation: mean and std the model expects its input to be normalised with.
        stages: shapes by stage.
        pooled_width: D of the pooled feature.
        num_classes: width of the logits.
    """

    def __init__(self, model: nn.Module, image_shape: tuple[int, int, int], normalisation: Normalisation) -> None:
        """Wrap `model` and probe it (in eval mode, without touching random streams or buffers).

        Raises:
            KdbenchError: the model offers no intermediate features or does not run at this image size.
        """
        super().__init__()
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
            raise KdbenchError(f"{type(model).__name__} has no forward_intermediates; kdbench needs a timm model")
        self.model = model
        self.image_shape = image_shape
        self.normalisation = normalisation
        named: dict[int, int] | None = getattr(model, "stage_taps", None)
        self._taps = named or stage_taps([info["reduction"] for info in model.feature_info])  # type: ignore[union-attr]
        parameters = inspect.signature(model.forward_intermediates).parameters  # type: ignore[arg-type]
        # Asked for prefix tokens, some networks without any fail.
        self._has_prefix = "return_prefix_tokens" in parameters and bool(getattr(model, "num_prefix_tokens", True))
        self._tails: dict[tuple[int, Entry], Tail] = {}
        self._segments: dict[int, Segment] = {}
        self._final_is_stage4 = False
        self._pooled_to_logits = False
        self.stages: dict[int, StageInfo] = {}
        self._probe()

    @torch.no_grad()
    def _probe(self) -> None:
        reference = next(self.model.parameters())
        image = torch.zeros((2, *self.image_shape), device=reference.device, dtype=reference.dtype)
        image += torch.linspace(-1, 1, image.numel(), device=image.device, dtype=image.dtype).view_as(image)
        training = self.model.training
        self.model.eval()
        taps = list(self._taps.values())
        try:
            logits = self.model(image)
            with _watched(self.model) as held:
                final, maps, prefixes = self._intermediates(image, taps)
            pooled = self.model.forward_head(final, pre_logits=True)  # type: ignore[operator]
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            size = f"{self.image_shape[1]} px, {self.image_shape[0]} channels"
            raise KdbenchError(f"{type(self.model).__name__} does not run at {size}: {reason}") from error
        finally:
            self.model.train(training)
        if logits.ndim != 2:
            shape = tuple(logits.shape)
            raise KdbenchError(f"{type(self.model).__name__} gives {shape} for 2 images, not a logit for each class")
        self.num_classes = logits.shape[-1]
        self.pooled_width = pooled.shape[-1]
        # The classifier is applied to the pooled feature only where that is what the model does; else the head runs
        # twice, once for each of the two.
        classifier = self.model.get_classifier()  # type: ignore[operator]
        self._pooled_to_logits = isinstance(classifier, nn.Module) and _equal(classifier, pooled, logits)
        layouts: list[Layout] = [_layout(held, feature, final) for feature in maps]
        # A network whose trunk ends in a further convolution (MobileNetV2's) has that as its stage-4 output.
        last = maps[-1]
        self._final_is_stage4 = (
            layouts[-1] == "map"
            and isinstance(final, Tensor)
            and final.ndim == 4
            and final.shape[2:] == last.shape[2:]
            and final.shape[1] != last.shape[1]
        )
        for (stage, tap), feature, prefix, layout in zip(self._taps.items(), maps, prefixes, layouts, strict=True):
            is_final = stage == 4 and self._final_is_stage4
            shape = (final if is_final else feature).shape
            self.stages[stage] = StageInfo(
                stage=stage,
                tap=None if is_final else tap,
                channels=shape[1],
                grid=(shape[2], shape[3]),
                prefix=0 if prefix is None else prefix.shape[1],
                layout=layout,
            )

    def forward(self, images: Tensor, needs: Needs = LOGITS) -> Outputs:
        """One pass over normalised images.

        Args:
            images: (B, channels, side, side), normalised with `normalisation`.
            needs: what to return besides the logits.
        """
        if not needs.stages:
            if not needs.pooled:
                return Outputs(self.model(images))
            return self.head(self.model.forward_features(images))  # type: ignore[operator]
        wanted = sorted(needs.stages)
        indices = [tap for stage in wanted if (tap := self.stages[stage].tap) is not None]
        final, maps, prefixes = self._intermediates(images, indices or [self._taps[4]])
        features = iter(zip(maps, prefixes, strict=True))
        stages: dict[int, Feature] = {}
        for stage in wanted:
            info = self.stages[stage]
            feature, prefix = (final, None) if info.tap is None else next(features)
            stages[stage] = Feature(feature, prefix, info.layout)
        return self.head(final, needs.pooled, stages)

    def head(self, final: Tensor, pooled: bool = True, stages: dict[int, Feature] | None = None) -> Outputs:
        """Pooled feature and logits of the trunk's final features, in the model's own layout."""
        stages = stages or {}
        if not pooled:
            return Outputs(self.model.forward_head(final), None, stages)  # type: ignore[operator]
        vector = self.model.forward_head(final, pre_logits=True)  # type: ignore[operator]
        classify = self.model.get_classifier() if self._pooled_to_logits else None  # type: ignore[operator]
        logits = self.model.forward_head(final) if classify is None else classify(vector)  # type: ignore[operator]
        return Outputs(logits, vector, stages)

    @contextmanager
    def exact_classifier(self) -> Iterator[None]:
        """Inside, the classifier computes in float32 also under autocast: logits in bf16 are equal now and then."""
        found = self.model.get_classifier()  # type: ignore[operator]
        classifiers = [
            each for each in (found if isinstance(found, tuple) else (found,)) if isinstance(each, nn.Module)
        ]
        for classifier in classifiers:
            classifier.forward = partial(_exactly, classifier.forward)
        try:
            yield
        finally:
            for classifier in classifiers:
                del classifier.forward

    def classify(self, pooled: Tensor) -> Tensor:
        """The logits (B, classes) of pooled features (B, D), such as those of another network.

        Raises:
            UnsupportedPair: the network does more between the two than one classifier.
        """
        classifier = self.model.get_classifier() if self._pooled_to_logits else None  # type: ignore[operator]
        if classifier is None:
            raise UnsupportedPair(f"{type(self.model).__name__} has no classifier that takes its pooled feature alone")
        return classifier(pooled)

    def tail(self, stage: int, entry: Entry = "stage") -> Tail:
        """The network from `stage` on, sharing its modules; built once.

        Raises:
            UnsupportedPair: the network cannot be resumed there; the message says why.
        """
        if (stage, entry) not in self._tails:
            self._tails[stage, entry] = Tail.build(
                self.model,
                self.head,
                self.image_shape,
                self.stages[stage],
                taps=self._taps,
                features=self._maps,
                entry=entry,
            )
        return self._tails[stage, entry]

    def segment(self, stage: int) -> Segment:
        """The network from `stage` to the stage that follows, sharing its modules; built once.

        Raises:
            UnsupportedPair: there is no such part of the network that can be run alone; the message says why.
        """
        if stage not in self._segments:
            following = next((k for k in sorted(self.stages) if k > stage), None)
            if stage not in self.stages or following is None:
                raise UnsupportedPair(f"{type(self.model).__name__} has no stage {stage} that another one follows")
            infos = self.stages[stage], self.stages[following]
            self._segments[stage] = Segment.build(self.model, self.image_shape, infos, self._taps, self._maps)
        return self._segments[stage]

    def finish(self, feature: Feature) -> Outputs:
        """Pooled feature and logits of a stage-4 feature, such as one that a segment gives.

        Raises:
            UnsupportedPair: the network cannot be resumed there; the message says why.
        """
        if self.stages[4].tap is None:
            return self.head(feature.map)
        return self.tail(4)(feature.map, feature.prefix)

    def _maps(self, images: Tensor) -> dict[int, Tensor]:
        # Not through `__call__`: compiled code rounds in other places than the modules that a trace runs.
        outputs = self.forward(images, Needs(frozenset(self.stages)))
        return {stage: feature.map for stage, feature in outputs.stages.items()}

    def _intermediates(self, images: Tensor, indices: list[int]) -> tuple[Any, list[Tensor], list[Tensor | None]]:
        arguments: dict[str, Any] = {"return_prefix_tokens": True} if self._has_prefix else {}
        final, features = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=indices, stop_early=False, output_fmt="NCHW", **arguments
        )
        pairs = [feature if isinstance(feature, tuple) else (feature, None) for feature in features]
        return final, [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _exactly(forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return forward(features.float())


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Any]]:
    """What the modules of `model` put out while inside, in order."""
    held: list[Any] = []
    handles = [module.register_forward_hook(lambda *call: held.append(call[2])) for module in model.modules()]
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


def _layout(held: list[Any], feature: Tensor, final: Any) -> Layout:
    """What the network computes on where it has this map: the form in which the first of its modules holds it."""
    for output in held:
        if (packing := find_packing(output, feature)) is not None:
            return packing.kind
    # Its modules hold it in no form of their own (made by the glue): as the trunk ends.
    return "map" if isinstance(final, Tensor) and final.ndim == 4 and final.shape[1] == feature.shape[1] else "tokens"


def _equal(classifier: nn.Module, pooled: Tensor, logits: Tensor) -> bool:
    try:
        return torch.equal(classifier(pooled), logits)
    except (RuntimeError, TypeError, IndexError, ValueError):
        return False
