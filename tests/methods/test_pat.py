"""PAT: its pieces against loops, the prompted teacher against its own layers, and the feedback between batches."""

import math
from typing import Any

import pytest
import torch
from kdbench_methods.parts.feature_losses import context_loss
from kdbench_methods.parts.regions import RegionAttention, aligner, sinusoids
from kdbench_methods.pat import PAT, Prompt
from torch import Tensor
from torch.nn import functional as F

from kdbench.method import Layout, StageInfo, UnsupportedPair
from kdbench.testing import build, one_batch
from tests.methods.test_hetero_methods import B, make_pair, random, softmax


def info(channels: int, grid: tuple[int, int], layout: Layout = "map") -> StageInfo:
    return StageInfo(stage=1, tap=0, channels=channels, grid=grid, prefix=0, layout=layout)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (4, 4), (8, 8), (8, 4)])
def test_context_loss(height: int, width: int) -> None:
    student, teacher = random(2, 3, height, width), random(2, 3, height, width, seed=1)

    def error(side: tuple[int, int]) -> float:
        total = 0.0
        for b in range(2):
            for c in range(3):
                for i in range(side[0]):
                    for j in range(side[1]):
                        # Adaptive pooling: from the floor of the first to the ceiling of the last pixel.
                        rows = slice(i * height // side[0], -(-(i + 1) * height // side[0]))
                        columns = slice(j * width // side[1], -(-(j + 1) * width // side[1]))
                        means = [x[b, c, rows, columns].mean().item() for x in (student, teacher)]
                        total += (means[0] - means[1]) ** 2
        return total / (2 * 3 * side[0] * side[1])

    levels = [(height, width), *((side, side) for side in (4, 2, 1) if side < min(height, width))]
    weights = [0.5**i for i in range(len(levels))]
    expected = sum(w * error(level) for w, level in zip(weights, levels, strict=True)) / sum(weights)
    assert context_loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_positions_are_those_of_the_transformer() -> None:
    found = sinusoids(6, 8)
    for position in range(6):
        for i in range(8):
            angle = position / 10000 ** (2 * (i // 2) / 8)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert found[position, i].item() == pytest.approx(expected, abs=1e-6)


def test_regions_attend_across_stages() -> None:
    torch.manual_seed(0)
    attention: Any = RegionAttention([info(3, (7, 7)), info(5, (1, 1))], side=2, width=4, heads=2).double()
    maps = [random(2, 3, 7, 7), random(2, 5, 1, 1, seed=1)]
    found = attention(maps)
    assert [x.shape for x in found] == [(2, 4, 2, 2)] * 2
    # A 7x7 map does not divide into two: patches of 4, on the nearest neighbours of an 8x8 grid. 1x1 becomes 2x2.
    nearest = [int(i * 7 / 8) for i in range(8)]
    sized = [maps[0][:, :, nearest][..., nearest], maps[1].expand(-1, -1, 2, 2)]
    for b in range(2):
        tokens = []
        for x, embed, size in zip(sized, attention.embed, (4, 1), strict=True):
            for i in range(2):
                for j in range(2):
                    patch = x[b, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
                    token = (embed.weight * patch).sum(dim=(1, 2, 3)) + embed.bias
                    token = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
                    tokens.append(token * attention.norm.weight + attention.norm.bias)
        q, k, v = [], [], []
        for position, token in zip(attention.positions, tokens, strict=True):
            q.append(attention.query.weight @ token + attention.query.bias + position)
            both = attention.key_value.weight @ token + attention.key_value.bias
            k.append(both[:4] + position)
            v.append(both[4:])
        for i in range(8):
            for head in (slice(0, 2), slice(2, 4)):
                shares = softmax([(q[i][head] @ k[j][head]).item() / math.sqrt(2) for j in range(8)])
                expected = sum(share * v[j][head] for j, share in enumerate(shares))
                stage, row, column = i // 4, i % 4 // 2, i % 2
                torch.testing.assert_close(found[stage][b, head, row, column], expected, rtol=1e-10, atol=1e-12)


def _standardised(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


def test_aligners() -> None:
    torch.manual_seed(0)
    x = random(3, 4, 2, 2)
    to_map: Any = aligner(4, (2, 2), info(5, (3, 6))).double()
    rows, columns = [int(i * 2 / 3) for i in range(3)], [int(i * 2 / 6) for i in range(6)]
    normed = _standardised(x[:, :, rows][..., columns], (0, 2, 3))
    expected = torch.einsum("oc,bchw->bohw", to_map.project.weight[:, :, 0, 0], normed)
    torch.testing.assert_close(to_map(x), expected, rtol=1e-10, atol=1e-12)

    to_tokens: Any = aligner(4, (2, 2), info(5, (3, 6), "tokens")).double()
    tokens = _standardised(x.flatten(2).transpose(1, 2), (0, 2))
    wide = tokens @ to_tokens.across_width[1].weight.T + to_tokens.across_width[1].bias
    normed = _standardised(wide.transpose(1, 2), (0, 2))
    expected = normed @ to_tokens.across_tokens[1].weight.T + to_tokens.across_tokens[1].bias
    torch.testing.assert_close(to_tokens(x), expected.unflatten(2, (3, 6)), rtol=1e-10, atol=1e-12)


def test_a_prompt_is_added_to_what_enters() -> None:
    torch.manual_seed(0)
    prompt: Any = Prompt(info(8, (3, 3)), info(8, (3, 3))).double()
    feature, gap = random(2, 8, 3, 3), random(2, 8, 3, 3, seed=1)
    assert torch.equal(prompt(feature, gap), feature), "nothing at first"
    torch.nn.init.constant_(prompt.beta, 0.5)

    def through(block: Any, x: Tensor) -> Tensor:
        *before, gate, last = block
        for conv in before:
            x = conv(x)
        squeezed = (x.mean((2, 3)) @ gate.fc1.weight[:, :, 0, 0].T + gate.fc1.bias).clamp(min=0)
        share = 1 / (1 + (-(squeezed @ gate.fc2.weight[:, :, 0, 0].T + gate.fc2.bias)).exp())
        return last(x * share[:, :, None, None])

    fused = through(prompt.fuse, torch.cat([feature, gap], dim=1))
    expected = feature + 0.5 * through(prompt.prompt, fused)
    torch.testing.assert_close(prompt(feature, gap), expected, rtol=1e-10, atol=1e-12)
    sizes = [tuple(part.kernel_size) for part in (*prompt.fuse, *prompt.prompt) if hasattr(part, "kernel_size")]
    assert sizes == 2 * [(1, 1), (5, 5), (1, 1), (1, 1)]


def _moved(method: PAT) -> PAT:
    """With prompts that matter."""
    for prompt in method.prompts:
        assert isinstance(prompt, Prompt)
        torch.nn.init.constant_(prompt.beta, 0.5)
    return method


def _layers(method: PAT, teacher: str) -> list[Any]:
    """The teacher's own layers from stage to stage, on the network's own layout."""
    network: Any = method.pair.teacher.model
    if teacher == "cnn":
        return [network.layer2, network.layer3, network.layer4]
    return [network.blocks[1], network.blocks[2], network.blocks[3]]


@pytest.mark.parametrize("teacher", ["cnn", "vit"])
def test_the_prompted_teacher_is_the_teacher_with_prompts_between_its_layers(teacher: str) -> None:
    method = _moved(build(PAT, make_pair(teacher, "swin")))
    one_batch(method, B)
    gaps = [gap.clone() for gap in method._gaps]
    assert len(gaps) == 3 and not any(gap.requires_grad for gap in gaps)
    terms, student, plain, batch = one_batch(method, B, seed=2)
    x, prefix, targets = plain.stages[1].map, plain.stages[1].prefix, [plain.stages[1].map]
    for prompt, gap, layer in zip(method.prompts, gaps, _layers(method, teacher), strict=True):
        x = prompt(x, gap)
        if prefix is not None:
            # The class token goes first, past the prompt and through the layer.
            grid = x.shape[2:]
            out = layer(torch.cat([prefix, x.flatten(2).transpose(1, 2)], dim=1))
            prefix, x = out[:, :1], out[:, 1:].transpose(1, 2).unflatten(2, grid)
        else:
            x = layer(x)
        targets.append(x)
    network: Any = method.pair.teacher.model
    final = x if prefix is None else network.norm(torch.cat([prefix, x.flatten(2).transpose(1, 2)], dim=1))
    logits = network.forward_head(final)
    regions = method.attention([student.stages[k].map for k in (1, 2, 3, 4)])
    aligned = [align(region) for align, region in zip(method.aligners, regions, strict=True)]
    hint = sum(context_loss(a, t) for a, t in zip(aligned, targets, strict=True))
    kl = F.kl_div(logits.log_softmax(1), plain.logits.softmax(1), reduction="batchmean")
    torch.testing.assert_close(terms["hint"], hint, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["prompt"], kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["ce"], batch.cross_entropy(student.logits))
    kd = F.kl_div(student.logits.log_softmax(1), plain.logits.softmax(1), reduction="batchmean")
    torch.testing.assert_close(terms["kd"], kd)
    for gap, mine, theirs in zip(method._gaps, aligned[1:], targets[1:], strict=True):
        torch.testing.assert_close(gap, mine - theirs, rtol=1e-4, atol=1e-5)


def test_at_first_the_prompted_teacher_is_the_teacher() -> None:
    method: PAT = build(PAT, make_pair("swin", "cnn"))
    terms, _, teacher, _ = one_batch(method, B)
    assert terms["prompt"].item() == pytest.approx(0, abs=1e-6)
    for feature, stage in zip(method._prompted(list(teacher.stages.values())), (1, 2, 3, 4), strict=True):
        torch.testing.assert_close(feature.map, teacher.stages[stage].map)


def test_batches_of_other_sizes_take_the_gaps_in_turn() -> None:
    method = _moved(build(PAT, make_pair("cnn", "swin")))
    for size in (4, 6, 2, 4):
        before = method._gaps
        terms, *_ = one_batch(method, size, seed=size)
        assert torch.stack(list(terms.values())).isfinite().all()
        assert [len(gap) for gap in method._gaps] == [size] * 3
        assert before is not method._gaps
    entered: list[Tensor] = []
    prompt = method.prompts[0]
    prompt.register_forward_pre_hook(lambda module, args: entered.append(args[1]))
    gap = method._gaps[0]
    one_batch(method, 6)
    assert torch.equal(entered[0], gap[[0, 1, 2, 3, 0, 1]])


def test_the_gradient_passes_through_the_frozen_teacher() -> None:
    method = _moved(build(PAT, make_pair("vit", "cnn")))
    one_batch(method, B)
    terms, *_ = one_batch(method, B)
    terms["prompt"].backward()
    for prompt in method.prompts:
        assert all(p.grad is not None for p in prompt.parameters())
    assert all(p.grad is None for p in method.pair.teacher.parameters())
    assert all(p.grad is None for p in method.pair.student.parameters()), "the gap is a constant"
    shared = {id(p) for network in (method.pair.teacher, method.pair.student) for p in network.parameters()}
    assert not shared & {id(p) for p in method.parameters()}


def test_a_width_that_heads_cannot_share() -> None:
    with pytest.raises(UnsupportedPair, match="a width of 20 cannot be shared by 8 heads"):
        build(PAT, make_pair("vit", "cnn"), width=20)
