"use strict";
// A `.ptok` file: vectors, patches, stored chunks and edits (docs/file-format.md).

const MAX_UNPACKED = 2 ** 21;
const KINDS = { I32: "torch.int32", F32: "torch.float32", U8: "torch.uint8" };

/** Read a file and check all that can be checked without the model. */
async function readPtok(raw) {
  const { metadata, tensors } = readContainer(raw);
  const header = readHeader(metadata);
  const layout = layoutOf(header.layout);
  const found = checkTensors(tensors, header, layout);
  need(found.patches || !header.stored.length, "patches");
  const width = header.model.d_model;
  const table = header.bits ? unpackCodes(found, header) : floatRows(found.vectors.bytes, width);
  need(table.every((row) => row.every(Number.isFinite)), "not-finite");
  const extras = found.patches
    ? readPatches(await inflate(found.patches.bytes), header)
    : { patches: new Map(), stored: new Map(), edits: [] };
  const slots = new Int32Array(found.slots.bytes.buffer);
  const count = vectorsOf(layout);
  const chunks = header.chunks.map((length, c) => {
    if (extras.stored.has(c)) return { length, ids: extras.stored.get(c) };
    const rows = [...slots.subarray(c * count, (c + 1) * count)];
    need(rows.every((row) => row >= 0 && row < table.length), "slots");
    const vectors = rows.map((row) => table[row]);
    return { length, vectors, patch: extras.patches.get(c) };
  });
  return { header, layout, table, chunks, edits: extras.edits, bytes: raw.length };
}

/** Refuse tensors that the header does not need, and those that are not the saved ones. */
function checkTensors(tensors, header, layout) {
  const { bits, stored, chunks, format } = header;
  const width = header.model.d_model;
  const found = Object.create(null);
  for (const tensor of tensors) found[tensor.name] = tensor;
  const shapes = { slots: ["I32", [chunks.length, vectorsOf(layout)]] };
  if (bits) {
    const size = bits.reduce((sum, b) => sum + Math.ceil((b * width) / 8), 0);
    Object.assign(shapes, { codes: ["U8", [size]], scale: ["F32", [bits.length]] });
  } else {
    const rows = found.vectors?.shape[0] ?? 0;
    need(rows || stored.length, "tensors");
    shapes.vectors = ["F32", [rows, width]];
  }
  if (found.patches && format > 1) shapes.patches = ["U8", [found.patches.bytes.length]];
  need(tensors.length === Object.keys(shapes).length, "tensors");
  for (const [name, [dtype, shape]] of Object.entries(shapes)) {
    need(found[name]?.dtype === dtype && found[name].shape.join() === shape.join(), "tensors");
  }
  need(tensorsHash(found) === header.tensors_sha256, "tensors-hash");
  return found;
}

function tensorsHash(found) {
  const parts = Object.keys(found).sort().flatMap((name) => {
    const { dtype, shape, bytes } = found[name];
    const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
    return [new TextEncoder().encode(`${name} ${KINDS[dtype]} (${sizes})\n`), bytes];
  });
  return sha256(joined(parts));
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function floatRows(bytes, width) {
  const numbers = new Float32Array(bytes.buffer);
  const rows = numbers.length / width;
  return Array.from({ length: rows }, (_, r) => numbers.subarray(r * width, (r + 1) * width));
}

/** The vectors of a file of few bits. */
function unpackCodes(found, header) {
  const scale = new Float32Array(found.scale.bytes.buffer);
  const width = header.model.d_model;
  let at = 0;
  return header.bits.map((bits, r) => {
    const size = Math.ceil((bits * width) / 8);
    const part = found.codes.bytes.slice(at, (at += size));
    if (bits === 32) return new Float32Array(part.buffer);
    const view = new DataView(part.buffer);
    const number = (i) => {
      if (bits === 16) return halfPrecision(view.getUint16(2 * i, true));
      let code = 0;
      for (let k = 0; k < bits; k++) {
        const bit = i * bits + k;
        code |= ((part[bit >> 3] >> (bit & 7)) & 1) << k;
      }
      return (2 * code + 1 - 2 ** bits) * scale[r];
    };
    return Float32Array.from({ length: width }, (_, i) => number(i));
  });
}

function halfPrecision(half) {
  const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** The bytes of a raw DEFLATE stream that ends with its last byte. */
async function inflate(packed) {
  const parts = [];
  let size = 0;
  try {
    const unpacker = new DecompressionStream("deflate-raw");
    const reader = new Blob([packed]).stream().pipeThrough(unpacker).getReader();
    for (let got = await reader.read(); !got.done; got = await reader.read()) {
      parts.push(got.value);
      size += got.value.length;
      if (size > MAX_UNPACKED) break;
    }
    if (size > MAX_UNPACKED) await reader.cancel();
  } catch {
    throw new FormatError("patches");
  }
  need(size <= MAX_UNPACKED, "patches");
  return joined(parts);
}

/** Patches and stored chunks, by the number of the chunk, and edits. */
function readPatches(raw, { chunks, stored, text }) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let group = 0; group < 5; group++) {
      need(at < raw.length, "patches");
      const byte = raw[at++];
      value += (byte & 127) * 2 ** (7 * group);
      if (byte < 128) return value;
    }
    throw new FormatError("patches");
  };
  const found = { patches: new Map(), stored: new Map(), edits: [] };
  const asTokens = new Set(stored);
  chunks.forEach((length, c) => {
    if (asTokens.has(c)) {
      found.stored.set(c, Array.from({ length }, number));
      return;
    }
    const patch = new Map();
    let position = -1;
    for (let left = number(); left; left--) {
      position += 1 + number();
      need(position < length, "patches");
      patch.set(position, number());
    }
    found.patches.set(c, patch);
  });
  let inserted = 0;
  while (at < raw.length) {
    const [keep, drop, size] = [number(), number(), number()];
    need(at + size <= raw.length, "patches");
    found.edits.push({ keep, drop, insertion: raw.slice(at, at + size) });
    at += size;
    inserted += size;
  }
  need(inserted <= text.bytes, "patches");
  return found;
}
