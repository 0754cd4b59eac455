// Pointer, touch, pen and keyboard on the stage become holds, releases and pokes; an arrow shows each pull.

const TAP_DISTANCE = 0.012; // of the long side
const TAP_TIME = 0.6;
const TAP_PUSH = 0.06;
const CURSOR_STEP = 0.04;
const SVG = "http://www.w3.org/2000/svg";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/**
 * Watches `surface` and calls the handlers with points in fractions of width and height:
 * hold(id, at, pull), release(id, at, pull or null, seconds held), poke(at, push or null), gust(), reset().
 */
export class Gestures {
  constructor(surface, marks, handlers) {
    this.surface = surface;
    this.marks = marks;
    this.handlers = handlers;
    this.active = new Map();
    this.cursor = [0.5, 0.5];
    const listen = (type, method) => surface.addEventListener(type, (event) => this[method](event));
    listen("pointerdown", "down");
    listen("pointermove", "move");
    listen("pointerup", "up");
    listen("pointercancel", "up");
    listen("lostpointercapture", "up");
    listen("keydown", "key");
    listen("blur", "draw");
    listen("focus", "draw");
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  place(event) {
    const box = this.surface.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  down(event) {
    if (event.button > 0) return;
    const at = this.place(event);
    if (!at.every((value) => value >= 0 && value <= 1)) return;
    event.preventDefault();
    this.surface.focus({ preventScroll: true });
    this.surface.setPointerCapture?.(event.pointerId);
    this.cursor = at;
    const grip = { at, pull: [0, 0], since: performance.now(), far: false };
    this.active.set(event.pointerId, grip);
    this.handlers.hold(event.pointerId, at, grip.pull);
    this.draw();
  }

  move(event) {
    const grip = this.active.get(event.pointerId);
    if (!grip) return;
    const [x, y] = this.place(event);
    grip.pull = [x - grip.at[0], y - grip.at[1]];
    const box = this.surface.getBoundingClientRect();
    const far = Math.hypot(grip.pull[0] * box.width, grip.pull[1] * box.height) / Math.max(box.width, box.height);
    grip.far = grip.far || far > TAP_DISTANCE;
    this.handlers.hold(event.pointerId, grip.at, grip.far ? grip.pull : [0, 0]);
    this.draw();
  }

  up(event) {
    const grip = this.active.get(event.pointerId);
    if (!grip) return;
    this.active.delete(event.pointerId);
    const seconds = (performance.now() - grip.since) / 1000;
    const tapped = !grip.far && seconds < TAP_TIME;
    this.handlers.release(event.pointerId, grip.at, grip.far ? grip.pull : null, seconds);
    if (tapped) this.handlers.poke(grip.at, null);
    this.draw();
  }

  key(event) {
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) this.handlers.poke(this.cursor, arrow.map((v) => v * TAP_PUSH));
    else if (arrow) this.cursor = this.cursor.map((v, k) => Math.min(Math.max(v + arrow[k] * CURSOR_STEP, 0), 1));
    else if (event.key === " " || event.key === "Enter") this.handlers.poke(this.cursor, null);
    else if (event.key === "g" || event.key === "G") this.handlers.gust();
    else if (event.key === "Escape") this.handlers.reset();
    else return;
    event.preventDefault();
    this.draw();
  }

  cancel() {
    this.active.clear();
    this.draw();
  }

  /** Arrows of the pulls, and the keyboard's cursor while the canvas has the keyboard. */
  draw() {
    const box = this.surface.getBoundingClientRect();
    this.marks.setAttribute("viewBox", `0 0 ${box.width || 1} ${box.height || 1}`);
    this.marks.replaceChildren();
    for (const { at, pull, far } of this.active.values()) {
      const [x, y] = [at[0] * box.width, at[1] * box.height];
      this.marks.append(element("circle", { cx: x, cy: y, r: 6 }));
      if (!far) continue;
      const [dx, dy] = [pull[0] * box.width, pull[1] * box.height];
      const length = Math.hypot(dx, dy) || 1;
      const [ux, uy] = [dx / length, dy / length];
      const tip = [x + dx, y + dy];
      const barb = (side) => `${tip[0] - 9 * ux - side * 5 * uy},${tip[1] - 9 * uy + side * 5 * ux}`;
      this.marks.append(element("line", { x1: x, y1: y, x2: tip[0] - 6 * ux, y2: tip[1] - 6 * uy }));
      this.marks.append(element("polygon", { points: `${tip.join()} ${barb(1)} ${barb(-1)}` }));
    }
    if (!this.active.size && this.surface.matches(":focus-visible")) {
      const [x, y] = [this.cursor[0] * box.width, this.cursor[1] * box.height];
      this.marks.append(element("circle", { cx: x, cy: y, r: 10, class: "gid-poke-cursor" }));
      this.marks.append(element("circle", { cx: x, cy: y, r: 1.5, class: "gid-poke-cursor" }));
    }
  }
}

/** The push of a tap that has no direction of its own: along the way the point moves most readily. */
export function readyPush(model, at, gains) {
  const [x, y] = model.principalDirection(at[0], at[1], gains);
  return [(x * TAP_PUSH) / model.aspect[0], (y * TAP_PUSH) / model.aspect[1]];
}
