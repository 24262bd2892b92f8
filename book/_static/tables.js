// Sort, filter and save every data frame of the book; no library, works from disk and by keyboard.
(() => {
  let captions = 0;
  const text = (cell) => (cell ? cell.textContent.trim() : "");
  const number = (value) => Number.parseFloat(value.replace(/[−–]/g, "-").replace(/[\s,%]/g, ""));
  const compare = (a, b, sign) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1; // cells without a number stay at the end
    return sign * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
  };
  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);

  function sortable(header, index, body) {
    const title = "Sort by this column";
    const button = element("button", { type: "button", textContent: text(header) || "↕", title });
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      body.append(...[...body.rows].sort((a, b) => compare(text(a.cells[index]), text(b.cells[index]), sign)));
    });
  }

  function download(table) {
    const quote = (value) => `"${value.replaceAll('"', '""')}"`;
    const lines = [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map((c) => quote(text(c))).join(","));
    const link = element("a", { href: URL.createObjectURL(new Blob([lines.join("\r\n")], { type: "text/csv" })), download: "table.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function enhance(table) {
    const [head, body] = [table.tHead, table.tBodies[0]];
    if (!head || !body) return;
    const tools = element("div", { className: "table-tools" });
    if (body.rows.length > 5) {
      const filter = element("input", { type: "search", placeholder: "filter rows", ariaLabel: "Filter rows of this table" });
      filter.addEventListener("input", () => {
        for (const row of body.rows) row.hidden = !text(row).toLowerCase().includes(filter.value.toLowerCase());
      });
      tools.append(filter);
    }
    const save = element("button", { type: "button", textContent: "CSV", title: "Save this table as CSV" });
    save.addEventListener("click", () => download(table));
    tools.append(save);
    const columns = head.rows[head.rows.length - 1];
    const spans = [...body.rows].some((row) => [...row.cells].some((cell) => cell.rowSpan > 1));
    if (body.rows.length > 2 && !spans) [...columns.cells].forEach((cell, index) => sortable(cell, index, body));
    for (const row of body.rows) for (const cell of row.cells) {
      cell.classList.toggle("long", text(cell).length > 30 && !cell.querySelector(".sd-badge")); // verdicts wrap well
    }
    const scroll = element("div", { className: "table-scroll" });
    table.replaceWith(tools, scroll);
    if (table.caption) {
      // Out of the scrolling part, or a long caption over a wide table would scroll away with it.
      const caption = element("p", { className: "table-caption", id: `table-caption-${++captions}` });
      caption.append(...table.caption.childNodes);
      table.caption.remove();
      table.setAttribute("aria-labelledby", caption.id);
      scroll.before(caption);
    }
    scroll.append(table);
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("table.dataframe").forEach(enhance));
})();
