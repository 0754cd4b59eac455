// Heatmaps as colours: 8-bit values in, RGBA pixels out.

/** Stops of each map's colours from 0 to 1; orange against blue stays apart for colour-blind eyes too. */
export const STOPS = {
  implausibility: [[255, 232, 140], [253, 150, 30], [205, 35, 25], [105, 0, 20]],
  misalignment: [[190, 240, 255], [60, 175, 250], [40, 85, 225], [45, 5, 120]],
};
export const TITLES = { implausibility: "Implausible", misalignment: "Misaligned" };
export const MEANINGS = { implausibility: "looks broken", misalignment: "not as asked" };

/** 256 colours of a map, one after the other as r, g, b. */
export function ramp(name) {
  const stops = STOPS[name];
  const colours = new Uint8ClampedArray(256 * 3);
  for (let value = 0; value < 256; value++) {
    const at = (value / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      colours[3 * value + c] = stops[left][c] + (at - left) * (stops[left + 1][c] - stops[left][c]);
    }
  }
  return colours;
}

/** How opaque a value in [0, 1] is drawn: faint where little is wrong, full from one half on. */
export function cover(value) {
  return Math.min(1, 2 * value);
}

/**
 * Paints values (8 bits, width x height) from `threshold` in [0, 1] on into RGBA pixels. Where an area ends its rim is
 * drawn in the darkest colour, so that the two maps can be told apart where they overlap.
 */
export function paint(values, width, height, colours, threshold) {
  const pixels = new Uint8ClampedArray(4 * values.length);
  const least = threshold * 255;
  const inside = (x, y) => x < 0 || y < 0 || x >= width || y >= height || values[y * width + x] >= least;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const value = values[i];
      if (value < least) continue;
      const rim = !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
      const colour = 3 * (rim ? 255 : value);
      pixels[4 * i] = colours[colour];
      pixels[4 * i + 1] = colours[colour + 1];
      pixels[4 * i + 2] = colours[colour + 2];
      pixels[4 * i + 3] = rim ? 255 : 255 * cover(value / 255);
    }
  }
  return pixels;
}

/** The part of the values at or above `threshold`. */
export function share(values, threshold) {
  let count = 0;
  for (const value of values) if (value >= threshold * 255) count++;
  return values.length ? count / values.length : 0;
}

/** A grey picture's values: {values, width, height}. */
export async function readGrey(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Uint8Array(canvas.width * canvas.height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return { values, width: canvas.width, height: canvas.height };
}

/** The colours as a CSS gradient; what is under the threshold is left out. */
export function gradient(name, threshold) {
  const colours = ramp(name);
  const at = (share) => {
    const value = Math.round(share * 255);
    return `rgb(${colours.slice(3 * value, 3 * value + 3).join(" ")} / ${cover(share)}) ${100 * share}%`;
  };
  const stops = Array.from({ length: 21 }, (_, i) => i / 20).filter((share) => share > threshold);
  return `linear-gradient(to right, transparent ${100 * threshold}%, ${[threshold, ...stops].map(at).join(", ")})`;
}
