"use strict";
// What the page shows: tokens coloured by margin, vectors as stripes, clocks as bars.

const WIDE_MARGIN = 2; // logits: from here on tokens have the full colour
const MAX_STRIPES = 16;

function one(id) {
  return document.getElementById(id);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function counted(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;
}

function milliseconds(time) {
  return time < 1000 ? `${time.toPrecision(3)} ms` : `${(time / 1000).toPrecision(3)} s`;
}

function hue(margin) {
  return 40 + 90 * Math.min(1, margin / WIDE_MARGIN);
}

/** A word on a token, for its tooltip and for the line below the text. */
function wordsOn(tokens, number) {
  if (number === INSERTED) return "bytes that the file stores as an edit";
  const { margin, patched, stored, id } = tokens[number];
  const words = `token ${number + 1} of ${tokens.length}, id ${id}`;
  if (stored) return `${words}: stored as a token`;
  return patched ? `${words}: set by a patch` : `${words}: margin ${margin.toFixed(2)} logits`;
}

function drawText(place, runs, tokens) {
  const spans = runs.map(({ token, text }) => {
    const span = element("span", { textContent: text, title: wordsOn(tokens, token) });
    const { margin } = tokens[token] ?? {};
    if (margin === undefined) span.className = "given";
    else span.style.setProperty("--hue", hue(margin));
    return span;
  });
  place.replaceChildren(...spans);
}

/** Grey blocks where the tokens will be. */
function drawBlocks(place, count) {
  const widths = Array.from({ length: Math.min(count, 400) }, (_, i) => 1 + ((i * 7) % 5) / 2);
  place.replaceChildren(
    ...widths.flatMap((width) => [element("i", { style: `width: ${width}em` }), " "]),
  );
}

/** A stripe for each vector: a column for each number, from blue through the page to red. */
function drawVectors(place, table, width) {
  const shown = table.slice(0, MAX_STRIPES);
  place.replaceChildren(
    ...shown.map((vector) => {
      const canvas = element("canvas", { width, height: 1 });
      const paint = canvas.getContext("2d");
      const image = paint.createImageData(width, 1);
      const scale = Math.hypot(...vector) / Math.sqrt(width) || 1;
      vector.forEach((value, i) => {
        const share = Math.max(-1, Math.min(1, value / scale / 2));
        const colour = share < 0 ? [48, 104, 220] : [226, 92, 40];
        image.data.set([...colour, Math.round(255 * Math.abs(share))], 4 * i);
      });
      paint.putImageData(image, 0, 0);
      return canvas;
    }),
  );
  const rest = table.length - shown.length;
  if (rest > 0) place.append(element("p", { textContent: `and ${counted(rest, "vector")} more` }));
}

function drawClock(side, time, words) {
  one(`${side}-clock`).textContent = milliseconds(time);
  one(`${side}-words`).textContent = words;
}

function drawBars(step, serial) {
  const most = Math.max(step, serial);
  one("step-bar").style.width = `${(100 * step) / most}%`;
  one("serial-bar").style.width = `${(100 * serial) / most}%`;
}

function drawFacts(place, facts) {
  place.replaceChildren(
    ...facts.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]),
  );
}
