"use strict";
// The model: one forward pass of all chunks, and greedy generation with a cache.

const MAX_POSITIONS = 2048; // of one pass: the logits of more take too much memory

/** The largest of a row of logits, and how far it is from the others. */
function best(logits, from, count) {
  let [id, first, second] = [0, -Infinity, -Infinity];
  for (let i = 0; i < count; i++) {
    const value = logits[from + i];
    if (value > first) [id, second, first] = [i, first, value];
    else if (value > second) second = value;
  }
  return { id, margin: first - second };
}

class Engine {
  constructor(ort, session, model) {
    Object.assign(this, { ort, session, model });
  }

  /** Start onnxruntime-web in this thread: it is imported from memory, and asks for no file. */
  static async start(source, binary, graph, model) {
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const ort = await import(address);
    URL.revokeObjectURL(address);
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmBinary: binary.buffer });
    ort.env.logLevel = "error";
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    return new Engine(ort, await ort.InferenceSession.create(graph, options), model);
  }

  /** Run rows of ids, and of vectors behind them. */
  run(ids, vectors, rows, cache, outputs) {
    const { Tensor } = this.ort;
    const width = this.model.d_model;
    const steps = vectors.length / width / rows;
    const feeds = {
      ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [rows, ids.length / rows]),
      vectors: new Tensor("float32", vectors, [rows, steps, width]),
      ...cache,
    };
    return outputs ? this.session.run(feeds, outputs) : this.session.run(feeds);
  }

  emptyCache(rows) {
    const { heads, head_width: width, layers } = this.model;
    const none = () => new this.ort.Tensor("float32", new Float32Array(0), [rows, heads, 0, width]);
    const names = Array.from({ length: layers }, (_, i) => [`key.${i}`, `value.${i}`]).flat();
    return Object.fromEntries(names.map((name) => [name, none()]));
  }

  /** The tokens of chunks that stand side by side in one pass, padded at their ends. */
  async chunksAtOnce(chunks, layout, prefix) {
    const width = this.model.d_model;
    const inputs = chunks.map(({ vectors, length }) => inputOf(vectors, layout, length, width));
    const longest = Math.max(...inputs.map((input) => input.length));
    const vectors = new Float32Array(chunks.length * longest);
    inputs.forEach((input, row) => vectors.set(input, row * longest));
    const ids = chunks.flatMap(() => prefix);
    const cache = this.emptyCache(chunks.length);
    const { logits } = await this.run(ids, vectors, chunks.length, cache, ["logits"]);
    const [, positions, count] = logits.dims;
    return chunks.map(({ length, patch }, row) => {
      const start = row * positions + prefix.length + firstRead(layout);
      return Array.from({ length }, (_, t) => {
        const from = (start + t) * count;
        const token = best(logits.data, from, count);
        return patch?.has(t) ? { id: patch.get(t), patched: true } : token;
      });
    });
  }

  /** All tokens of a file: {tokens, passes, milliseconds}. */
  async oneStep({ chunks, layout, header }) {
    const started = performance.now();
    const extra = header.prefix.length + firstRead(layout);
    const found = chunks.map(({ ids }) => ids?.map((id) => ({ id, stored: true })));
    let passes = 0;
    for (const group of groupsOf(chunks, extra)) {
      const rows = await this.chunksAtOnce(group.map((c) => chunks[c]), layout, header.prefix);
      group.forEach((c, row) => (found[c] = rows[row]));
      passes++;
    }
    return { tokens: found.flat(), passes, milliseconds: performance.now() - started };
  }

  /** Greedy generation, one pass a token; the clock stands still outside of passes. */
  async tokenByToken(count, onToken) {
    let [ids, cache] = [[this.model.first], this.emptyCache(1)];
    let milliseconds = 0;
    for (let made = 1; made <= count; made++) {
      const started = performance.now();
      const { logits, ...longer } = await this.run(ids, new Float32Array(0), 1, cache);
      const size = logits.dims[2];
      ids = [best(logits.data, logits.data.length - size, size).id];
      milliseconds += performance.now() - started;
      cache = Object.fromEntries(Object.entries(longer).map(([name, one]) => [name.slice(4), one]));
      if ((await onToken(ids[0], made, milliseconds)) === false) return made;
    }
    return count;
  }
}

/** Numbers of the chunks in vectors, in groups that one pass takes. */
function groupsOf(chunks, extra) {
  const groups = [];
  let longest = 0;
  chunks.forEach(({ vectors, length }, c) => {
    if (!vectors) return;
    const wider = Math.max(longest, length + extra);
    const group = groups.at(-1);
    if (group && wider * (group.length + 1) <= MAX_POSITIONS) {
      group.push(c);
      longest = wider;
    } else {
      groups.push([c]);
      longest = length + extra;
    }
  });
  return groups;
}
