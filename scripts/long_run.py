"""Many chunks in one process: does memory stay flat, does it slow down, are file handles left?

    python scripts/long_run.py --texts file:books_val.parquet --chunks 2000 --rows results/long-run/rows.jsonl
    python scripts/long_run.py --report

Texts of `--each` chunks are encoded, saved, loaded and decoded one after another in this one process. After each a row:
resident memory, open file handles, processor time of a position-step, which other programs on the machine change less than the
clock's. `--report` writes the table of docs/reliability.md from the rows alone.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

import prototokens as pt
from pages import put_between
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table
from prototokens.lab.texts import Texts
from prototokens.ptok.encoded import EncodedText
from row_files import RowFile, options, parsed, read_rows

PAGE = Path(__file__).parents[1] / "results" / "long-run" / "README.md"
MARKS = ("<!-- long run: made by scripts/long_run.py -->", "<!-- end of the long run -->")
WARM = 200  # chunks after which memory has to stay within 5%


def resident() -> int:
    """Memory of this process, in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(lm: pt.FrozenLM, args: argparse.Namespace, rows: RowFile) -> None:
    passages = Texts(lm, [args.texts], args.seed).passages(-(-args.chunks // args.each), args.each * args.length)
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ptok"
        for number, passage in enumerate(passages):
            text = lm.decode(list(passage.ids))
            began = time.process_time()
            encoded = pt.encode(lm, text, chunk_length=args.length, start="random")
            seconds = time.process_time() - began
            encoded.save(path)
            exact = pt.decode(lm, EncodedText.load(path)) == text
            done += len(encoded.header["chunks"])
            positions = encoded.header["row_steps"] * args.length
            gc.collect()
            rows.append(
                {
                    "model": lm.name, "fingerprint": lm.fingerprint, "text": number, "chunks": done, "exact": exact,
                    "certified": encoded.certified, "patched": encoded.header.get("patched", 0),
                    "resident_bytes": resident(), "handles": len(os.listdir("/proc/self/fd")),
                    "microseconds_a_position_step": round(1e6 * seconds / positions, 3), "length": args.length,
                    "process": os.getpid(), **stamp(lm.device),
                }
            )  # fmt: skip
            print(f"{done} chunks, {resident() / 1e6:.0f} MB", flush=True)


def report(rows: list[dict]) -> str:
    """The table, from the rows of the last process alone."""
    rows = [row for row in rows if row["process"] == rows[-1]["process"]]
    warm = next(row for row in rows if row["chunks"] >= WARM)
    rest = [row for row in rows if row["chunks"] > warm["chunks"]]
    half = len(rest) // 2
    speeds = [statistics.median(row["microseconds_a_position_step"] for row in part) for part in (rest[:half], rest[half:])]
    grown = max(row["resident_bytes"] for row in rest) / warm["resident_bytes"] - 1
    cells = [
        ["chunks, in texts", f"{rows[-1]['chunks']:,} in {len(rows)}"],
        ["texts exact, certified", f"{sum(row['exact'] for row in rows)}, {sum(row['certified'] for row in rows)}"],
        [f"memory after {warm['chunks']} chunks", f"{warm['resident_bytes'] / 1e6:.0f} MB"],
        ["most memory after that", f"{max(row['resident_bytes'] for row in rest) / 1e6:.0f} MB ({grown:+.1%})"],
        ["open file handles, first and last", f"{rows[0]['handles']}, {rows[-1]['handles']}"],
        ["processor microseconds a position-step, first and second half", f"{speeds[0]:.0f}, {speeds[1]:.0f}"],
    ]
    return Table("long-run", ["what", "measured"], cells).markdown()


def main() -> None:
    parser = options(str(__doc__), "results/long-run/rows.jsonl", "docs/reliability.md")
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--each", type=int, default=40, help="chunks of a text")
    parser.add_argument("--length", type=int, default=16, help="tokens of a chunk")
    args = parsed(parser)
    if args.report:
        put_between(PAGE, {MARKS: report(read_rows(args.rows))})
        return
    measure(pt.FrozenLM.from_pretrained(args.model), args, RowFile(args.rows, ()))


if __name__ == "__main__":
    main()
