"use strict";
// From a drawing to the nearest centroids: nothing here knows the page.

// Model

const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
const readModel = (element) => {
  const model = JSON.parse(element.textContent);
  model.centers = new Float64Array(bytes(model.centers));
  model.k = model.digits.length;
  model.d = model.centers.length / model.k;
  if (model.map) {
    model.map.origin = new Float32Array(bytes(model.map.origin));
    model.map.axes = new Float32Array(bytes(model.map.axes));
  }
  return model;
};

// NumPy's pairwise sum, in its order: the same float64 as predict has.
const sum = (values, start = 0, n = values.length) => {
  if (n < 8) {
    let total = 0;
    for (let i = 0; i < n; i++) total += values[start + i];
    return total;
  }
  if (n > 128) {
    let half = n >> 1;
    half -= half % 8;
    return sum(values, start, half) + sum(values, start + half, n - half);
  }
  const r = values.slice(start, start + 8);
  let i = 8;
  for (; i < n - (n % 8); i += 8) for (let j = 0; j < 8; j++) r[j] += values[start + i + j];
  let total = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  for (; i < n; i++) total += values[start + i];
  return total;
};

// The features of an image, as the metric sees them.
const features = (pixels, model) => {
  const x = Float64Array.from(pixels, (pixel) => (pixel * model.white) / 255);
  if (model.metric !== "cosine") return x;
  const largest = x.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const norm = Math.sqrt(sum(x.map((value) => (value / largest) ** 2))) || 1;
  return x.map((value) => value / largest / norm);
};

// All clusters with their squared distances, the nearest first; of equally near ones the first.
const nearest = (pixels, model) => {
  const x = features(pixels, model), squares = new Float64Array(model.d), found = [];
  for (let cluster = 0; cluster < model.k; cluster++) {
    for (let i = 0; i < model.d; i++) {
      const difference = x[i] - model.centers[cluster * model.d + i];
      squares[i] = difference * difference;
    }
    found.push({ cluster, squared: sum(squares) });
  }
  return found.sort((a, b) => a.squared - b.squared || a.cluster - b.cluster);
};

const distance = (squared, model) =>
  model.metric === "cosine" ? squared / 2 : Math.sqrt(squared) / model.unit;

// From ink to pixels

const PAD = 280, RADIUS = 14, BOX = 20, SIDE = 28;

// Ink the pixels of the pad that lie within the pen's radius of the line from a to b.
const stamp = (ink, a, b) => {
  const dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  const clip = (value) => Math.max(0, Math.min(PAD - 1, value));
  const top = clip(Math.floor(Math.min(a.y, b.y) - RADIUS));
  const bottom = clip(Math.ceil(Math.max(a.y, b.y) + RADIUS));
  const left = clip(Math.floor(Math.min(a.x, b.x) - RADIUS));
  const right = clip(Math.ceil(Math.max(a.x, b.x) + RADIUS));
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      const ex = px - t * dx, ey = py - t * dy;
      if (ex * ex + ey * ey <= RADIUS * RADIUS) ink[y * PAD + x] = 1;
    }
  }
};

// MNIST: the ink's bounding box is scaled into 20 x 20, keeping its shape, each pixel the mean of
// what it covers; then whole pixels of shift bring the centre of mass to the centre of 28 x 28.
const normalise = (ink) => {
  let top = PAD, left = PAD, bottom = -1, right = -1;
  for (let i = 0; i < ink.length; i++) {
    if (!ink[i]) continue;
    const x = i % PAD, y = (i - x) / PAD;
    if (x < left) left = x;
    if (x > right) right = x;
    if (y < top) top = y;
    if (y > bottom) bottom = y;
  }
  const pixels = new Uint8Array(SIDE * SIDE);
  if (bottom < 0) return pixels;
  const width = right - left + 1, height = bottom - top + 1, step = Math.max(width, height) / BOX;
  const box = new Float64Array(BOX * BOX);
  let mass = 0, massX = 0, massY = 0;
  for (let row = 0; row < BOX; row++) {
    for (let column = 0; column < BOX; column++) {
      const value = cover(ink, left + column * step, top + row * step, step);
      box[row * BOX + column] = value;
      mass += value;
      massX += value * column;
      massY += value * row;
    }
  }
  // Whole pixels, and no ink off the field; a little more than a half, so that rounding does not
  // decide what lies in the middle.
  const shift = (center, size) => Math.max(0, Math.min(
    SIDE - Math.ceil(size / step - 1e-9), Math.floor(SIDE / 2 - center + 0.5 + 1e-9)));
  const shiftX = shift(massX / mass, width), shiftY = shift(massY / mass, height);
  for (let row = 0; row < BOX; row++) {
    for (let column = 0; column < BOX; column++) {
      const value = Math.round(255 * box[row * BOX + column]);
      if (value) pixels[(row + shiftY) * SIDE + column + shiftX] = value;
    }
  }
  return pixels;
};

// Share of a square of the pad that is inked; pixels that it cuts count in part.
const cover = (ink, x0, y0, size) => {
  let total = 0;
  for (let y = Math.floor(y0); y < Math.min(PAD, y0 + size); y++) {
    const height = Math.min(y + 1, y0 + size) - Math.max(y, y0);
    for (let x = Math.floor(x0); x < Math.min(PAD, x0 + size); x++) {
      if (ink[y * PAD + x]) total += height * (Math.min(x + 1, x0 + size) - Math.max(x, x0));
    }
  }
  return total / (size * size);
};

// The file that numpy.save would write: one image.
const npy = (pixels) => {
  const text = `{'descr': '|u1', 'fortran_order': False, 'shape': (1, ${SIDE}, ${SIDE}), }`;
  const header = text.padEnd(117) + "\n";
  const start = [0x93, ...[..."NUMPY"].map((char) => char.charCodeAt(0)), 1, 0, header.length, 0];
  return new Blob([new Uint8Array(start), header, pixels], { type: "application/octet-stream" });
};

