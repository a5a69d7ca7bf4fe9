// The page around model.js: pictures that are chosen or dropped, or the camera. Names reach it only as textContent.
import { load, pixels } from "./model.js";

const TOP = 5, LARGEST = 1280; // classes of a picture; pixels of a side that is shown
const $ = id => document.getElementById(id);
const colour = index => `hsl(${(index * 137.5) % 360} 70% 45%)`;
let model, stream;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const say = text => { $("said").textContent = text; };
const percent = value => `${(100 * value).toFixed(value > 0.995 ? 0 : 1)} %`;

// ---- one picture

function draw(canvas, image, found) {
  const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  const small = document.createElement("canvas");
  small.width = Math.max(1, Math.round(image.width * scale));
  small.height = Math.max(1, Math.round(image.height * scale));
  const pen = small.getContext("2d");
  pen.drawImage(canvas, 0, 0, small.width, small.height);
  if (found.mask) drawMask(pen, found);
  for (const row of found.classes.filter(each => each.box).reverse()) drawBox(pen, row, scale);
  canvas.width = small.width;
  canvas.height = small.height;
  canvas.getContext("2d").drawImage(small, 0, 0);
}

function drawMask(pen, { mask }) {
  const side = Math.round(Math.sqrt(mask.length)), layer = document.createElement("canvas");
  layer.width = layer.height = side;
  const brush = layer.getContext("2d"), empty = background();
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === empty) continue;
    brush.fillStyle = colour(mask[i]);
    brush.fillRect(i % side, Math.floor(i / side), 1, 1);
  }
  Object.assign(pen, { globalAlpha: 0.5, imageSmoothingEnabled: false });
  pen.drawImage(layer, 0, 0, pen.canvas.width, pen.canvas.height);
}

const background = () => model.about.classes.findIndex(name => ["background", "_background_"].includes(name.toLowerCase()));

function drawBox(pen, { name, index, probability, box }, scale) {
  const [left, top, right, bottom] = box.map(side => side * scale), size = Math.max(12, pen.canvas.width / 40);
  const words = `${name} ${percent(probability)}`;
  Object.assign(pen, { font: `${size}px system-ui, sans-serif`, lineWidth: size / 6, textBaseline: "top" });
  pen.strokeStyle = pen.fillStyle = colour(index);
  pen.strokeRect(left, top, right - left, bottom - top);
  pen.fillRect(left, top, pen.measureText(words).width + size / 2, size * 1.3);
  pen.fillStyle = "white";
  pen.fillText(words, left + size / 4, top + size / 6);
}

function tell(list, found) {
  const marked = found.mask !== undefined || found.classes.some(row => row.box);
  const rows = found.none ? [] : found.classes.slice(0, TOP).map(row => {
    const line = element("li"), bar = element("meter", undefined, { max: 1, value: row.probability, "aria-label": row.name });
    if (found.present?.includes(row.name)) line.className = "present";
    const name = element("span", row.name), mark = element("i", undefined, { class: "mark" });
    mark.style.background = colour(row.index);
    if (marked) name.prepend(mark);
    line.append(name, element("output", percent(row.probability)), bar);
    return line;
  });
  if (!rows.length) rows.push(element("li", found.none ? "none of these" : "nothing found", { class: "none" }));
  list.replaceChildren(...rows);
}

async function add(file) {
  const card = element("figure"), canvas = element("canvas"), list = element("ol");
  card.append(canvas, element("figcaption", file.name), list);
  try {
    const image = await pixels(file);
    const found = await model.predict(image);
    draw(canvas, image, found);
    tell(list, found);
  } catch (error) {
    canvas.remove();
    const why = error.name === "InvalidStateError" || error.name === "EncodingError" ? "is no picture that this browser reads" : error.message;
    list.append(element("li", `${file.name}: ${why}`, { class: "none" }));
  }
  $("pictures").prepend(card);
}

async function take(files) {
  for (const [number, file] of files.entries()) {
    say(`${number + 1} of ${files.length} ...`);
    await add(file);
  }
  say("");
}

// ---- the camera

async function toggle() {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(`The camera does not open: ${error.message}. Choose pictures instead.`);
  }
  const opened = stream;
  $("camera").textContent = "Stop the camera";
  $("live").hidden = false;
  $("video").srcObject = stream;
  await $("video").play();
  for (; stream === opened; await new Promise(requestAnimationFrame)) {
    const image = await pixels($("video")), found = await model.predict(image);
    draw($("view"), image, found);
    tell($("seen"), found);
  }
}

function stop() {
  for (const track of stream.getTracks()) track.stop();
  stream = undefined;
  $("live").hidden = true;
  $("camera").textContent = "Camera";
}

// ---- start

try {
  model = await load();
  $("start").remove();
  $("what").textContent = `${model.about.classes.length} classes: ${model.about.classes.join(", ")}`;
  $("controls").hidden = false;
  $("files").addEventListener("change", () => take([...$("files").files]));
  $("choose").addEventListener("click", () => $("files").click());
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
  if (navigator.mediaDevices) $("camera").addEventListener("click", () => toggle().catch(error => say(error.message)));
  else {
    $("camera").disabled = true;
    say("The camera needs https, or the address localhost. Choosing pictures works; a phone then offers its camera.");
  }
} catch (error) {
  $("start").textContent = `The model cannot be loaded: ${error.message}`;
}
