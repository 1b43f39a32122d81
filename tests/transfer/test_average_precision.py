"""Average precision by COCO's evaluation, held against hand-worked cases and two libraries."""

import json
import math

import numpy as np
import pytest
import torch

from mixbench.data.coco import open_detection, with_most_instances
from mixbench.transfer.average_precision import (
    average_precision,
    detections_of,
    exported,
)
from mixbench.transfer.tasks import BOXES, MASKS
from tests.support.coco import (
    annotation,
    annotations_of,
    box,
    packed,
    write_annotations,
    write_detection,
)

pytest.importorskip("pycocotools")
KINDS = {BOXES: "bbox", MASKS: "segm"}  # in the libraries' words


def data_of(root, annotations):
    """Data whose validation images have some annotations."""
    write_detection(root)
    content = annotations_of(root, "val2017")
    content["annotations"] = [{**each, "id": i + 1} for i, each in enumerate(annotations)]
    write_annotations(root, "val2017", content)
    return open_detection(root)


def seen(*objects, height=20, width=30):
    """Detections of (label, score, (top, left, bottom, right))."""
    masks = [box(*corners, height, width) for _, _, corners in objects]
    boxes = [(left, top, right, bottom) for _, _, (top, left, bottom, right) in objects]
    return detections_of(
        {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([label for label, _, _ in objects], dtype=torch.int64),
            "scores": torch.tensor([score for _, score, _ in objects], dtype=torch.float64),
            "masks": torch.tensor(np.array(masks).reshape(-1, 1, height, width)),
        }
    )


def of_truth(source, rng=None, labels=None):
    """The true objects as detections, with noise of `rng`, or with their labels renamed."""
    results = []
    for index in range(len(source.labels)):
        truth = source.instances(index)
        masks, boxes = truth.masks.astype(np.float32)[:, None], truth.boxes.copy()
        which, scores = truth.labels.copy(), np.ones(len(boxes))
        if rng is not None:
            shift = int(rng.integers(-1, 2))
            masks = np.roll(masks, shift, -1) * (rng.random(masks.shape) < 0.95)
            boxes += rng.normal(0, 0.5, boxes.shape).astype(np.float32)
            which = np.where(rng.random(len(which)) < 0.8, which, rng.integers(1, 4, len(which)))
            scores = rng.random(len(boxes))
        if labels is not None:
            which = np.array([labels[label] for label in which], np.int64)
        results.append(
            detections_of(
                {
                    "boxes": torch.from_numpy(boxes),
                    "labels": torch.from_numpy(which),
                    "scores": torch.from_numpy(scores),
                    "masks": torch.from_numpy(masks),
                }
            )
        )
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_100_and_wrong_labels_are_0(tmp_path, kind, capsys):
    data = open_detection(write_detection(tmp_path))
    for kept in (data, with_most_instances(data, 2)):
        perfect = average_precision(kept.val, of_truth(kept.val), kind)
        assert [perfect.ap, perfect.ap50, perfect.ap75] == pytest.approx([100] * 3)
        assert perfect.by_class == pytest.approx([100] * len(kept.classes))
        wrong = dict(zip(range(1, 4), [*range(2, len(kept.classes) + 1), 1], strict=False))
        shuffled = average_precision(kept.val, of_truth(kept.val, labels=wrong), kind)
        assert shuffled.ap == shuffled.ap50 == 0 and not shuffled.by_class.any()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", KINDS)
def test_worked_by_hand(tmp_path, kind):
    """Two ants are there. The best guess is wrong, the next has IoU 0.8, the last 1.

    From IoU 0.5 to 0.8 (seven of ten thresholds) precision falls 0/1, 1/2, 2/3: made falling it is
    2/3 at every recall. At 0.85 to 0.95 one of two is found, by the third guess: 1/3 at the recalls
    0 to 0.5, 51 of 101, and 0 at others.
    """
    data = data_of(
        tmp_path,
        [annotation(21, 1, (0, 0, 10, 10)), annotation(22, 1, (4, 4, 14, 14))],
    )
    predictions = [
        seen((1, 0.5, (0, 0, 10, 8))),  # 80 of 100
        seen((1, 0.4, (4, 4, 14, 14)), (1, 0.9, (0, 20, 10, 30))),
        seen(),
    ]
    result = average_precision(data.val, predictions, kind)
    assert result.ap50 == result.ap75 == pytest.approx(100 * 2 / 3)
    assert result.ap == pytest.approx(100 * (7 * 2 / 3 + 3 * 51 / 101 / 3) / 10)
    assert result.by_class[0] == result.ap and np.isnan(result.by_class[1:]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_found_once(tmp_path, kind):
    """Of two, the second guess is the first again: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    first, second = (0, 0, 10, 10), (10, 15, 20, 30)
    data = data_of(tmp_path, [annotation(21, 1, first), annotation(21, 1, second)])
    guesses = [seen((1, 0.9, first), (1, 0.8, first), (1, 0.7, second)), seen(), seen()]
    expected = 100 * (51 + 50 * 2 / 3) / 101
    assert average_precision(data.val, guesses, kind).ap == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_in_a_crowd_does_not_count_against(tmp_path, kind):
    there = annotation(21, 1, (0, 0, 8, 8))
    crowd = annotation(21, 1, (0, 15, 20, 30), packed, crowd=1)
    guesses = [seen((1, 0.5, (0, 0, 8, 8)), (1, 0.9, (2, 17, 9, 25))), seen(), seen()]
    with_crowd = data_of(tmp_path / "a", [there, crowd])
    assert average_precision(with_crowd.val, guesses, kind).ap == pytest.approx(100)
    without = data_of(tmp_path / "b", [there])
    assert average_precision(without.val, guesses, kind).ap == pytest.approx(50)


def test_a_box_that_is_inside_out_does_not_count_as_in_coco(tmp_path):
    data = data_of(tmp_path, [annotation(21, 1, (0, 0, 10, 10))])
    guesses = [seen((1, 0.5, (0, 0, 10, 10)), (1, 0.9, (5, 9, 15, 3))), seen(), seen()]
    assert average_precision(data.val, guesses, BOXES).ap == pytest.approx(100)


def test_boxes_and_masks_are_apart(tmp_path):
    data = data_of(tmp_path, [annotation(21, 1, (0, 0, 10, 10))])
    output = {
        "boxes": torch.tensor([[0.0, 0, 10, 10]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.9]),
        "masks": torch.from_numpy(box(0, 0, 10, 4)[None, None] * 1.0),
    }
    predictions = [detections_of(output), seen(), seen()]
    assert average_precision(data.val, predictions, BOXES).ap == pytest.approx(100)
    assert average_precision(data.val, predictions, MASKS).ap == 0


def test_a_mask_is_where_the_probability_is_above_a_half(tmp_path):
    masks = torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0]).expand(2, 1, 3, 5)
    output = {
        "boxes": torch.zeros(2, 4),
        "labels": torch.ones(2, dtype=torch.int64),
        "scores": torch.ones(2),
        "masks": masks,
    }
    drawn = detections_of(output).masks()
    assert drawn.shape == (2, 3, 5) and np.array_equal(drawn, masks[:, 0].numpy() > 0.5)
    none = {key: value[:0] for key, value in output.items()}
    assert len(detections_of(none).masks()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_predicted_is_0(tmp_path, kind):
    data = open_detection(write_detection(tmp_path))
    nothing = average_precision(data.val, [seen()] * 3, kind)
    assert nothing.ap == nothing.ap50 == nothing.ap75 == 0 and not nothing.by_class.any()


def test_a_class_that_is_not_there_is_no_part_of_the_mean(tmp_path):
    data = data_of(tmp_path, [annotation(21, 18, (0, 0, 10, 10))])
    guesses = [seen((2, 0.5, (0, 0, 10, 10)), (3, 0.9, (0, 0, 10, 10))), seen(), seen()]
    result = average_precision(data.val, guesses, BOXES)
    assert result.ap == result.by_class[1] == pytest.approx(100)
    assert math.isnan(result.by_class[0]) and math.isnan(result.by_class[2])


def many(root, rng):
    """Validation images of random objects, some of which are crowds."""
    annotations = []
    for number in range(36):
        top, left = (int(rng.integers(0, each)) for each in (12, 20))
        height, width = (int(rng.integers(2, each)) for each in (9, 11))
        corners = top, left, top + height, left + width
        image, label = (int(rng.choice(each)) for each in ((21, 22, 23), (1, 18, 90)))
        annotations.append(annotation(image, label, corners, packed, crowd=int(number % 9 == 0)))
    return data_of(root, annotations)


@pytest.mark.parametrize("kind", KINDS)
def test_noisy_predictions_are_faster_coco_evals(tmp_path, kind, capsys):
    faster = pytest.importorskip("faster_coco_eval")
    values = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = many(tmp_path / str(seed), rng)
        predictions = of_truth(data.val, rng)
        results = exported(data.val, predictions, kind)
        json.dumps(results)  # a file of results can be written
        truth = faster.COCO(str(tmp_path / str(seed) / "annotations/instances_val2017.json"))
        evaluation = faster.COCOeval_faster(truth, truth.loadRes(results), KINDS[kind])
        evaluation.run()
        result = average_precision(data.val, predictions, kind)
        assert [result.ap, result.ap50, result.ap75] == pytest.approx(
            100 * evaluation.stats[:3], abs=1e-5
        )
        by_class = evaluation.eval["precision"][..., 0, -1].mean((0, 1))
        assert result.by_class == pytest.approx(100 * by_class, abs=1e-5)
        values.append(result.ap)
    assert len(set(values)) == 3 and 5 < min(values) < max(values) < 90


@pytest.mark.parametrize("kind", KINDS)
def test_noisy_predictions_are_torchmetrics(tmp_path, kind):
    from torchmetrics.detection import MeanAveragePrecision

    rng = np.random.default_rng(7)
    data = many(tmp_path, rng)
    predictions = of_truth(data.val, rng)
    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_type=KINDS[kind],
        class_metrics=True,
        # as it has them they are rounded to float32
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    of = data.val.annotations
    for index, prediction in enumerate(predictions):
        chosen = of.of_image(index)
        corners = of.boxes[chosen] @ np.array(
            [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
        )
        target = {
            "boxes": torch.from_numpy(corners),
            "labels": torch.from_numpy(of.labels[chosen]),
            "masks": torch.from_numpy(of.masks(index, chosen)),
            "iscrowd": torch.from_numpy(of.crowd[chosen]).long(),
        }
        output = {
            "boxes": torch.from_numpy(prediction.boxes),
            "labels": torch.from_numpy(prediction.labels),
            "scores": torch.from_numpy(prediction.scores),
            "masks": torch.from_numpy(prediction.masks()),
        }
        metric.update([output], [target])
    theirs, ours = metric.compute(), average_precision(data.val, predictions, kind)
    expected = [float(theirs[key]) for key in ("map", "map_50", "map_75")]
    assert [ours.ap / 100, ours.ap50 / 100, ours.ap75 / 100] == pytest.approx(expected, abs=1e-6)
    assert ours.by_class / 100 == pytest.approx(theirs["map_per_class"].numpy(), abs=1e-6)
