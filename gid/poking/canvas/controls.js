// Sliders, buttons, the band mixer and the recorder under the canvas.

const RECORDING_TYPES = ["video/mp4;codecs=avc1.42E01F", "video/webm;codecs=vp9", "video/webm"];

/**
 * Wires the controls inside `root` for one mode ("poke" or "sway"). Handlers: set(name, value), gains(array),
 * overlay(band, tint), action(name), say(text).
 */
export class Controls {
  constructor(root, mode, handlers) {
    this.root = root;
    this.handlers = handlers;
    this.model = null;
    this.muted = new Set();
    this.solo = null;
    for (const part of root.querySelectorAll("[data-only]")) part.hidden = part.dataset.only !== mode;
    for (const slider of root.querySelectorAll("input[type=range]")) {
      slider.addEventListener("input", () => this.slide(slider));
    }
    root.querySelector(".gid-poke-controls").addEventListener("click", (event) => {
      const action = event.target.closest("button[data-action]")?.dataset.action;
      if (action === "all") this.clearMixer();
      else if (action) handlers.action(action);
    });
    root.querySelector("input[name=shape]").addEventListener("change", () => this.showShape());
    root.querySelector(".gid-poke-mixer").addEventListener("toggle", () => this.showShape());
    // Two canvases may share a page: radio groups go by name.
    const group = `gid-poke-pick-${Math.random().toString(36).slice(2)}`;
    for (const radio of root.querySelectorAll("input[name=pick]")) radio.name = group;
  }

  slide(slider) {
    const value = slider.dataset.scale === "power" ? 2 ** Number(slider.value) : Number(slider.value);
    slider.nextElementSibling.textContent = String(Math.round(value * 100) / 100);
    this.handlers.set(slider.name, value);
  }

  /** Moves a slider from outside, as the visitor would. */
  setSlider(name, value) {
    const slider = this.root.querySelector(`input[name=${name}]`);
    if (!slider) return;
    slider.value = slider.dataset.scale === "power" ? Math.log2(value) : value;
    this.slide(slider);
  }

  /** Every slider's value, handed over again: for a new simulation. */
  apply() {
    for (const slider of this.root.querySelectorAll("input[type=range]")) this.slide(slider);
  }

  showMotion(model, scales) {
    this.model = model;
    this.muted.clear();
    this.solo = null;
    const bands = this.root.querySelector(".gid-poke-bands");
    bands.replaceChildren();
    const largest = Math.max(...scales) || 1;
    model.frequencies.forEach((frequency, j) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.band = j;
      const hertz = frequency.toFixed(1);
      button.title = `${hertz} Hz`;
      button.setAttribute("aria-label", `${hertz} hertz`);
      button.setAttribute("aria-pressed", "true");
      const bar = document.createElement("span");
      bar.style.height = `${Math.max(4, 100 * Math.sqrt(scales[j] / largest))}%`;
      const name = document.createElement("small");
      name.textContent = hertz;
      button.append(bar, name);
      button.addEventListener("click", () => this.pick(j));
      button.addEventListener("pointerenter", () => this.showShape(j));
      button.addEventListener("focus", () => this.showShape(j));
      button.addEventListener("pointerleave", () => this.showShape());
      button.addEventListener("blur", () => this.showShape());
      bands.append(button);
    });
    this.showShape();
  }

  pick(band) {
    const mute = this.root.querySelector('.gid-poke-choices input[value="mute"]').checked;
    if (mute) {
      this.solo = null;
      if (!this.muted.delete(band)) this.muted.add(band);
    } else {
      this.solo = this.solo === band ? null : band;
      this.muted.clear();
    }
    this.applyMixer();
  }

  clearMixer() {
    this.solo = null;
    this.muted.clear();
    this.applyMixer();
  }

  applyMixer() {
    if (!this.model) return;
    const heard = (j) => (this.solo === null ? !this.muted.has(j) : this.solo === j);
    const gains = Array.from({ length: this.model.count }, (_, j) => (heard(j) ? 1 : 0));
    for (const button of this.root.querySelectorAll(".gid-poke-bands button")) {
      button.setAttribute("aria-pressed", String(gains[button.dataset.band] > 0));
    }
    this.handlers.gains(gains);
    this.showShape();
  }

  /** Shows where a band moves: the one pointed at, else the one playing alone. */
  showShape(pointed = null) {
    const open = this.root.querySelector(".gid-poke-mixer").open;
    const wanted = open && this.root.querySelector("input[name=shape]").checked;
    const band = pointed ?? this.solo;
    this.handlers.overlay(wanted && band !== null ? band : -1, pointed === null ? 0.6 : 1);
  }
}

/** Records a canvas into a video file that the browser saves. */
export class Recorder {
  /** say(text) tells the visitor; changed() is called when a recording has started or ended. */
  constructor(canvas, say, changed) {
    this.canvas = canvas;
    this.say = say;
    this.changed = changed;
    this.recorder = null;
  }

  get running() {
    return this.recorder !== null;
  }

  /** Starts, or stops and saves. */
  toggle() {
    if (this.recorder) {
      this.recorder.stop();
      return;
    }
    const type = window.MediaRecorder && RECORDING_TYPES.find((t) => MediaRecorder.isTypeSupported(t));
    if (!type || !this.canvas.captureStream) {
      this.say("This browser cannot record a canvas.");
      return;
    }
    const stream = this.canvas.captureStream(30);
    const chunks = [];
    this.recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
    this.recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
    this.recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      this.recorder = null;
      this.changed();
      this.save(new Blob(chunks, { type: type.split(";")[0] }));
    };
    this.recorder.start(250);
    this.changed();
    this.say("Recording. Press Record again to stop and save.");
  }

  save(blob) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `poke.${blob.type.includes("mp4") ? "mp4" : "webm"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    this.say(`Saved ${link.download}, ${(blob.size / 1e6).toFixed(1)} MB.`);
  }
}
