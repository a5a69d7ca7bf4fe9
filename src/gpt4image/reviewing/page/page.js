"use strict";
// Texts of the dataset reach the page only as textContent and attributes, never as markup.
const $ = id => document.getElementById(id);
const MOST_KEYS = 9, MOST_NAMES = 20, POLL = 2000; // classes with a key; classes that all have a button
const kinds = JSON.parse(document.body.dataset.kinds); // what a label is, by mode: see value_of in labels_file.py
const state = { mode: document.body.dataset.mode, classes: [], open: false, changes: 0, learning: false, cards: [], current: 0, counts: null };
const sitting = document.body.dataset.sitting;
const kept = JSON.parse(sessionStorage.getItem("undo") || "{}");
const undone = kept.sitting === sitting ? kept.steps : []; // what was undoable in an earlier sitting may have changed
let saving = Promise.resolve(), pending = 0, finished = false;

history.replaceState(null, "", "/"); // the token is a cookie now

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. What was saved is on disk: give the command again, and open its address.");
  }
  const text = await answer.text();
  if (!answer.ok) {
    let reason = text;
    try { reason = JSON.parse(text).error; } catch { /* a plain line */ }
    throw new Error(reason);
  }
  return JSON.parse(text);
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function button(text, action, attributes) {
  const made = element("button", text, { type: "button", ...attributes });
  made.addEventListener("click", event => { event.stopPropagation(); action(); });
  return made;
}

const say = text => { $("said").textContent = text; };
const fault = text => { $("fault").textContent = text; };
const few = () => state.classes.length <= MOST_KEYS;
const things = () => kinds[state.mode] !== "classification"; // a list of names, or of [name, left, top, right, bottom]
const boxes = () => kinds[state.mode] === "detection";
const has = label => label !== null && label !== "";
const shown = card => has(card.label) ? card.label : card.proposal ?? []; // of tags and boxes
const words = label => !has(label) ? "" : !Array.isArray(label) ? label :
  boxes() ? `${label.length} ${label.length === 1 ? "box" : "boxes"}` : label.join(", ") || "no tag";
const clone = value => JSON.parse(JSON.stringify(value));
const names = () => (state.classes.length <= MOST_NAMES ? state.classes : []);
const offered = card => boxes() ? [] : things() ? [...new Set([...names(), ...shown(card)])] :
  card.likely.length ? card.likely.slice(0, 4) : names();
const numbered = card => (few() ? state.classes : offered(card)).slice(0, MOST_KEYS); // no key gives a class that is not shown

// ---- cards

function draw(card, index) {
  const own = card.element ?? element("article", undefined);
  const place = own.contains(document.activeElement) || own === document.activeElement;
  own.replaceChildren();
  own.className = "card" + (card.fault ? " failed" : card.done ? " done" : card.note === "unsure" ? " unsure" : "");
  own.dataset.id = card.id;
  const label = words(card.label), proposal = words(card.proposal);
  const status = card.fault || (card.saving ? "saving…" : card.done ? `✓ ${label}` :
    card.note === "unsure" ? "not sure" : label ? `label: ${label}` : "no label");
  own.setAttribute("aria-label", [`${card.key}, ${status}`, proposal && `proposal ${proposal}`, card.reason].filter(Boolean).join(". "));
  own.setAttribute("aria-posinset", index + 1);
  own.setAttribute("aria-setsize", state.cards.length);
  const picture = button(undefined, () => enlarge(card), { class: "picture", "aria-label": `Show ${card.key} larger` });
  const image = element("img", undefined, { alt: "", src: `/image/${card.id}`, loading: "lazy" });
  image.addEventListener("error", () => { picture.replaceChildren(element("p", "This picture cannot be shown.")); });
  picture.append(image);
  if (boxes()) overlay(picture.appendChild(svg("svg")), image, shown(card), !has(card.label));
  const choices = element("div", undefined, { class: "choices" });
  if (things()) choices.append(button("Right ⏎", () => mark(card, shown(card)), { class: "accept", "aria-label": `Right: ${words(shown(card))}` }));
  else if (card.proposal) choices.append(button(`${card.proposal} ⏎`, () => mark(card, card.proposal), { class: "accept", "aria-label": `Accept ${card.proposal}` }));
  if (label && !card.done && !things()) choices.append(button(`Keep ${label}`, () => mark(card, card.label)));
  const keys = numbered(card);
  for (const name of offered(card)) {
    if (name === card.proposal) continue;
    const made = button(undefined, () => give(card, name), { "aria-label": name });
    if (things()) made.setAttribute("aria-pressed", shown(card).includes(name));
    if (keys.includes(name)) made.append(element("kbd", keys.indexOf(name) + 1), " ");
    made.append(name);
    choices.append(made);
  }
  choices.append(boxes() ? button("Edit…", () => enlarge(card), { "aria-label": `Edit boxes of ${card.key}` }) :
    button("Other…", () => choose(card, ""), { "aria-label": "Another class" }));
  choices.append(button("Not sure", () => mark(card, card.given, "unsure")));
  own.append(picture, element("p", card.key, { class: "key" }), element("p", status, { class: "state" }));
  if (card.sampled === "random" && state.cards.some(other => other.sampled !== "random")) own.append(element("p", "at random: measures the model", { class: "reason" }));
  if (card.reason) own.append(element("p", card.reason, { class: "reason" }));
  own.append(choices);
  card.element = own;
  reach(index);
  if (place) own.focus();
  return own;
}

function reach(index) {
  const card = state.cards[index];
  card.element.tabIndex = index === state.current ? 0 : -1;
  for (const inner of card.element.querySelectorAll("button")) inner.tabIndex = card.element.tabIndex;
}

function go(index, focus = true) {
  if (!state.cards.length) return;
  const before = state.current;
  state.current = Math.max(0, Math.min(index, state.cards.length - 1));
  if (before < state.cards.length) reach(before);
  reach(state.current);
  if (focus) state.cards[state.current].element.focus();
}

function goOn() {
  const open = state.cards.findIndex((card, index) => index > state.current && !card.touched);
  const any = open >= 0 ? open : state.cards.findIndex(card => !card.touched);
  if (any >= 0) go(any); else $("next").focus(); // no card is meant any more, see onKey
}

function show(cards) {
  state.cards = cards.map(card => ({ ...card, given: card.label, done: false }));
  state.current = 0;
  $("cards").replaceChildren(...state.cards.map(draw));
  $("cards").setAttribute("aria-busy", "false");
  const nothing = { label: "All have a label.", correct: "Every label is checked.", audit: "All of these were looked at." }[state.mode];
  $("empty").hidden = cards.length > 0;
  $("empty").textContent = nothing;
  $("next").hidden = cards.length === 0;
}

async function load(focus = true) {
  $("cards").setAttribute("aria-busy", "true");
  const count = innerWidth < 600 ? 12 : 24;
  try {
    await news();
    show((await ask(`/cards?mode=${state.mode}&count=${count}`)).cards);
    if (state.cards.length) { scrollTo(0, 0); go(0, focus); } else say($("empty").textContent);
  } catch (error) { fault(error.message); }
}

// ---- labels

function mark(card, label, note = "checked", stays = false) {
  if (finished || (note === "checked" && !has(label))) return;
  card.saving = card.touched = true;
  card.fault = "";
  if (stays) card.label = label;
  redraw(card);
  send(card, { label, note }, true);
  if (!stays) goOn();
}

function give(card, name) { // one class, or one tag more or less
  if (!things()) { mark(card, name); return; }
  const tags = shown(card);
  mark(card, tags.includes(name) ? tags.filter(tag => tag !== name) : [...tags, name], "checked", true);
}

function redraw(card) {
  const index = state.cards.indexOf(card);
  if (index >= 0) draw(card, index);
  if (editor.card === card && $("large").open && !editor.drag) sketch();
}

function send(card, wanted, undoable) {
  pending += 1;
  card.sent = (card.sent ?? 0) + 1;
  const mine = card.sent, mode = state.mode;
  saving = saving.then(async () => {
    try {
      const { before, cards } = await ask(`/marks?mode=${mode}`, { [card.id]: wanted });
      if (undoable) remember({ id: card.id, mode, before: before[card.id] });
      if (mine === card.sent) take(card, cards[card.id]);
      say(`${card.key}: ${card.note === "unsure" ? "not sure" : words(card.label) || "no label"}, saved`);
      fault("");
      await news();
    } catch (error) {
      Object.assign(card, { saving: false, touched: false, fault: "not saved" });
      fault(error.message);
    }
    pending -= 1;
    if (mine === card.sent) redraw(card);
  });
  return saving;
}

function take(card, found) {
  const done = found.note === "checked" && has(found.label);
  Object.assign(card, { label: found.label, note: found.note, saving: false, done, touched: done || found.note === "unsure", fault: "" });
}

function remember(step) {
  if (step) undone.push(step);
  sessionStorage.setItem("undo", JSON.stringify({ sitting, steps: undone.slice(-500) }));
  $("undo").disabled = undone.length === 0;
}

async function undo() {
  await saving;
  const step = undone.pop();
  remember();
  if (!step || finished) return;
  if (step.mode !== state.mode) { Object.assign(state, { mode: step.mode, changes: 0, cards: [] }); await load(false); }
  let index = state.cards.findIndex(card => card.id === step.id);
  if (index < 0) {
    try {
      const { cards } = await ask(`/marks?mode=${state.mode}`, { [step.id]: step.before });
      const card = { ...cards[step.id], given: step.before.label, done: false };
      state.cards.unshift(card);
      $("cards").replaceChildren(...state.cards.map(draw));
      $("empty").hidden = true;
      await news();
    } catch (error) { fault(error.message); return; }
    index = 0;
  } else {
    await send(state.cards[index], step.before, false);
  }
  go(index, !$("large").open);
  say(`Undone: ${state.cards[index].key}`);
}

// ---- what others did, and how far the work is

async function news() {
  const found = await ask(`/news?mode=${state.mode}&since=${state.changes}`);
  state.changes = found.changes;
  state.open = found.open;
  const grown = JSON.stringify(found.classes) !== JSON.stringify(state.classes);
  state.classes = found.classes;
  state.cards.forEach((card, index) => {
    const other = found.marks[card.id];
    card.likely = found.likely[card.id] ?? card.likely;
    if (!card.saving && (grown || (other && (JSON.stringify(other.label) !== JSON.stringify(card.label) || other.note !== card.note)))) {
      if (other) take(card, other);
      draw(card, index);
    }
  });
  const ready = state.learning && !found.learning && state.cards.every(card => !card.touched);
  state.learning = found.learning;
  const percent = share => `${(100 * share).toFixed(0)} %`;
  $("counts").textContent = `${found.labelled} of ${found.total} labelled, ${found.checked} by you` + (found.unsure ? `, ${found.unsure} not sure` : "");
  $("gain").textContent = found.headline ? found.headline : found.learning ? "Proposals are being learned from the evidence; they come here when they are ready." :
    found.wrong === null ? "" :
    `Proposals for the others: ${percent(found.wrong)} expected to be wrong` + (found.wrong_before === null ? "" : `, ${percent(found.wrong_before)} at the start`);
  for (const made of document.querySelectorAll(".modes button")) {
    made.hidden = !(made.dataset.mode in kinds);
    made.setAttribute("aria-pressed", made.dataset.mode === state.mode);
    if (made.dataset.mode === "correct" && state.mode !== "audit") made.textContent = `Correct (${found.suspects})`;
  }
  $("classes").replaceChildren(...(few() ? state.classes : []).map((name, k) => {
    const made = element("span");
    made.append(element("kbd", k + 1), ` ${name}`);
    return made;
  }));
  $("intro").textContent = state.mode === "audit" ? "Images at random: say what they show, so that the rest can be estimated." :
    state.mode === "correct" ? `Labels, the most suspicious first: ${found.suspects} look wrong.` :
    "Images without a label, the most valuable first; those at random measure the model.";
  if (found.fault) fault(`The order is not renewed: ${found.fault}`);
  if (ready) await load(Boolean(document.activeElement?.closest?.(".card")));
}

async function poll() {
  if (!finished && pending === 0) {
    try { await news(); } catch (error) { fault(error.message); }
  }
  setTimeout(poll, POLL);
}

// ---- all classes

let chosen = null, at = 0, picked = null;

function choose(card, typed, then = name => give(card, name)) {
  chosen = card;
  picked = then;
  $("choose-title").textContent = boxes() ? "Class of the box" : `Class of ${card.key}`;
  $("typed").value = typed;
  $("choose").showModal();
  $("typed").focus();
  options();
}

function matches() {
  const typed = $("typed").value.trim(), low = typed.toLocaleLowerCase();
  const rank = name => name.toLocaleLowerCase() === low ? 0 : name.toLocaleLowerCase().startsWith(low) ? 1 : 2;
  const likely = name => { const place = chosen.likely.indexOf(name); return place < 0 ? MOST_KEYS : place; };
  const found = state.classes.filter(name => name.toLocaleLowerCase().includes(low))
    .sort((a, b) => rank(a) - rank(b) || likely(a) - likely(b)).slice(0, 100).map(name => ({ name, text: name }));
  if (state.open && typed && !found.some(({ name }) => rank(name) === 0)) found.push({ name: typed, text: `Add the class “${typed}”` });
  return found;
}

function options(place = 0) {
  const found = matches();
  at = Math.max(0, Math.min(place, found.length - 1));
  const numbers = dialogNumbers();
  $("options").replaceChildren(...found.map(({ name, text }, index) => {
    const number = numbers.indexOf(name) + 1;
    const made = element("li", undefined, { role: "option", id: `option-${index}`, "aria-selected": index === at });
    if (number) made.append(element("kbd", number), " ");
    made.append(text);
    made.addEventListener("click", () => pick(name));
    return made;
  }));
  if (found.length) {
    $("typed").setAttribute("aria-activedescendant", `option-${at}`);
    $(`option-${at}`).scrollIntoView({ block: "nearest" });
  } else {
    $("typed").removeAttribute("aria-activedescendant");
    $("options").append(element("li", state.open ? "Type the name of a new class." : "No class matches.", { role: "option", "aria-disabled": "true" }));
  }
}

const dialogNumbers = () => ($("typed").value === "" ? numbered(chosen) : []); // while nothing is typed

function pick(name) {
  if (!name) return;
  $("choose").close();
  picked(name);
}

// ---- the large picture, on which boxes are drawn

const LEAST = 0.004, REACH = 14; // smallest side of a box; pixels around a corner that take hold of it
const editor = { card: null, boxes: [], at: -1, drag: null, name: "" };

function svg(name, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function overlay(root, image, found, proposed, on = -1) {
  if (!image.naturalWidth) { image.addEventListener("load", () => overlay(root, image, found, proposed, on), { once: true }); return; }
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = Math.max(width / (root.clientWidth || 200), height / (root.clientHeight || 200)); // of the picture per pixel
  root.replaceChildren(...found.map(([name, left, top, right, bottom], place) => {
    const group = svg("g", { class: (place === on ? "on" : "") + (proposed ? " proposed" : "") });
    const [x, y, w, h] = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    const text = svg("text", { x: x + 3 * unit, y: y + 14 * unit, "font-size": 13 * unit });
    text.textContent = name;
    group.append(svg("rect", { x, y, width: w, height: h }), text);
    if (place === on) for (const [cx, cy] of [[x, y], [x + w, y], [x, y + h], [x + w, y + h]]) {
      group.append(svg("rect", { class: "handle", x: cx - 5 * unit, y: cy - 5 * unit, width: 10 * unit, height: 10 * unit }));
    }
    return group;
  }));
}

function enlarge(card) {
  const image = $("large").querySelector("img");
  Object.assign(editor, { card, at: -1, drag: null });
  $("editing").hidden = $("boxes").hidden = !boxes();
  $("drawing").replaceChildren();
  $("drawing").classList.toggle("hidden", !boxes());
  if (image.getAttribute("src") !== `/image/${card.id}?large=1`) image.src = `/image/${card.id}?large=1`;
  $("large").querySelector(".key").textContent = card.key;
  if (!$("large").open) $("large").showModal();
  if (boxes()) { sketch(); $("drawing").focus(); }
}

function sketch(own = clone(shown(editor.card))) {
  editor.boxes = own;
  editor.at = Math.min(editor.at, own.length - 1);
  overlay($("drawing"), $("large").querySelector("img"), own, !has(editor.card.label), editor.at);
  $("drawing").setAttribute("aria-label", `${own.length} boxes`);
  const focused = [...$("boxes").children].indexOf(document.activeElement);
  $("boxes").replaceChildren(...own.map(([name, ...sides], place) => button(name, () => { editor.at = place; sketch(); }, {
    "aria-pressed": place === editor.at, "aria-label": `${name}, ${sides.slice(0, 4).map(side => Math.round(100 * side)).join(", ")} percent`,
  })));
  if (focused >= 0) ($("boxes").children[Math.min(focused, own.length - 1)] ?? $("add")).focus();
  $("rename").disabled = $("delete").disabled = editor.at < 0;
}

const keep = own => { mark(editor.card, own, "checked", true); };
const within = (value, low, high) => Math.max(low, Math.min(high, value));

function change(own) { // of the box that is chosen
  keep(editor.boxes.map((box, place) => place === editor.at ? own(box) : box));
}

function insert(sides) {
  const add = name => {
    editor.name = name;
    editor.at = editor.boxes.length;
    keep([...editor.boxes, [name, ...sides]]);
  };
  if (editor.name) add(editor.name); else if (state.classes.length === 1) add(state.classes[0]); else choose(editor.card, "", add);
}

function rename() {
  if (editor.at >= 0) choose(editor.card, "", name => { editor.name = name; change(([, ...sides]) => [name, ...sides]); });
}

function shift(box, dx, dy) {
  const [name, left, top, right, bottom, ...weight] = box;
  const x = within(dx, -left, 1 - right), y = within(dy, -top, 1 - bottom);
  return [name, left + x, top + y, right + x, bottom + y, ...weight];
}

function stretched(x, y, u, v) {
  return [Math.min(x, u), Math.min(y, v), Math.max(x, u, Math.min(x, u) + LEAST), Math.max(y, v, Math.min(y, v) + LEAST)].map(side => within(side, 0, 1));
}

function pointed(event) {
  const root = $("drawing"), box = root.viewBox.baseVal;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
  return [within(point.x / box.width, 0, 1), within(point.y / box.height, 0, 1)];
}

$("drawing").addEventListener("pointerdown", event => {
  if (editor.drag || event.button > 0 || !$("drawing").viewBox.baseVal?.width) return;
  event.preventDefault();
  $("drawing").setPointerCapture(event.pointerId);
  const [x, y] = pointed(event), root = $("drawing"), scale = root.getScreenCTM().a, size = root.viewBox.baseVal;
  const [dx, dy] = [REACH / scale / size.width, REACH / scale / size.height];
  const own = editor.boxes[editor.at];
  const corner = own && [[1, 2], [3, 2], [1, 4], [3, 4]].find(([i, j]) => Math.abs(own[i] - x) < dx && Math.abs(own[j] - y) < dy);
  const area = box => (box[3] - box[1]) * (box[4] - box[2]);
  const inside = editor.boxes.map((box, place) => ({ box, place })).filter(({ box }) => box[1] <= x && x <= box[3] && box[2] <= y && y <= box[4]);
  inside.sort((a, b) => area(a.box) - area(b.box));
  if (corner) editor.drag = { from: [own[4 - corner[0]], own[6 - corner[1]]], place: editor.at, kind: "corner" };
  else if (inside.length && !event.shiftKey) {
    editor.at = inside[0].place;
    editor.drag = { from: [x, y], place: editor.at, kind: "move", box: inside[0].box };
  } else { editor.at = -1; editor.drag = { from: [x, y], kind: "new" }; }
  editor.drag.start = [event.clientX, event.clientY];
  sketch(editor.boxes);
});

$("drawing").addEventListener("pointermove", event => {
  if (!editor.drag) return;
  const { from: [x, y], kind, place, box } = editor.drag, [u, v] = pointed(event);
  editor.drag.far ||= Math.hypot(event.clientX - editor.drag.start[0], event.clientY - editor.drag.start[1]) > 4;
  if (!editor.drag.far) return;
  const own = kind === "new" ? [editor.name, ...stretched(x, y, u, v)] : kind === "move" ? shift(box, u - x, v - y) :
    [editor.boxes[place][0], ...stretched(x, y, u, v), ...editor.boxes[place].slice(5)];
  editor.drag.own = own;
  const drawn = [...editor.boxes];
  drawn[place ?? drawn.length] = own;
  overlay($("drawing"), $("large").querySelector("img"), drawn, false, place ?? drawn.length - 1);
});

function dropped(event) {
  const drag = editor.drag;
  editor.drag = null;
  if (!drag) return;
  if (event.type === "pointerup" && drag.own) {
    if (drag.kind === "new") insert(drag.own.slice(1)); else change(() => drag.own);
  } else sketch(editor.boxes);
}
$("drawing").addEventListener("pointerup", dropped);
$("drawing").addEventListener("pointercancel", dropped);

const acts = {
  add: () => insert([0.3, 0.3, 0.7, 0.7]),
  rename,
  delete: () => { if (editor.at >= 0) keep(editor.boxes.filter((_, place) => place !== editor.at)); },
  "undo-box": undo,
  right: () => { mark(editor.card, editor.boxes); const next = state.cards[state.current]; if (next && !next.touched) enlarge(next); else $("large").close(); },
};
for (const [id, act] of Object.entries(acts)) $(id).addEventListener("click", act);

function onEditorKey(event) {
  const { key } = event, steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if ((event.ctrlKey || event.metaKey) && key === "z") undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "Enter" && event.target.closest?.("button")) return;
  else if (key === "Enter") acts.right();
  else if (key === "Backspace") undo();
  else if (key === "Delete") acts.delete();
  else if (key === "n") acts.add();
  else if (key === "c") rename();
  else if (key === "," || key === ".") {
    const count = editor.boxes.length;
    if (count) editor.at = (Math.max(editor.at, key === "." ? -1 : 0) + (key === "." ? 1 : count - 1)) % count;
    sketch(editor.boxes);
  } else if (/^[1-9]$/.test(key) && few() && state.classes[key - 1] && editor.at >= 0) {
    editor.name = state.classes[key - 1];
    change(([, ...sides]) => [editor.name, ...sides]);
  } else if (steps && editor.at >= 0) {
    const [x, y] = steps.map(step => step / 100);
    change(box => event.shiftKey ? [box[0], box[1], box[2], within(box[3] + x, box[1] + LEAST, 1), within(box[4] + y, box[2] + LEAST, 1), ...box.slice(5)] : shift(box, x, y));
  } else return;
  event.preventDefault();
}

// ---- keys

function columns() {
  const tops = state.cards.map(card => card.element.offsetTop);
  return tops.filter(top => top === tops[0]).length || 1;
}

function onKey(event) {
  if (boxes() && $("large").open && !$("choose").open) { onEditorKey(event); return; }
  if (document.querySelector("dialog[open]")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.closest?.(".card");
  const free = own || (event.target === document.body && !state.cards[state.current]?.touched); // a word after the last card is for none
  if (event.key === "Backspace") { event.preventDefault(); undo(); return; }
  if (event.key === "PageDown") { event.preventDefault(); load(); return; }
  if (!free || !state.cards.length) return;
  const index = own ? state.cards.findIndex(card => card.element === own) : state.current;
  const card = state.cards[index];
  if (index !== state.current) go(index, false);
  const on = { ArrowRight: index + 1, ArrowLeft: index - 1, ArrowDown: index + columns(), ArrowUp: index - columns(), Home: 0, End: state.cards.length };
  const inButton = event.target.closest?.("button");
  if (event.key in on) go(on[event.key]);
  else if ((event.key === "Enter" || event.key === " ") && inButton) return;
  else if (event.key === "Enter" && (things() || card.proposal)) mark(card, things() ? shown(card) : card.proposal);
  else if (event.key === " ") enlarge(card);
  else if (event.key === "0") mark(card, card.given, "unsure");
  else if (event.key === "=" && has(card.label)) mark(card, card.label);
  else if (boxes()) return;
  else if (/^[1-9]$/.test(event.key) && numbered(card)[event.key - 1]) give(card, numbered(card)[event.key - 1]);
  else if (event.key.length === 1 && /\S/.test(event.key)) choose(card, event.key);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", onKey);
document.addEventListener("focusin", event => {
  const own = event.target.closest?.(".card");
  const index = own ? state.cards.findIndex(card => card.element === own) : -1;
  if (index >= 0 && index !== state.current) go(index, false);
});
$("typed").addEventListener("input", () => options());
$("typed").addEventListener("keydown", event => {
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in steps) { event.preventDefault(); options(at + steps[event.key]); }
  if (event.key === "Enter") { event.preventDefault(); event.stopPropagation(); pick(matches()[at]?.name); } // it means nothing to the boxes below
  const name = /^[1-9]$/.test(event.key) && dialogNumbers()[event.key - 1];
  if (name) { event.preventDefault(); event.stopPropagation(); pick(name); }
});
$("choose").addEventListener("close", () => {
  if ($("large").open) { if (boxes()) sketch(); } else if (!chosen.touched || things()) go(state.current); // else goOn has left it
});
$("large").addEventListener("close", () => go(state.current));
for (const made of document.querySelectorAll("dialog .close")) made.addEventListener("click", () => made.closest("dialog").close());
for (const made of document.querySelectorAll(".modes button")) {
  made.addEventListener("click", async () => { await saving; Object.assign(state, { mode: made.dataset.mode, changes: 0, cards: [] }); load(); });
}
$("next").addEventListener("click", async () => { await saving; load(); });
$("undo").addEventListener("click", undo);
$("help").addEventListener("click", () => $("keys").showModal());
$("finish").addEventListener("click", async () => {
  await saving;
  try {
    await ask("/finish", {});
    finished = true;
    $("end").showModal();
  } catch (error) { fault(error.message); }
});
addEventListener("beforeunload", event => { if (pending) event.preventDefault(); });
remember();
load(true).then(poll);
