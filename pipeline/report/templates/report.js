"use strict";

// Sorts and filters the table of clusters, and opens what is folded before it is printed. Without
// this script the page says the same: all its rows are there, the most urgent first.
(() => {
  const FEW = 25; // rows that are shown before somebody asks for more

  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });

  const table = document.getElementById("cluster-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headers = Array.from(table.tHead.rows[0].cells);
  const [text, verdict, rpo, all] = ["text", "verdict", "rpo", "all"].map((name) =>
    document.getElementById("cluster-" + name),
  );
  const live = table.parentElement.querySelector(".live");
  const words = new Map(
    rows.map((row) => [
      row,
      Array.from(row.querySelectorAll(".find"), (e) => e.textContent.toLowerCase()),
    ]),
  );
  const inWords = new Intl.Collator("en", { numeric: true }).compare;
  let isWhole = rows.length <= FEW;

  const fits = (row) =>
    (!verdict.value || row.dataset.verdict === verdict.value) &&
    (!rpo.value || row.dataset.rpo === rpo.value) &&
    words.get(row).some((word) => word.includes(text.value.trim().toLowerCase()));

  function show() {
    const fitting = Array.from(body.rows).filter(fits);
    const shown = new Set(isWhole ? fitting : fitting.slice(0, FEW));
    for (const row of rows) row.classList.toggle("off", !shown.has(row));
    const n = (count) => count.toLocaleString("en");
    const found =
      fitting.length === rows.length ? "" : `${n(fitting.length)} of ${n(rows.length)} match. `;
    live.textContent = `${found}Showing ${n(shown.size)}${found ? "" : " of " + n(rows.length)}.`;
    all.parentElement.hidden = shown.size === fitting.length;
    all.textContent = `Show all ${n(fitting.length)}`;
  }

  // A number that the page names beside what it shows, or the text itself.
  const keyOf = (cell) =>
    cell.dataset.sort || (cell.querySelector(".find") || { textContent: "" }).textContent;

  function compare(index, direction) {
    const keys = new Map(rows.map((row) => [row, keyOf(row.cells[index])]));
    const isNumeric = rows.every((row) => !Number.isNaN(Number(keys.get(row) || "x")));
    return (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (!x !== !y) return x ? -1 : 1; // what has no value goes last, whichever way
      return direction * (isNumeric ? Number(x) - Number(y) || 0 : inWords(x, y));
    };
  }

  function sort(index) {
    const header = headers[index];
    const first = header.dataset.first || "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const next = { [first]: second, [second]: null }[header.getAttribute("aria-sort")];
    const order = next === undefined ? first : next; // then the page's own order again
    for (const other of headers) other.removeAttribute("aria-sort");
    if (order) header.setAttribute("aria-sort", order);
    const sorted = order
      ? rows.slice().sort(compare(index, order === "ascending" ? 1 : -1))
      : rows;
    body.append(...sorted);
    show();
  }

  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sort(index));
    header.replaceChildren(button);
  });
  text.addEventListener("input", show);
  verdict.addEventListener("change", show);
  rpo.addEventListener("change", show);
  all.addEventListener("click", () => {
    isWhole = true;
    show();
    table.querySelector("thead button").focus(); // the button that was pressed is gone
  });
  for (const control of document.querySelectorAll(".controls")) control.hidden = false;
  show();
})();
