// Makes every table of class "sortable" sortable by its headers, and searchable where it is long. Without scripts tables stay as they are.
(() => {
  const LONG = 30; // rows

  const value = (row, column) => {
    const cell = row.cells[column];
    const raw = cell.dataset.sort ?? (cell.matches(".text") ? cell.textContent : undefined);
    if (raw === undefined) return null; // no figure: always last
    const number = Number(raw);
    return raw !== "" && Number.isFinite(number) ? number : raw;
  };

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  const sort = (table, header, column) => {
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
    rows.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * compare(a.key, b.key);
    });
    body.append(...rows.map(({ row }) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
  };

  const searchable = (table) => {
    const rows = [...table.tBodies[0].rows];
    const label = document.createElement("label");
    label.className = "search";
    const box = document.createElement("input");
    box.type = "search";
    box.autocomplete = "off";
    label.append("Search the rows ", box);
    table.closest(".scroll").before(label);
    let texts;
    box.addEventListener("input", () => {
      texts ??= rows.map((row) => row.textContent.toLowerCase());
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row, place) => row.classList.toggle("searched-out", !words.every((word) => texts[place].includes(word))));
      document.documentElement.dispatchEvent(new CustomEvent("filtered"));
      announce(`${rows.filter((row) => !row.matches(".searched-out, .filtered-out")).length} rows`);
    });
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header, column));
    });
    if (table.tBodies[0].rows.length > LONG) searchable(table);
  }
})();
