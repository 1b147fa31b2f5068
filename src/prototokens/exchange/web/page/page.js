"use strict";
// The page: it opens with the file in it, and decodes every other file that is dropped on it.

const MAX_FILE = 64 * 2 ** 20; // bytes
const MAX_GENERATED = 512; // tokens: of a longer text, generation is timed on so many
const RUNS = 5; // of one step, of which the clock shows the median
const PATIENCE = 2000; // milliseconds for all of them
const WARM_UP = 1500; // milliseconds
const WARM_UP_TOKENS = 4;
const PAUSE = 30; // milliseconds of generation between two drawings
const DAMAGED = "it is damaged";
const SENTENCES = {
  container: "it is no whole safetensors file, so it is damaged or of another kind",
  "no-header": "it is a safetensors file, but not a .ptok file",
  json: `its header cannot be read: ${DAMAGED}`,
  version: "it was written in a newer format than this page reads",
  "header-hash": `the hash of its header is wrong: ${DAMAGED}`,
  header: `a value of its header cannot be: ${DAMAGED}`,
  tensors: `its tensors are not those that its header names: ${DAMAGED}`,
  "tensors-hash": `the hash of its tensors is wrong: ${DAMAGED}`,
  "not-finite": `a number of its vectors is not finite: ${DAMAGED}`,
  patches: `its patches cannot be unpacked: ${DAMAGED}`,
  slots: `it names a vector that is not there: ${DAMAGED}`,
  tokenizer: "it was made for another tokenizer than that of the model in this page",
  limits: "the model in this page takes no vectors, lengths or tokens like its own",
};

class Page {
  constructor() {
    this.settings = JSON.parse(one("settings").textContent);
    this.model = this.settings.model;
    this.work = Promise.resolve(); // one thing at a time, in order
  }

  async start() {
    this.tokens = JSON.parse(new TextDecoder().decode(await embedded("vocabulary")));
    await this.show(this.settings.name, await embedded("file"));
    this.listen();
  }

  /** The engine, which is started when it is needed first. */
  engine() {
    this.starting ??= (async () => {
      one("state").textContent = "Starting the model …";
      await painted();
      const [source, binary, graph] = await Promise.all(
        ["runtime", "binary", "model"].map(embedded),
      );
      return Engine.start(source, binary, graph, this.model);
    })();
    return this.starting;
  }

  listen() {
    const open = (files) => files.length && this.open(files[0]);
    one("choose").addEventListener("change", ({ target }) => open(target.files));
    one("again").addEventListener("click", () => this.queue(() => this.run()));
    one("stop").addEventListener("click", () => (this.stopped = true));
    const over = (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", event.type === "dragover");
      if (event.type === "drop") open(event.dataTransfer.files);
    };
    for (const type of ["dragover", "dragleave", "drop"]) addEventListener(type, over);
    one("text").addEventListener("click", ({ target }) => {
      if (target.title) one("readout").textContent = `“${target.textContent}”: ${target.title}`;
    });
  }

  queue(work) {
    this.work = this.work.then(work).catch((error) => this.fail(error));
    return this.work;
  }

  async open(file) {
    one("choose").value = "";
    if (file.size > MAX_FILE) return this.refuse(`${file.name} is refused: it is too large.`);
    return this.show(file.name, new Uint8Array(await file.arrayBuffer()));
  }

  fail(error) {
    const old = typeof DecompressionStream === "undefined";
    const why = old ? "it needs a browser of 2023 or newer" : (error.message ?? error);
    this.refuse(`This page failed: ${why}.`);
  }

  refuse(sentence) {
    one("alert").textContent = sentence;
    one("alert").hidden = false;
    one("state").textContent = "";
  }

  /** Check a file, then decode it; what is wrong is said, and what was there stays. */
  async show(name, raw) {
    try {
      const file = await readPtok(raw);
      checkModel(file, this.model);
      this.stopped = true; // generation for the file before
      return await this.queue(() => this.take(name, file));
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      return this.refuse(`${name} is refused: ${this.reason(error.fault, raw)}.`);
    }
  }

  reason(fault, raw) {
    if (fault !== "model") return SENTENCES[fault];
    const { name } = readHeader(readContainer(raw).metadata).model;
    const named = typeof name === "string" && name !== this.model.name ? ` (${name})` : "";
    return `it was made for another model${named} than the one in this page (${this.model.name})`;
  }

  take(name, file) {
    one("alert").hidden = true;
    this.file = file;
    const { header, table, chunks, bytes } = file;
    const { tokens } = header.text;
    const vectors = counted(table.length, "vector");
    one("headline").textContent = `${counted(tokens, "token")} from ${vectors}, at once`;
    one("name").textContent = name;
    drawVectors(one("vectors"), table, header.model.d_model);
    drawFacts(one("facts"), [
      ["file", `${name}, ${counted(bytes, "byte")}`],
      ["text", `${counted(header.text.bytes, "byte")}, ${counted(tokens, "token")}`],
      ["layout", `${header.layout}, ${counted(chunks.length, "chunk")}`],
      ["vectors", `${vectors} of ${header.model.d_model} numbers`],
      ["prefix", header.prefix.length ? counted(header.prefix.length, "token") : "none"],
      ["fitted in", header.model.dtype],
      ["SHA-256 of the text", header.text.sha256],
    ]);
    return this.run();
  }

  /** Both ways of decoding, one after the other. */
  async run() {
    const { header } = this.file;
    for (const id of ["again", "stop"]) one(id).disabled = id === "again";
    this.stopped = false;
    drawBlocks(one("text"), header.text.tokens);
    for (const id of ["check", "serial-text", "verdict", "readout"]) one(id).textContent = "";
    const engine = await this.engine();
    one("state").textContent = "Warming up …";
    await painted();
    const step = await engine.oneStep(this.file);
    this.showText(step);
    await painted();
    await this.warmUp(engine);
    one("state").textContent = "";
    await this.repeat(engine, step);
    await this.generate(engine, step);
    for (const id of ["again", "stop"]) one(id).disabled = id === "stop";
  }

  showText({ tokens, passes, milliseconds: time }) {
    const { edits, header } = this.file;
    const letters = tokens.map(({ id }) => this.tokens[id]);
    const text = textOf(letters, edits);
    drawText(one("text"), runsOf(text), tokens);
    const count = counted(tokens.length, "token");
    drawClock("step", time, `${counted(passes, "forward pass")}, ${count}`);
    const right = text.fits && sha256(text.bytes) === header.text.sha256;
    document.body.dataset.exact = right;
    one("check").textContent = right
      ? "This is the text: its SHA-256 is the one in the file."
      : "This is not the text: its SHA-256 is not the one in the file.";
    if (!right) this.refuse(this.wrongWords());
    const margins = tokens.map(({ margin }) => margin).filter((margin) => margin !== undefined);
    if (margins.length) {
      const least = margins.reduce((a, b) => Math.min(a, b));
      one("readout").textContent = `The least margin is ${least.toFixed(2)} logits.`;
    }
  }

  /** The first passes set up memory and are compiled while they run: no clock counts them. */
  async warmUp(engine) {
    const started = performance.now();
    do {
      await engine.tokenByToken(WARM_UP_TOKENS, () => true);
      await engine.oneStep(this.file);
    } while (performance.now() - started < WARM_UP && !this.stopped);
  }

  /** One step a few times: what else the machine does must not decide. */
  async repeat(engine, step) {
    const times = [];
    const started = performance.now();
    do times.push((await engine.oneStep(this.file)).milliseconds);
    while (times.length < RUNS && performance.now() - started < PATIENCE && !this.stopped);
    times.sort((a, b) => a - b);
    step.milliseconds = times[times.length >> 1];
    const runs = times.length > 1 ? `; median of ${times.length} runs` : "";
    drawClock("step", step.milliseconds, `${one("step-words").textContent}${runs}`);
    await painted();
  }

  wrongWords() {
    const { dtype } = this.file.header.model;
    const other = `: its vectors were fitted in ${dtype}, and this page computes in float32`;
    const why = dtype === "float32" ? "" : other;
    return `${one("name").textContent} does not decode to its text here${why}.`;
  }

  async generate(engine, step) {
    const count = Math.min(step.tokens.length, MAX_GENERATED, this.model.context - 1);
    const made = [];
    let drawn = performance.now();
    let time = 0;
    await engine.tokenByToken(count, async (id, passes, spent) => {
      made.push(this.tokens[id]);
      time = spent;
      if (performance.now() - drawn < PAUSE && passes < count) return !this.stopped;
      one("serial-text").textContent = piecesOf(made).join("").trimStart();
      one("serial-text").scrollTop = 1e6;
      drawClock("serial", spent, `${counted(passes, "forward pass")}, ${counted(passes, "token")}`);
      await painted();
      drawn = performance.now();
      return !this.stopped;
    });
    this.compare(step, made.length, time);
  }

  compare(step, count, time) {
    const serial = (time / count) * step.tokens.length;
    drawBars(step.milliseconds, serial);
    const times = (serial / step.milliseconds).toPrecision(2);
    const timed = ` Generation was timed on ${counted(count, "token")} and is scaled up.`;
    const part = count < step.tokens.length ? timed : "";
    one("verdict").textContent =
      `Token by token took ${Number(times)} times as long for as many tokens.${part}`;
  }
}

/** A block of data of the page, unpacked. */
async function embedded(id) {
  const packed = fromBase64(one(id).textContent);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** After the browser has drawn what has changed; a page in the background draws nothing. */
function painted() {
  return new Promise((resolve) => {
    setTimeout(resolve, 50);
    requestAnimationFrame(() => setTimeout(resolve));
  });
}

const page = new Page();
page.start().catch((error) => page.fail(error));
