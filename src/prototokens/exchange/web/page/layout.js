"use strict";
// Which vector is at each position, which positions are read, and the signs of keyed layouts.

const MAX_REPEATED = 1024;

/** The kind of a layout and its number; null for a name that is none. */
function layoutOf(name) {
  if (["one", "halves", "alternating", "free"].includes(name)) return { kind: name, k: 1 };
  const numbered = name === "paper" ? "tiled:1" : name;
  const found = /^(tiled|mixed|keyed):([1-9][0-9]{0,3})$/.exec(numbered);
  return found && Number(found[2]) <= MAX_REPEATED ? { kind: found[1], k: Number(found[2]) } : null;
}

/** The number of vectors of a chunk. */
function vectorsOf({ kind, k }) {
  return { one: 1, halves: 2, alternating: 2, free: 2, keyed: k }[kind] ?? k + 1;
}

/** The vector at each input position of a chunk of n tokens. */
function indexOf({ kind, k }, n) {
  const positions = Array.from({ length: kind === "free" ? n + 1 : n }, (_, i) => i);
  if (kind === "mixed") return mixedOrder(k + 1, n);
  const rule = {
    one: () => 0,
    halves: (i) => Number(2 * i >= n),
    alternating: (i) => i % 2,
    free: (i) => Math.min(i, 1),
    tiled: (i) => (i ? 1 + ((i - 1) % k) : 0),
    keyed: (i) => i % k,
  }[kind];
  return positions.map(rule);
}

/** Each next vector is the one that came least often behind the last one, two and three. */
function mixedOrder(count, n) {
  const order = [];
  const seen = new Map();
  for (let i = 0; i < n; i++) {
    const contexts = [1, 2, 3].filter((back) => back <= i).map((back) => order.slice(i - back));
    const counts = (vector) => contexts.map((one) => seen.get([...one, vector].join()) ?? 0);
    const first = i ? order[i - 1] + 1 : 0;
    let best = first % count;
    let least = counts(best);
    for (let step = 1; step < count; step++) {
      const candidate = (first + step) % count;
      const found = counts(candidate);
      const differs = found.findIndex((value, at) => value !== least[at]);
      if (differs >= 0 && found[differs] < least[differs]) [best, least] = [candidate, found];
    }
    for (const context of contexts) {
      const key = [...context, best].join();
      seen.set(key, (seen.get(key) ?? 0) + 1);
    }
    order.push(best);
  }
  return order;
}

/** The first position whose output is a token. */
function firstRead({ kind }) {
  return kind === "free" ? 1 : 0;
}

/** The sign of coordinate j at position i of a keyed layout. */
function signOf(i, j) {
  let h = (Math.imul(i, 0x9e3779b1) + Math.imul(j, 0x85ebca77) + 1) >>> 0;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) < 0 ? -1 : 1;
}

/** The input of a chunk: its vectors in their places, keys applied. Rows of `width` numbers. */
function inputOf(vectors, layout, n, width) {
  const index = indexOf(layout, n);
  const input = new Float32Array(index.length * width);
  index.forEach((vector, i) => {
    for (let j = 0; j < width; j++) {
      const sign = layout.kind === "keyed" ? signOf(i, j) : 1;
      input[i * width + j] = vectors[vector][j] * sign;
    }
  });
  return input;
}
