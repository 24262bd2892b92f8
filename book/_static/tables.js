// Sort, filter and save every data frame of the book; no library, works from disk and by keyboard. Tables written in
// Markdown only say where their columns are cut off.
(() => {
  let captions = 0;
  const text = (cell) => (cell ? cell.textContent.trim() : "");
  const number = (value) => Number.parseFloat(value.replace(/[−–]/g, "-").replace(/[\s,%<]/g, ""));
  const compare = (a, b, sign) => {
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1; // cells without a number stay at the end
    return sign * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
  };
  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);

  function sortable(header, index, body) {
    const title = "Sort by this column";
    const button = element("button", { type: "button", textContent: text(header), title });
    if (!text(header)) button.ariaLabel = title;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      body.append(...[...body.rows].sort((a, b) => compare(text(a.cells[index]), text(b.cells[index]), sign)));
    });
  }

  // A column of numbers stands at the right, with points under each other; a minus sign is as long as a plus.
  function alignNumbers(column) {
    const told = column.map((cell) => text(cell.firstChild));
    const numeric = /^(?:< )?[+−-]?[\d,]*\.?\d+ ?[%sx×]?$/;
    const numbers = told.filter((value) => numeric.test(value));
    if (!numbers.length || told.some((value) => !numeric.test(value) && !["", "–"].includes(value))) return false;
    const digits = (value) => (value.match(/\.\d+/) || [""])[0].length;
    const most = Math.max(...numbers.map(digits));
    column.forEach((cell, row) => {
      cell.classList.add("number");
      if (!numeric.test(told[row])) return;
      const first = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT).nextNode();
      first.nodeValue = first.nodeValue.replace(/^(\s*)-/, "$1−");
      if (cell.querySelector("br") || !/\d$/.test(told[row])) return;
      cell.dataset.missing = ".00000000".slice(digits(told[row]) ? 1 : 0).slice(0, most - digits(told[row]));
    });
    return true;
  }

  // Where columns are cut off, say so; the part that scrolls is then reached by keyboard too.
  function cueWhereCut(scroll, table) {
    const cue = element("p", { className: "table-more", textContent: "More columns: scroll sideways →", hidden: true });
    scroll.before(cue);
    const look = () => {
      const cut = scroll.scrollWidth > scroll.clientWidth + 2;
      cue.hidden = !cut;
      scroll.classList.toggle("cut", cut && scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
      if (!cut) return scroll.removeAttribute("tabindex");
      Object.assign(scroll, { tabIndex: 0, role: "region", ariaLabel: "Table that scrolls sideways" });
    };
    scroll.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(scroll);
    new ResizeObserver(look).observe(table);
  }

  function download(table) {
    const quote = (value) => `"${value.replaceAll('"', '""').replace(/^−(?=\d)/, "-")}"`;
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
    if (!spans && body.rows.length) {
      [...columns.cells].forEach((header, index) => {
        const column = [...body.rows].map((row) => row.cells[index]).filter(Boolean);
        if (alignNumbers(column)) header.classList.add("number");
      });
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
    cueWhereCut(scroll, table);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.dataframe").forEach(enhance);
    for (const table of document.querySelectorAll(".pst-scrollable-table-container > table")) {
      cueWhereCut(table.parentElement, table);
    }
  });
})();
