// The live canvas: puts simulation, renderer, gestures and controls together and keeps time.

import { Controls, Recorder } from "./controls.js";
import { Simulation } from "./dynamics.js";
import { Gestures, readyPush } from "./gestures.js";
import { openLayers } from "./layers.js";
import { addSway, decodeMotion } from "./motion.js";
import { Renderer } from "./renderer.js";

const STILL_SPOT = 0.05;
const LONG_SIDE = 1024;
const SLOW_LONG_SIDE = 512;
const SLOW_FRAME = 0.055;
const FADE_IN = 0.6;
const BUSY_PAUSE = 150; // ms between frames while the server is at work

/** Whether a context is drawn by the processor, so that all else on the machine waits for it. */
function drawnByProcessor(gl) {
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(String(name));
}

/** One canvas in one element that holds the markup of canvas.html. */
export class PokeCanvas {
  /**
   * options: mode "poke" or "sway"; shaders {file name: text}; onPoke(gesture), if given, hears of every finished
   * gesture and renders it where there is no WebGL2.
   */
  constructor(element, { mode = "poke", shaders, onPoke = null }) {
    this.element = element;
    this.mode = mode;
    this.onPoke = onPoke;
    this.root = element.querySelector(".gid-poke");
    this.canvas = this.root.querySelector("canvas");
    this.still = this.root.querySelector(".gid-poke-still");
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.playing = !this.calm;
    this.speed = 1;
    this.strength = 1;
    this.swayTime = 0;
    this.windStrength = 0;
    this.overlay = { band: -1, tint: 0 };
    this.generation = 0;
    this.simulation = null;
    this.onScreen = true;
    this.manual = false; // tests drive the clock themselves
    this.frames = 0;
    this.busy = false; // whether the server is making the video of what is shown
    this.fallback = null;
    this.root.dataset.mode = mode;
    try {
      this.renderer = new Renderer(this.canvas, shaders);
      this.software = drawnByProcessor(this.renderer.gl);
    } catch (error) {
      this.renderer = null;
      this.fallback = error.message;
    }
    this.wire();
  }

  wire() {
    const surface = this.renderer ? this.canvas : this.still;
    if (!this.renderer) {
      this.canvas.hidden = true;
      this.still.tabIndex = 0;
    }
    this.gestures = new Gestures(surface, this.root.querySelector(".gid-poke-marks"), {
      hold: (id, at, pull) => this.hold(id, at, pull),
      release: (id, at, pull, seconds) => this.release(id, at, pull, seconds),
      poke: (at, push) => this.poke(at, push),
      gust: () => this.gust(),
      reset: () => this.reset(),
    });
    this.recorder = new Recorder(this.canvas, (text) => this.say(text), () => {
      this.root.querySelector('[data-action="record"]').setAttribute("aria-pressed", String(this.recorder.running));
    });
    this.controls = new Controls(this.root, this.mode, {
      set: (name, value) => this.set(name, value),
      gains: (gains) => this.setGains(gains),
      overlay: (band, tint) => this.setOverlay(band, tint),
      action: (name) => this.act(name),
    });
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.say("The graphics card was taken away for a moment.");
    });
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.renderer.restore();
      this.say("");
      this.wake();
    });
    document.addEventListener("visibilitychange", () => this.wake());
    new IntersectionObserver(([entry]) => {
      this.onScreen = entry.isIntersecting;
      this.wake();
    }).observe(this.root);
    new ResizeObserver(() => this.gestures.draw()).observe(this.root);
  }

  say(text) {
    this.root.querySelector(".gid-poke-status").textContent = text;
  }

  /**
   * Shows a photo with its motion. photo: a URL; motion: a URL or an ArrayBuffer. A later call wins over one still
   * loading. Returns whether this call's photo is shown.
   */
  async load({ photo, motion }) {
    const generation = ++this.generation;
    this.loaded = { photo, motion };
    this.clear();
    this.say("Loading the motion");
    try {
      const image = new Image();
      image.src = photo;
      const [buffer] = await Promise.all([motion instanceof ArrayBuffer ? motion : fetchBuffer(motion), image.decode()]);
      const decoded = decodeMotion(buffer);
      if (this.renderer) decoded.opened = await openLayers(decoded.layers);
      if (generation !== this.generation) return false;
      this.show(image, decoded);
      return true;
    } catch (error) {
      if (generation !== this.generation) return false;
      this.say(`The motion could not be shown. ${error.message}`);
      return false;
    }
  }

  /** Back to the empty stage. */
  clear() {
    this.simulation = null;
    this.gestures.cancel();
    this.root.querySelector(".gid-poke-empty").hidden = false;
    this.root.querySelector(".gid-poke-controls").hidden = true;
    this.root.classList.remove("gid-poke-ready");
    this.say("");
  }

  show(image, { model, scales, header, opened = null }) {
    this.header = header;
    this.model = model;
    this.re = new Float64Array(model.coordinates);
    this.im = new Float64Array(model.coordinates);
    this.root.querySelector(".gid-poke-empty").hidden = true;
    this.root.classList.add("gid-poke-ready");
    const ratio = image.naturalWidth / image.naturalHeight;
    this.root.querySelector(".gid-poke-frame").style.width = `min(100%, calc(var(--poke-room, 75vh) * ${ratio}))`;
    this.simulation = new Simulation(model);
    this.steadyWind = null;
    this.swayTime = 0;
    this.fade = 0;
    if (!this.renderer) {
      this.still.src = image.src;
      this.still.hidden = false;
      const instead = this.onPoke ? " Tap or drag the photo and the answer is rendered as a video instead." : "";
      this.say(`No live canvas: ${this.fallback}.${instead}`);
      return;
    }
    this.renderer.setPhoto(image, LONG_SIDE);
    this.renderer.setMotion({ model, scales }, opened);
    this.root.querySelector(".gid-poke-controls").hidden = false;
    this.controls.showMotion(model, scales);
    this.controls.apply();
    if (this.calm && this.mode === "sway") this.say("Your system asks for less motion: press Play to start.");
    else if (this.mode === "poke") this.say("Drag the photo and let go, or tap it.");
    else this.say("");
    this.showPlaying();
    this.last = null;
    this.wake(true);
  }

  // What acts on the photo ------------------------------------------------------------------------------------------

  get pokeable() {
    return this.simulation !== null && this.mode === "poke";
  }

  movesAt(at) {
    const compliance = this.simulation.model.compliance(at[0], at[1], this.simulation.gains);
    if (compliance < STILL_SPOT) this.say("This spot stands still in the photo's motion. Try a leaf, a flower, a cloth.");
    return compliance >= STILL_SPOT;
  }

  hold(id, at, pull) {
    if (!this.pokeable) return;
    const grabbed = this.simulation.held.has(id);
    if (!grabbed && !this.movesAt(at)) return;
    if (!grabbed) this.say("");
    this.simulation.hold(at, pull, id);
    this.wake();
  }

  release(id, at, pull, seconds) {
    if (!this.pokeable || !this.simulation.held.has(id)) return;
    this.simulation.release(id);
    if (pull) this.tell({ kind: "drag", at, force: pull, duration: seconds });
    this.wake();
  }

  poke(at, push) {
    if (!this.pokeable || !this.movesAt(at)) return;
    const force = push ?? readyPush(this.model, at, this.simulation.gains);
    this.say("");
    this.simulation.poke(at, force);
    this.tell({ kind: "poke", at, force });
    this.wake();
  }

  gust() {
    if (!this.simulation || !this.renderer) return;
    const seed = Math.floor(Math.random() * 1e6);
    const angle = (Math.random() < 0.5 ? 0 : 180) + (Math.random() - 0.5) * 30;
    this.simulation.gust({ strength: 1, angle, duration: 2.5, seed });
    this.wake();
  }

  tell(gesture) {
    const { stiffness, damping, strength } = this.simulation.knobs;
    const limited = gesture.force.map((v) => Math.min(Math.max(v, -1), 1));
    const knobs = { stiffness, damping, strength, gains: [...this.simulation.gains] };
    this.onPoke?.({ ...gesture, force: limited, knobs, fallback: this.fallback });
  }

  reset() {
    if (!this.simulation) return;
    this.gestures.cancel();
    this.simulation.reset();
    this.steadyWind = null;
    this.setWind(this.windStrength);
    this.swayTime = 0;
    this.fade = 0;
    this.say("");
    this.wake(true);
  }

  set(name, value) {
    if (name === "speed") this.speed = value;
    else if (name === "wind") this.setWind(value);
    else {
      if (name === "strength") this.strength = value;
      if (this.simulation) this.simulation.knobs[name] = value;
    }
    this.wake(true);
  }

  setWind(strength) {
    this.windStrength = strength;
    if (!this.simulation) return;
    if (this.steadyWind) this.steadyWind.wind.strength = strength;
    else if (strength > 0) {
      this.steadyWind = this.simulation.gust({ strength, angle: 8, duration: Infinity, seed: 1 });
    }
    if (strength === 0 && this.steadyWind) {
      this.simulation.winds = this.simulation.winds.filter((wind) => wind !== this.steadyWind);
      this.steadyWind = null;
    }
  }

  setGains(gains) {
    if (!this.simulation) return;
    this.simulation.setGains(gains);
    this.wake(true);
  }

  setOverlay(band, tint) {
    this.overlay = { band, tint };
    this.wake(true);
  }

  act(name) {
    if (name === "gust") this.gust();
    else if (name === "reset") this.reset();
    else if (name === "play") {
      this.playing = !this.playing;
      this.showPlaying();
    } else if (name === "record") {
      this.recorder.toggle();
    }
    this.wake(true);
  }

  showPlaying() {
    const button = this.root.querySelector('[data-action="play"]');
    button.textContent = this.playing ? "Pause" : "Play";
    button.setAttribute("aria-pressed", String(this.playing));
  }

  // Time ------------------------------------------------------------------------------------------------------------

  get moving() {
    if (!this.simulation || !this.renderer) return false;
    return (this.mode === "sway" && this.playing) || this.recorder.running || !this.simulation.atRest();
  }

  /** Whether drawing leaves the processor to the server: only what plays by itself does, a hand is answered at once. */
  get yields() {
    return this.busy && this.software && this.mode === "sway";
  }

  /** Starts the clock if there is something to show; redraws once in any case when asked to. */
  wake(redraw = false) {
    if (redraw && this.simulation && this.renderer) this.stale = true;
    if (this.manual || this.scheduled || document.hidden || !this.onScreen || !this.element.isConnected) return;
    if (!this.moving && !this.stale) return;
    this.scheduled = true;
    const next = () => requestAnimationFrame((now) => this.tick(now));
    // The server may stand on the same machine: its video comes first.
    if (this.yields) setTimeout(next, BUSY_PAUSE);
    else next();
  }

  tick(now) {
    this.scheduled = false;
    if (this.manual || !this.simulation) return;
    const dt = this.last === null || this.last === undefined ? 0 : (now - this.last) / 1000;
    this.last = now;
    this.adapt(dt);
    this.step(dt);
    if (!this.moving) this.last = null;
    this.wake();
  }

  /** A slow machine (software rendering) gets a smaller picture before it gets a slower one. */
  adapt(dt) {
    if (dt <= 0 || dt > 1 || this.yields) return;
    this.pace = this.pace === undefined ? dt : this.pace + (dt - this.pace) / 12;
    if (this.pace > SLOW_FRAME && Math.max(this.canvas.width, this.canvas.height) > SLOW_LONG_SIDE) {
      this.renderer.setPhoto(this.renderer.photo, SLOW_LONG_SIDE);
      this.pace = undefined;
    }
  }

  /** Advances everything by dt seconds and draws. */
  step(dt) {
    if (!this.simulation || !this.renderer) return;
    this.simulation.step(dt);
    if (this.mode === "sway" && this.playing) {
      this.swayTime += dt * this.speed;
      this.fade = Math.min(1, this.fade + dt / FADE_IN);
    }
    this.simulation.settle();
    this.draw();
  }

  draw() {
    const { simulation, re, im } = this;
    simulation.weights(re, im);
    if (this.mode === "sway") {
      const ease = this.fade * this.fade * (3 - 2 * this.fade);
      const { count } = this.model;
      const [swayRe, swayIm] = [new Float64Array(count), new Float64Array(count)];
      addSway(this.model, this.swayTime, this.strength * ease, swayRe, swayIm);
      for (let k = 0; k < re.length; k++) {
        const j = k % count;
        re[k] += swayRe[j] * simulation.gains[j];
        im[k] += swayIm[j] * simulation.gains[j];
      }
    }
    this.renderer.draw(re, im, this.overlay.band, this.overlay.band === -1 ? 0 : this.overlay.tint);
    this.stale = false;
    this.frames++;
  }
}

async function fetchBuffer(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return response.arrayBuffer();
}
