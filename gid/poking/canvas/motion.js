// Reads the canvas's motion file (gid/poking/page.py: encode_motion) into mode shapes, and plays it as recorded.

import { decodeLayers } from "./layers.js";
import { ModalModel } from "./modes.js";

const MAGIC = "GIDPOKE1";

/**
 * ArrayBuffer -> {model, scales, header, layers}; layers is null where the photo has none. The shapes are floats; scales are each mode's largest magnitude.
 * Throws an Error with a message for the visitor when the file is something else, cut short or damaged.
 */
export function decodeMotion(buffer) {
  const bytes = new Uint8Array(buffer);
  const magic = String.fromCharCode(...bytes.subarray(0, 8));
  if (bytes.length < 12 || magic !== MAGIC) throw new Error("This is not a motion file for the canvas.");
  const length = new DataView(buffer).getUint32(8, true);
  if (12 + length > bytes.length) throw new Error("The motion file is cut short.");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(12, 12 + length)));
  const { width, height, bits, frequencies, scales } = header;
  const count = frequencies.length * width * height * 4;
  const end = 12 + length + (count * bits) / 8;
  const payload = buffer.slice(12 + length, end);
  if (payload.byteLength !== (count * bits) / 8) throw new Error("The motion file is cut short.");
  if (!header.layers && end !== buffer.byteLength) throw new Error("The motion file is damaged.");
  const layers = decodeLayers(buffer, header, end);
  const integers = bits === 8 ? new Int8Array(payload) : new Int16Array(payload);
  const top = 2 ** (bits - 1) - 1;
  const shapes = new Float32Array(count);
  const layer = width * height * 4;
  for (let j = 0; j < frequencies.length; j++) {
    const factor = scales[j] / top;
    for (let o = j * layer; o < (j + 1) * layer; o++) shapes[o] = integers[o] * factor;
  }
  const parts = layers ? decodeParts(layers.members, header.layers.limits) : null;
  return { model: new ModalModel({ ...header, shapes, parts }), scales, header, layers };
}

/** Bytes owner, share of every cell -> {owners, shares, limits}. Throws an Error where an owner has no limit. */
function decodeParts(members, limits) {
  const owners = members.filter((_, k) => k % 2 === 0);
  if (owners.some((owner) => owner > limits.length)) throw new Error("The motion file is damaged.");
  const shares = Float64Array.from(members.filter((_, k) => k % 2 === 1), (value) => value / 255);
  return { owners, shares, limits };
}

/**
 * Weights that play the recorded motion `time` seconds in: displacement(t) - displacement(0), so that time 0 is the
 * photo itself. Adds them to re and im.
 */
export function addSway(model, time, strength, re, im) {
  for (let j = 0; j < model.count; j++) {
    const angle = 2 * Math.PI * model.frequencies[j] * time;
    re[j] += strength * (Math.cos(angle) - 1);
    im[j] += strength * Math.sin(angle);
  }
}
