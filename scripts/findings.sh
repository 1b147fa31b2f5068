#!/bin/sh
# The rows behind docs/findings.md, into results/experiments: every experiment on the built-in model, and on stories260K where it is.
# Killed at any moment and started again it goes on from the rows on disk. `draw` needs no model and no texts: it writes every table
# and picture again from the committed rows.
#
#   BOOKS=books_val.parquet WORDS=words.txt STORIES=stories260K scripts/findings.sh evening    # half an hour on two quiet cores
#   BOOKS=... WORDS=... STORIES=... scripts/findings.sh night                                   # a night on them
#   BOOKS=... WORDS=... scripts/findings.sh plan night                                          # runs nothing: says how long
#   scripts/findings.sh draw
#
# BOOKS      running text that the model has not seen: what `file:` takes; its column is `text` where it has columns
# WORDS      a list of words, one a line (`prototokens reproduce table3 --texts random-words` says where there is one)
# STORIES    optional: the folder of the model stories260K; it has no texts of its own, so it is given those that it writes itself
# SNAPSHOTS  optional: the folder of the built-in model's snapshots over its training (scripts/builtin/train.py)
# EMBEDDER   optional: a sentence-embedding model, for figure6, quality and probe
# OUT        where rows and reports go: results/experiments by default
# Paths have no spaces in them. Solutions, which experiments share, stay beside the rows and are not committed.
set -eu
PROTOTOKENS=${PROTOTOKENS:-.venv/bin/prototokens}
OUT=${OUT:-results/experiments}
# Each with the folder of its rows.
STUDIES="bits:bits certificate:certificate long_run:long-run front:front front:held front:pretraining recipe:recipe
    front:one-vector front:keyed front:real-llm edit:edit keys:keys key_forms:key-forms keyed_memory:keyed-memory precisions:precisions
    encoder_speed:encoder encoder_space:encoder encoder_variants:encoder"

fail() { echo "findings.sh: $*" >&2 && exit 2; }

plan=
[ "${1:-}" != plan ] || { plan=--plan && shift; }
case ${1:-} in
    # texts of a source, steps of a fit, seeds, and the lengths of climbs
    evening) texts=6 steps=600 seeds=3 grid=4,8,16,22,32,45,64 ;;
    night) texts=24 steps=2000 seeds=6 grid=4,8,11,16,22,32,45,64 ;;
    draw)
        [ -n "$(ls -d "$OUT"/*/ 2> /dev/null)" ] || fail "there are no rows in $OUT yet: run evening or night first"
        for folder in "$OUT"/*/; do
            "$PROTOTOKENS" reproduce all --from-rows --quiet --out "${folder%/}" > /dev/null
        done
        for pair in $STUDIES; do
            "$PROTOTOKENS" reproduce "studies/${pair%:*}.py" --from-rows --quiet --out "results/${pair#*:}" > /dev/null
        done
        exit ;;
    *) fail "evening, night or draw is expected (before the first two also plan)" ;;
esac
[ -n "${BOOKS:-}" ] || fail "BOOKS=FILE is needed: running text that the model has not seen"
[ -n "${WORDS:-}" ] || fail "WORDS=FILE is needed: a list of words, one a line"

# One experiment on the model at hand: its name, and options beside those of all.
run() {
    name=$1
    shift
    echo "== $model: $name ($(date +%H:%M))" >&2
    "$PROTOTOKENS" reproduce "$name" --model "$model" --out "$OUT/$short" --steps "$steps" --count "$texts" $plan "$@" > /dev/null
}

# Everything but what measures time. The four of the climbs ask for the same fits. Sources are in $sources, the first in $first.
measured() {
    run table3 $sources --lengths "$grid"
    run figure3 $sources --lengths "$grid"
    run capacity $sources --lengths "$grid"
    run table1 $first --lengths 1,2,4,8,16,32
    run length $first --lengths 4,8,12,16,22,32
    run figure5 $written --lengths 12 --seeds "$seeds"
    run figure6 $written --lengths 12 --seeds "$seeds" ${EMBEDDER:+--embedder "$EMBEDDER"}
    run figure7 $first --lengths 12 --seeds "$seeds"
    run probe $first --lengths 16 ${EMBEDDER:+--embedder "$EMBEDDER"}
    run quality $first --lengths 16,32,45 ${EMBEDDER:+--embedder "$EMBEDDER"}
    run table2 $first --lengths 8 --seeds "$seeds"
}

timed() { run figure4 $sources --lengths "$grid" && run table4 $first --lengths 8,16,32; }

builtin() {
    model=builtin short=builtin
    first="--texts file:$BOOKS" written="--texts generated:file:$BOOKS"
    sources="$first --texts random-words:$WORDS $written"
}

stories() {
    model=$STORIES short=stories260K
    first="--texts generated:sample" written=$first
    sources="$first --texts random-words:$WORDS"
}

# Ctrl-C reaches what runs in the background too.
trap 'trap - INT TERM; kill 0' INT TERM

# A thread for each model, side by side; then, with nothing beside it, what measures time; at last what takes both cores.
(
    export OMP_NUM_THREADS=1
    builtin
    measured
) &
ours=$!
if [ -n "${STORIES:-}" ]; then
    (
        export OMP_NUM_THREADS=1
        stories
        measured
    )
fi
wait "$ours"
if [ -n "${STORIES:-}" ]; then
    stories
    timed
fi
builtin
timed
if [ -n "${SNAPSHOTS:-}" ]; then
    run pretraining $first --lengths "$grid" --checkpoint random:builtin --checkpoint "$SNAPSHOTS"
fi
if [ "${1:-}" = night ]; then
    # The published recipe beside ours, on the claim that all others rest on.
    short=builtin-paper-recipe
    run table3 $first --texts "random-words:$WORDS" --lengths "$grid" --recipe paper
fi
