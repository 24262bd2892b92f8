"""Training loops: batches, augmentation, the contrastive loss, and a resumed run that equals an uninterrupted one."""

import copy

import pytest
import torch
import toy
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from adamerging_lib.suite import TaskData
from adamerging_lib.worlds.training import batch_indices, contrastive_loss, fine_tune, head_loss, optimise, random_crop


def test_batches_are_shuffled_passes_that_depend_on_the_step_alone():
    drawn = torch.cat([batch_indices(step, 4, 10, seed=3) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    assert torch.equal(batch_indices(2, 4, 10, seed=3), drawn[8:12])
    assert sorted(batch_indices(0, 25, 10, seed=0).tolist())[::5] == [0, 2, 4, 6, 8]  # more than one pass in a batch


def test_random_crop_shifts_each_image_whole():
    image = torch.arange(3 * 8 * 8, dtype=torch.float32).view(1, 3, 8, 8)
    cropped = random_crop(image.repeat(40, 1, 1, 1), torch.Generator().manual_seed(0))
    assert cropped.shape == (40, 3, 8, 8)
    assert any(torch.equal(one, image[0]) for one in cropped)  # the middle position is among them
    inner = {tuple(one[0, 3:5, 3:5].flatten().tolist()) for one in cropped}
    assert len(inner) > 5
    for one in cropped:  # interior pixels stay neighbours
        assert one[0, 4, 4] - one[0, 4, 3] == 1 and one[0, 4, 4] - one[0, 3, 4] == 8


def test_contrastive_loss_is_clips_where_captions_are_distinct_and_counts_all_matches_where_not():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)
    scale, order = torch.tensor(1.5), torch.arange(6)
    logits = scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    clip = (cross_entropy(logits, order) + cross_entropy(logits.T, order)) / 2
    assert torch.allclose(contrastive_loss(images, texts, order, scale), clip)

    which = torch.tensor([0, 0, 1, 2, 2, 2])
    logits = logits[:, :3]
    rows = [logits.T[m].log_softmax(0)[which == m].mean() for m in range(3)]
    expected = (cross_entropy(logits, which) - torch.stack(rows).mean()) / 2
    assert torch.allclose(contrastive_loss(images, texts[:3], which, scale), expected)


def test_head_loss_is_the_sum_of_the_tasks_own_losses():
    suite = toy.suite()
    tasks = list(suite.tasks)[:2]
    images = torch.cat([suite.normalise(suite.test[task].images[:3]) for task in tasks])
    labels = [suite.test[task].labels[:3] for task in tasks]
    total = head_loss(suite.encoder, images, [suite.heads[task] for task in tasks], labels)
    parts = [
        cross_entropy(normalize(suite.encoder(images[3 * i : 3 * i + 3]), dim=-1) @ suite.heads[task].T, labels[i])
        for i, task in enumerate(tasks)
    ]
    assert torch.allclose(total, sum(parts), atol=1e-5)


class Stop(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    data = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))

    def run(model, path, stop=None):
        def loss(step):
            if step == stop:
                raise Stop
            return model(data[batch_indices(step, 8, 40, 0)]).pow(2).mean()

        optimise(
            model, loss, steps=20, lr=1e-2, warmup=3, weight_decay=0.1, checkpoint=path, label="test", save_every=5
        )

    start = nn.Linear(4, 2)
    straight, killed = copy.deepcopy(start), copy.deepcopy(start)
    run(straight, tmp_path / "a.pt")
    with pytest.raises(Stop):
        run(killed, tmp_path / "b.pt", stop=13)
    resumed = copy.deepcopy(start)
    run(resumed, tmp_path / "b.pt")
    assert torch.equal(resumed.weight, straight.weight) and torch.equal(resumed.bias, straight.bias)
    assert not torch.equal(resumed.weight, start.weight)


def test_fine_tuning_learns_a_separable_task_with_the_head_frozen(tmp_path):
    suite = toy.suite()
    task = suite.tasks[0]
    head, generator = suite.heads[task], torch.Generator().manual_seed(1)
    labels = torch.randint(0, len(head), (64,), generator=generator)
    images = torch.randint(0, 30, (64, *suite.test[task].images.shape[1:]), generator=generator, dtype=torch.uint8)
    images[torch.arange(64), :, 0, :] += (40 * labels).to(torch.uint8)[:, None, None]
    data = TaskData(images, labels, tuple(str(c) for c in range(len(head))))
    encoder, before = copy.deepcopy(suite.encoder), head.clone()
    encoder.load_state_dict(suite.pretrained)

    def loss():
        with torch.no_grad():
            return head_loss(encoder, suite.normalise(images), [head], [labels]).item()

    first = loss()
    fine_tune(
        encoder, {task: data}, {task: head}, suite.normalise, steps=120, lr=1e-2, batch_size=16, weight_decay=0.1,
        warmup=5, seed=0, device="cpu", checkpoint=tmp_path / "c.pt", label=task,
    )  # fmt: skip
    assert loss() < 0.8 * first
    assert torch.equal(head, before)
