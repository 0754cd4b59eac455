// One picture with its heatmaps over it, and the values under the pointer.

import { make } from "./dom.js";
import { TITLES, paint, ramp, readGrey, share } from "./heatmap.js";

const MAPS = ["implausibility", "misalignment"]; // the first lies on top
const NO_MAPS = "The heatmaps appear over the picture.";
const RAMPS = Object.fromEntries(MAPS.map((name) => [name, ramp(name)]));

export class Stage {
  /** Builds its own element, `this.element`. */
  constructor() {
    this.image = make("img", { alt: "", draggable: "false" });
    this.canvases = Object.fromEntries(MAPS.map((name) => [name, make("canvas", { "data-map": name, "aria-hidden": "true" })]));
    this.cross = make("span", { class: "rahf-cross", hidden: true });
    this.frame = make("div", { class: "rahf-frame", tabindex: "-1", role: "img" }, this.image, ...Object.values(this.canvases).reverse(), this.cross);
    this.probe = make("p", { class: "rahf-probe" });
    this.element = make("div", { class: "rahf-stage" }, make("div", { class: "rahf-room" }, this.frame), this.probe);
    this.maps = {};
    this.at = null;
    this.settings = null;
    this.frame.hidden = true;
    this.probe.textContent = NO_MAPS;
    this.frame.addEventListener("pointermove", (event) => this.point(event));
    this.frame.addEventListener("pointerdown", (event) => this.point(event));
    this.frame.addEventListener("pointerleave", () => this.look(null));
    this.frame.addEventListener("blur", () => this.look(null));
    this.frame.addEventListener("keydown", (event) => this.key(event));
  }

  /** Fetches a picture and its maps: {picture: url, maps: {name: url}}; `put` shows them. */
  static async fetch({ picture, maps }) {
    const image = new Image();
    image.src = picture;
    const names = MAPS.filter((name) => name in maps);
    const [, ...values] = await Promise.all([image.decode(), ...names.map((name) => readGrey(maps[name]))]);
    return { image, maps: Object.fromEntries(names.map((name, i) => [name, values[i]])) };
  }

  put({ image, maps }, settings) {
    this.maps = maps;
    this.at = null;
    const ratio = image.naturalWidth / image.naturalHeight;
    this.image.src = image.src;
    this.frame.style.width = `min(100%, calc(var(--rahf-room) * ${ratio}))`;
    this.frame.style.aspectRatio = String(ratio);
    this.frame.tabIndex = 0;
    this.frame.hidden = false;
    this.painted = null;
    this.apply(settings);
  }

  /** settings: map "implausibility", "misalignment", "both" or "none"; opacity and threshold in [0, 1]. */
  apply(settings) {
    this.settings = settings;
    const shown = this.shown();
    for (const [name, canvas] of Object.entries(this.canvases)) {
      canvas.hidden = !shown.includes(name);
      canvas.style.opacity = settings.opacity;
    }
    if (this.painted !== settings.threshold) this.paint(settings.threshold);
    this.look(this.at);
  }

  shown() {
    return MAPS.filter((name) => name in this.maps && [name, "both"].includes(this.settings?.map));
  }

  paint(threshold) {
    for (const [name, { values, width, height }] of Object.entries(this.maps)) {
      const canvas = this.canvases[name];
      canvas.width = width;
      canvas.height = height;
      const pixels = paint(values, width, height, RAMPS[name], threshold);
      canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    }
    this.painted = threshold;
  }

  point(event) {
    const box = this.frame.getBoundingClientRect();
    this.look([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.look(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [x, y] = this.at ?? [0.5, 0.5];
    const [dx, dy] = steps[event.key];
    const size = event.shiftKey ? 0.1 : 0.02;
    this.look([x + dx * size, y + dy * size], true);
  }

  /** Reads the maps at a place in [0, 1]^2, or what they cover where there is no place. */
  look(at, cross = false) {
    this.at = at && at.map((part) => Math.max(0, Math.min(part, 0.9999)));
    this.cross.hidden = !(this.at && cross);
    const shown = this.shown();
    if (this.at) {
      [this.cross.style.left, this.cross.style.top] = this.at.map((part) => `${100 * part}%`);
      this.probe.textContent = listed(shown, (name) => this.value(name).toFixed(2)) + (shown.length ? " here" : "");
      if (cross) this.frame.setAttribute("aria-label", this.probe.textContent);
      return;
    }
    this.probe.textContent = this.summary(shown);
    this.frame.setAttribute("aria-label", `The picture. ${this.probe.textContent}. Arrow keys read the heatmaps.`);
  }

  value(name) {
    const { values, width, height } = this.maps[name];
    return values[Math.floor(this.at[1] * height) * width + Math.floor(this.at[0] * width)] / 255;
  }

  summary(shown) {
    if (!Object.keys(this.maps).length) return NO_MAPS;
    if (!shown.length) return "No heatmap is shown";
    const threshold = this.settings.threshold;
    let whole = " of the picture"; // said once
    const covered = listed(shown, (name) => {
      const part = share(this.maps[name].values, threshold);
      if (part < 0.005) return part === 0 ? "nowhere" : "in a spot";
      const said = `in ${Math.round(100 * part)}%${whole}`;
      whole = "";
      return said;
    });
    return `${covered} (from ${threshold.toFixed(2)} on)`;
  }
}

/** What `tell` says of each map, as one phrase. */
function listed(names, tell) {
  return names.map((name, place) => `${place ? TITLES[name].toLowerCase() : TITLES[name]} ${tell(name)}`).join(", ");
}
