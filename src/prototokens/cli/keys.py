"""What each command prints with --json: its keys, stable, and what they mean.

The command-line page is made from this.
"""

ENCODE = {
    "output": "the file that was written",
    "model": "the model, as it was named",
    "layout": "the arrangement of every chunk's vectors",
    "prefix": "number of fixed tokens that stand before the vectors of every chunk",
    "tokens": "number of tokens of the text",
    "chunks": "number of chunks",
    "vectors": "number of distinct vectors, over all chunks",
    "floats": "numbers in these vectors",
    "bytes": "size of the file",
    "bits": "bits of a number of the vectors in the file, the mean",
    "patched": "tokens that patches set, in place of the vectors",
    "stored": "tokens of the chunks that are stored as tokens, without vectors",
    "edited": "bytes that edits drop and insert, where the input is no text that the tokenizer"
    " gives back",
    "exact": "whether the file, read back, decodes to the text; if not, the exit status is 1",
    "accuracy": "share of the tokens that decode right, from 0 to 1",
    "steps_median": "optimiser steps of a chunk, the median",
    "row_steps": "forward and backward passes in all, each counted once for each chunk that took"
    " part",
    "seconds": "time of the fit and of writing the file",
    "min_margin": "least lead of a right token's logit over the best other one; null where a fit"
    " gave no finite number",
    "certified": "the level of certificate that the file passed, or `none`",
    "noise_radius": "noise on the vectors that they withstand, as a share of their root mean"
    " square; null without a certificate",
    "worst_radius": "shortest step that changes a token, to first order, as a share of the norm of"
    " a chunk's vectors; null but for a strict certificate",
    "starts": "where the vectors began, in words; empty where no chunk was left to fit",
    "forecast_exact": "before the first step: share of the chunks expected to be exact as they are"
    " cut; null with"
    " --share, as are the next three",
    "forecast_steps": "the same: steps of a chunk, the median",
    "forecast_row_steps": "the same: forward and backward passes in all",
    "forecast_seconds": "the same: time of them, at the pace of a few trial steps; null with"
    " --quiet, which makes none",
}

DECODE = {
    "text": "the decoded text; bytes that are no UTF-8 stand in it as U+FFFD, and come out right"
    " without --json",
    "tokens": "number of its tokens",
    "forward_passes": "passes through the model; each chunk took part in exactly one",
    "seconds": "time of decoding, the model's loading not counted",
    "tokens_per_second": "tokens divided by seconds",
    "matches": "whether the text is the one that was encoded, by its SHA-256; if not, the exit"
    " status is 1",
}

INSPECT = {
    "format": "version of the file format",
    "model": "what the vectors were fitted to: `name`, `revision`, `fingerprint`, `dtype`,"
    " `d_model`, `vocab_size`",
    "tokenizer": "hash of its tokenizer",
    "layout": "the arrangement of every chunk's vectors",
    "keys": "version of the rule of the keys; 0 where the layout is not keyed",
    "prefix": "ids of the fixed tokens that stand before the vectors of every chunk",
    "shared": "which vector all chunks share, or null",
    "chunks": "tokens of each chunk",
    "text": "the text: `sha256`, `bytes`, `characters`, `tokens`",
    "exact": "whether the text came out exactly when the file was made",
    "chunks_exact": "whether each chunk came out exactly from its vectors alone",
    "stored": "numbers of the chunks that are stored as tokens",
    "patched": "tokens that patches set",
    "edited": "bytes that edits drop and insert",
    "bits": "bits of a number of each distinct vector; null where all have 32",
    "sizes": "bytes of the text in other forms: `plain`, `zstd` (level 19), `xz` (level 9),"
    " `arithmetic` (with this model);"
    " none in files of earlier versions",
    "accuracy": "share of the tokens that decoded right",
    "min_margin": "least lead of a right token's logit over the best other one, or null",
    "steps": "optimiser steps of each chunk",
    "row_steps": "forward and backward passes in all",
    "seeds": "seed of each chunk",
    "restarts": "attempts of each chunk before the one that gave its vectors",
    "recipe": "how the vectors were fitted, value by value",
    "certificate": "ways of decoding that were tried, and what came out: `level`, `threshold`,"
    " `shift`, `least_margin`,"
    " `noise_radius`, `worst_radius`, `tried`, `absent`; none in files of earlier versions",
    "versions": "of prototokens, torch, transformers, safetensors and python",
    "tensors_sha256": "hash of the vectors and of the table that assigns them to chunks",
    "vectors": "number of distinct vectors",
    "floats": "numbers in these vectors",
    "floats_per_token": "numbers divided by tokens",
    "bits_per_token": "bits of these numbers, divided by tokens",
    "patch_bytes": "bytes of patches, stored chunks and edits",
    "bits_per_character": "bits of vectors and patches, divided by characters",
    "beside_bits_per_character": "the same for each of `sizes`",
    "file_bytes": "size of the file",
    "file_bits_per_character": "bits of the file divided by characters of the text",
}

MODELS = {
    "models": "without NAME: a list of models, each with `name`, `where`, and what is known without"
    " loading it",
    "name": "with NAME, and so all that follow: the model, as it was named",
    "revision": "the commit on the hub, or null",
    "fingerprint": "hash of its weights",
    "tokenizer": "hash of its tokenizer",
    "parameters": "numbers in its weights, shared ones counted once",
    "layers": "its blocks, or null where its configuration does not say",
    "heads": "attention heads of a block, or null",
    "d_model": "numbers in a vector",
    "vocabulary": "number of different tokens",
    "context": "most input positions, or null where there is no limit",
    "device": "where it was loaded",
    "dtype": "what it computes in",
    "default_layout": "the arrangement that encode takes for texts that are not short",
    "default_vectors": "vectors of a chunk in it",
}

DEMO = {
    "sentence_exact": "whether the sentence came back from its file",
    "story_exact": "whether the story came back from its file",
    "one_step_single": "tokens a second of the sentence, decoded in one pass",
    "autoregressive_single": "tokens a second of as many, generated token by token with a cache",
    "encoder_accuracy": "share of the sentence's tokens that the encoder's vectors give without a"
    " fit; null without an encoder for the model",
    "weights_unchanged": "whether the model's weights have the same hash as before",
    "seconds": "time in all",
}

BENCH = {
    "model": "the model, as it was named",
    "dtype": "what it computes in",
    "device": "where it runs",
    "threads": "processor threads of one operation",
    "compile_seconds": "spent on compiling before the ways began; null where nothing is compiled",
    "length": "tokens of a passage",
    "passages": "how many there are",
    "steps": "most optimiser steps for a passage",
    "peak_gflops": "measured rate of a product of two 1024 x 1024 matrices, in 10^9 floating-point"
    " operations a second",
    "ways": "for each way: `name`, `tried`, `solved`, `row_steps`, `seconds`, `memory` (bytes),"
    " `solved_per_minute`,"
    " `row_steps_per_second`, both as multiples of the first way's too: `times_serial_paper`,"
    " `row_steps_times_serial_paper`;"
    " `gflops` (of the body and the head, attention left out), `share_of_peak`",
    "decoding": "tokens a second: `one_step_single`, `one_step_batch`, `autoregressive_single`; and"
    " `ratio_single`",
    "peak_memory_bytes": "most memory that the process used",
    "shapes": "with --what shapes, alone: for each model, length and number of rows `milliseconds`"
    " of a step (the median),"
    " `row_steps_per_second`, `gflops`, `share_of_peak`",
    "heads": "with --what heads, alone: for each way `milliseconds` (the median), `peak_bytes` (on"
    " a GPU, else null) and"
    " `gradient_error` against float64, for so many `positions` and a `vocabulary`",
    "head_memory": "with --what head-memory, alone: for each way `peak_bytes` beside weights and"
    " hidden states, null where that"
    " cannot be known, for `rows` of `tokens`, `vocabulary` and `d_model`, in a `dtype` on a"
    " `device`; and `logits_bytes`, of"
    " all logits in float32",
}

TRACE = {
    "chunk": "which chunk of the file was traced, from 1",
    "tokens": "the text of each token that is read",
    "lens_right": "for each depth, the share of the tokens that it decodes already; 0 is the input,"
    " the last the whole model",
    "lens_nats": "for each depth, how unlikely the tokens are at it: the mean of -log p, in nats",
    "appears": "for each token, the depth from which on it is decoded right",
    "attention": "for each layer and head, the attention to each vector, e first; mean over the"
    " positions behind the first",
    "knockout_kept": "entry k: the share of the tokens that stay right where only the first k"
    " blocks see e; in the last all do",
    "output": "the picture that was drawn, or null",
}

DOCTOR = {
    "versions": "of python, prototokens and the libraries that it stands on; null where one is not"
    " installed",
    "platform": "the `system`, its `processors`, and the `threads` of one operation",
    "devices": "of each `name`, `kind`, `memory_bytes`, `gflops` of a matrix product by dtype, and"
    " which of them are `fast`",
    "builtin": "whether the built-in model is `usable`, with `device`, `dtype` and `fingerprint`,"
    " or `why` not",
    "missing": "for each extra, the packages of it that are not installed",
}

EXPLORE = {
    "address": "where the page is; printed when it is about to be served",
    "models": "the models that can be chosen on it",
    "results": "the folders that it reads",
}

REPRODUCE = {
    "model": "the model, as it was named",
    "fingerprint": "hash of its weights",
    "scale": "smoke or paper; null with --from-rows",
    "experiments": "of each: `name`, `title`, `jobs`, `rows`, `seconds` of computing, `notes`,"
    " `tables` (lists of rows, by"
    " name) and `files`; without NAME `name`, `shows` and `smoke_seconds`, a stored forecast for"
    " the built-in model, whatever is given",
    "plan": "with --plan, in place of `experiments`: of each `name`, `jobs`, how many are `done`,"
    " `seconds` forecast, and the"
    " `keys` of those to do",
    "seconds": "with --plan: forecast of all that is to do",
    "position_steps_per_second": "with --plan: the speed that the forecast rests on, as measured"
    " just now",
}

CAPACITY = {
    "model": "the model, as it was named",
    "revision": "the commit on the hub, or null",
    "fingerprint": "hash of its weights",
    "dtype": "what it computed in",
    "d_model": "numbers in a vector",
    "capacity": "for each source and way (`texts`; `way`: paper is one-step, memory:K"
    " autoregressive with K vectors): `count`"
    " of texts, `horizon` and `c_tokens` of the best text, `c_tokens_mean`, `h_lm` in nats with"
    " `h_lm_low`, `h_lm_high` (95%,"
    " bootstrap) and `h_lm_std`, `bits_per_float`, `bound` in tokens and `share_of_bound`,"
    " `lower_bounds` (texts reproduced at the"
    " longest length tried), `greedy_exact` (share of the autoregressive rows that real decoding"
    " gives; null for one-step)",
    "files": "what was written",
}

EXPORT = {
    "output": "the file or folder that was written",
    "summary": "what is in it, in words",
    "bytes": "with --to html: size of the page",
    "exact": "with --to html: whether the text comes out in float32, as the page computes",
    "chunks": "with --to gguf-inputs: number of chunks",
    "vectors": "with --to peft or solution: number of vectors",
    "files": "with --to peft: the files of the adapter",
    "text": "with --to solution: the text that the adapter generates",
}

TRAIN_ENCODER = {
    "output": "the folder of the finished encoder",
    "model": "the frozen model, as it was named",
    "shape": "the encoder's architecture, and what it reads and gives",
    "trained": "`step`, `tokens` and `seconds` of the training",
    "held_out": "`source`, and `rows`: for each `length`, so many `texts`, token `accuracy`,"
    " `exact` share, `nats` a token",
    "proof": "for each `length`, so many `texts` fitted both ways with a `recipe`: `random` and"
    " `encoder`, each with `seconds`,"
    " `row_steps`, `steps_median` and how many came out `exact`",
}

VERIFY = {
    "file": "the file",
    "passed": "whether every position is right in every way of decoding that exists here, and the"
    " text is the one that was"
    " encoded; if not, the exit status is 1",
    "matches": "whether the text is the one that was encoded, by its SHA-256",
    "level": "`strict` for the whole matrix, `standard` with --quick",
    "threshold": "margin that the level asks of a fit, in logits",
    "shift": "furthest movement of a margin that was measured on vectors at random, in logits",
    "least_margin": "least margin of all positions, or null",
    "noise_radius": "noise on the vectors, as a share of their root mean square, that they"
    " withstand; a power of two, or 0",
    "worst_radius": "shortest step that changes a token, to first order, as a share of a row's"
    " vectors; null with --quick",
    "tried": "for each way of decoding: `batch`, `padding`, `dtype`, `kernel`, `threads` (0: as"
    " they are), `compiled`, `setting` (of the instruction set; empty: this process), `weights`"
    " (the format that they are rounded to; empty: they are as they are), `wrong`"
    " positions, `least_margin`",
    "absent": "ways that do not exist here, and why",
}

CORPUS = {
    "output": "the folder",
    "model": "the model, as it was named",
    "fingerprint": "hash of its weights",
    "rows": "rows of the folder; with --verify those that are there",
    "tokens": "their tokens",
    "exact": "rows whose vectors, as they are stored, decode to their ids",
    "certified": "rows that passed the certificate of --certify",
    "row_steps": "forward and backward passes in all, each counted once for each row in it",
    "position_steps": "the same, times the tokens of the row",
    "duplicates": "rows with the ids of an earlier row of their file, not fitted again",
    "empty": "texts without a token, which have no row",
    "seconds": "that workers took, the sum over all",
    "shards": "number of files; with --verify, those that were compared with their hash",
    "made": "files that this run made; the others were there",
    "ended_early": "whether the source had fewer rows than --limit",
    "rows_per_second": "of this run, by the clock on the wall",
    "tokens_per_second": "the same, of tokens",
    "position_steps_per_second": "the same, of position-steps",
    "passed": "with --verify: whether nothing is wrong; if not, the exit status is 1",
    "complete": "with --verify: whether the run that made the folder came to its end",
    "damaged": "with --verify: what is wrong with files, a sentence each; then nothing is decoded",
    "decoded": "with --verify: rows that were decoded",
    "wrong": "with --verify: numbers of the rows that were exact when they were stored and are not"
    " now",
}

KEYS = {
    "encode": ENCODE,
    "decode": DECODE,
    "inspect": INSPECT,
    "verify": VERIFY,
    "models": MODELS,
    "demo": DEMO,
    "bench": BENCH,
    "trace": TRACE,
    "doctor": DOCTOR,
    "reproduce": REPRODUCE,
    "capacity": CAPACITY,
    "corpus": CORPUS,
    "explore": EXPLORE,
    "export": EXPORT,
    "train-encoder": TRAIN_ENCODER,
}
