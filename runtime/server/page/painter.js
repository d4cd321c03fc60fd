// The hole: strokes over a loaded mask, drawn at the picture's own size, so that undo only draws them again.

const COLOR = "#ff2d78";
const HALF = 128; // of the opacity: more than half painted is hole

export class Painter {
  constructor(canvas, ring, changed) {
    Object.assign(this, { canvas, ring, changed, strokes: [], base: null, erasing: false, percent: 10, stroke: null });
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.at = { x: 0, y: 0 };
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.#up());
    canvas.addEventListener("pointerleave", () => { if (!this.stroke) this.ring.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#showRing());
    canvas.addEventListener("blur", () => { this.ring.hidden = true; });
  }

  get width() { return Math.max(1, (this.percent / 100) * this.canvas.width); }
  get empty() { return this.strokes.length === 0 && this.base === null; }

  start(side) {
    this.canvas.width = this.canvas.height = side;
    this.at = { x: side / 2, y: side / 2 };
    this.clear();
  }

  clear() {
    this.strokes = [];
    this.base = null;
    this.#redraw();
  }

  undo() {
    if (this.strokes.pop() === undefined) this.base = null;
    this.#redraw();
  }

  // Take a mask picture as --masks reads it: brighter than 127 is hole.
  load(image) {
    const side = this.canvas.width;
    const base = new OffscreenCanvas(side, side);
    const context = base.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, side, side);
    const pixels = context.getImageData(0, 0, side, side);
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(COLOR.slice(i, i + 2), 16));
    for (let i = 0; i < pixels.data.length; i += 4) {
      const gray = 0.299 * pixels.data[i] + 0.587 * pixels.data[i + 1] + 0.114 * pixels.data[i + 2];
      pixels.data.set(gray > 127 ? [r, g, b, 255] : [0, 0, 0, 0], i);
    }
    context.putImageData(pixels, 0, 0);
    this.strokes = [];
    this.base = base;
    this.#redraw();
  }

  // The mask as a PNG in the layout of --masks, white = hole; null where nothing is painted.
  async mask() {
    const side = this.canvas.width;
    const pixels = this.context.getImageData(0, 0, side, side);
    let count = 0;
    for (let i = 0; i < pixels.data.length; i += 4) {
      const hole = pixels.data[i + 3] >= HALF;
      count += hole;
      pixels.data.set(hole ? [255, 255, 255, 255] : [0, 0, 0, 255], i);
    }
    if (count === 0) return null;
    const canvas = new OffscreenCanvas(side, side);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  #redraw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.base) this.context.drawImage(this.base, 0, 0);
    for (const stroke of this.strokes) this.#draw(stroke, 0);
    this.changed();
  }

  // Piece by piece, as it was painted: one long path would have other edges, and the hole would change by an undo.
  #draw(stroke, from) {
    const { context } = this;
    context.globalCompositeOperation = stroke.erasing ? "destination-out" : "source-over";
    context.strokeStyle = COLOR;
    context.lineWidth = stroke.width;
    context.lineCap = "round";
    for (let i = from; i < stroke.points.length; i++) {
      const { x, y } = stroke.points[Math.max(0, i - 1)];
      const to = stroke.points[i];
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(to.x + (i ? 0 : 0.01), to.y); // a line of no length leaves no dot
      context.stroke();
    }
    context.globalCompositeOperation = "source-over";
  }

  #begin() {
    this.stroke = { erasing: this.erasing, width: this.width, points: [{ ...this.at }] };
    this.strokes.push(this.stroke);
    this.#draw(this.stroke, 0);
  }

  #extend() {
    this.stroke.points.push({ ...this.at });
    this.#draw(this.stroke, this.stroke.points.length - 1);
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    this.at = { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
    this.#showRing();
  }

  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault(); // no focus ring for the mouse
    this.canvas.setPointerCapture(event.pointerId);
    this.#place(event);
    this.#begin();
  }

  #move(event) {
    for (const part of event.getCoalescedEvents?.() ?? []) {
      this.#place(part);
      if (this.stroke) this.#extend();
    }
    this.#place(event);
    if (this.stroke) this.#extend();
  }

  #up() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed();
  }

  #key(event) {
    const step = (event.shiftKey ? 0.01 : 0.03) * this.canvas.width;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    const limit = (value) => Math.min(this.canvas.width, Math.max(0, value));
    if (dx || dy) {
      this.at = { x: limit(this.at.x + dx * step), y: limit(this.at.y + dy * step) };
      if (this.held) this.#extend();
    } else if (event.key === " ") {
      if (!this.held) { this.held = true; this.#begin(); } else if (!event.repeat) { this.held = false; this.#up(); }
    } else return;
    event.preventDefault();
    this.#showRing();
  }

  // Space lowers the brush and lifts it again, so that no two keys need be held at once.
  lift() {
    this.held = false;
    this.#up();
  }

  #showRing() {
    const size = this.canvas.clientWidth;
    const scale = size / this.canvas.width;
    const { style } = this.ring;
    style.width = style.height = `${this.width * scale}px`;
    style.left = `${this.at.x * scale}px`;
    style.top = `${this.at.y * scale}px`;
    this.ring.hidden = false;
  }
}
