// Lines of JSON in, {"file": base64} or {"layout", "length"}; what the page's reader gives, out.
const { createInterface } = require("node:readline");

async function answer({ file, layout, length }) {
  if (layout) {
    const rule = layoutOf(layout);
    const index = indexOf(rule, length);
    return [vectorsOf(rule), index, index.map((_, i) => i).slice(firstRead(rule))];
  }
  try {
    const read = await readPtok(new Uint8Array(Buffer.from(file, "base64")));
    const inputs = read.chunks.map(({ length, vectors }) => {
      if (!vectors) return null;
      const input = inputOf(vectors, read.layout, length, read.header.model.d_model);
      return Buffer.from(input.buffer).toString("base64");
    });
    checkModel(read, model);
    return { inputs };
  } catch (error) {
    return { fault: error.fault ?? String(error.stack) };
  }
}

let model;
(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    if (asked.model) model = asked.model;
    else if (asked.ids) {
      const tokens = asked.ids.map((id) => model.tokens[id]);
      console.log(JSON.stringify(runsOf(textOf(tokens, [])).map(({ text }) => text).join("")));
    } else if (asked.hash !== undefined) {
      console.log(JSON.stringify(sha256(new Uint8Array(Buffer.from(asked.hash, "base64")))));
    } else console.log(JSON.stringify(await answer(asked)));
  }
})();
