"use strict";
// Ticks stay in this browser, and the link offers what was ticked as a CSV file. Without the script there are none.
const boxes = [...document.querySelectorAll("input[data-row]")];
const link = document.querySelector("#ticked"), count = document.querySelector("#count");
const place = "gpt4image ticks " + location.href.split("#")[0];
function kept() {
  try { return new Set(JSON.parse(localStorage.getItem(place)) || []); } catch { return new Set(); }
}
function show() {
  const ticked = boxes.filter(box => box.checked).map(box => JSON.parse(box.dataset.row));
  const text = [JSON.parse(link.dataset.head), ...ticked].join("");
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(text.toWellFormed ? text.toWellFormed() : text);
  count.textContent = ticked.length;
  try { localStorage.setItem(place, JSON.stringify(ticked)); } catch { /* the browser keeps nothing: ticks last as long as the page */ }
}
const before = kept();
for (const box of boxes) {
  box.checked = before.has(JSON.parse(box.dataset.row));
  box.addEventListener("change", show);
}
for (const hidden of document.querySelectorAll("[hidden]")) hidden.hidden = false;
show();
