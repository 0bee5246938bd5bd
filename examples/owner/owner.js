#!/usr/bin/env node
// Who owns a key, computed without ws-routing.
//
//     npm install hash-wasm
//     node owner.js user-42 10.0.0.1:7400 10.0.0.2:7400 10.0.0.3:7400=200
//
// A node may have a weight, 1 to 1000, default 100. Without arguments, questions are read from standard input, one JSON
// object a line, {"key": "user-42", "nodes": {"10.0.0.1:7400": 100}, "ring_seed": "0000000000000000"}, and the owners
// are written, one a line.
"use strict";

const readline = require("node:readline");
const { createXXHash3 } = require("hash-wasm");

const MASK = (1n << 64n) - 1n;

/** The id among `nodes`, an object from id to weight, that owns `key`. */
async function owner(key, nodes, ringSeed = 0n) {
  const keyHash = await hash(key, ringSeed);
  const weights = Object.values(nodes);
  const equal = weights.every((weight) => weight === weights[0]);
  let best;
  // Ascending by bytes, so that a tie goes to the smaller id.
  for (const id of Object.keys(nodes).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const score = Number(fmix64((await hash(id, 0n)) ^ keyHash) >> 16n);
    const distance = equal ? -score : -Math.log((score + 0.5) / 2 ** 48) / nodes[id];
    if (best === undefined || distance < best.distance) best = { id, distance };
  }
  return best.id;
}

const hashers = new Map();

async function hash(text, seed) {
  if (!hashers.has(seed)) hashers.set(seed, await createXXHash3(Number(seed & 0xffffffffn), Number(seed >> 32n)));
  return BigInt("0x" + hashers.get(seed).init().update(text).digest("hex"));
}

function fmix64(x) {
  x ^= x >> 33n;
  x = (x * 0xff51afd7ed558ccdn) & MASK;
  x ^= x >> 33n;
  x = (x * 0xc4ceb9fe1a85ec53n) & MASK;
  return x ^ (x >> 33n);
}

async function main([key, ...nodes]) {
  if (key !== undefined) {
    const weighted = nodes.map((node) => node.split("=")).map(([id, weight]) => [id, Number(weight ?? 100)]);
    console.log(await owner(key, Object.fromEntries(weighted)));
    return;
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    console.log(await owner(question.key, question.nodes, BigInt("0x" + question.ring_seed)));
  }
}

main(process.argv.slice(2));
