"use strict";
// JSON as the format asks for it. JSON.parse takes a key twice, and does not tell 1.0 from 1.

const MAX_DEPTH = 200;

/** A JSON number with a fraction or an exponent. */
class Real {
  constructor(value) {
    this.value = value;
  }
}

class JsonParser {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  fail() {
    throw new SyntaxError(`no JSON at ${this.at}`);
  }

  /** The match of a sticky expression, or undefined. */
  take(expression) {
    expression.lastIndex = this.at;
    const found = expression.exec(this.text);
    if (found) this.at = expression.lastIndex;
    return found?.[0];
  }

  skip(letter) {
    this.take(/[ \t\r\n]*/y);
    const there = this.text[this.at] === letter;
    if (there) this.at++;
    return there;
  }

  value(depth = 0) {
    if (depth > MAX_DEPTH) this.fail();
    if (this.skip("{")) return this.object(depth + 1);
    if (this.skip("[")) return this.list(depth + 1);
    if (this.text[this.at] === '"') return this.string();
    const word = this.take(/true|false|null/y);
    if (word) return { true: true, false: false, null: null }[word];
    const number = this.take(/-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y);
    if (number === undefined) this.fail();
    if (/^-?[0-9]+$/.test(number)) return Number(number);
    if (!Number.isFinite(Number(number))) this.fail();
    return new Real(Number(number));
  }

  string() {
    const found = this.take(/"([^"\\\u0000-\u001f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/y);
    return found === undefined ? this.fail() : JSON.parse(found);
  }

  object(depth) {
    const made = Object.create(null);
    if (this.skip("}")) return made;
    do {
      this.take(/[ \t\r\n]*/y);
      const key = this.string();
      if (key in made || !this.skip(":")) this.fail();
      made[key] = this.value(depth);
    } while (this.skip(","));
    return this.skip("}") ? made : this.fail();
  }

  list(depth) {
    const made = [];
    if (this.skip("]")) return made;
    do made.push(this.value(depth));
    while (this.skip(","));
    return this.skip("]") ? made : this.fail();
  }
}

/** An object of a JSON text: its keys are unique, its numbers finite. */
function parseObject(text) {
  const parser = new JsonParser(text);
  const made = parser.value();
  parser.skip("");
  if (parser.at !== text.length || !isObject(made)) parser.fail();
  return made;
}

function isObject(value) {
  return value !== null && typeof value === "object" && Object.getPrototypeOf(value) === null;
}
