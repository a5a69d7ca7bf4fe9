"use strict";
// Texts of the dataset reach the page only as textContent and attributes, never as markup.
const $ = id => document.getElementById(id);
const MOST_KEYS = 9, POLL = 2000;
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
const offered = card => card.likely.length ? card.likely.slice(0, 4) : few() ? state.classes : [];
const numbered = card => (few() ? state.classes : offered(card)); // no key gives a class that is not shown

// ---- cards

function draw(card, index) {
  const own = card.element ?? element("article", undefined);
  const place = own.contains(document.activeElement) || own === document.activeElement;
  own.replaceChildren();
  own.className = "card" + (card.fault ? " failed" : card.done ? " done" : card.note === "unsure" ? " unsure" : "");
  own.dataset.id = card.id;
  const status = card.fault || (card.saving ? "saving…" : card.done ? `✓ ${card.label}` :
    card.note === "unsure" ? "not sure" : card.label ? `label: ${card.label}` : "no label");
  own.setAttribute("aria-label", [`${card.key}, ${status}`, card.proposal && `proposal ${card.proposal}`, card.reason].filter(Boolean).join(". "));
  own.setAttribute("aria-posinset", index + 1);
  own.setAttribute("aria-setsize", state.cards.length);
  const picture = button(undefined, () => enlarge(card), { class: "picture", "aria-label": `Show ${card.key} larger` });
  const image = element("img", undefined, { alt: "", src: `/image/${card.id}`, loading: "lazy" });
  image.addEventListener("error", () => { picture.replaceChildren(element("p", "This picture cannot be shown.")); });
  picture.append(image);
  const choices = element("div", undefined, { class: "choices" });
  if (card.proposal) choices.append(button(`${card.proposal} ⏎`, () => mark(card, card.proposal), { class: "accept", "aria-label": `Accept ${card.proposal}` }));
  if (card.label && !card.done) choices.append(button(`Keep ${card.label}`, () => mark(card, card.label)));
  const shown = numbered(card);
  for (const name of offered(card)) {
    if (name === card.proposal) continue;
    const made = button(undefined, () => mark(card, name), { "aria-label": name });
    if (shown.includes(name)) made.append(element("kbd", shown.indexOf(name) + 1), " ");
    made.append(name);
    choices.append(made);
  }
  choices.append(button("Other…", () => choose(card, ""), { "aria-label": "Another class" }));
  choices.append(button("Not sure", () => mark(card, card.given, "unsure")));
  own.append(picture, element("p", card.key, { class: "key" }), element("p", status, { class: "state" }));
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
  if (any >= 0) go(any); else $("next").focus();
}

function show(cards) {
  state.cards = cards.map(card => ({ ...card, given: card.label, done: false }));
  state.current = 0;
  $("cards").replaceChildren(...state.cards.map(draw));
  $("cards").setAttribute("aria-busy", "false");
  const nothing = state.mode === "correct" ? "Every label is checked." : "Every image has a label.";
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

function mark(card, label, note = "checked") {
  if (finished || (note === "checked" && !label)) return;
  card.saving = card.touched = true;
  card.fault = "";
  draw(card, state.cards.indexOf(card));
  send(card, { label, note }, true);
  goOn();
}

function send(card, wanted, undoable) {
  pending += 1;
  saving = saving.then(async () => {
    try {
      const { before, cards } = await ask("/marks", { [card.id]: wanted });
      if (undoable) remember({ id: card.id, before: before[card.id] });
      take(card, cards[card.id]);
      say(`${card.key}: ${card.note === "unsure" ? "not sure" : card.label || "no label"}, saved`);
      fault("");
      await news();
    } catch (error) {
      Object.assign(card, { saving: false, touched: false, fault: "not saved" });
      fault(error.message);
    }
    pending -= 1;
    const index = state.cards.indexOf(card);
    if (index >= 0) draw(card, index);
  });
  return saving;
}

function take(card, found) {
  const done = found.note === "checked" && Boolean(found.label);
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
  let index = state.cards.findIndex(card => card.id === step.id);
  if (index < 0) {
    try {
      const { cards } = await ask("/marks", { [step.id]: step.before });
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
  go(index);
  say(`Undone: ${state.cards[index].key}`);
}

// ---- what others did, and how far the work is

async function news() {
  const found = await ask(`/news?since=${state.changes}`);
  state.changes = found.changes;
  state.open = found.open;
  const grown = found.classes.length !== state.classes.length;
  state.classes = found.classes;
  state.cards.forEach((card, index) => {
    const other = found.marks[card.id];
    if (!card.saving && (grown || (other && (other.label !== card.label || other.note !== card.note)))) {
      if (other) take(card, other);
      draw(card, index);
    }
  });
  const ready = state.learning && !found.learning && state.cards.every(card => !card.touched);
  state.learning = found.learning;
  const percent = share => `${(100 * share).toFixed(0)} %`;
  $("counts").textContent = `${found.labelled} of ${found.total} images labelled, ${found.checked} by you` + (found.unsure ? `, ${found.unsure} not sure` : "");
  $("gain").textContent = found.learning ? "Proposals are being learned from the evidence; they come here when they are ready." :
    found.wrong === null ? "" :
    `Proposals for the others: ${percent(found.wrong)} expected to be wrong` + (found.wrong_before === null ? "" : `, ${percent(found.wrong_before)} at the start`);
  for (const made of document.querySelectorAll(".modes button")) {
    made.setAttribute("aria-pressed", made.dataset.mode === state.mode);
    if (made.dataset.mode === "correct") made.textContent = `Correct (${found.suspects})`;
  }
  $("classes").replaceChildren(...(few() ? state.classes : []).map((name, k) => {
    const made = element("span");
    made.append(element("kbd", k + 1), ` ${name}`);
    return made;
  }));
  $("intro").textContent = state.mode === "correct" ? `Labels, the most suspicious first: ${found.suspects} look wrong.` :
    "Images without a label, the most valuable first.";
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

let chosen = null, at = 0;

function choose(card, typed) {
  chosen = card;
  $("choose-title").textContent = `Class of ${card.key}`;
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
  $("options").replaceChildren(...found.map(({ text }, index) => {
    const made = element("li", text, { role: "option", id: `option-${index}`, "aria-selected": index === at });
    made.addEventListener("click", () => pick(index));
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

function pick(index) {
  const found = matches()[index];
  if (!found) return;
  $("choose").close();
  mark(chosen, found.name);
}

function enlarge(card) {
  const [image, key] = [$("large").querySelector("img"), $("large").querySelector(".key")];
  image.src = `/image/${card.id}?large=1`;
  key.textContent = card.key;
  $("large").showModal();
}

// ---- keys

function columns() {
  const tops = state.cards.map(card => card.element.offsetTop);
  return tops.filter(top => top === tops[0]).length || 1;
}

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.closest?.(".card");
  const free = event.target === document.body || own;
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
  else if (event.key === "Enter" && card.proposal) mark(card, card.proposal);
  else if (event.key === " ") enlarge(card);
  else if (event.key === "0") mark(card, card.given, "unsure");
  else if (event.key === "=" && card.label) mark(card, card.label);
  else if (/^[1-9]$/.test(event.key) && numbered(card)[event.key - 1]) mark(card, numbered(card)[event.key - 1]);
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
  if (event.key === "Enter") { event.preventDefault(); pick(at); }
});
$("choose").addEventListener("close", () => go(state.current));
$("large").addEventListener("close", () => go(state.current));
for (const made of document.querySelectorAll("dialog .close")) made.addEventListener("click", () => made.closest("dialog").close());
for (const made of document.querySelectorAll(".modes button")) {
  made.addEventListener("click", async () => { state.mode = made.dataset.mode; await saving; load(); });
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
