"""What each command prints with --json: its keys, stable, and what they mean. The command-line page is made from this."""

ENCODE = {
    "output": "the file that was written",
    "model": "the model, as it was named",
    "layout": "the arrangement of every chunk's vectors",
    "tokens": "number of tokens of the text",
    "chunks": "number of chunks",
    "vectors": "number of distinct vectors, over all chunks",
    "floats": "numbers in these vectors",
    "bytes": "size of the file",
    "exact": "whether the file, read back, decodes to the text; if not, the exit status is 1",
    "accuracy": "share of the tokens that decode right, from 0 to 1",
    "steps_median": "optimiser steps of a chunk, the median",
    "row_steps": "forward and backward passes in all, each counted once for each chunk that took part",
    "seconds": "time of the fit and of writing the file",
    "min_margin": "least lead of a right token's logit over the best other one; null where a fit gave no finite number",
}

DECODE = {
    "text": "the decoded text",
    "tokens": "number of its tokens",
    "forward_passes": "passes through the model; each chunk took part in exactly one",
    "seconds": "time of decoding, the model's loading not counted",
    "tokens_per_second": "tokens divided by seconds",
    "matches": "whether the text is the one that was encoded, by its SHA-256; if not, the exit status is 1",
}

INSPECT = {
    "format": "version of the file format",
    "model": "what the vectors were fitted to: `name`, `revision`, `fingerprint`, `dtype`, `d_model`, `vocab_size`",
    "tokenizer": "hash of its tokenizer",
    "layout": "the arrangement of every chunk's vectors",
    "shared": "which vector all chunks share, or null",
    "chunks": "tokens of each chunk",
    "text": "the text: `sha256`, `bytes`, `characters`, `tokens`",
    "exact": "whether every chunk decoded exactly when the file was made",
    "chunks_exact": "the same for each chunk",
    "accuracy": "share of the tokens that decoded right",
    "min_margin": "least lead of a right token's logit over the best other one, or null",
    "steps": "optimiser steps of each chunk",
    "row_steps": "forward and backward passes in all",
    "seeds": "seed of each chunk",
    "restarts": "attempts of each chunk before the one that gave its vectors",
    "recipe": "how the vectors were fitted, value by value",
    "versions": "of prototokens, torch, transformers, safetensors and python",
    "tensors_sha256": "hash of the vectors and of the table that assigns them to chunks",
    "vectors": "number of distinct vectors",
    "floats": "numbers in these vectors",
    "floats_per_token": "numbers divided by tokens",
    "bits_per_token": "bits of these numbers, divided by tokens",
    "file_bytes": "size of the file",
    "file_bits_per_character": "bits of the file divided by characters of the text",
}

MODELS = {
    "models": "without NAME: a list of models, each with `name`, `where`, and what is known without loading it",
    "name": "with NAME, and so all that follow: the model, as it was named",
    "revision": "the commit on the hub, or null",
    "fingerprint": "hash of its weights",
    "tokenizer": "hash of its tokenizer",
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
    "weights_unchanged": "whether the model's weights have the same hash as before",
    "seconds": "time in all",
}

BENCH = {
    "model": "the model, as it was named",
    "dtype": "what it computes in",
    "device": "where it runs",
    "threads": "processor threads of one operation",
    "length": "tokens of a passage",
    "passages": "how many there are",
    "steps": "most optimiser steps for a passage",
    "peak_gflops": "measured rate of a product of two 1024 x 1024 matrices, in 10^9 floating-point operations a second",
    "ways": "for each way: `name`, `tried`, `solved`, `row_steps`, `seconds`, `solved_per_minute`, `row_steps_per_second`,"
    " `gflops` (of the body and the head, attention left out), `share_of_peak`",
    "decoding": "tokens a second: `one_step_single`, `one_step_batch`, `autoregressive_single`; and `ratio_single`",
    "peak_memory_bytes": "most memory that the process held",
}

TRACE = {
    "chunk": "which chunk of the file was looked at, from 1",
    "tokens": "the text of each token that is read",
    "lens_right": "for each depth, the share of the tokens that it decodes already; 0 is the input, the last the whole model",
    "lens_nats": "for each depth, how unlikely the tokens are at it: the mean of -log p, in nats",
    "appears": "for each token, the depth from which on it is decoded right",
    "attention": "for each layer and head, the attention to each vector, e first; mean over the positions behind the first",
    "knockout_kept": "entry k: the share of the tokens that are kept where only the first k blocks see e; in the last all do",
    "output": "the picture that was drawn, or null",
}

DOCTOR = {
    "versions": "of python, prototokens and the libraries that it stands on; null where one is not installed",
    "platform": "the `system`, its `processors`, and the `threads` of one operation",
    "devices": "of each `name`, `kind`, `memory_bytes`, `gflops` of a matrix product by dtype, and which of them are `fast`",
    "builtin": "whether the built-in model is `usable`, with `device`, `dtype` and `fingerprint`, or `why` not",
    "missing": "for each extra, the packages of it that are not installed",
}

KEYS = {
    "encode": ENCODE,
    "decode": DECODE,
    "inspect": INSPECT,
    "models": MODELS,
    "demo": DEMO,
    "bench": BENCH,
    "trace": TRACE,
    "doctor": DOCTOR,
}
