"""Directories of an older mixbench are read: what was trained, and what was timed, come apart."""

import csv

import numpy as np
import pytest

from mixbench.report.page import report_runs
from mixbench.runs import schema2
from mixbench.runs.merge import read_runs, read_tables
from mixbench.runs.rows import SCHEMA_VERSION, RunRow, SpeedRow
from mixbench.runs.samples import write_lam
from tests.support.rows import OLDER_LOG, write_correct

HEADER = (
    "schema_version,strategy,compose,status,dataset,train_images,num_classes,model,params_m,"
    "extra_params_m,attention,network,image_size,batch_size,epochs,seed,headline,top1,top5,"
    "top1_ema,train_seconds,im_per_sec,im_per_sec_lo,im_per_sec_hi,ratio_to_cutmix,ratio_lo,"
    "ratio_hi,control_lo,control_hi,rounds,peak_memory_mb,device,precision,compiled,"
    "recipe_hash,versions,date,nll,ece,mix_ms,forward_ms,backward_ms,optimizer_ms,timed,"
    "loading_share,train_im_per_sec,label_error"
)
VERSIONS = (
    "mixbench 0.1.0; python 3.11.7; torch 2.14.1; torchvision 0.29.1; timm 1.0.31; numpy 2.4.6"
)
DEVICE = "Intel(R) Xeon(R) Processor, 1 threads"
TIMED = f"deit_tiny_patch16_224 at 64 px, batch 2, fp32, {DEVICE}"
ROWS = [  # of `--strategies cutmix,transmix --seeds 0,1`, as mixbench 0.1 wrote them
    (
        "2,cutmix,only,ok,scenes,20,10,vit_tiny_patch16_224,0.013,0.0,,,32,8,1,0,raw,10.0,"
        f'50.0,,0.009,60.693,60.552,60.835,1.0,1.0,1.0,0.9355,1.0183,2,,"{DEVICE}",fp32,False,'
        f'04a903ea2a,{VERSIONS},2026-11-25,2.3099,1.548,0.788,13.901,18.263,9.012,"{TIMED}",'
        "0.482,616.277,19.597"
    ),
    (
        "2,transmix,only,ok,scenes,20,10,vit_tiny_patch16_224,0.013,0.0,last,,32,8,1,0,raw,"
        "10.0,50.0,,0.01,57.632,57.18,58.092,0.9496,0.9399,0.9594,0.9355,1.0183,2,,"
        f'"{DEVICE}",fp32,False,04a903ea2a,{VERSIONS},2026-11-25,2.3098,1.548,0.862,15.224,'
        f'18.617,8.7,"{TIMED}",0.482,598.109,20.366'
    ),
    (
        "2,cutmix,only,ok,scenes,20,10,vit_tiny_patch16_224,0.013,0.0,,,32,8,1,1,raw,10.0,"
        f'55.0,,0.009,60.693,60.552,60.835,1.0,1.0,1.0,0.9355,1.0183,2,,"{DEVICE}",fp32,False,'
        f'04a903ea2a,{VERSIONS},2026-11-25,2.2904,1.608,0.788,13.901,18.263,9.012,"{TIMED}",'
        "0.354,831.64,19.597"
    ),
    (
        "2,transmix,only,ok,scenes,20,10,vit_tiny_patch16_224,0.013,0.0,last,,32,8,1,1,raw,"
        "10.0,55.0,,0.008,57.632,57.18,58.092,0.9496,0.9399,0.9594,0.9355,1.0183,2,,"
        f'"{DEVICE}",fp32,False,04a903ea2a,{VERSIONS},2026-11-25,2.2904,1.608,0.862,15.224,'
        f'18.617,8.7,"{TIMED}",0.354,877.868,20.367'
    ),
]
SCHEMA_1 = HEADER.partition(",nll")[0]


def write_old(folder, *rows, header=HEADER):
    """A directory with a comparison.csv of these lines; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def changed(row, **changes):
    """A line of the file with other cells."""
    [cells] = csv.DictReader([HEADER, row])
    cells |= changes
    return ",".join(f'"{text}"' if "," in text else text for text in cells.values())


def test_what_a_real_run_trained(tmp_path):
    runs, _ = schema2.read(write_old(tmp_path, *ROWS))
    assert [(row.strategy, row.seed) for row in runs] == [
        ("cutmix", 0),
        ("transmix", 0),
        ("cutmix", 1),
        ("transmix", 1),
    ]
    assert runs[3] == RunRow(
        strategy="transmix",
        seed=1,
        compose="only",
        dataset="scenes",
        train_images=20,
        num_classes=10,
        model="vit_tiny_patch16_224",
        params_m=0.013,
        extra_params_m=0.0,
        attention="last",
        image_size=32,
        batch_size=8,
        epochs=1,
        headline="raw",
        top1=10.0,
        top5=55.0,
        nll=2.2904,
        ece=1.608,
        label_error=20.367,
        train_seconds=0.008,
        loading_share=0.354,
        train_im_per_sec=877.868,
        device=DEVICE,
        precision="fp32",
        compiled=False,
        recipe_hash="04a903ea2a",
        versions=VERSIONS,
        date="2026-11-25",
    )


def test_what_a_real_run_timed(tmp_path):
    _, speed = schema2.read(write_old(tmp_path, *ROWS))
    cutmix, transmix = speed  # repeated with every seed, and one row each
    assert cutmix.strategy == "cutmix" and cutmix.ratio_to_cutmix == 1.0
    assert transmix == SpeedRow(
        strategy="transmix",
        attention="last",
        extra_params_m=0.0,
        timed_model="deit_tiny_patch16_224",
        timed_image_size=64,
        timed_batch_size=2,
        timed_precision="fp32",
        im_per_sec=57.632,
        im_per_sec_lo=57.18,
        im_per_sec_hi=58.092,
        ratio_to_cutmix=0.9496,
        ratio_lo=0.9399,
        ratio_hi=0.9594,
        control_lo=0.9355,
        control_hi=1.0183,
        rounds=2,
        mix_ms=0.862,
        forward_ms=15.224,
        backward_ms=18.617,
        optimizer_ms=8.7,
        device=DEVICE,
        compiled=False,
        versions=VERSIONS,
        date="2026-11-25",
    )
    assert transmix.timed == TIMED and transmix.schema_version == SCHEMA_VERSION


def test_another_measurement_of_the_same_strategy_stays(tmp_path):
    again = changed(ROWS[2], im_per_sec="61.0")
    _, speed = schema2.read(write_old(tmp_path, ROWS[0], again))
    assert [row.im_per_sec for row in speed] == [60.693, 61.0]


def test_a_failure_belongs_to_the_part_that_failed(tmp_path):
    cells = ("im_per_sec", "ratio_to_cutmix", "timed")
    slow = changed(ROWS[1], status="out of memory", **dict.fromkeys(cells, ""))
    poor = changed(ROWS[2], status="diverged at step 3", top1="")
    [run, diverged], [failed, timed] = schema2.read(write_old(tmp_path, slow, poor))
    assert (run.status, run.top1) == ("ok", 10.0) and failed.status == "out of memory"
    assert (failed.strategy, failed.im_per_sec, failed.timed_model) == ("transmix", None, None)
    assert (diverged.status, diverged.top1) == ("diverged at step 3", None)
    assert (timed.strategy, timed.status, timed.im_per_sec) == ("cutmix", "ok", 60.693)


def test_what_was_timed_alone_is_no_run(tmp_path):
    empty = ("dataset", "train_images", "num_classes", "batch_size", "epochs", "headline", "top1")
    idle = dict.fromkeys(empty, "") | {"model": "deit_tiny_patch16_224", "image_size": "64"}
    rows = [
        changed(ROWS[0], params_m="5.7", **idle),
        changed(ROWS[1], status="failed: no", im_per_sec="", timed="", **idle),
    ]
    runs, [timed, failed] = schema2.read(write_old(tmp_path, *rows))
    assert runs == [] and (timed.timed_params_m, timed.timed_batch_size) == (5.7, 2)
    assert (failed.status, failed.timed_model, failed.timed_image_size) == (
        "failed: no",
        "deit_tiny_patch16_224",
        64,
    )


def test_a_job_that_had_not_run_stays_a_run(tmp_path):
    cells = dict.fromkeys(HEADER.split(","), "")
    cells |= {"strategy": "mixup", "seed": "4", "status": "queued or running"}
    runs, speed = schema2.read(write_old(tmp_path, ",".join(cells.values())))
    assert runs == [RunRow(strategy="mixup", seed=4, status="queued or running")] and not speed


def test_a_csv_of_schema_1_is_read(tmp_path):
    cells = dict.fromkeys(SCHEMA_1.split(","), "")
    cells |= {"schema_version": "1", "strategy": "cutmix", "seed": "1", "top1": "1"}
    [row] = schema2.read(write_old(tmp_path, ",".join(cells.values()), header=SCHEMA_1))[0]
    assert (row.seed, row.top1, row.nll, row.dataset) == (1, 1.0, None, None)
    with pytest.raises(ValueError, match=r"no comparison\.csv: it lacks schema_version, strategy"):
        schema2.read(write_old(tmp_path / "d", "1,2", header="a,b"))
    with pytest.raises(ValueError, match="not found"):
        schema2.read(tmp_path / "e")
    with pytest.raises(ValueError, match=r"comparison\.csv, line 2: top1 cannot be 'high'"):
        schema2.read(write_old(tmp_path / "f", changed(ROWS[0], top1="high")))


def test_the_folders_of_its_seeds_are_read(tmp_path):
    spec = "transmix(attention_weight=1.0, base=mixup)"
    write_old(tmp_path, changed(ROWS[1], strategy=spec))
    seed = tmp_path / "transmix_attention_weight_1.0_base_mixup_" / "seed0"
    seed.mkdir(parents=True)
    (seed / "log.csv").write_text(OLDER_LOG + "0,0.1,nan,30,60,,5\n")
    write_lam(seed / "lam.csv", np.array([0.5]), np.array([0.25]))
    write_correct(seed / "correct.npz", np.array([True, False]))
    data = read_runs([tmp_path])
    key = (spec, 0)
    [epoch] = data.logs[key]
    assert (epoch.epoch, epoch.top1, epoch.top1_ema) == (0, 30.0, None)
    assert data.lam[key].tolist() == [[0.5, 0.25]]
    assert data.correct[key].right.tolist() == [True, False]


def test_its_page_is_drawn_and_it_is_merged(tmp_path):
    old = write_old(tmp_path / "old", *ROWS[:2])
    page = report_runs([old]).read_text()
    assert "60.69 [60.55, 60.8" in page and TIMED in page
    other = write_old(tmp_path / "other", *ROWS[2:])
    report_runs([old, other], tmp_path / "all")
    tables = read_tables(tmp_path / "all")
    assert len(tables.runs) == 4 and {row.schema_version for row in tables.runs} == {3}
