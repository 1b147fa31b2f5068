"use strict";
// From ids to the bytes of a text, and which token each byte came from.

const INSERTED = -1;

/** Which model and which ids a file may name; a fault where it is another. */
function checkModel({ header, chunks }, model) {
  need(header.model.fingerprint === model.fingerprint, "model");
  need(header.tokenizer === model.tokenizer, "tokenizer");
  const extra = header.prefix.length + Number(header.layout === "free");
  const known = (id) => id < model.vocab_size;
  need(header.model.d_model === model.d_model && header.prefix.every(known), "limits");
  for (const { length, vectors, patch, ids } of chunks) {
    need((ids ?? [...patch?.values() ?? []]).every(known), "limits");
    need(!vectors || length + extra <= model.context, "limits");
  }
}

/** The bytes of a token, of a vocabulary whose letters stand for bytes. */
function bytesOf(token) {
  return Uint8Array.from(token, (letter) => letter.charCodeAt(0));
}

/** The text of tokens: a piece for each; one that ends within a character has none yet. */
function piecesOf(tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const pieces = tokens.map((token) => decoder.decode(bytesOf(token), { stream: true }));
  const rest = decoder.decode();
  if (rest) pieces[pieces.length - 1] += rest;
  return pieces;
}

/** The bytes of a text, and the number of the token that each came from. */
function textOf(tokens, edits) {
  const encoder = new TextEncoder();
  const parts = piecesOf(tokens).map((piece) => encoder.encode(piece));
  const bytes = joined(parts);
  const owners = new Int32Array(bytes.length);
  let end = 0;
  parts.forEach((part, token) => owners.fill(token, end, (end += part.length)));
  return edited(bytes, owners, edits);
}

function edited(bytes, owners, edits) {
  const [made, from] = [[], []];
  let at = 0;
  for (const { keep, drop, insertion } of edits) {
    made.push(bytes.subarray(at, at + keep), insertion);
    from.push(owners.subarray(at, at + keep), new Int32Array(insertion.length).fill(INSERTED));
    at += keep + drop;
  }
  const fits = at <= bytes.length;
  const whole = joined([...made, bytes.subarray(at)]);
  const tokens = new Int32Array(whole.length);
  let end = 0;
  for (const part of [...from, owners.subarray(at)]) {
    tokens.set(part, end);
    end += part.length;
  }
  return { bytes: whole, owners: tokens, fits };
}

/** Runs of bytes of one token each, as text: [{token, text}]. */
function runsOf({ bytes, owners }) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const runs = [];
  for (let at = 0; at < bytes.length; ) {
    let end = at;
    while (end < bytes.length && owners[end] === owners[at]) end++;
    const text = decoder.decode(bytes.subarray(at, end), { stream: end < bytes.length });
    runs.push({ token: owners[at], text });
    at = end;
  }
  return runs;
}
