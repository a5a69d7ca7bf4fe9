// The model as a function of a picture: the same steps as `gpt4image predict`, for a page or a program of your own.
//
//   const model = await load();
//   const found = await model.predict(await pixels(file));
//
// `found` has `classes`, the most probable first, each {name, probability}; of tags also `present`. Boxes are {name,
// probability, box}, left, top, right and bottom in pixels. Of masks, `probability` is the part of the picture, and
// `mask` has the number of a class for each pixel of a square.
import * as ort from "./onnxruntime.mjs";

const LEAST_SCORE = 0.3, MOST_OVERLAP = 0.6; // of boxes, as in `gpt4image predict`
const LARGEST = 4096; // pixels of a side: phones have no larger canvas

export async function load(folder = new URL(".", import.meta.url)) {
  const [about, bytes, wasm] = await Promise.all([
    read(new URL("model.json", folder)).then(answer => answer.json()),
    read(new URL("model.onnx", folder)).then(answer => answer.arrayBuffer()),
    read(new URL("onnxruntime.wasm.gz", folder)).then(unpacked),
  ]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  let last = Promise.resolve(); // a session computes one picture at a time
  const run = image => {
    const side = about.preprocessing.size;
    const images = new ort.Tensor("float32", planes(square(image, about.preprocessing)), [1, 3, side, side]);
    return session.run({ images });
  };
  const predict = image => {
    last = last.catch(() => null).then(() => run(image)).then(output => decided(about, output, image));
    return last;
  };
  return { about, predict };
}

async function read(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.pathname} cannot be read: ${answer.status} ${answer.statusText}`);
  return answer;
}

async function unpacked(answer) { // some servers unpack it already
  const bytes = await answer.arrayBuffer(), start = new Uint8Array(bytes, 0, 2);
  if (start[0] !== 0x1f || start[1] !== 0x8b) return bytes;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// The pixels of a file, or of what a canvas can draw, upright and on white where it is transparent.
export async function pixels(source) {
  const exact = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const picture = source instanceof Blob ? await createImageBitmap(source, exact) : source;
  const [across, down] = [picture.videoWidth ?? picture.width, picture.videoHeight ?? picture.height];
  const scale = Math.min(1, LARGEST / Math.max(across, down));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(across * scale));
  canvas.height = Math.max(1, Math.round(down * scale));
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (source instanceof Blob) picture.close();
  return pen.getImageData(0, 0, canvas.width, canvas.height);
}

// ---- from pixels to the input

// The square that the model sees, as RGB bytes: both sides resized (squash), or the shorter one and the centre kept.
export function square({ data, width, height }, { size, resize, fit }) {
  const side = Math.min(width, height), whole = fit === "squash";
  const left = whole ? 0 : (width - side) / 2, top = whole ? 0 : (height - side) / 2;
  const across = taps(width, left, whole ? width : side, resize), down = taps(height, top, whole ? height : side, resize);
  const start = halfToEven((resize - size) / 2); // of the centre that is kept
  const rows = new Uint8ClampedArray(size * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const { first, weights } = across[start + x];
      let [red, green, blue] = [0, 0, 0];
      for (let i = 0, at = 4 * (y * width + first); i < weights.length; i++, at += 4) {
        red += weights[i] * data[at];
        green += weights[i] * data[at + 1];
        blue += weights[i] * data[at + 2];
      }
      rows.set([Math.floor(red + 0.5), Math.floor(green + 0.5), Math.floor(blue + 0.5)], 3 * (y * size + x));
    }
  }
  const found = new Uint8ClampedArray(size * size * 3), line = 3 * size;
  for (let y = 0; y < size; y++) {
    const { first, weights } = down[start + y];
    for (let x = 0; x < line; x++) {
      let sum = 0;
      for (let i = 0, at = first * line + x; i < weights.length; i++, at += line) sum += weights[i] * rows[at];
      found[y * line + x] = Math.floor(sum + 0.5);
    }
  }
  return found;
}

// Pillow's antialiased bicubic filter: for each new pixel, the first old one that counts, and the weights from there.
function taps(length, start, part, count) {
  const scale = part / count, wide = Math.max(scale, 1);
  return Array.from({ length: count }, (_, index) => {
    const centre = start + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
    const end = Math.min(length, Math.trunc(centre + 2 * wide + 0.5));
    const weights = Array.from({ length: end - first }, (_, i) => cubic((first + i - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map(weight => weight / sum) };
  });
}

function cubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
}

function halfToEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

function planes(bytes) {
  const area = bytes.length / 3, found = new Float32Array(bytes.length);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) found[c * area + i] = bytes[3 * i + c] / 255;
  return found;
}

// ---- from the output to what is said

export function decided({ classes, decision, task }, output, { width, height }) {
  if (output.boxes) return { classes: boxes(output.boxes.data, classes, width, height) };
  if (output.mask) {
    const mask = Uint8Array.from(output.mask.data, Number), parts = new Float64Array(classes.length);
    for (const number of mask) parts[number] += 1 / mask.length;
    return { classes: ranked(classes, parts).filter(row => row.probability > 0), mask };
  }
  const rows = ranked(classes, output.probabilities.data);
  if (task === "multilabel") {
    const least = index => decision.thresholds?.[index] ?? 0.5;
    return { classes: rows, present: rows.filter(row => row.probability >= least(row.index)).map(row => row.name) };
  }
  const known = output.known?.data[0], share = decision.reject?.share;
  return { classes: rows, none: known !== undefined && share !== undefined && known < share };
}

function ranked(classes, values) {
  const rows = classes.map((name, index) => ({ name, index, probability: values[index] }));
  return rows.sort((a, b) => b.probability - a.probability);
}

// Of boxes that overlap more than is allowed the best one is given, whatever their classes.
function boxes(values, classes, width, height) {
  const kept = [];
  for (let at = 0; at < values.length && values[at + 4] >= LEAST_SCORE; at += 6) { // the best come first
    const [left, top, right, bottom, probability, index] = values.slice(at, at + 6);
    const box = [left * width, top * height, right * width, bottom * height];
    if (kept.every(other => overlap(other.box, box) <= MOST_OVERLAP)) {
      kept.push({ name: classes[index], index, probability, box });
    }
  }
  return kept;
}

function overlap(a, b) {
  const common = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  return common / Math.max(area(a) + area(b) - common, 1e-12);
}
