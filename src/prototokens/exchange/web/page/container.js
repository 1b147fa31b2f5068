"use strict";
// A safetensors file and the header in it. A fault has a name of docs/file-format.md.

const MAX_HEADER = 2 ** 24;
const NEWEST = { format: 3, keys: 1 };
const SIZES = { BOOL: 1, U8: 1, I8: 1, I16: 2, U16: 2, F16: 2, BF16: 2 };
Object.assign(SIZES, { I32: 4, U32: 4, F32: 4, I64: 8, U64: 8, F64: 8 });
const SINCE = { stored: 2, patched: 2, edited: 2, bits: 2, prefix: 3 };
const BITS = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32];
const STRINGS = ["tokenizer", "layout", "tensors_sha256"];
STRINGS.push("text.sha256", "model.fingerprint", "model.dtype");

/** A fault of a file. */
class FormatError extends Error {
  constructor(name) {
    super(name);
    this.fault = name;
  }
}

function need(condition, fault) {
  if (!condition) throw new FormatError(fault);
}

function parsed(text, fault) {
  try {
    return parseObject(text);
  } catch {
    throw new FormatError(fault);
  }
}

function utf8(bytes, fault) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError(fault);
  }
}

/** The metadata and the tensors of a safetensors file, each with its bytes. */
function readContainer(raw) {
  need(raw.length > 8, "container");
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  need(length > 0 && length <= MAX_HEADER && length <= raw.length - 8, "container");
  const outer = parsed(utf8(raw.subarray(8, 8 + length), "container"), "container");
  const metadata = outer.__metadata__ ?? Object.create(null);
  delete outer.__metadata__;
  need(isObject(metadata), "container");
  need(Object.values(metadata).every((one) => typeof one === "string"), "container");
  return { metadata, tensors: readTensors(outer, raw.subarray(8 + length)) };
}

function readTensors(outer, data) {
  const tensors = Object.entries(outer).map(([name, one]) => {
    need(isObject(one) && Object.hasOwn(SIZES, one.dtype), "container");
    const { dtype, shape, data_offsets: offsets } = one;
    for (const list of [shape, offsets]) {
      need(Array.isArray(list) && list.every((n) => typeof n === "number" && n >= 0), "container");
    }
    need(offsets.length === 2, "container");
    const size = shape.reduce((product, n) => product * n, SIZES[dtype]);
    need(offsets[1] - offsets[0] === size, "container");
    return { name, dtype, shape, begin: offsets[0], end: offsets[1] };
  });
  let end = 0;
  for (const tensor of [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    need(tensor.begin === end, "container");
    end = tensor.end;
  }
  need(end === data.length, "container");
  for (const tensor of tensors) tensor.bytes = data.slice(tensor.begin, tensor.end);
  return tensors;
}

/** The header; what may be absent has its default. */
function readHeader(metadata) {
  need("prototokens" in metadata, "no-header");
  const header = parsed(metadata.prototokens, "json");
  need("format" in header, "json");
  for (const [key, newest] of Object.entries(NEWEST)) {
    need(typeof header[key] !== "number" || header[key] <= newest, "version");
  }
  need(sha256(new TextEncoder().encode(metadata.prototokens)) === metadata.sha256, "header-hash");
  const since = Object.entries(SINCE).map(([key, format]) => (key in header ? format : 1));
  for (const [key, value] of [["keys", 0], ["prefix", []], ["stored", []]]) {
    if (!(key in header)) header[key] = value;
  }
  checkValues(header);
  const chunks = header.chunks;
  need(chunks.reduce((sum, n) => sum + n, 0) === header.text.tokens, "header");
  need(header.stored.every((c) => c < chunks.length), "header");
  need(new Set(header.stored).size === header.stored.length, "header");
  need(header.format >= Math.max(...since), "header");
  need(layoutOf(header.layout) !== null, "header");
  need((header.keys === 1) === header.layout.startsWith("keyed:"), "header");
  return header;
}

function checkValues(header) {
  const step = (one, key) => (isObject(one) ? one[key] : null);
  const at = (path) => path.split(".").reduce(step, header);
  const whole = (value, low, high) =>
    need(typeof value === "number" && value >= low && value <= high, "header");
  for (const path of STRINGS) need(typeof at(path) === "string", "header");
  const bounds = { format: [1, 3], keys: [0, 1], "model.d_model": [1, 2 ** 20] };
  Object.assign(bounds, { "text.bytes": [1, 2 ** 63], "text.tokens": [1, 2 ** 63] });
  for (const [path, [low, high]] of Object.entries(bounds)) whole(at(path), low, high);
  const { chunks, prefix, stored, bits = [] } = header;
  for (const list of [chunks, prefix, stored, bits]) need(Array.isArray(list), "header");
  need(chunks.length > 0 && prefix.length <= 2 ** 20, "header");
  for (const n of chunks) whole(n, 1, 2 ** 20);
  for (const id of prefix) whole(id, 0, 2 ** 20 - 1);
  for (const c of stored) whole(c, 0, 2 ** 63);
  for (const b of bits) need(typeof b === "number" && BITS.includes(b), "header");
}
