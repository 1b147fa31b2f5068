"""Many chunks in one process: does memory stay flat, and does the process slow down?

    prototokens reproduce studies/long_run.py --texts file:books_val.parquet --scale paper \
        --out results/long-run
    prototokens reproduce studies/long_run.py --from-rows --out results/long-run

Texts of 40 chunks are encoded, saved, loaded and decoded one after another in one process. After
each text there is a row with the resident memory, the open file handles, and the processor time
of a position-step, which other programs on the machine change less than the wall clock's. All
texts belong to one job, since a second process would start with fresh memory.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

from prototokens.decoding import decode
from prototokens.encoding import encode
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText

TITLE = "Many chunks in one process"
CHUNKS, LENGTH = 40, 16  # chunks of a text, and tokens of a chunk
WARM = 200  # chunks after which memory has to stay within 5%


def jobs(config: Config) -> list[Job]:
    texts = tuple(config.texts.passages(config.count(2, 50), CHUNKS * LENGTH))
    work = sum(config.work(text, LENGTH) * CHUNKS for text in texts)
    return [
        Job(
            "long_run",
            config.model,
            texts,
            "auto",
            config.recipe,
            config.seed,
            {"length": LENGTH},
            work,
        )
    ]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    rows: list[Row] = []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.ptok"
        for number, passage in enumerate(job.texts):
            text = lm.detokenize(passage.ids)
            began = time.process_time()
            encoded = encode(
                lm, text, chunk_length=LENGTH, recipe=job.recipe, seed=job.seed, start="random"
            )
            seconds = time.process_time() - began
            encoded.save(path)
            exact = decode(lm, EncodedText.load(path)) == text
            done += len(encoded.header.chunks)
            gc.collect()
            rows.append(
                {
                    "text": number,
                    "chunks": done,
                    "exact": exact,
                    "certified": encoded.certified,
                    "patched": encoded.header.patched,
                    "resident_bytes": _resident(),
                    "handles": len(os.listdir("/proc/self/fd")),
                    "microseconds_a_position_step": round(
                        1e6 * seconds / (encoded.header.row_steps * LENGTH), 3
                    ),
                    "length": LENGTH,
                    "process": os.getpid(),
                }
            )
    return rows


def report(rows: list[Row]) -> Report:
    """Of the process with the most rows."""
    processes = [row["process"] for row in rows]
    rows = sorted(
        (row for row in rows if row["process"] == statistics.mode(processes)),
        key=lambda row: row["chunks"],
    )
    warm = next((row for row in rows if row["chunks"] >= WARM), rows[0])
    rest = [row for row in rows if row["chunks"] > warm["chunks"]] or rows
    half = max(1, len(rest) // 2)
    speeds = [
        statistics.median(row["microseconds_a_position_step"] for row in part)
        for part in (rest[:half], rest[half:] or rest)
    ]
    most = max(row["resident_bytes"] for row in rest)
    cells = [
        ["chunks, in texts", f"{rows[-1]['chunks']:,} in {len(rows)}"],
        [
            "texts exact, certified",
            f"{sum(row['exact'] for row in rows)}, {sum(row['certified'] for row in rows)}",
        ],
        [f"memory after {warm['chunks']} chunks", f"{warm['resident_bytes'] / 1e6:.0f} MB"],
        [
            "most memory after that",
            f"{most / 1e6:.0f} MB ({most / warm['resident_bytes'] - 1:+.1%})",
        ],
        ["open file handles, first and last", f"{rows[0]['handles']}, {rows[-1]['handles']}"],
        [
            "processor microseconds a position-step, first and second half",
            f"{speeds[0]:.0f}, {speeds[1]:.0f}",
        ],
    ]
    return Report(title=TITLE, tables=[Table("long-run", ["what", "measured"], cells)])


def _resident() -> int:
    """Memory of this process, in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
