// A brush over a picture: what is painted is to be drawn anew. The mask is a canvas of the picture's size, white on black.

const TINT = "rgba(214, 40, 40, 0.55)";
const STEP = 0.02; // of the picture, that an arrow key moves the brush
const EMPTY = "Nothing is painted: what the feedback marks will be drawn anew.";
const PAINTED = "What is painted will be drawn anew.";
const NONE = "The picture appears here.";

const layer = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

function picture(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The picture could not be fetched."));
    image.src = url;
  });
}

export class MaskPainter {
  /** `onPaint` gets the mask as a PNG in a data URL whenever a stroke has ended, or null when nothing is painted. */
  constructor(element, onPaint) {
    this.onPaint = onPaint;
    this.canvas = element.querySelector("canvas");
    this.status = element.querySelector(".painter-status");
    this.erase = element.querySelector("[name=erase]");
    this.size = element.querySelector("[name=size]");
    this.loads = 0;
    this.pointer = null; // of the stroke that is being drawn
    this.brush = [0.5, 0.5]; // where the keys have moved it, as parts of the picture
    element.querySelector("[name=clear]").addEventListener("click", () => this.wipe());
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, (event) => this.end(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.clear();
  }

  /** Shows a picture; `mask`, if there is one, is a picture whose light parts count as painted. */
  async load({ picture: url, mask }) {
    const number = ++this.loads;
    const [image, marked] = await Promise.all([picture(url), mask ? picture(mask) : null]);
    if (number !== this.loads) return; // another one came meanwhile
    const { naturalWidth: width, naturalHeight: height } = image;
    Object.assign(this.canvas, { width, height, hidden: false });
    this.image = image;
    this.mask = layer(width, height);
    this.pen = this.mask.getContext("2d", { willReadFrequently: true });
    if (marked) this.take(marked);
    this.draw();
  }

  /** Shows nothing. */
  clear() {
    this.loads += 1;
    this.image = this.mask = this.pointer = null;
    this.canvas.hidden = true;
    this.status.textContent = NONE;
  }

  /** Forgets what is painted. */
  wipe() {
    if (!this.mask) return;
    this.pen.clearRect(0, 0, this.mask.width, this.mask.height);
    this.report();
  }

  take(marked) {
    const { width, height } = this.mask;
    this.pen.drawImage(marked, 0, 0, width, height);
    const pixels = this.pen.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const light = pixels.data[at] > 127;
      pixels.data.set([255, 255, 255, light ? 255 : 0], at);
    }
    this.pen.putImageData(pixels, 0, 0);
  }

  point({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * this.canvas.width, ((clientY - box.top) / box.height) * this.canvas.height];
  }

  begin(event) {
    if (!this.mask || this.pointer !== null) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.point(event);
    this.stroke(this.last);
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    this.stroke(this.point(event));
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.report();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.mask || !(event.key in moves || event.key === " ")) return;
    event.preventDefault();
    if (event.key === " ") {
      this.last = this.at();
      this.stroke(this.last);
      this.report();
      return;
    }
    this.brush = this.brush.map((value, axis) => Math.min(1, Math.max(0, value + STEP * moves[event.key][axis])));
    this.draw(true);
  }

  at() {
    return [this.brush[0] * this.canvas.width, this.brush[1] * this.canvas.height];
  }

  get radius() {
    return Math.max(2, (Number(this.size.value) / 100) * Math.max(this.canvas.width, this.canvas.height));
  }

  stroke(to) {
    const context = this.pen;
    context.globalCompositeOperation = this.erase.checked ? "destination-out" : "source-over";
    Object.assign(context, { strokeStyle: "white", lineWidth: 2 * this.radius, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...this.last);
    context.lineTo(to[0] + 0.01, to[1]); // a dot is a line, too
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.last = to;
    this.draw();
  }

  draw(withBrush = false) {
    const { width, height } = this.canvas;
    const tinted = layer(width, height);
    const tint = tinted.getContext("2d");
    tint.drawImage(this.mask, 0, 0);
    tint.globalCompositeOperation = "source-in";
    tint.fillStyle = TINT;
    tint.fillRect(0, 0, width, height);
    const context = this.canvas.getContext("2d");
    context.drawImage(this.image, 0, 0, width, height);
    context.drawImage(tinted, 0, 0);
    if (withBrush) {
      context.beginPath();
      context.arc(...this.at(), this.radius, 0, 2 * Math.PI);
      Object.assign(context, { strokeStyle: "white", lineWidth: Math.max(1, width / 200) });
      context.stroke();
    }
    this.status.textContent = this.painted() ? PAINTED : EMPTY;
  }

  painted() {
    const { data } = this.pen.getImageData(0, 0, this.mask.width, this.mask.height);
    for (let at = 3; at < data.length; at += 4) if (data[at] > 127) return true;
    return false;
  }

  report() {
    this.draw();
    this.onPaint(this.painted() ? this.url() : null);
  }

  url() {
    const flat = layer(this.mask.width, this.mask.height);
    const context = flat.getContext("2d");
    context.fillRect(0, 0, flat.width, flat.height);
    context.drawImage(this.mask, 0, 0);
    return flat.toDataURL("image/png");
  }
}
